//! Every connector on a whole campus: each row that a source holds becomes the record or the dead letter it must.
//!
//! The databases are filled as before the day, each pulled table goes through its query, its mapping and its contract,
//! and what comes out is counted against the truth. SQLite always; PostgreSQL and MariaDB when `QUAD_TEST_POSTGRES` and
//! `QUAD_TEST_MARIADB` hold a connection string.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use campus::campus::Campus;
use campus::database::{self, Databases};
use campus::plan::Plan;
use campus::truth::{Stage, TableTruth};
use chrono::Utc;
use ingest::connector::{Spec, TableMapping};
use ingest::extract::source::{Limits, Source, Worker};
use ingest::extract::sql::SqlSource;
use ingest::functions::Surroundings;
use ingest::mapping::Mapping;
use ingest::refine::Refiner;
use ingest::{Connector, SourceSettings};
use schemas::{Contracts, Sensitive};
use serde_json::Value;

/// What came out of one table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    versions: u64,
    letters: BTreeMap<(String, String), u64>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn small_campus() -> Campus {
    Campus::generate(Plan::new(7, 120, "2026-11-23".parse().expect("a date")))
}

/// Distinct records and letters of the batches of one table.
struct Table {
    mapping: Mapping,
    refiner: Refiner,
    records: BTreeSet<(String, String)>,
    letters: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Table {
    fn new(connector: &Connector, table: &TableMapping, surroundings: &Surroundings) -> Result<Table> {
        Ok(Table {
            mapping: Mapping::new(&connector.name, table, surroundings)?,
            refiner: Refiner::new(table.contract.clone())?,
            records: BTreeSet::new(),
            letters: BTreeMap::new(),
        })
    }

    fn take(&mut self, runtime: &tokio::runtime::Runtime, input: &RecordBatch) -> Result<()> {
        let mapped = runtime.block_on(self.mapping.run(input))?;
        let (records, violations) = self.refiner.refine("test", &mapped, Utc::now())?;
        self.records.extend(records.into_iter().map(|record| (record.key, record.hash)));
        for violation in violations {
            let row = ingest::refine::row_json(input, mapped.rows[violation.row], &[]);
            self.letters.entry((violation.rule, violation.field)).or_default().insert(row);
        }
        Ok(())
    }

    fn outcome(&self) -> Outcome {
        let letters = self.letters.iter().map(|(cause, rows)| (cause.clone(), rows.len() as u64)).collect();
        Outcome { versions: self.records.len() as u64, letters }
    }
}

fn surroundings(connector: &Connector) -> Surroundings {
    Surroundings {
        timezone: "Asia/Shanghai".parse().expect("a zone"),
        code_maps: connector.code_maps.clone(),
        id_key: Some(Sensitive::new("test key".into())),
        codes_unknown: Arc::default(),
    }
}

fn expected(truth: &TableTruth) -> Outcome {
    let letters = truth.letters.iter().map(|of| ((of.rule.clone(), of.field.clone()), of.count)).collect();
    Outcome { versions: truth.versions, letters }
}

/// Fills the databases and pulls every table of the three pulled connectors.
fn check(databases: &Databases) -> Result<()> {
    let campus = small_campus();
    database::fill(&campus, databases)?;
    let truth = campus.truth(Stage::Filled);
    let contracts = Contracts::load(&root().join("schemas"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let sources = [
        ("student_affairs_zf", &databases.student_affairs),
        ("academic_zf", &databases.academic),
        ("logistics_ecard", &databases.logistics),
    ];
    for (name, connection) in sources {
        let connector = Connector::load(&root().join("ingest/connectors"), name, &contracts)?;
        let surroundings = surroundings(&connector);
        let worker = Worker::of(Limits { rows_max: 1000, text_bytes_max: 4096 }, runtime.handle().clone());
        let mut source = SqlSource::connect(&settings(name, connection), &worker)?;
        for table in &connector.tables {
            let mut taken = Table::new(&connector, table, &surroundings)?;
            let mut outcome = Ok(());
            source.pull(table, &[], &mut |batch, _| {
                outcome = taken.take(&runtime, &batch);
                Ok(())
            })?;
            outcome.with_context(|| format!("{name}/{}", table.name))?;
            let contract = table.contract.name();
            assert_eq!(taken.outcome(), expected(&truth.tables[&contract]), "{contract}");
        }
        assert_eq!(surroundings.codes_unknown.count(), unknown_codes(name), "{name}");
    }
    Ok(())
}

/// Values that no map knows: each is one of the planted dead letters.
fn unknown_codes(connector: &str) -> u64 {
    match connector {
        // A leave's state, and an account's.
        "student_affairs_zf" => 2,
        // The nature of an examination.
        "academic_zf" => 1,
        _ => 0,
    }
}

fn settings(connector: &str, connection: &str) -> SourceSettings {
    SourceSettings { connection: Some(connection.to_string()), ..SourceSettings::of(connector) }
}

#[test]
fn every_row_of_sqlite_becomes_what_it_must() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str| Databases::sqlite(&folder.path().join(name));
    check(&Databases { student_affairs: file("xg"), academic: file("jw"), logistics: file("hq") })
}

#[test]
fn every_row_of_postgresql_becomes_what_it_must() -> Result<()> {
    check_server("QUAD_TEST_POSTGRES")
}

#[test]
fn every_row_of_mariadb_becomes_what_it_must() -> Result<()> {
    check_server("QUAD_TEST_MARIADB")
}

/// One database for the three systems; their tables have different names.
fn check_server(variable: &str) -> Result<()> {
    let Ok(connection) = std::env::var(variable) else { return Ok(()) };
    let [student_affairs, academic, logistics] = [connection.clone(), connection.clone(), connection];
    check(&Databases { student_affairs, academic, logistics })
}

#[test]
fn every_push_becomes_what_it_must() -> Result<()> {
    let campus = small_campus();
    let contracts = Contracts::load(&root().join("schemas"))?;
    let connector = Connector::load(&root().join("ingest/connectors"), "access_hikvision", &contracts)?;
    let surroundings = surroundings(&connector);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut tables = BTreeMap::new();
    for table in &connector.tables {
        tables.insert(table.name.clone(), (table, Table::new(&connector, table, &surroundings)?));
    }
    let live: Vec<_> = campus.live().flat_map(|step| step.pushes).collect();
    for push in campus.history_pushes().chain(live) {
        let (table, taken) = tables.get_mut(push.table).context("a table of the connector")?;
        let batch = pushed(&table.spec, &serde_json::from_str(&push.body)?)?;
        assert_eq!(batch.num_rows(), push.records);
        taken.take(&runtime, &batch)?;
    }
    let truth = campus.truth(Stage::DayOver);
    for (_, (table, taken)) in tables {
        let contract = table.contract.name();
        assert_eq!(taken.outcome(), expected(&truth.tables[&contract]), "{contract}");
    }
    Ok(())
}

/// A body as the webhook reads it.
fn pushed(spec: &Spec, body: &Value) -> Result<RecordBatch> {
    let Spec::Webhook(pushed) = spec else { anyhow::bail!("not a pushed table") };
    let found = body.pointer(&pushed.records).context("no records in the body")?;
    let records = found.as_array().map_or(std::slice::from_ref(found), Vec::as_slice);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let column = |pointer: &String| -> ArrayRef {
        Arc::new(records.iter().map(|record| record.pointer(pointer).map(text)).collect::<StringArray>())
    };
    let fields: Vec<_> = pushed.input.keys().map(|name| Field::new(name, DataType::Utf8, true)).collect();
    let columns = pushed.input.values().map(column).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
