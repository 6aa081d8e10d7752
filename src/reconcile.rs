//! `quad reconcile`: the sources against the log and the lake.
//!
//! Settings enter; a table of days leaves, and exit code 1 when something is missing. Nothing is written.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use chrono::NaiveDate;
use clap::Args;
use ingest::reconcile::{self, AtSource, Days, Sum};
use ingest::{Connector, SourceSettings};
use lake::Lake;
use schemas::{Contract, Contracts};
use serde_json::json;

use crate::report::{print_document, print_table};
use crate::settings::Settings;

/// `quad reconcile`.
#[derive(Args)]
pub struct ReconcileArgs {
    /// Only these sources; all pulled ones when left out.
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// Only this table, such as academic.grade.
    #[arg(long)]
    table: Option<String>,
    /// Only days from this on.
    #[arg(long, value_name = "YYYY-MM-DD")]
    from: Option<NaiveDate>,
    /// Only days up to this.
    #[arg(long, value_name = "YYYY-MM-DD")]
    to: Option<NaiveDate>,
    /// Seconds to wait for rows that are on their way before a difference counts.
    #[arg(long, default_value_t = 30)]
    wait_s: u64,
    /// Every day, not only those that differ.
    #[arg(long)]
    all_days: bool,
    /// JSON, for scripts.
    #[arg(long)]
    json: bool,
}

/// One table of one source, on both sides.
struct Compared {
    source: String,
    table: String,
    outcome: Result<(AtSource, Days), String>,
}

/// Between two looks at what is on its way.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Compares and prints; 1 when a row is missing, too many or different, a source cannot be asked, or landing is behind.
///
/// # Errors
/// Nothing could be compared.
pub async fn run(settings: Settings, args: ReconcileArgs) -> Result<ExitCode> {
    let settings = Arc::new(settings);
    let contracts = settings.contracts()?;
    let lake = Lake::open(&settings.lake)?;
    if let Some(unknown) = args.sources.iter().find(|id| !settings.sources.contains_key(*id)) {
        bail!(crate::usage(format!("no source `{unknown}` in the settings; see `quad sources`")));
    }
    if let Some(unknown) = args.table.as_ref().filter(|table| contracts.get(table).is_none()) {
        bail!(crate::usage(format!("no contract `{unknown}`; see `quad tables`")));
    }
    let mut compared = Vec::new();
    for (id, source) in &settings.sources {
        if !args.sources.is_empty() && !args.sources.contains(id) {
            continue;
        }
        let connector = Connector::load(&settings.extract.connectors_path, &source.connector, &contracts)?;
        if !connector.kind.is_pulled() {
            continue;
        }
        compared.extend(compare_source(&settings, &args, &lake, id, source, &Arc::new(connector)).await);
    }
    if compared.is_empty() {
        bail!(crate::usage(
            "nothing to compare: no pulled source has such a table, and one that pushes cannot be asked"
        ));
    }
    let behind = behind(&settings, &contracts, &lake, &args).await;
    let is_held = |error: &anyhow::Error| {
        let cause = error.downcast_ref::<topic::Error>();
        cause.is_some_and(|error| error.kind == topic::ErrorKind::Locked)
    };
    match behind {
        // A log that a running `quad up` holds cannot be asked; any other failure leaves the answer open.
        Err(error) if !is_held(&error) => Err(error),
        behind => print(&args, &compared, &behind),
    }
}

