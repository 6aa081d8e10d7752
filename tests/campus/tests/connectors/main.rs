//! Every connector on a whole campus: each row that a source holds becomes the record or the dead letter it must.
//!
//! The databases are filled as before the day, each pulled table goes through its query, its mapping and its contract,
//! and what comes out is counted against the truth; so is what platforms list over HTTP, before and after the day, and what devices publish. `defects` holds
//! what comes out against each defect that was observed at real sources. SQLite always; PostgreSQL and MariaDB when `QUAD_TEST_POSTGRES` and
//! `QUAD_TEST_MARIADB` hold a connection string.

mod defects;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema};
use campus::campus::Campus;
use campus::database::{self, Databases};
use campus::plan::Plan;
use campus::published::{Message, Stream};
use campus::truth::{Stage, TableTruth};
use campus::vendors::Vendors;
use chrono::{NaiveDateTime, Utc};
use ingest::connector::{Spec, TableMapping};
use ingest::extract::http::HttpSource;
use ingest::extract::source::{Limits, Source, Worker};
use ingest::extract::sql::SqlSource;
use ingest::functions::Surroundings;
use ingest::mapping::Mapping;
use ingest::refine::Refiner;
use ingest::settings::{Admins, ExtractSettings};
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
    /// What the source gave, and the rows of it that were accepted.
    given: Vec<RecordBatch>,
    accepted: Vec<RecordBatch>,
}

impl Table {
    fn new(connector: &Connector, table: &TableMapping, surroundings: &Surroundings) -> Result<Table> {
        Ok(Table {
            mapping: Mapping::new(&connector.name, table, surroundings)?,
            refiner: Refiner::new(table.contract.clone())?,
            records: BTreeSet::new(),
            letters: BTreeMap::new(),
            given: Vec::new(),
            accepted: Vec::new(),
        })
    }

