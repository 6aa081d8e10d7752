//! What source code may say, and where.
//!
//! Enters: the tree's Rust files as tokens and syntax, so that comments and text never count as code. Leaves: what breaks
//! rules 5, 20, 31 and 36 of the style.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::files::{File, Problem, Tree, is_test_attribute};

/// A library, and the only places that may name it (rule 5). `bench` compares with a plain loop over rdkafka, and tests
/// are clients of the gRPC services.
pub const HOMES: &[(&[&str], &[&str])] = &[
    (&["rdkafka"], &["topic/src/kafka.rs", "topic/src/kafka/", "bench/"]),
    (&["deltalake"], &["lake/"]),
    (
        &["tonic", "tonic_health", "tonic_reflection", "tonic_prost", "tonic_prost_build"],
        &["query/src/api.rs", "query/src/api/", "proto/", "tests/"],
    ),
];

/// The one function a test may sleep in starts with one of these: it polls a condition until a deadline.
const POLLS: &[&str] = &["eventually", "poll_until", "wait_until"];

/// The last word of a metric's name, before `_total`.
const UNITS: &str = "seconds milliseconds bytes rows records batches letters commits files queries requests errors \
    retries connections ratio info offsets partitions lookups profiles";

/// Rule 5: rdkafka, deltalake and tonic each have one home.
pub fn libraries_have_one_home(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.rust() {
        let tokens = tokens(file);
        for (names, homes) in HOMES {
            if homes.iter().any(|home| file.path.starts_with(home)) {
                continue;
            }
            for (name, line) in identifiers(tokens.clone()).filter(|(name, _)| names.contains(&name.as_str())) {
                problems
                    .push(file.at(line, format!("{name} may be named only in {}; go through there", homes.join(", "))));
            }
        }
    }
    problems
}

/// Rule 20: no `unwrap` outside tests.
pub fn no_unwrap_outside_tests(tree: &Tree) -> Vec<Problem> {
    let mend = "return the error, or say with `expect` which invariant makes it impossible";
    let sources = tree.rust().filter(|file| !file.is_test);
    sources.flat_map(|file| scan(file).unwraps.into_iter().map(|line| file.at(line, mend))).collect()
}

/// Rule 31: tests poll with a deadline, and none is skipped.
pub fn tests_neither_sleep_nor_hide(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.rust() {
        let found = scan(file);
        let polls = POLLS.join(", ");
        let sleep = format!("a test waits for a state by polling with a deadline, in a function named {polls}…");
        problems.extend(found.sleeps.into_iter().map(|line| file.at(line, sleep.clone())));
        let hidden = "#[ignore] hides a failure and #[should_panic] any panic; mend the test, or match the error";
        problems.extend(found.hidden.into_iter().map(|line| file.at(line, hidden)));
    }
    problems
}

/// Rule 36: metrics are constants `quad_<noun>_<unit>[_total]`, in files named `metrics.rs`.
pub fn metrics_are_named_alike(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.rust().filter(|file| file.name() == "metrics.rs") {
        for item in file.parsed().items {
            let syn::Item::Const(item) = item else { continue };
            let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &*item.expr else { continue };
            if !is_metric(&text.value()) {
                let message = format!("{:?} is not quad_<noun>_<unit>[_total]; units: {UNITS}", text.value());
                problems.push(file.at(text.span().start().line, message));
            }
        }
    }
    problems
}

fn is_metric(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("quad_") else { return false };
    let rest = rest.strip_suffix("_total").unwrap_or(rest);
    let plain = rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    plain
        && rest
            .rsplit_once('_')
            .is_some_and(|(noun, unit)| !noun.is_empty() && UNITS.split_whitespace().any(|known| known == unit))
}

/// Nothing is left for later: an issue is the place for that.
pub fn nothing_left_for_later(tree: &Tree) -> Vec<Problem> {
    // In two parts, so that this file does not hold what it looks for.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX"), concat!("HA", "CK")];
    let macros = ["todo", "unimplemented", "dbg"];
    let mut problems = Vec::new();
    for file in tree.files.iter().filter(|file| file.name() != "Cargo.lock") {
        for (line, text) in file.lines() {
            let mut words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
            if let Some(mark) = words.find(|word| marks.contains(word)) {
                problems.push(
                    file.at(
                        line,
                        format!("{mark} leaves something for later; do it, or open an issue and cut the mark"),
                    ),
                );
            }
        }
    }
    for file in tree.rust() {
        for (name, line) in macro_calls(tokens(file)).into_iter().filter(|(name, _)| macros.contains(&name.as_str())) {
            problems.push(file.at(line, format!("{name}! is for an unfinished change; finish it")));
        }
    }
    problems
}

