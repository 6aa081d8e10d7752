//! How crates and files are built: names, lengths, opening words.
//!
//! Enters: the tree. Leaves: what breaks rules 1, 2, 3, 4 and 22 of the style. The lists of exceptions below hold what is
//! too long today with its present length; they shrink and never grow.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::files::{File, Problem, Tree};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Files longer than the limit, with the length they have now.
const LONG_FILES: &[(&str, usize)] = &[];
/// Functions longer than the limit as `path::function`, with the length they have now.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

/// Rule 1: folder = crate = name.
pub fn crates_are_folders(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for member in tree.members().iter().filter(|member| !member.is_empty()) {
        let path = format!("{member}/Cargo.toml");
        let Some(file) = tree.require(&path, &mut problems) else { continue };
        let folder = member.rsplit('/').next().unwrap_or(member);
        let manifest: toml::Table = file.text.parse().expect("a manifest is TOML");
        let name = manifest["package"]["name"].as_str().unwrap_or_default();
        if name != folder {
            problems.push(Problem::of(&path, format!("the package is named {name}; name it {folder}, as its folder")));
        }
    }
    problems
}

/// Rule 2: `lib.rs` holds docs, `mod`s and `use`s. Generated code may be included by macro, also as a constant.
pub fn lib_files_hold_no_logic(tree: &Tree) -> Vec<Problem> {
    let libs = tree.ending("/src/lib.rs");
    libs.flat_map(|file| {
        let items = file.parsed().items;
        items.into_iter().filter(|item| !is_story(item)).map(|item| {
            file.at(item.span().start().line, "lib.rs tells the story and holds no logic; move this into a module")
        })
    })
    .collect()
}

fn is_story(item: &syn::Item) -> bool {
    match item {
        syn::Item::Use(_) | syn::Item::Macro(_) => true,
        syn::Item::Mod(module) => module.content.as_ref().is_none_or(|(_, items)| items.iter().all(is_story)),
        syn::Item::Const(item) => {
            matches!(&*item.expr, syn::Expr::Macro(call) if call.mac.path.is_ident("include_bytes"))
        }
        _ => false,
    }
}

/// Rule 3: files up to 500 lines, functions up to 70.
pub fn files_and_functions_are_short(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen_files = Vec::new();
    let mut seen_functions = Vec::new();
    for file in tree.rust() {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            seen_files.push((file.path.clone(), lines));
            if !excepted(LONG_FILES, &file.path, lines) {
                problems
                    .push(Problem::of(&file.path, format!("{lines} lines; the limit is {FILE_LINES_MAX}, split it")));
            }
        }
        for (name, line, lines) in functions(file) {
            let key = format!("{}::{name}", file.path);
            if lines > FUNCTION_LINES_MAX {
                if !excepted(LONG_FUNCTIONS, &key, lines) {
                    let message = format!("{name} has {lines} lines; the limit is {FUNCTION_LINES_MAX}, split it");
                    problems.push(file.at(line, message));
                }
                seen_functions.push((key, lines));
            }
        }
    }
    problems.extend(stale(LONG_FILES, &seen_files));
    problems.extend(stale(LONG_FUNCTIONS, &seen_functions));
    problems
}

fn excepted(exceptions: &[(&str, usize)], key: &str, lines: usize) -> bool {
    exceptions.iter().any(|(name, allowed)| *name == key && lines <= *allowed)
}

/// An exception must be needed, and be as small as what it excepts.
fn stale(exceptions: &[(&str, usize)], seen: &[(String, usize)]) -> Vec<Problem> {
    let shrunk =
        exceptions.iter().filter(|(name, allowed)| !seen.iter().any(|(key, lines)| key == name && lines >= allowed));
    let mend = "is listed as too long but is shorter now; lower or remove its exception in tests/tidy/shape.rs";
    shrunk.map(|(name, _)| Problem::of(name, mend)).collect()
}

/// Name, first line and number of lines of each function, attributes and docs left out.
fn functions(file: &File) -> Vec<(String, usize, usize)> {
    struct Lengths(Vec<(String, usize, usize)>);

    impl Lengths {
        fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
            let (first, last) = (signature.span().start().line, block.span().end().line);
            self.0.push((signature.ident.to_string(), first, last + 1 - first));
        }
    }

    impl<'ast> Visit<'ast> for Lengths {
        fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
            self.add(&item.sig, &item.block);
            visit::visit_item_fn(self, item);
        }

        fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
            self.add(&item.sig, &item.block);
            visit::visit_impl_item_fn(self, item);
        }

        fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
            if let Some(block) = &item.default {
                self.add(&item.sig, block);
            }
            visit::visit_trait_item_fn(self, item);
        }
    }

    let mut lengths = Lengths(Vec::new());
    lengths.visit_file(&file.parsed());
    lengths.0
}

/// Rule 4: `foo.rs` + `foo/`.
pub fn no_mod_rs(tree: &Tree) -> Vec<Problem> {
    let found = tree.rust().filter(|file| file.name() == "mod.rs");
    found.map(|file| Problem::of(&file.path, "name it after its module: foo.rs beside foo/")).collect()
}

/// Rule 22: every file opens with `//!`.
pub fn files_open_with_docs(tree: &Tree) -> Vec<Problem> {
    let silent = tree.rust().filter(|file| !file.text.starts_with("//! "));
    silent.map(|file| file.at(1, "open with `//!`: what enters, what leaves, what never happens")).collect()
}
