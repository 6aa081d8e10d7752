//! `quad contracts diff`: what a change of contracts means, before anyone has to live with it.
//!
//! Two folders of contracts, or two contract files, enter; a table of changes leaves, each with whether it is compatible and
//! the way forward. No settings are read and nothing is opened but those files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use schemas::codes::{self, CodeSets};
use schemas::evolution::{Change, TableChanges, compare_all};
use schemas::{Contract, Contracts, Error};

use crate::report::print_table;

#[derive(Args)]
pub struct ContractsArgs {
    #[command(subcommand)]
    command: ContractsCommand,
}

#[derive(Subcommand)]
enum ContractsCommand {
    /// Tell whether records, rows and producers by the OLD contracts live on under the NEW ones.
    ///
    /// Compatible: a new field that may be absent, a wider type (int to bigint or double, a decimal of more digits), a
    /// looser rule, more codes, a new name with the old one as alias. Everything else takes a field of a new name, or a new
    /// table; the way forward is printed with each change. A compatible change raises MINOR of the contract's version, an
    /// incompatible one MAJOR.
    ///
    /// Exit codes: 0 compatible, 1 incompatible, 64 a side cannot be read.
    #[command(after_help = "Examples:\n  \
        git worktree add ../released v0.1.0 && quad contracts diff ../released/schemas schemas\n  \
        quad contracts diff old/grade.odcs.yaml schemas/contracts/academic/grade.odcs.yaml --json")]
    Diff(DiffArgs),
}

#[derive(Args)]
struct DiffArgs {
    /// A folder with contracts/ and codes/, or one .odcs.yaml file.
    old: PathBuf,
    /// The same, as it shall be.
    new: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs a `quad contracts` command.
pub fn run(args: &ContractsArgs) -> ExitCode {
    let ContractsCommand::Diff(args) = &args.command;
    let tables = match diff(&args.old, &args.new) {
        Ok(tables) => tables,
        Err(error) => return crate::fail(&error.into(), crate::USAGE),
    };
    let is_compatible = tables.iter().all(TableChanges::is_compatible);
    if args.json {
        println!("{:#}", serde_json::json!({ "compatible": is_compatible, "tables": tables }));
    } else if tables.is_empty() {
        println!("no differences");
    } else {
        print_table(&["table", "version", "verdict", "field", "change", "way forward"], &rows(&tables));
    }
    ExitCode::from(u8::from(!is_compatible))
}

fn diff(old: &Path, new: &Path) -> Result<Vec<TableChanges>, Error> {
    let (old_codes, new_codes) = (code_sets(old, new)?, code_sets(new, old)?);
    let (before, now) = (load(old, &old_codes)?, load(new, &new_codes)?);
    // One file against a folder is one table against its like.
    let only = |all: &Contracts, named: &Contracts| -> Contracts {
        all.iter().filter(|contract| named.get(&contract.name()).is_some()).map(|kept| kept.as_ref().clone()).collect()
    };
    Ok(match (old.is_file(), new.is_file()) {
        (true, false) => compare_all(&before, &only(&now, &before)),
        (false, true) => compare_all(&only(&before, &now), &now),
        _ => compare_all(&before, &now),
    })
}

fn load(path: &Path, codes: &CodeSets) -> Result<Contracts, Error> {
    if !path.is_file() {
        return Contracts::load(path);
    }
    let text = std::fs::read_to_string(path).map_err(|error| Error::contract(path, error))?;
    Ok([Contract::parse(&text, path, codes)?].into_iter().collect())
}

/// The code sets beside a file: in a folder `codes` somewhere above it, or above the other side.
fn code_sets(path: &Path, other: &Path) -> Result<CodeSets, Error> {
    let above = |path: &Path| path.ancestors().map(|folder| folder.join("codes")).find(|folder| folder.is_dir());
    match above(path).or_else(|| above(other)) {
        Some(folder) => codes::load(&folder),
        None => Ok(CodeSets::new()),
    }
}

fn rows(tables: &[TableChanges]) -> Vec<Vec<String>> {
    let row = |table: &TableChanges, change: &Change| {
        let version = |version: &String| if version.is_empty() { "-".to_string() } else { version.clone() };
        let versions = format!("{} → {}", version(&table.old_version), version(&table.new_version));
        let verdict = if change.is_compatible() { "compatible" } else { "INCOMPATIBLE" };
        let mut row = vec![table.table.clone(), versions, verdict.to_string()];
        row.extend([&change.field, &change.what, &change.forward].map(Clone::clone));
        row
    };
    tables.iter().flat_map(|table| table.changes.iter().map(move |change| row(table, change))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const COURSE: &str = "contracts/academic/course.odcs.yaml";

    fn schemas() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
    }

    /// The contract of courses with `from` replaced by `to`, as a file by itself.
    fn changed(folder: &Path, from: &str, to: &str) -> PathBuf {
        let text = std::fs::read_to_string(schemas().join(COURSE)).expect("the contract");
        assert!(text.contains(from), "{from} is not in the contract");
        let file = folder.join("course.odcs.yaml");
        std::fs::write(&file, text.replace(from, to)).expect("writes");
        file
    }

    fn check(old: &Path, new: &Path, expected: Expect) {
        let said = match diff(old, new) {
            Ok(tables) => rows(&tables).iter().map(|row| row.join(" | ") + "\n").collect(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn files_and_folders_are_compared_table_by_table() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let narrowed = changed(folder.path(), "decimal(4,1)", "decimal(3,1)");
        check(&schemas(), &schemas(), expect![[r#""#]]);
        check(
            &schemas(),
            &narrowed,
            expect![[r#"
                academic.course | 1.0.0 → 1.0.0 | INCOMPATIBLE | credits | decimal(4,1) became decimal(3,1) | give the new type to a field of a new name and keep this one
                academic.course | 1.0.0 → 1.0.0 | INCOMPATIBLE |  | version 1.0.0 after 1.0.0 does not tell of these changes | make it version 2.0.0
            "#]],
        );
        check(
            &narrowed,
            &schemas().join(COURSE),
            expect![[r#"
                academic.course | 1.0.0 → 1.0.0 | compatible | credits | decimal(3,1) became decimal(4,1) | 
                academic.course | 1.0.0 → 1.0.0 | INCOMPATIBLE |  | version 1.0.0 after 1.0.0 does not tell of these changes | make it version 1.1.0
            "#]],
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let broken = changed(folder.path(), "decimal(4,1)", "decimal(x)");
        let said = diff(&schemas(), &broken).expect_err("a mistake").to_string();
        expect!["course.odcs.yaml: field `credits`: unknown physicalType `decimal(x)`"]
            .assert_eq(said.rsplit('/').next().unwrap_or_default());
        let said = diff(&folder.path().join("none"), &schemas()).expect_err("nothing there").to_string();
        assert!(said.starts_with("could not read ") && said.contains("none"), "{said}");
    }
}