/// Line numbers of what rules 20 and 31 look for.
#[derive(Default)]
struct Scan {
    /// Outside test code.
    unwraps: Vec<usize>,
    /// Inside test code.
    sleeps: Vec<usize>,
    hidden: Vec<usize>,
    in_test: bool,
    in_poll: bool,
}

fn scan(file: &File) -> Scan {
    let mut scan = Scan { in_test: file.is_test, ..Scan::default() };
    scan.visit_file(&file.parsed());
    scan
}

impl Scan {
    /// Visits an item's inside as test code when its attributes say so, and as a poll when its name does.
    fn within(&mut self, attributes: &[syn::Attribute], name: &syn::Ident, inside: impl FnOnce(&mut Self)) {
        let before = (self.in_test, self.in_poll);
        self.in_test |= attributes.iter().any(is_test_attribute);
        self.in_poll |= POLLS.iter().any(|poll| name.to_string().starts_with(poll));
        inside(self);
        (self.in_test, self.in_poll) = before;
    }
}

impl<'ast> Visit<'ast> for Scan {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.within(&item.attrs, &item.ident, |scan| visit::visit_item_mod(scan, item));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.within(&item.attrs, &item.sig.ident, |scan| visit::visit_item_fn(scan, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.within(&item.attrs, &item.sig.ident, |scan| visit::visit_impl_item_fn(scan, item));
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let before = self.in_test;
        self.in_test |= item.attrs.iter().any(is_test_attribute);
        visit::visit_item_impl(self, item);
        self.in_test = before;
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "unwrap" && !self.in_test {
            self.unwraps.push(call.method.span().start().line);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut end = path.segments.iter().rev();
        if let (Some(last), Some(module)) = (end.next(), end.next())
            && last.ident == "sleep"
            && (module.ident == "thread" || module.ident == "time")
            && self.in_test
            && !self.in_poll
        {
            self.sleeps.push(last.ident.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        // The tokens of a macro are not parsed: look for `.unwrap` among them.
        if !self.in_test {
            self.unwraps.extend(unwraps_in(call.tokens.clone()));
        }
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if attribute.path().is_ident("ignore") || attribute.path().is_ident("should_panic") {
            self.hidden.push(attribute.pound_token.span.start().line);
        }
    }
}

fn tokens(file: &File) -> TokenStream {
    file.text.parse().unwrap_or_else(|error| panic!("{}: does not parse: {error}", file.path))
}

/// All tokens, those inside brackets too, in order.
fn flat(tokens: TokenStream) -> Vec<TokenTree> {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Group(group) => flat(group.stream()),
            single => vec![single],
        })
        .collect()
}

fn identifiers(tokens: TokenStream) -> impl Iterator<Item = (String, usize)> {
    flat(tokens).into_iter().filter_map(|token| match token {
        TokenTree::Ident(name) => Some((name.to_string(), name.span().start().line)),
        _ => None,
    })
}

/// Identifiers that stand before a `!`, also inside other macros.
fn macro_calls(tokens: TokenStream) -> Vec<(String, usize)> {
    let tokens = flat(tokens);
    let pairs = tokens.windows(2).filter_map(|pair| match pair {
        [TokenTree::Ident(name), TokenTree::Punct(mark)] if mark.as_char() == '!' => {
            Some((name.to_string(), name.span().start().line))
        }
        _ => None,
    });
    pairs.collect()
}

fn unwraps_in(tokens: TokenStream) -> Vec<usize> {
    let tokens = flat(tokens);
    let pairs = tokens.windows(2).filter_map(|pair| match pair {
        [TokenTree::Punct(dot), TokenTree::Ident(name)] if dot.as_char() == '.' && name == "unwrap" => {
            Some(name.span().start().line)
        }
        _ => None,
    });
    pairs.collect()
}
