//! `quad doctor`: looks at everything a service needs, in the order the data goes, and says what to do.
//!
//! Settings enter, findings leave. It opens and asks, and changes nothing but the folders that a start would make.

use std::process::ExitCode;

use anyhow::Result;
use ingest::extract::source::{self, Worker};
use ingest::{Connector, ErrorKind};
use lake::Lake;
use query::Access;
use schemas::{Checker, Contracts, Decoder};

use crate::report::{Format, print_document, print_table};
use crate::settings::Settings;

/// One thing that was looked at.
struct Finding {
    subject: String,
    /// What is wrong and what to do, or what was seen.
    outcome: Result<String, String>,
}

/// Prints findings; exits 1 when something is wrong.
///
/// # Errors
/// Nothing could be looked at.
pub async fn run(settings: Settings, format: Format) -> Result<ExitCode> {
    let mut findings = Vec::new();
    let contracts = look(&mut findings, "contracts", contracts(&settings), |contracts| {
        format!("{} tables, every rule compiles", contracts.iter().count())
    });
    look(&mut findings, "access", access(&settings), Clone::clone);
    look(&mut findings, "log", log(&settings).await, Clone::clone);
    look(&mut findings, "lake", lake(&settings).await, Clone::clone);
    if let Some(contracts) = contracts {
        for (id, source) in &settings.sources {
            let connector = Connector::load(&settings.extract.connectors_path, &source.connector, &contracts);
            let subject = format!("source {id}");
            let connector = connector.map_err(|error| error.chain());
            let Some(connector) = look(&mut findings, &subject, connector, |connector| connector.title.clone()) else {
                continue;
            };
            if let Err(error) = connector.check_source(id, source, &settings.extract, settings.timezone) {
                look(&mut findings, &format!("{subject} settings"), Err::<(), _>(error.chain()), |()| String::new());
                continue;
            }
            if !connector.kind.is_pulled() {
                continue;
            }
            let (source, subject_at) = (source.clone(), format!("{subject} connection"));
            let worker = Worker::alone(&settings.extract, tokio::runtime::Handle::current());
            let worker = worker.in_timezone(settings.timezone).looking_at(id);
            let outcome = tokio::task::spawn_blocking(move || probe(&source, &connector, &worker)).await?;
            look(&mut findings, &subject_at, outcome, Clone::clone);
        }
    }
    print(&findings, format)
}

fn look<T>(
    findings: &mut Vec<Finding>,
    subject: &str,
    outcome: Result<T, String>,
    say: impl Fn(&T) -> String,
) -> Option<T> {
    let said = outcome.as_ref().map(say).map_err(Clone::clone);
    findings.push(Finding { subject: subject.to_string(), outcome: said });
    outcome.ok()
}

fn contracts(settings: &Settings) -> Result<Contracts, String> {
    let contracts = settings.contracts().map_err(|error| error.to_string())?;
    for contract in contracts.iter() {
        Checker::new(contract).map_err(|error| error.to_string())?;
        Decoder::new(contract).map_err(|error| error.to_string())?;
    }
    Ok(contracts)
}

fn access(settings: &Settings) -> Result<String, String> {
    Access::new(&settings.access).map_err(|error| error.to_string())?;
    match settings.access.enabled {
        true => Ok(format!("{} tokens", settings.access.tokens.len())),
        false => Ok("switched off: everyone is admin".to_string()),
    }
}

async fn log(settings: &Settings) -> Result<String, String> {
    let topic = settings.topic.clone();
    let asked = tokio::task::spawn_blocking(move || topic::open(&topic)?.topics());
    match asked.await.map_err(|error| error.to_string())? {
        Ok(topics) => Ok(format!("{:?}, {} topics", settings.topic.kind, topics.len())),
        Err(error) if error.kind == topic::ErrorKind::Locked => Ok("in use by a running quad".to_string()),
        Err(error) => Err(format!("{error}; check [topic] and that the brokers run")),
    }
}

async fn lake(settings: &Settings) -> Result<String, String> {
    let lake = Lake::open(&settings.lake).map_err(|error| error.to_string())?;
    lake.reach().await.map_err(|error| error.to_string())?;
    let contracts = settings.contracts().map_err(|error| error.to_string())?;
    let mut landed = 0;
    for contract in contracts.iter() {
        landed += usize::from(lake.find(contract).await.map_err(|error| error.to_string())?.is_some());
    }
    Ok(format!("{}: {landed} tables", settings.lake.path))
}

/// Connects to a source and asks each of its tables for as little as can be.
fn probe(settings: &ingest::SourceSettings, connector: &Connector, worker: &Worker) -> Result<String, String> {
    let mut source = source::connect(connector, settings, worker).map_err(|error| match error.kind {
        ErrorKind::Source => {
            format!("{error}; check the connection string, the password in the environment and the network")
        }
        _ => error.chain(),
    })?;
    for table in &connector.tables {
        source.probe(table).map_err(|error| format!("table {}: {}", table.name, error.chain()))?;
    }
    Ok(format!("answers for {} tables", connector.tables.len()))
}

fn print(findings: &[Finding], format: Format) -> Result<ExitCode> {
    let wrong = findings.iter().filter(|finding| finding.outcome.is_err()).count();
    if format.json {
        let documents: Vec<_> = findings
            .iter()
            .map(|finding| match &finding.outcome {
                Ok(seen) => serde_json::json!({ "subject": finding.subject, "ok": true, "message": seen }),
                Err(mend) => serde_json::json!({ "subject": finding.subject, "ok": false, "message": mend }),
            })
            .collect();
        print_document(&documents)?;
    } else {
        let row = |finding: &Finding| {
            let (mark, text) = match &finding.outcome {
                Ok(seen) => ("ok", seen),
                Err(mend) => ("WRONG", mend),
            };
            vec![mark.to_string(), finding.subject.clone(), text.clone()]
        };
        print_table(&["", "subject", "finding"], &findings.iter().map(row).collect::<Vec<_>>());
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
