//! The metrics that are spoken of against those that exist.
//!
//! Enters: the constants of every `metrics.rs`, the dashboard, the alert rules and the documents. Leaves: names that stand in
//! one and not in the other. What a running quad really tells is held against the same files by the end-to-end test.

use std::collections::{BTreeMap, BTreeSet};

use crate::files::{File, Problem, Tree};
use crate::promql;

const DOCUMENT: &str = "docs/observability.md";

/// The dashboard and the alert rules use only metrics that exist.
pub fn dashboards_name_what_exists(tree: &Tree) -> Vec<Problem> {
    let known = constants(tree);
    let mut problems = Vec::new();
    for path in promql::FILES {
        let Some(file) = tree.require(path, &mut problems) else { continue };
        let expressions = promql::expressions(&file.text);
        if expressions.is_empty() {
            problems.push(Problem::of(path, "has no expression; is it the right file?"));
        }
        for expression in expressions {
            for metric in promql::names(&expression).metrics {
                // `up` is Prometheus's own.
                let parts = ["_bucket", "_sum", "_count"];
                let family = parts.iter().find_map(|part| metric.strip_suffix(part)).unwrap_or(&metric);
                if metric != "up" && !known.contains_key(&metric) && !known.contains_key(family) {
                    problems.push(Problem::of(path, format!("{metric} is no metric of quad: {expression}")));
                }
            }
        }
    }
    problems
}

/// Rule 25: the document explains every metric, and no other.
pub fn metrics_are_documented(tree: &Tree) -> Vec<Problem> {
    let known = constants(tree);
    let mut problems = Vec::new();
    let Some(document) = tree.require(DOCUMENT, &mut problems) else { return problems };
    let explained: BTreeSet<&str> = document
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("| `quad_"))
        .filter_map(|line| line.split('`').next())
        .collect();
    for (metric, place) in &known {
        if !explained.contains(&metric["quad_".len()..]) {
            problems.push(Problem::of(place, format!("{metric} is not explained in {DOCUMENT}; add its row")));
        }
    }
    for metric in explained.iter().map(|name| format!("quad_{name}")).filter(|name| !known.contains_key(name)) {
        problems.push(Problem::of(DOCUMENT, format!("{metric} is no metric any more; cut its row")));
    }
    problems
}

/// Every metric's name, and the file that declares it.
fn constants(tree: &Tree) -> BTreeMap<String, String> {
    let files = tree.rust().filter(|file| file.name() == "metrics.rs");
    let named = |file: &File| {
        let path = file.path.clone();
        let items = file.parsed().items.into_iter();
        items.filter_map(text_of).filter(|text| text.starts_with("quad_")).map(move |name| (name, path.clone()))
    };
    files.flat_map(named).collect()
}

/// The value of a constant text.
fn text_of(item: syn::Item) -> Option<String> {
    let syn::Item::Const(item) = item else { return None };
    match *item.expr {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}
