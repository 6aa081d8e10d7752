//! `quad backfill`: rows of a past span of a source once more.
//!
//! A source and a span enter; the process that pulls from it does the work, and progress is printed until it is done. A
//! break leaves it running there.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use ingest::extract::backfill::{Backfill, BackfillState};
use serde_json::{Value, json};

use crate::post;
use crate::report::{print_document, print_table};
use crate::settings::Settings;

/// Between two looks at a backfill that runs.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// `quad backfill`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BackfillArgs {
    /// The source, as in the settings.
    #[arg(required = true)]
    source: Option<String>,
    /// Only this table: the connector's name for it, or its contract such as academic.grade.
    #[arg(long)]
    table: Option<String>,
    /// The first value of the cursor's first column, in the source's own format: "2026-09-01 00:00:00".
    #[arg(long, required = true, value_name = "VALUE")]
    from: Option<String>,
    /// The first value after the span.
    #[arg(long, required = true, value_name = "VALUE")]
    to: Option<String>,
    /// Do not wait for the end.
    #[arg(long)]
    detach: bool,
    #[command(subcommand)]
    command: Option<BackfillCommand>,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum BackfillCommand {
    /// List backfills, the oldest first.
    List(Asking),
    /// Hold a backfill after the batch it is at.
    Pause {
        id: u64,
        #[command(flatten)]
        asking: Asking,
    },
    /// Let a backfill go on from where it is.
    Resume {
        id: u64,
        #[command(flatten)]
        asking: Asking,
    },
}

/// Whom to ask, and how to print.
#[derive(Args)]
struct Asking {
    /// HOST:PORT of the process that pulls; the settings' extract.http_listen when left out.
    #[arg(long, env = "QUAD_EXTRACT", value_name = "HOST:PORT")]
    extract: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Asking {
    async fn ask(&self, settings: &Settings, path: &str, body: Option<&Value>) -> Result<Vec<Backfill>> {
        let address = self.extract.clone().unwrap_or_else(|| settings.extract.http_listen.to_string());
        let token = std::env::var("QUAD_TOKEN").ok();
        let mut answer = post::ask(&address, path, token.as_deref(), body).await?;
        serde_json::from_value(answer["backfills"].take()).context("the answer holds no backfills")
    }

    fn print(&self, backfills: &[Backfill]) -> Result<()> {
        if self.json {
            print_document(backfills)?;
            return Ok(());
        }
        let row = |backfill: &Backfill| {
            let state = match (&backfill.error, backfill.state) {
                (Some(error), _) => error.clone(),
                (None, state) => format!("{state:?}").to_lowercase(),
            };
            let numbers = [backfill.rows, backfill.records, backfill.repeats, backfill.letters].map(|n| n.to_string());
            let names = [backfill.id.to_string(), format!("{}/{}", backfill.source, backfill.table)];
            let span = [backfill.from.clone(), backfill.to.clone(), backfill.at.first().cloned().unwrap_or_default()];
            names.into_iter().chain(span).chain(numbers).chain([state]).collect()
        };
        let head = ["id", "table", "from", "to", "is at", "rows", "records", "repeats", "dead letters", "state"];
        print_table(&head, &backfills.iter().map(row).collect::<Vec<_>>());
        Ok(())
    }
}

/// Begins a backfill and shows its progress, or does what the subcommand says.
///
/// # Errors
/// The process that pulls does not answer, or refuses.
pub async fn run(settings: &Settings, args: BackfillArgs) -> Result<ExitCode> {
    let (asking, path) = match &args.command {
        None => return begin(settings, &args).await,
        Some(BackfillCommand::List(asking)) => {
            asking.print(&asking.ask(settings, "/v1/backfills", None).await?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(BackfillCommand::Pause { id, asking }) => (asking, format!("/v1/backfills/{id}/pause")),
        Some(BackfillCommand::Resume { id, asking }) => (asking, format!("/v1/backfills/{id}/resume")),
    };
    asking.print(&asking.ask(settings, &path, Some(&json!({}))).await?)?;
    Ok(ExitCode::SUCCESS)
}

async fn begin(settings: &Settings, args: &BackfillArgs) -> Result<ExitCode> {
    let request = json!({ "source": args.source, "table": args.table, "from": args.from, "to": args.to });
    let begun = args.asking.ask(settings, "/v1/backfills", Some(&request)).await?;
    let ids: Vec<u64> = begun.iter().map(|backfill| backfill.id).collect();
    if args.detach {
        args.asking.print(&begun)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.asking.json {
        eprintln!("running there; a break leaves it running, `quad backfill list` tells how far it is");
    }
    loop {
        let mut backfills = args.asking.ask(settings, "/v1/backfills", None).await?;
        backfills.retain(|backfill| ids.contains(&backfill.id));
        if !backfills.iter().any(|backfill| backfill.state == BackfillState::Running) {
            args.asking.print(&backfills)?;
            let is_done = backfills.iter().all(|backfill| backfill.state == BackfillState::Done);
            return Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        if !args.asking.json {
            let rows: u64 = backfills.iter().map(|backfill| backfill.rows).sum();
            let at = backfills.iter().find(|backfill| backfill.state == BackfillState::Running);
            let at = at.map(|backfill| (backfill.table.as_str(), backfill.at.first().map_or("", String::as_str)));
            let (table, at) = at.unwrap_or_default();
            eprint!("\r{rows} rows, {table} is at {at}   ");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