    fn take(&mut self, runtime: &tokio::runtime::Runtime, input: &RecordBatch) -> Result<()> {
        let mapped = runtime.block_on(self.mapping.run(input))?;
        let (records, violations) = self.refiner.records("test", &mapped, Utc::now())?;
        let broken: BTreeSet<usize> = violations.iter().map(|violation| violation.row).collect();
        let whole: BooleanArray = (0..mapped.batch.num_rows()).map(|row| Some(!broken.contains(&row))).collect();
        self.accepted.push(filter_record_batch(&mapped.batch, &whole)?);
        self.given.push(input.clone());
        self.records.extend(records.versions().map(|version| (version.key.to_string(), version.hash.to_string())));
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
    let truth = campus.truth(Stage::Filled);
    let runtime = runtime()?;
    for (connector, tables, unknown) in pulled(&campus, databases, &runtime)? {
        for (table, taken) in &tables {
            let contract = table.contract.name();
            assert_eq!(taken.outcome(), expected(&truth.tables[&contract]), "{contract}");
        }
        assert_eq!(unknown, unknown_codes(&connector), "{connector}");
    }
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

fn load(connector: &str) -> Result<Connector> {
    let contracts = Contracts::load(&root().join("schemas"))?;
    Ok(Connector::load(&root().join("ingest/connectors"), connector, &contracts)?)
}

/// A connector's name, what was taken of each of its tables, and how many values no code map knew.
type Pulled = (String, Vec<(TableMapping, Table)>, u64);

/// Fills the databases and pulls all of them.
fn pulled(campus: &Campus, databases: &Databases, runtime: &tokio::runtime::Runtime) -> Result<Vec<Pulled>> {
    database::fill(campus, databases)?;
    let sources = [
        ("student_affairs_zf", &databases.student_affairs),
        ("academic_zf", &databases.academic),
        ("logistics_ecard", &databases.logistics),
    ];
    let mut all = Vec::new();
    for (name, connection) in sources {
        let connector = load(name)?;
        let surroundings = surroundings(&connector);
        let worker = Worker::of(Limits { rows_max: 1000, text_bytes_max: 4096 }, runtime.handle().clone());
        let mut source = SqlSource::connect(&settings(name, connection), &worker)?;
        let mut tables = Vec::new();
        for table in &connector.tables {
            let mut taken = Table::new(&connector, table, &surroundings)?;
            pull(&mut source, table, &[], &mut taken, runtime).with_context(|| format!("{name}/{}", table.name))?;
            tables.push((table.clone(), taken));
        }
        all.push((name.to_string(), tables, surroundings.codes_unknown.count()));
    }
    Ok(all)
}

/// Pulls a table from a cursor on; the cursor after it.
fn pull(
    source: &mut dyn Source,
    table: &TableMapping,
    after: &[String],
    taken: &mut Table,
    runtime: &tokio::runtime::Runtime,
) -> Result<Vec<String>> {
    let (mut outcome, mut cursor) = (Ok(()), after.to_vec());
    source.pull(table, after, &mut |batch, next| {
        cursor = next.unwrap_or_else(|| cursor.clone());
        if outcome.is_ok() && batch.num_rows() > 0 {
            outcome = taken.take(runtime, &batch);
        }
        Ok(())
    })?;
    outcome.map(|()| cursor)
}

#[test]
fn every_record_that_a_platform_lists_becomes_what_it_must() -> Result<()> {
    let campus = small_campus();
    let runtime = runtime()?;
    let vendors = Vendors::start("127.0.0.1:0", "a token", 700)?;
    let truth = [Stage::Filled, Stage::DayOver].map(|stage| campus.truth(stage).served);
    for name in ["second_classroom", "service_desk", "access_hikvision_pull", "access_dahua"] {
        let connector = load(name)?;
        let surroundings = surroundings(&connector);
        let mut source = http_source(&connector, &vendors, &runtime)?;
        for table in &connector.tables {
            let mut taken = Table::new(&connector, table, &surroundings)?;
            let mut cursor = Vec::new();
            for (until, truth) in [campus.plan.day_start(), NaiveDateTime::MAX].into_iter().zip(&truth) {
                vendors.show(&campus, until);
                cursor = pull(&mut source, table, &cursor, &mut taken, &runtime)?;
                let list = format!("{name}/{}", table.name);
                assert!(truth[&list].versions > 0, "{list}");
                assert_eq!(taken.outcome(), expected(&truth[&list]), "{list} until {until}");
            }
        }
        assert_eq!(surroundings.codes_unknown.count(), 0, "{name}: {:?}", surroundings.codes_unknown.values());
    }
    Ok(())
}

fn http_source(connector: &Connector, vendors: &Vendors, runtime: &tokio::runtime::Runtime) -> Result<HttpSource> {
    let extract = ExtractSettings {
        state_path: PathBuf::new(),
        connectors_path: PathBuf::new(),
        http_listen: ([127, 0, 0, 1], 0).into(),
        batch_rows_max: 1000,
        text_bytes_max: 4096,
        retry_ms_min: 1,
        retry_ms_max: 1,
        body_bytes_max: 1 << 20,
        push_records_max: 1,
        push_rate_max: 1,
        replay_rate_max: 1,
        admins: Admins::default(),
        id_key: None,
    };
    let mut settings = settings(&connector.name, &vendors.url());
    settings.password = Some(Sensitive::new("a token".into()));
    let worker = Worker::alone(&extract, runtime.handle().clone()).in_timezone("Asia/Shanghai".parse()?);
    Ok(HttpSource::connect(connector, &settings, &worker)?)
}

/// Values that no map knows: each is one of the planted dead letters.
fn unknown_codes(connector: &str) -> u64 {
    match connector {
        // A leave's state, an account's, and a member of staff's.
        "student_affairs_zf" => 3,
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
    batch(&pushed.input, records, |record, pointer| text(record.pointer(pointer)?))
}

#[test]
fn every_message_of_a_device_becomes_what_it_must() -> Result<()> {
    let campus = small_campus();
    let runtime = runtime()?;
    let truth = campus.truth(Stage::DayOver).published;
    let mut unlisted = BTreeMap::new();
    for record in &campus.meters.readings {
        let meter = &campus.meters.meters[record.value.meter];
        if !meter.is_listed {
            *unlisted.entry(("meter_room".to_string(), meter.no.clone())).or_insert(0) += 1;
        }
    }
    let mut unknown = BTreeMap::new();
    for stream in campus.streams() {
        let (taken, codes) = subscribed(&campus, &stream, NaiveDateTime::MAX, &runtime)?;
        assert_eq!(taken.outcome(), expected(&truth[stream.name]), "{}", stream.name);
        unknown.extend(codes.into_iter().map(|(set, value, times)| ((set, value), times)));
    }
    assert_eq!(unknown, unlisted, "each meter that is in no list is reported, and nothing else is unknown");
    Ok(())
}

/// A code set, a value that it does not hold, and how often that came.
type Unknown = (String, String, u64);

/// What becomes of the messages of a stream before `until`, and the values that no code map knew. The list of whose room a
/// meter is, is the campus's own.
fn subscribed(
    campus: &Campus,
    stream: &Stream,
    until: NaiveDateTime,
    runtime: &tokio::runtime::Runtime,
) -> Result<(Table, Vec<Unknown>)> {
    let (connector, table) = stream.name.split_once('/').context("connector/table")?;
    let mut connector = load(connector)?;
    connector.code_maps.insert("meter_room".to_string(), campus.meters.list());
    let surroundings = surroundings(&connector);
    let table = connector.tables.iter().find(|other| other.name == table).context("a table of the connector")?;
    let Spec::Mqtt(declared) = &table.spec else { anyhow::bail!("not a subscribed table") };
    let mut taken = Table::new(&connector, table, &surroundings)?;
    let heard: Vec<&Message> = stream.records.iter().filter(|r| r.at < until).map(|record| &record.value).collect();
    let cell = |message: &&Message, place: &str| match place.strip_prefix("{topic/") {
        Some(rest) => {
            let level: usize = rest.trim_end_matches('}').parse().ok()?;
            message.topic.split('/').nth(level - 1).map(str::to_string)
        }
        None => text(message.body.pointer(place)?),
    };
    for messages in heard.chunks(1000) {
        taken.take(runtime, &batch(&declared.input, messages, cell)?)?;
    }
    Ok((taken, surroundings.codes_unknown.values()))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// The columns of `input`, each cell as `cell` finds it in a record.
fn batch<T>(
    input: &BTreeMap<String, String>,
    records: &[T],
    cell: impl Fn(&T, &str) -> Option<String>,
) -> Result<RecordBatch> {
    let column = |place: &String| -> ArrayRef {
        Arc::new(records.iter().map(|record| cell(record, place)).collect::<StringArray>())
    };
    let fields: Vec<_> = input.keys().map(|name| Field::new(name, DataType::Utf8, true)).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), input.values().map(column).collect())?)
}
