//! `bench extract`: a source's rows on their way to the log, held against what the driver alone gives.
//!
//! A table of card transactions as a vendor lays it out is filled into a real PostgreSQL or MariaDB. The same statement is
//! then run in turns by a bare arrow-odbc loop, by the `sql` source, and by the whole of extract: pulled, mapped, checked,
//! encoded, in the embedded log and remembered. `stages` measures each step on batches in memory. `--wide-gb` pulls rows
//! that the database makes up, as many as you like, to see what memory that takes.

mod stages;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_odbc::odbc_api::{Connection, ConnectionOptions, environment};
use arrow_odbc::{OdbcReaderBuilder, arrow_schema_from};
use chrono_tz::Tz;
use ingest::extract::run::Extract;
use ingest::extract::source::{self, Worker};
use ingest::extract::status::State;
use ingest::{Admins, Connector, ExtractSettings, SourceSettings};
use lake::Lake;
use schemas::{Contracts, Sensitive};
use tokio::sync::watch;

use crate::stats::{Stage, compare};

/// As in the default settings, with room for wide rows.
const BATCH_ROWS_MAX: usize = 4096;
const TEXT_BYTES_MAX: usize = 4096;

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// An ODBC connection string of a database that may be filled; several are measured one after another.
    #[arg(long)]
    odbc: Vec<String>,
    #[arg(long, default_value_t = 500_000)]
    rows: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Also pulls so many GB of rows that PostgreSQL makes up.
    #[arg(long, default_value_t = 0)]
    wide_gb: usize,
}

/// The connector of the bench: the shipped mapping and code maps of card transactions, over one table.
const CONNECTOR: &str = r#"
title = "card transactions"
kind = "sql"
sensitive = ["KH"]
[tables.card_txn]
contract = "logistics.card_txn"
query = "SELECT JYLSH, ZDJH, KH, KXL, JYLX, JYJE, JYYE, LJYKCS, JYRQ, JYSJ, SHDM, SHLB, RZSJ FROM QUAD_BENCH"
pull = "cursor"
cursor = ["RZSJ", "JYLSH"]
"#;

const TABLE: &str = "CREATE TABLE QUAD_BENCH (JYLSH VARCHAR(20) NOT NULL, ZDJH VARCHAR(10), KH VARCHAR(12), \
                     KXL VARCHAR(12), JYLX VARCHAR(2), JYJE DECIMAL(10,2), JYYE DECIMAL(10,2), LJYKCS INT, JYRQ VARCHAR(8), \
                     JYSJ VARCHAR(6), SHDM VARCHAR(10), SHLB VARCHAR(2), RZSJ VARCHAR(19) NOT NULL, PRIMARY KEY (RZSJ, JYLSH))";

/// A row of about 10 kB, as many as are asked for; nothing of it is stored anywhere.
const WIDE: &str = r#"
title = "rows that the database makes up"
kind = "sql"
[tables.card_txn]
contract = "logistics.card_txn"
query = "SELECT LPAD(N::text, 20, '0') AS JYLSH, REPEAT('x', 4000) AS A, REPEAT('y', 4000) AS B, REPEAT('z', 2000) AS C FROM generate_series(1, ROWS) AS S (N)"
pull = "cursor"
cursor = ["JYLSH"]
"#;
const WIDE_ROW_BYTES: usize = 10_020;

