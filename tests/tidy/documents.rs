//! Prose, settings and scripts.
//!
//! Enters: the tree's documents, `default.toml`, contracts and shell scripts. Leaves: what breaks rules 25, 32, 41 and 43
//! of the style. A list of tables in a document is held against the contracts, so it cannot grow old.

use std::collections::BTreeSet;
use std::process::Command;

use crate::files::{File, Problem, Tree, root};

const ARCHITECTURE_LINES_MAX: usize = 150;

/// Rule 32: `default.toml` is there, and a comment above (or beside) each key says what it does.
pub fn settings_are_documented(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut files = tree.files.iter().filter(|file| file.name() == "default.toml").peekable();
    if files.peek().is_none() {
        problems
            .push(Problem::of("src/default.toml", "the settings' defaults are missing; write one file with all keys"));
    }
    for file in files {
        let mut before = "";
        for (line, text) in file.lines() {
            let text = text.trim();
            let documented = before.starts_with('#') || text.contains(" # ");
            if is_key(text) && !documented {
                problems.push(file.at(line, "a comment above each key says what it does, its unit and its limits"));
            }
            before = text;
        }
    }
    problems
}

fn is_key(line: &str) -> bool {
    let Some((key, _)) = line.split_once('=') else { return false };
    let key = key.trim();
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.\"".contains(&byte))
}

/// Rules 41 and 43: the documents that must be there are, and name the commands that work.
pub fn documents_are_true(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for path in ["LICENSE", "CHANGELOG.md"] {
        tree.require(path, &mut problems);
    }
    for (path, commands) in [
        ("README.md", &["./dev demo", "./dev test"][..]),
        ("README.zh-CN.md", &["./dev demo", "./dev test"]),
        (".ci/run", &["./dev test"]),
    ] {
        let Some(file) = tree.require(path, &mut problems) else { continue };
        for command in commands.iter().filter(|command| !file.text.contains(**command)) {
            problems.push(Problem::of(path, format!("does not name `{command}`; name it")));
        }
    }
    if let Some(file) = tree.require("ARCHITECTURE.md", &mut problems) {
        let lines = file.lines().count();
        if lines > ARCHITECTURE_LINES_MAX {
            problems.push(Problem::of(
                &file.path,
                format!("{lines} lines; the limit is {ARCHITECTURE_LINES_MAX}, shorten it"),
            ));
        }
    }
    problems.extend(links_lead_somewhere(tree));
    problems
}

/// A relative link in a document leads to a file or folder that is there.
fn links_lead_somewhere(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.ending(".md") {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (line, text) in file.lines() {
            for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
                let outside = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
                if !outside && !root().join(folder).join(target).exists() {
                    problems.push(file.at(line, format!("the link to {target} leads nowhere; mend or cut it")));
                }
            }
        }
    }
    problems
}

/// Rule 25: the README lists every table, and no document names one in code marks that has no contract.
pub fn tables_are_listed(tree: &Tree) -> Vec<Problem> {
    let contracts: BTreeSet<String> = tree.ending(".odcs.yaml").filter_map(table_of).collect();
    let domains: BTreeSet<&str> = contracts.iter().filter_map(|table| table.split('.').next()).collect();
    let mut problems = Vec::new();
    if let Some(readme) = tree.require("README.md", &mut problems) {
        for table in contracts.iter().filter(|table| !readme.text.contains(table.as_str())) {
            problems.push(Problem::of("README.md", format!("does not list the table {table}; add it")));
        }
    }
    for file in tree.ending(".md") {
        for (line, text) in file.lines() {
            for name in text.split('`').skip(1).step_by(2) {
                let table = name.strip_prefix("quad.").unwrap_or(name);
                let table = table.strip_suffix("_history").unwrap_or(table);
                let plain = table
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.".contains(&byte));
                let ours = table.split_once('.').is_some_and(|(domain, _)| domains.contains(domain));
                if plain && ours && table.matches('.').count() == 1 && !contracts.contains(table) {
                    problems.push(file.at(line, format!("`{name}` has no contract; write one or mend the name")));
                }
            }
        }
    }
    problems
}

/// `schemas/contracts/academic/grade.odcs.yaml` is the contract of `academic.grade`.
fn table_of(file: &File) -> Option<String> {
    let (domain, name) = file.path.strip_prefix("schemas/contracts/")?.split_once('/')?;
    Some(format!("{domain}.{}", name.strip_suffix(".odcs.yaml")?))
}

/// No file holds a path that exists only on the machine of whoever wrote it.
pub fn no_path_of_one_machine(tree: &Tree) -> Vec<Problem> {
    // In two parts, so that this file does not hold what it looks for.
    let paths = [
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("C:", "\\"),
    ];
    let mut problems = Vec::new();
    for file in &tree.files {
        for (line, text) in file.lines() {
            for path in paths.iter().filter(|path| starts_a_path(text, path)) {
                problems
                    .push(file.at(line, format!("{path}… is a path of one machine; make it relative or a setting")));
            }
        }
    }
    problems
}

/// Whether `text` has `path` where a path can begin, not inside a longer one.
fn starts_a_path(text: &str, path: &str) -> bool {
    text.match_indices(path).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|letter| !letter.is_alphanumeric() && !"_.-}/*~".contains(letter))
    })
}

/// Every shell script parses, stops at errors and may be executed.
pub fn scripts_are_well_formed(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    let scripts = tree
        .files
        .iter()
        .filter(|file| file.text.lines().next().is_some_and(|line| line.starts_with("#!") && line.contains("sh")));
    for file in scripts {
        let check = Command::new("bash").arg("-n").arg(root().join(&file.path)).output().expect("bash can be run");
        if !check.status.success() {
            problems.push(Problem::of(&file.path, String::from_utf8_lossy(&check.stderr).trim().to_owned()));
        }
        if !file.text.contains("\nset -euo pipefail\n") && !file.text.contains("\nset -uo pipefail\n") {
            problems.push(file.at(2, "begin with `set -euo pipefail`, so that an error stops it"));
        }
        if !is_executable(file) {
            problems.push(Problem::of(&file.path, format!("may not be executed; chmod +x {}", file.path)));
        }
    }
    problems
}

#[cfg(unix)]
fn is_executable(file: &File) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(root().join(&file.path)).expect("the file is there");
    metadata.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &File) -> bool {
    true
}
