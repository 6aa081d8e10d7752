//! `quad lake`: upkeep by hand, and how the tables are.
//!
//! Tables are named or all; progress goes to standard error, results to standard output, for people or as JSON. It may run
//! beside a landing Quad: rows and positions stay as they are.

use std::process::ExitCode;
use std::sync::Arc;

use ::lake::upkeep::{Compacted, Scope, now_ms};
use ::lake::{Error, ErrorKind, Lake, Table};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use schemas::Contract;
use serde_json::{Value, json};

use crate::report::{print_document, print_table};
use crate::settings::Settings;

/// What to do.
#[derive(Subcommand)]
pub enum LakeCommand {
    /// Make large files of small ones, sorted by key, and write a checkpoint when one is due.
    Optimize(Change),
    /// Delete what is past its time: days beyond a contract's retention, log entries, and files that no version needs.
    Vacuum(Change),
    /// Count files, rows, log and unreferenced bytes. Reads the log and lists files, no more.
    Stats(Tables),
}

/// Which tables, and how to print.
#[derive(Args)]
pub struct Tables {
    /// Tables, as `<domain>.<table>`; all that have landed when none is named.
    tables: Vec<String>,
    /// Print JSON, one document.
    #[arg(long)]
    json: bool,
}

/// Which tables, and whether to do it.
#[derive(Args)]
pub struct Change {
    #[command(flatten)]
    tables: Tables,
    /// Only tell what would be done.
    #[arg(long)]
    dry_run: bool,
}

/// Runs one command of `quad lake`.
///
/// # Errors
/// A name that is no table, or the first table that could not be worked on; those before it are done.
pub async fn run(settings: &Settings, command: &LakeCommand) -> Result<ExitCode> {
    let tables = match command {
        LakeCommand::Optimize(change) | LakeCommand::Vacuum(change) => &change.tables,
        LakeCommand::Stats(tables) => tables,
    };
    let (mut head, mut rows, mut documents) = (Vec::new(), Vec::new(), Vec::new());
    for (contract, table) in open(settings, &tables.tables).await? {
        let name = contract.name();
        let done = match command {
            LakeCommand::Optimize(change) => optimize(settings, &contract, table, change.dry_run).await,
            LakeCommand::Vacuum(change) => vacuum(settings, &contract, table, change.dry_run).await,
            LakeCommand::Stats(_) => stats(table).await,
        };
        let cells = done.map_err(explain).with_context(|| format!("table {name}"))?;
        let (names, values): (Vec<&str>, Vec<Value>) = cells.into_iter().unzip();
        let document = names.iter().zip(&values).map(|(name, value)| (name.replace(' ', "_"), value.clone()));
        let mut document: serde_json::Map<String, Value> = document.collect();
        document.insert("table".into(), name.clone().into());
        documents.push(Value::Object(document));
        rows.push([name].into_iter().chain(values.iter().map(cell)).collect());
        head = [&["table"], names.as_slice()].concat();
    }
    if tables.json {
        print_document(&documents)?;
    } else if rows.is_empty() {
        println!("nothing has landed in {}", settings.lake.path);
    } else {
        print_table(&head, &rows);
    }
    Ok(ExitCode::SUCCESS)
}

/// The named tables, or all that there are.
async fn open(settings: &Settings, names: &[String]) -> Result<Vec<(Arc<Contract>, Table)>> {
    let contracts = settings.contracts()?;
    if let Some(name) = names.iter().find(|name| contracts.get(name).is_none()) {
        bail!("no contract is named {name}; `quad tables` lists them");
    }
    let lake = Lake::open(&settings.lake)?;
    lake.reach().await?;
    let mut tables = Vec::new();
    for contract in contracts.iter() {
        let name = contract.name();
        if !names.is_empty() && !names.contains(&name) {
            continue;
        }
        match lake.find(contract).await? {
            Some(table) => tables.push((contract.clone(), table)),
            None if names.contains(&name) => bail!("nothing has landed in {name} yet"),
            None => {}
        }
    }
    Ok(tables)
}

type Cells = Vec<(&'static str, Value)>;

async fn optimize(settings: &Settings, contract: &Contract, mut table: Table, dry_run: bool) -> Result<Cells, Error> {
    let upkeep = &settings.lake.upkeep;
    let name = contract.name();
    let (compacted, checkpoint) = if dry_run {
        (table.compactable(upkeep, Scope::All)?, None)
    } else {
        let progress = |done: Compacted| {
            eprintln!("{name}: {} files became {}", done.files_before, done.files_after);
        };
        let compacted = table.compact(contract, upkeep, Scope::All, now_ms(), progress).await?;
        (compacted, table.checkpoint(upkeep, now_ms()).await?.version)
    };
    let bytes_after = if dry_run { Value::Null } else { compacted.bytes_after.into() };
    Ok(vec![
        ("files before", compacted.files_before.into()),
        ("files after", compacted.files_after.into()),
        ("bytes before", compacted.bytes_before.into()),
        ("bytes after", bytes_after),
        ("checkpoint", json!(checkpoint)),
        ("dry run", dry_run.into()),
    ])
}

async fn vacuum(settings: &Settings, contract: &Contract, mut table: Table, dry_run: bool) -> Result<Cells, Error> {
    let (upkeep, now_ms) = (&settings.lake.upkeep, now_ms());
    let name = contract.name();
    let expired = table.expire(contract, upkeep, now_ms, dry_run).await?;
    if let Some(before) = expired.before.as_ref().filter(|_| expired.files > 0) {
        let verb = if dry_run { "would go" } else { "went" };
        eprintln!("{name}: {} rows before {before} {verb}", expired.rows);
    }
    let log_files =
        if dry_run { Value::Null } else { table.checkpoint(upkeep, now_ms).await?.log_files_removed.into() };
    eprintln!("{name}: looking for files that no version of the last {} h needs", upkeep.file_retention_h);
    let vacuumed = table.vacuum(upkeep, now_ms, dry_run).await?;
    Ok(vec![
        ("rows expired", expired.rows.into()),
        ("files expired", expired.files.into()),
        ("files removed", vacuumed.files.len().into()),
        ("log files removed", log_files),
        ("dry run", dry_run.into()),
    ])
}

async fn stats(table: Table) -> Result<Cells, Error> {
    let stats = table.stats().await?;
    Ok(vec![
        ("version", stats.version.into()),
        ("rows", stats.rows.into()),
        ("partitions", stats.partitions.into()),
        ("files", stats.files.into()),
        ("bytes", stats.bytes.into()),
        ("smallest file", stats.file_bytes_min.into()),
        ("mean file", stats.file_bytes_mean.into()),
        ("checkpoint", json!(stats.checkpoint)),
        ("log files", stats.log_files.into()),
        ("log bytes", stats.log_bytes.into()),
        ("unreferenced files", stats.unreferenced_files.into()),
        ("unreferenced bytes", stats.unreferenced_bytes.into()),
    ])
}

fn explain(error: Error) -> anyhow::Error {
    let fenced = error.kind == ErrorKind::Fenced;
    let error = anyhow::Error::from(error);
    match fenced {
        true => error.context("another process is keeping this table at this moment; try again"),
        false => error,
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::Bool(value) => if *value { "yes" } else { "no" }.into(),
        other => other.to_string(),
    }
}