/// Fills, measures, prints.
///
/// # Errors
/// The database does not answer, or not every row came.
pub fn run(args: &Args) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let bench = Bench { folder: folder.path(), runtime, contracts: Contracts::load(Path::new("schemas"))? };
    println!("{} rounds in turns", args.rounds);
    println!("median rate (lowest to highest), ratio to the first, processor time a row, peak memory");
    for odbc in &args.odbc {
        let by = odbc.split(';').next().unwrap_or_default();
        println!("\nlogistics.card_txn by {by}, {} rows of 13 columns", args.rows);
        fill(odbc, args.rows)?;
        bench.connector("card_txn", CONNECTOR)?;
        let statement = "SELECT * FROM (SELECT JYLSH, ZDJH, KH, KXL, JYLX, JYJE, JYYE, LJYKCS, JYRQ, JYSJ, SHDM, SHLB, RZSJ \
                         FROM QUAD_BENCH) q ORDER BY RZSJ, JYLSH";
        let mut stages = vec![
            Stage::new("driver: arrow-odbc alone", || driver(odbc, statement, args.rows)),
            Stage::new("sql source: batches of text", || bench.pull("card_txn", odbc, args.rows)),
            Stage::new("extract: to the log, remembered", || bench.extract("card_txn", odbc, args.rows)),
        ];
        compare(&mut stages, args.rounds, args.rows)?;
        if args.wide_gb > 0 && odbc.contains("PostgreSQL") {
            let rows = (args.wide_gb << 30) / WIDE_ROW_BYTES;
            bench.connector("wide", &WIDE.replace("ROWS", &rows.to_string()))?;
            println!("\n{} GB of rows that the database makes up", args.wide_gb);
            compare(&mut [Stage::new("sql source: wide rows", || bench.pull("wide", odbc, rows))], 1, rows)?;
        }
    }
    stages::run(&bench.contracts, &bench.runtime, args.rounds, folder.path())
}

/// A connection of the bench's own.
fn connect(odbc: &str) -> Result<Connection<'static>> {
    Ok(environment()?.connect_with_connection_string(odbc, ConnectionOptions::default())?)
}

/// Makes the table anew, in statements of a thousand rows.
fn fill(odbc: &str, rows: usize) -> Result<()> {
    let connection = connect(odbc)?;
    connection.execute("DROP TABLE IF EXISTS QUAD_BENCH", (), None)?;
    connection.execute(TABLE, (), None)?;
    for first in (0..rows).step_by(1000) {
        let values = (first..rows.min(first + 1000)).map(|row| {
            let (hour, minute, second) = (row / 3600 % 24, row / 60 % 60, row % 60);
            let (day, card) = (1 + row / 86_400 % 28, row * 7919 % 20_000);
            format!(
                "('{row:012}','T{:03}','{card:08}','{:010}','{}',{},{}.{:02},{},'202611{day:02}','{hour:02}{minute:02}{second:02}',\
                 'M{:03}','{}','2026-11-{day:02} {hour:02}:{minute:02}:{second:02}')",
                row % 600,
                card * 3,
                if row % 4 == 3 { "30" } else { "15" },
                if row % 4 == 3 { "50.00" } else { "-12.50" },
                row % 500,
                row % 100,
                row / 20_000,
                row % 120,
                if row % 5 == 0 { "CS" } else { "CT" },
            )
        });
        let values = values.collect::<Vec<_>>().join(",");
        connection.execute(&format!("INSERT INTO QUAD_BENCH VALUES {values}"), (), None)?;
    }
    Ok(())
}

/// The statement's rows as text, by nothing but the driver and arrow-odbc.
fn driver(odbc: &str, statement: &str, rows: usize) -> Result<Duration> {
    let started = Instant::now();
    let connection = connect(odbc)?;
    let mut cursor = connection.execute(statement, (), None)?.context("no rows")?;
    let schema = arrow_schema_from(&mut cursor, None, false)?;
    let fields = schema.fields().iter().map(|field| Field::new(field.name(), DataType::Utf8, true));
    let reader = OdbcReaderBuilder::new()
        .with_schema(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
        .with_max_num_rows_per_batch(BATCH_ROWS_MAX)
        .with_max_text_size(TEXT_BYTES_MAX)
        .build(cursor)?;
    let mut seen = 0;
    for batch in reader {
        seen += batch?.num_rows();
    }
    ensure!(seen == rows, "the driver gave {seen} rows of {rows}");
    Ok(started.elapsed())
}

struct Bench<'a> {
    folder: &'a Path,
    runtime: tokio::runtime::Runtime,
    contracts: Contracts,
}

