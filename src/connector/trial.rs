//! `quad connector test`: whether a connector does what extract relies on, tried on its source or on a recording.
//!
//! Each table's findings are printed, what failed with the reason. Exit codes: 0 no check failed, 1 one did, 2 a table
//! could not be pulled.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use clap::Args;
use ingest::connector::TableMapping;
use ingest::extract::secret;
use ingest::extract::source::{Source, Worker};
use ingest::kit::conformance::{self, Finding, Outcome, Trial};
use ingest::kit::recording::Recording;
use ingest::kit::rehearsal::Rehearsal;
use schemas::Sensitive;
use serde_json::{Value, json};

use super::Target;
use crate::report::{print_document, print_line, print_table};
use crate::settings::Settings;
use crate::usage;

/// Small batches have many borders, where rows are lost.
const BATCH_ROWS_MAX: usize = 25;
/// A table could not be pulled.
const NOT_PULLED: u8 = 2;

#[derive(Args)]
pub struct TestArgs {
    /// A connector, or a source of the settings.
    #[arg(value_name = "CONNECTOR|SOURCE")]
    name: String,
    /// The source, when several use the connector.
    #[arg(long, value_name = "ID")]
    source: Option<String>,
    /// A folder of <table>.jsonl files instead of the source; tables without a file are left out.
    #[arg(long, value_name = "FOLDER")]
    recording: Option<PathBuf>,
    /// Only this table: the connector's name for it, or its contract such as academic.grade.
    #[arg(long)]
    table: Option<String>,
    /// Rows after which each pull of a table is ended.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rows: u32,
    /// Decides where pulls are cut.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON, one document.
    #[arg(long)]
    json: bool,
}

/// Log lines on their way to the standard error stream, and the beginning of them kept.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<u8>>>);

/// So much of the log is looked at.
const HEARD_BYTES_MAX: usize = 1 << 20;

impl Heard {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = std::io::stderr().write(bytes)?;
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = HEARD_BYTES_MAX.saturating_sub(heard.len());
        heard.extend_from_slice(&bytes[..written.min(room)]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

pub(super) fn run(settings: &Settings, args: &TestArgs, heard: &Heard) -> Result<ExitCode> {
    let mut target = Target::find(settings, args.source.as_deref().unwrap_or(&args.name), args.table.as_deref())?;
    if target.connector.name != args.name && target.id != args.name {
        bail!(usage(format!("the source {} does not use the connector {}", target.id, args.name)));
    }
    let mut extract = settings.extract.clone();
    extract.batch_rows_max = extract.batch_rows_max.min(BATCH_ROWS_MAX);
    let worker = Worker::alone(&extract, tokio::runtime::Handle::current()).in_timezone(settings.timezone);
    let mut secrets = Vec::new();
    let mut source: Box<dyn Source> = match &args.recording {
        Some(folder) => {
            target.connector.tables.retain(|table| folder.join(format!("{}.jsonl", table.name)).is_file());
            if target.connector.tables.is_empty() {
                bail!(usage(format!("{} holds no <table>.jsonl of {}", folder.display(), target.connector.name)));
            }
            Box::new(Recording::open(folder, worker.limits)?)
        }
        None if !target.connector.kind.is_pulled() => {
            bail!(usage(format!("{} pushes and cannot be asked: try a recording, with --recording", target.id)))
        }
        None => {
            secrets.extend(secret::resolve(&target.settings, &worker)?.password);
            target.connect(settings, &worker)?
        }
    };
    let trial = Trial { worker: &worker, rows_max: args.rows as usize, seed: args.seed, secrets: &secrets };
    let (mut documents, mut failed, mut warnings, mut is_pulled) = (Vec::new(), 0, 0, true);
    for table in &target.connector.tables {
        let rehearsal = Rehearsal::new(&extract, &target.id, &target.connector, table, settings.timezone)?;
        let mut findings = conformance::run(source.as_mut(), &rehearsal, &trial);
        watch_log(&mut findings, &secrets, heard);
        let count = |outcome| findings.iter().filter(|finding| finding.outcome == outcome).count();
        failed += count(Outcome::Failed);
        warnings += count(Outcome::Warning);
        is_pulled &= findings.first().is_none_or(|finding| finding.outcome != Outcome::Failed);
        match args.json {
            true => documents.push(document(&target.id, table, &findings)),
            false => print(&target.id, table, &findings),
        }
    }
    match args.json {
        true => print_document(&documents)?,
        false => print_line(&format!("{failed} checks failed, {warnings} warn")),
    }
    Ok(match (is_pulled, failed) {
        (false, _) => ExitCode::from(NOT_PULLED),
        (true, 0) => ExitCode::SUCCESS,
        (true, _) => ExitCode::FAILURE,
    })
}

/// What was logged is an output too.
fn watch_log(findings: &mut [Finding], secrets: &[Sensitive<String>], heard: &Heard) {
    let is_heard = conformance::leaks(secrets, &heard.text());
    for finding in findings.iter_mut().filter(|finding| is_heard && finding.check == "secrets") {
        finding.outcome = Outcome::Failed;
        finding.text = "the password stands in a log line of this run".to_string();
    }
}

fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Warning => "warning",
        Outcome::Failed => "FAILED",
        Outcome::Skipped => "-",
    }
}

fn print(source: &str, table: &TableMapping, findings: &[Finding]) {
    print_line(&format!("{}  from {source}/{}", table.contract.name(), table.name));
    let row =
        |finding: &Finding| vec![name(finding.outcome).to_string(), finding.check.to_string(), finding.text.clone()];
    print_table(&["", "check", "finding"], &findings.iter().map(row).collect::<Vec<_>>());
    print_line("");
}

fn document(source: &str, table: &TableMapping, findings: &[Finding]) -> Value {
    let outcome = |outcome| match outcome {
        Outcome::Skipped => "skipped".to_string(),
        outcome => name(outcome).to_lowercase(),
    };
    let check = |finding: &Finding| json!({ "check": finding.check, "outcome": outcome(finding.outcome), "finding": finding.text });
    json!({
        "source": source,
        "table": table.name,
        "contract": table.contract.name(),
        "checks": findings.iter().map(check).collect::<Vec<_>>(),
    })
}
