//! `quad land …`: what is done to landing by hand.
//!
//! Arguments enter; the lake's positions change, or an answer is printed.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use ingest::land::rebuild::Rebuilt;
use ingest::land::reset;
use lake::Lake;

use crate::serve::{self, Parts};
use crate::settings::Settings;
use crate::traces::Exporter;

/// How often long work says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// `quad land`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct LandArgs {
    #[command(flatten)]
    service: serve::Service,
    /// Read a table's whole topic again, under the present contract, and switch over to the result in one commit.
    ///
    /// Questions see the table as it was until then, and a landing process goes on beside it. Rows that the topic no longer
    /// holds are carried over, and dead letters whose records are rows now are resolved. This is the way to a wider type of a
    /// column, or to rows that a mended contract now accepts.
    #[arg(long, value_name = "TABLE", conflicts_with = "check")]
    rebuild: Option<String>,
    #[command(subcommand)]
    command: Option<LandCommand>,
}

#[derive(Subcommand)]
enum LandCommand {
    /// Move a partition past records that are gone from the log, and say so in the ledger.
    ///
    /// Landing never skips records on its own: where the log no longer holds what comes next, that partition stops. This
    /// accepts the gap. It only goes forward, and may be run while `quad land` runs, which then goes on from there.
    Reset {
        /// The partition, as in the error of landing: quad.academic.grade/2.
        #[arg(value_name = "TOPIC/PARTITION")]
        partition: String,
        /// Where to go on: an offset, `earliest` (the oldest record in the log) or `latest` (after the newest).
        #[arg(long, value_name = "OFFSET")]
        to: String,
    },
}

/// Runs the service, or does what the subcommand says.
///
/// # Errors
/// Whatever stopped it.
pub async fn run(settings: Settings, args: LandArgs, exporter: Option<Exporter>) -> Result<ExitCode> {
    match args.command {
        None => match args.rebuild {
            Some(table) => rebuild(&settings, &table).await,
            None => serve::run(settings, Parts::LAND, args.service.check, exporter).await,
        },
        Some(LandCommand::Reset { partition, to }) => reset(&settings, &partition, &to).await,
    }
}

async fn rebuild(settings: &Settings, table: &str) -> Result<ExitCode> {
    let contracts = Arc::new(settings.contracts()?);
    let contract = contracts.get(table).cloned();
    let contract = contract.ok_or_else(|| crate::usage(format!("no contract `{table}`; see `quad tables`")))?;
    let land = serve::prepare_land(settings, contracts).await?;
    let mut told = Instant::now();
    let tell = |read: u64, total: u64| {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            eprintln!("{table}: {read} of {total} records");
        }
    };
    let Rebuilt { version, rows, carried, bad, letters, resolved } =
        ingest::land::rebuild::rebuild(&land, &contract, tell).await?;
    println!(
        "{table} is rebuilt as version {version}: {rows} rows from the topic, {carried} carried over, {bad} bad records, \
         {letters} of them new dead letters, {resolved} dead letters resolved"
    );
    Ok(ExitCode::SUCCESS)
}

async fn reset(settings: &Settings, partition: &str, to: &str) -> Result<ExitCode> {
    let wrong =
        || crate::usage(format!("`{partition}` is no partition: say TOPIC/NUMBER, such as quad.academic.grade/2"));
    let (topic, number) = partition.rsplit_once('/').ok_or_else(wrong)?;
    let number: i32 = number.parse().map_err(|_| wrong())?;
    let contracts = settings.contracts()?;
    let contract = contracts.iter().find(|contract| contract.topic() == topic);
    let contract =
        contract.ok_or_else(|| crate::usage(format!("no contract has the topic {topic}; see `quad tables`")))?;
    let offset = match to.parse::<i64>() {
        Ok(offset) => offset,
        Err(_) if matches!(to, "earliest" | "latest") => extent_of(settings, topic, number, to).await?,
        Err(_) => bail!(crate::usage(format!("`--to {to}`: an offset, earliest or latest"))),
    };
    let lake = Lake::open(&settings.lake)?;
    let reset = reset::reset(&lake, contract, &settings.land.id, number, offset).await?;
    let skipped = reset.from.map_or(String::new(), |from| format!(": {} records skipped", reset.to - from));
    println!("{partition} goes on at offset {}{skipped}", reset.to);
    Ok(ExitCode::SUCCESS)
}

/// The oldest or the next offset of a partition.
async fn extent_of(settings: &Settings, topic: &str, partition: i32, end: &str) -> Result<i64> {
    let (settings, name) = (settings.topic.clone(), topic.to_string());
    let extents = tokio::task::spawn_blocking(move || topic::open(&settings)?.extents(&name)).await?;
    let extents = extents.context("could not ask the log; while `quad up` holds an embedded log, give the number")?;
    let extent = extents.iter().find(|extent| extent.partition == partition);
    let extent = extent.with_context(|| format!("{topic} has no partition {partition}"))?;
    Ok(if end == "earliest" { extent.low } else { extent.high })
}