impl Bench<'_> {
    /// Writes the connector `name`, with the shipped mapping and code maps.
    fn connector(&self, name: &str, toml: &str) -> Result<()> {
        let shipped = Path::new("ingest/connectors/logistics_ecard");
        let folder = self.folder.join("connectors").join(name);
        std::fs::create_dir_all(folder.join("codes"))?;
        std::fs::write(folder.join("connector.toml"), toml)?;
        std::fs::copy(shipped.join("card_txn.sql"), folder.join("card_txn.sql"))?;
        for set in ["jylx.csv", "shlb.csv"] {
            std::fs::copy(shipped.join("codes").join(set), folder.join("codes").join(set))?;
        }
        Ok(())
    }

    /// Only the source: batches of text, and nothing done with them.
    fn pull(&self, connector: &str, odbc: &str, rows: usize) -> Result<Duration> {
        let settings = settings(self.folder, self.folder);
        let connector = Connector::load(&settings.connectors_path, connector, &self.contracts)?;
        let source = SourceSettings { connection: Some(odbc.to_string()), ..SourceSettings::of(&connector.name) };
        let worker = Worker::alone(&settings, self.runtime.handle().clone());
        let started = Instant::now();
        let mut seen = 0;
        let mut connected = source::connect(&connector, &source, &worker)?;
        connected.pull(&connector.tables[0], &[], &mut |batch, _| {
            seen += batch.num_rows();
            Ok(())
        })?;
        ensure!(seen == rows, "the source gave {seen} rows of {rows}");
        Ok(started.elapsed())
    }

    /// One whole pull by extract, from its start to the last acknowledged record.
    fn extract(&self, connector: &str, odbc: &str, rows: usize) -> Result<Duration> {
        let folder = tempfile::tempdir_in(self.folder)?;
        let source =
            SourceSettings { connection: Some(odbc.to_string()), poll_s: 3600, ..SourceSettings::of(connector) };
        let mut topic = topic::Settings::default();
        topic.embedded.path = folder.path().join("topic");
        let log = topic::open(&topic)?;
        self.runtime.block_on(async {
            let lake = Lake::open(&lake::Settings::at(folder.path().join("lake").to_string_lossy().into_owned()))?;
            let (settings, sources) =
                (settings(folder.path(), self.folder), BTreeMap::from([("bench".into(), source)]));
            let zone = Tz::Asia__Shanghai;
            let extract = Extract::prepare(settings, sources, &self.contracts, zone, log, 4, &lake).await?;
            let (stop, shutdown) = watch::channel(false);
            let started = Instant::now();
            let running = tokio::spawn({
                let extract = extract.clone();
                async move { extract.run(shutdown).await }
            });
            let status = loop {
                let status = extract.board.report().get("bench/card_txn").cloned().unwrap_or_default();
                if status.state == State::Ok || status.failures > 0 {
                    break status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            let took = started.elapsed();
            stop.send_replace(true);
            running.await??;
            ensure!(status.records as usize == rows, "{} records of {rows} rows: {:?}", status.records, status.error);
            Ok(took)
        })
    }
}

fn settings(state: &Path, connectors: &Path) -> ExtractSettings {
    ExtractSettings {
        state_path: state.join("extract"),
        connectors_path: connectors.join("connectors"),
        http_listen: ([127, 0, 0, 1], 0).into(),
        batch_rows_max: BATCH_ROWS_MAX,
        text_bytes_max: TEXT_BYTES_MAX,
        retry_ms_min: 1000,
        retry_ms_max: 1000,
        body_bytes_max: 1 << 20,
        push_records_max: 1000,
        push_rate_max: 1000,
        replay_rate_max: 1000,
        admins: Admins::default(),
        id_key: Some(Sensitive::new("a key of the bench".into())),
    }
}