async fn compare_source(
    settings: &Arc<Settings>,
    args: &ReconcileArgs,
    lake: &Lake,
    id: &str,
    source: &SourceSettings,
    connector: &Arc<Connector>,
) -> Vec<Compared> {
    let mut compared = Vec::new();
    for at in 0..connector.tables.len() {
        let contract = &connector.tables[at].contract;
        if args.table.as_ref().is_some_and(|wanted| *wanted != contract.name()) {
            continue;
        }
        if !args.json {
            eprintln!("asking {id} for all of {}", contract.name());
        }
        let deadline = Instant::now() + Duration::from_secs(args.wait_s);
        let outcome = loop {
            let outcome = compare_table(settings, args, lake, id, source, connector, at).await;
            let is_equal = outcome.as_ref().is_ok_and(|(at_source, in_lake)| at_source.days == *in_lake);
            if is_equal || outcome.is_err() || Instant::now() >= deadline {
                break outcome;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let outcome = outcome.map_err(|error| format!("{error:#}"));
        compared.push(Compared { source: id.to_string(), table: contract.name(), outcome });
    }
    compared
}

async fn compare_table(
    settings: &Arc<Settings>,
    args: &ReconcileArgs,
    lake: &Lake,
    id: &str,
    source: &SourceSettings,
    connector: &Arc<Connector>,
    at: usize,
) -> Result<(AtSource, Days)> {
    let handle = tokio::runtime::Handle::current();
    let (settings, of_source, connector, id) = (settings.clone(), source.clone(), connector.clone(), id.to_string());
    let (contract, timezone, source) = (connector.tables[at].contract.clone(), settings.timezone, id.clone());
    let asked = tokio::task::spawn_blocking(move || {
        let table = &connector.tables[at];
        reconcile::at_source(&settings.extract, &id, &of_source, &connector, table, timezone, &handle)
    });
    let mut at_source = asked.await?.map_err(|error| anyhow::anyhow!(error.chain()))?;
    let mut in_lake = reconcile::in_lake(lake, &contract, &source, timezone).await?;
    for days in [&mut at_source.days, &mut in_lake] {
        days.retain(|day, _| {
            let is_after = args.from.is_none_or(|from| day.is_some_and(|day| day >= from));
            is_after && args.to.is_none_or(|to| day.is_some_and(|day| day <= to))
        });
    }
    Ok((at_source, in_lake))
}

/// Records of the log that the lake has not got, by partition; or why the log cannot be asked.
async fn behind(
    settings: &Settings,
    contracts: &Contracts,
    lake: &Lake,
    args: &ReconcileArgs,
) -> Result<Vec<(String, i64)>> {
    let topic = settings.topic.clone();
    let log = tokio::task::spawn_blocking(move || topic::open(&topic)).await?;
    let log =
        log.context("the log cannot be asked; while `quad up` holds an embedded log only the lake is compared")?;
    let mut behind = Vec::new();
    let is_wanted = |contract: &&Arc<Contract>| args.table.as_ref().is_none_or(|table| *table == contract.name());
    for contract in contracts.iter().filter(is_wanted) {
        let (log, topic) = (log.clone(), contract.topic());
        let extents = match tokio::task::spawn_blocking(move || log.extents(&topic)).await? {
            Err(error) if error.kind == topic::ErrorKind::UnknownTopic => continue,
            extents => extents?,
        };
        let table = lake.find(contract).await?;
        for extent in extents {
            let landed = match &table {
                Some(table) => table.next_offset(&settings.land.id, &contract.topic(), extent.partition).await?,
                None => None,
            };
            let records = extent.high - landed.unwrap_or(extent.low);
            if records > 0 {
                behind.push((format!("{}/{}", contract.topic(), extent.partition), records));
            }
        }
    }
    Ok(behind)
}

fn print(args: &ReconcileArgs, compared: &[Compared], behind: &Result<Vec<(String, i64)>>) -> Result<ExitCode> {
    let (mut rows, mut documents, mut gaps) = (Vec::new(), Vec::new(), 0);
    for Compared { source, table, outcome } in compared {
        let (at_source, in_lake) = match outcome {
            Ok(sides) => sides,
            Err(error) => {
                gaps += 1;
                documents.push(json!({ "source": source, "table": table, "error": error }));
                rows.push(vec![source.clone(), table.clone(), "-".into(), "-".into(), "-".into(), error.clone()]);
                continue;
            }
        };
        let days: BTreeSet<_> = at_source.days.keys().chain(in_lake.keys()).collect();
        let mut total = [Sum::default(); 2];
        for day in days {
            let of = |days: &Days| days.get(day).copied().unwrap_or_default();
            let (left, right) = (of(&at_source.days), of(in_lake));
            for (sum, side) in total.iter_mut().zip([left, right]) {
                sum.rows += side.rows;
                sum.checksum = sum.checksum.wrapping_add(side.checksum);
            }
            gaps += usize::from(left != right);
            let name = day.map_or("no day".to_string(), |day| day.to_string());
            documents.push(json!({
                "source": source, "table": table, "day": day.map(|day| day.to_string()), "equal": left == right,
                "rows_at_source": left.rows, "rows_in_lake": right.rows,
                "checksum_at_source": format!("{:016x}", left.checksum),
                "checksum_in_lake": format!("{:016x}", right.checksum),
            }));
            if args.all_days || left != right {
                rows.push(line(source, table, &name, left, right, 0));
            }
        }
        rows.push(line(source, table, "all", total[0], total[1], at_source.rejected));
    }
    let (is_behind, log) = match behind {
        Ok(behind) => (!behind.is_empty(), json!(behind.iter().cloned().collect::<std::collections::BTreeMap<_, _>>())),
        Err(error) => (false, json!({ "error": format!("{error:#}") })),
    };
    let is_well = gaps == 0 && !is_behind;
    if args.json {
        let document = json!({ "equal": is_well, "days": documents, "records_behind": log });
        print_document(&document)?;
    } else {
        print_table(&["source", "table", "day", "at the source", "in the lake", "finding"], &rows);
        match behind {
            Ok(behind) if behind.is_empty() => println!("the lake has every record of the log"),
            Ok(behind) => {
                behind.iter().for_each(|(at, records)| println!("{at}: {records} records are not landed yet"))
            }
            Err(error) => println!("{error:#}"),
        }
        println!("{}", if is_well { "no gap" } else { "THERE ARE GAPS; `quad backfill` asks a source again" });
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(source: &str, table: &str, day: &str, left: Sum, right: Sum, rejected: u64) -> Vec<String> {
    let finding = match left.rows as i64 - right.rows as i64 {
        0 if left.checksum == right.checksum && rejected > 0 => format!("equal; {rejected} rows are dead letters"),
        0 if left.checksum == right.checksum => "equal".to_string(),
        0 => "other content".to_string(),
        missing @ 1.. => format!("{missing} missing in the lake"),
        surplus => format!("{} too many in the lake", -surplus),
    };
    let row = [source, table, day].map(str::to_string);
    row.into_iter().chain([left.rows.to_string(), right.rows.to_string(), finding]).collect()
}
