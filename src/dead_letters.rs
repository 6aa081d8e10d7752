//! `quad dead-letters`: what could not be taken in, and what becomes of it.
//!
//! Filters enter. `list` and `show` ask the running query service, so that its policy decides what is seen; `replay` and
//! `discard` read letters there too, and hand them to the process that holds the log. Nothing of a letter is kept here.

mod filter;
mod mend;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use futures::StreamExt;

use crate::client::{Server, cells, print_json, with_hint};
use crate::report::print_table;
use crate::settings::Settings;
use filter::{Filter, quoted};

#[derive(Args)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    command: DeadLettersCommand,
}

#[derive(Subcommand)]
enum DeadLettersCommand {
    /// List letters, the newest first, or count them by source and rule.
    List(ListArgs),
    /// Show one letter with its bytes, masked as they were stored.
    Show(ShowArgs),
    /// Send letters through the present mapping and contract, and mark those resolved that pass.
    ///
    /// To be used after a mapping, contract or code set was mended. A row that passes is appended to the log once, however
    /// often it is replayed; one that does not stays open. A row of which the mapping needs a masked column cannot be
    /// replayed: mend it at its source.
    ///
    /// Exit codes: 0 all were resolved, 1 some were not, 64 wrong usage.
    Replay(mend::ReplayArgs),
    /// Mark letters as not worth replaying, with the reason.
    Discard(mend::DiscardArgs),
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// The most letters to list.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Count by source, table, stage, rule and field instead.
    #[arg(long)]
    summary: bool,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
struct ShowArgs {
    /// The letter's number, as listed.
    letter_id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// Runs a `quad dead-letters` command.
///
/// # Errors
/// What the servers say, with their hints.
pub async fn run(settings: &Settings, args: DeadLettersArgs) -> Result<ExitCode> {
    match args.command {
        DeadLettersCommand::List(args) => list(settings, &args).await,
        DeadLettersCommand::Show(args) => show(settings, &args).await,
        DeadLettersCommand::Replay(args) => mend::replay(settings, &args).await,
        DeadLettersCommand::Discard(args) => mend::discard(settings, &args).await,
    }
}

async fn list(settings: &Settings, args: &ListArgs) -> Result<ExitCode> {
    let (head, rest): (&[&str], String) = match args.summary {
        true => (
            &["letters", "source", "target", "stage", "rule", "field", "state", "first", "last"],
            " GROUP BY 2, 3, 4, 5, 6, 7 ORDER BY 1 DESC, 2, 3, 4, 5, 6, 7".to_string(),
        ),
        false => (
            &["letter_id", "occurred_at", "source", "target", "stage", "rule", "field", "state", "message"],
            " ORDER BY occurred_at DESC, letter_id".to_string(),
        ),
    };
    let column = |name: &&str| match *name {
        "letters" => "COUNT(*) AS letters".to_string(),
        "first" => "MIN(occurred_at) AS first".to_string(),
        "last" => "MAX(occurred_at) AS last".to_string(),
        "state" => format!("{} AS state", filter::STATE),
        name => format!("\"{name}\""),
    };
    let columns = head.iter().map(column).collect::<Vec<_>>().join(", ");
    let condition = args.filter.condition()?;
    let sql = format!("SELECT {columns} FROM {} WHERE {condition}{rest} LIMIT {}", filter::TABLE, args.limit);
    let mut answer = args.server.connect(settings).await?.sql(&sql).await.map_err(with_hint)?;
    let mut rows = Vec::new();
    while let Some(batch) = answer.stream.next().await {
        let batch = batch.map_err(with_hint)?;
        match args.json {
            true => print_json(&batch)?,
            false => rows.extend(cells(&batch)?),
        }
    }
    if !args.json {
        print_table(head, &rows);
        let more = if rows.len() == args.limit as usize { "; there may be more, see --limit" } else { "" };
        println!("({} rows{more})", rows.len());
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(settings: &Settings, args: &ShowArgs) -> Result<ExitCode> {
    let sql = format!("SELECT * FROM {} WHERE letter_id = {}", filter::TABLE, quoted(&args.letter_id));
    let mut answer = args.server.connect(settings).await?.sql(&sql).await.map_err(with_hint)?;
    let head: Vec<String> = answer.schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut is_found = false;
    while let Some(batch) = answer.stream.next().await {
        let batch = batch.map_err(with_hint)?;
        is_found |= batch.num_rows() > 0;
        if args.json {
            print_json(&batch)?;
            continue;
        }
        for row in cells(&batch)? {
            let lines = head.iter().zip(row).filter(|(_, value)| value != "∅");
            print_table(&[], &lines.map(|(name, value)| vec![name.clone(), value]).collect::<Vec<_>>());
        }
    }
    if !is_found {
        bail!("there is no such letter; see `quad dead-letters list --state all`");
    }
    Ok(ExitCode::SUCCESS)
}
