//! The Cargo files: why each dependency is there, and which way they run.
//!
//! Enters: the tree's manifests. Leaves: what breaks rule 42 of the style and the order of crates in the design.

use crate::code::HOMES;
use crate::files::{File, Problem, Tree};

/// Each library crate, and the crates of this workspace it may depend on (development dependencies aside).
const ORDER: &[(&str, &[&str])] = &[
    ("schemas", &[]),
    ("proto", &[]),
    ("topic", &["schemas"]),
    ("lake", &["schemas"]),
    ("ingest", &["schemas", "topic", "lake"]),
    ("query", &["schemas", "proto", "topic", "lake"]),
];

/// Rule 42: a comment beside each dependency of the workspace says why it is there; one comment directly above may speak
/// for a block of them, up to the next blank line.
pub fn dependencies_have_reasons(tree: &Tree) -> Vec<Problem> {
    let file = tree.get("Cargo.toml").expect("the workspace has a root manifest");
    let mut problems = Vec::new();
    let mut inside = false;
    let mut explained = false;
    for (line, text) in file.lines() {
        let text = text.trim();
        if text.starts_with('[') {
            inside = text == "[workspace.dependencies]";
        }
        if text.is_empty() || text.starts_with('[') {
            explained = false;
        } else if text.starts_with('#') {
            explained = true;
        } else if inside && !explained && !text.contains(" # ") {
            let name = text.split(['=', '.', ' ']).next().unwrap_or_default();
            problems.push(file.at(line, format!("say in a comment beside {name} what it is for")));
        }
    }
    problems
}

/// Dependencies run one way, and a library with a home is only its home's dependency.
pub fn dependencies_run_one_way(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    let members = tree.members();
    let crates: Vec<&str> = members.iter().map(|member| member.rsplit('/').next().unwrap_or(member)).collect();
    for member in &members {
        let path = if member.is_empty() { "Cargo.toml".to_owned() } else { format!("{member}/Cargo.toml") };
        let Some(file) = tree.require(&path, &mut problems) else { continue };
        let allowed = ORDER.iter().find(|(name, _)| name == member).map(|(_, allowed)| *allowed);
        for (name, development) in dependencies(file) {
            let ours = crates.contains(&name.as_str());
            if ours && !development && allowed.is_some_and(|allowed| !allowed.contains(&name.as_str())) {
                let message =
                    format!("{member} depends on {name}; it may depend on {:?} only", allowed.unwrap_or_default());
                problems.push(Problem::of(&path, message));
            }
            problems.extend(away_from_home(member, &path, &name));
        }
    }
    problems
}

fn away_from_home(member: &str, path: &str, dependency: &str) -> Option<Problem> {
    let library = dependency.replace('-', "_");
    let (_, homes) = HOMES.iter().find(|(names, _)| names.contains(&library.as_str()))?;
    // The root package's tests are the clients of what its `tests/` may name.
    let inside = if member.is_empty() { "tests/".to_owned() } else { format!("{member}/") };
    let at_home = homes.iter().any(|home| home.starts_with(&inside) || inside.starts_with(home));
    let message = format!("depends on {dependency}, which only {} may name; go through there", homes.join(", "));
    (!at_home).then(|| Problem::of(path, message))
}

/// Every dependency's name, and whether it is for development only.
fn dependencies(file: &File) -> Vec<(String, bool)> {
    let manifest: toml::Table = file.text.parse().expect("a manifest is TOML");
    let sections = [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)];
    let tables =
        sections.iter().filter_map(|(section, development)| Some((manifest.get(*section)?.as_table()?, *development)));
    tables.flat_map(|(table, development)| table.keys().map(move |name| (name.clone(), development))).collect()
}
