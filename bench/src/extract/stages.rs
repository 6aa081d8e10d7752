//! Each step of a row's way, by itself: batches of text as a source gives them enter, processor time a row leaves.
//!
//! The mappings and code maps are the shipped ones; the rows are made up, with the habits of the sources they imitate.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use chrono::Utc;
use ingest::Connector;
use ingest::extract::state::{Cursor, Seen, State};
use ingest::functions::Surroundings;
use ingest::mapping::{Mapped, Mapping};
use ingest::refine::{Records, Refiner};
use schemas::{Checker, Contracts, Encoder, Sensitive, coerce};

use super::BATCH_ROWS_MAX;
use crate::stats::{Stage, compare};

/// Batches a round; each is another one, so that nothing is remembered from the last.
const BATCHES: usize = 50;

/// Measures and prints the steps of three shipped mappings.
///
/// # Errors
/// A mapping does not fit, or rows are lost.
pub fn run(contracts: &Contracts, runtime: &tokio::runtime::Runtime, rounds: usize, folder: &Path) -> Result<()> {
    for (connector, table, columns) in [
        ("access_hikvision", "access_event", EVENT.as_slice()),
        ("student_affairs_zf", "student_base", STUDENT.as_slice()),
        ("logistics_ecard", "card_txn", TXN.as_slice()),
    ] {
        println!("\n{connector}/{table}.sql, {} rows of {} columns", BATCHES * BATCH_ROWS_MAX, columns.len());
        let inputs = (0..BATCHES).map(|at| batch(columns, at * BATCH_ROWS_MAX)).collect::<Result<Vec<_>>>()?;
        let steps = Steps::new(contracts, runtime, connector, table, inputs, folder)?;
        let mut stages = vec![
            Stage::new("map", || steps.map()),
            Stage::new("types (coerce)", || steps.types()),
            Stage::new("rules (check)", || steps.rules()),
            Stage::new("content hash", || steps.hashes()),
            Stage::new("key", || steps.keys()),
            Stage::new("records: types, rules, hash, key", || steps.records()),
            Stage::new("messages: encoded", || steps.messages()),
            Stage::new("look up and remember", || steps.remember()),
        ];
        compare(&mut stages, rounds, BATCHES * BATCH_ROWS_MAX)?;
    }
    Ok(())
}

/// How one input column is made: the text of a row.
type Column = (&'static str, fn(usize) -> String);

const EVENT: [Column; 12] = [
    ("event_id", |row| format!("{row:08X}-5F2A-4C1D-9E7B-0123456789AB")),
    ("event_type", |row| ["198914", "196893", "197127", "198914", "197633"][row % 5].into()),
    ("happen_time", |row| format!("2026-11-24T{:02}:{:02}:{:02}.000+08:00", row / 3600 % 24, row / 60 % 60, row % 60)),
    ("src_index", |row| format!("{:032x}", row % 40)),
    ("src_name", |row| format!("D{:02}-{}[{}]", row % 20, row % 4, ["进门", "出门"][row % 2])),
    ("door_id", |row| (row % 4).to_string()),
    ("seq", |row| row.to_string()),
    ("in_out", |row| ["1", "0", "-1"][row % 3].into()),
    ("person_no", |row| format!("20240{:05}", row * 7919 % 20_000)),
    ("card_no", |row| (2_864_434_397u64 + (row as u64 * 7919 % 20_000)).to_string()),
    ("reader_kind", |row| (row % 5).to_string()),
    ("receive_time", |row| format!("2026-11-24T{:02}:{:02}:{:02}.000+08:00", row / 3600 % 24, row / 60 % 60, row % 60)),
];

const STUDENT: [Column; 22] = [
    ("XH", |row| format!("20240{row:06}")),
    ("XM", |row| ["王小明", "李华", "欧阳娜娜"][row % 3].into()),
    ("XB", |row| ["男", "女", "1", "2"][row % 4].into()),
    ("CSRQ", |row| format!("2005{:02}{:02}", row % 12 + 1, row % 28 + 1)),
    ("SFZJLXDM", |_| "A".into()),
    ("SFZJH", |row| format!("E{row:08}")),
    ("KSH", |row| format!("24110101{row:06}")),
    ("XYDM", |row| format!("0{}", row % 9 + 1)),
    ("SSSYDM", |row| format!("S{}", row % 9 + 1)),
    ("ZYDM", |row| format!("08090{}", row % 9)),
    ("BJDM", |row| format!("0809{}", row % 99)),
    ("NJDM", |_| "2024".into()),
    ("PYCC", |row| ["本科", "硕士"][row % 2].into()),
    ("XSLBM", |_| "42".into()),
    ("JDFSM", |_| "2".into()),
    ("SYDM", |_| "110105".into()),
    ("ZZMMDM", |_| "03".into()),
    ("KNCDM", |_| "3".into()),
    ("FDYGH", |row| format!("T{:04}", row % 90)),
    ("SFZX", |_| "是".into()),
    ("SFZJ", |_| "是".into()),
    ("ZHXGSJ", |row| format!("2026-11-24 {:02}:{:02}:{:02}", row / 3600 % 24, row / 60 % 60, row % 60)),
];

const TXN: [Column; 13] = [
    ("JYLSH", |row| format!("{row:012}")),
    ("ZDJH", |row| format!("T{:03}", row % 600)),
    ("KH", |row| format!("{:08}", row * 7919 % 20_000)),
    ("KXL", |row| format!("{:010}", row * 7919 % 20_000 * 3)),
    ("JYLX", |row| ["15", "15", "15", "30"][row % 4].into()),
    ("JYJE", |row| ["-12.50", "-7.00", "-3.20", "50.00"][row % 4].into()),
    ("JYYE", |row| format!("{}.{:02}", row % 500, row % 100)),
    ("LJYKCS", |row| (row / 20_000).to_string()),
    ("JYRQ", |_| "20261124".into()),
    ("JYSJ", |row| format!("{:02}{:02}{:02}", row / 3600 % 24, row / 60 % 60, row % 60)),
    ("SHDM", |row| format!("M{:03}", row % 120)),
    ("SHLB", |row| ["CT", "CT", "CT", "CT", "CS"][row % 5].into()),
    ("RZSJ", |row| format!("2026-11-24 {:02}:{:02}:{:02}", row / 3600 % 24, row / 60 % 60, row % 60)),
];

fn batch(columns: &[Column], first: usize) -> Result<RecordBatch> {
    let column = |make: fn(usize) -> String| -> ArrayRef {
        Arc::new((first..first + BATCH_ROWS_MAX).map(|row| Some(make(row))).collect::<StringArray>())
    };
    Ok(RecordBatch::try_from_iter_with_nullable(columns.iter().map(|(name, make)| (*name, column(*make), true)))?)
}

/// What each step takes, made once by the steps before it.
struct Steps<'a> {
    runtime: &'a tokio::runtime::Runtime,
    mapping: Mapping,
    refiner: Refiner,
    checker: Checker,
    encoder: Encoder,
    inputs: Vec<RecordBatch>,
    mapped: Vec<Mapped>,
    records: Vec<Records>,
    folder: &'a Path,
}

impl<'a> Steps<'a> {
    fn new(
        contracts: &Contracts,
        runtime: &'a tokio::runtime::Runtime,
        connector: &str,
        table: &str,
        inputs: Vec<RecordBatch>,
        folder: &'a Path,
    ) -> Result<Self> {
        let connector = Connector::load(Path::new("ingest/connectors"), connector, contracts)?;
        let table = connector.tables.iter().find(|known| known.name == table).context("no such table")?;
        let surroundings = Surroundings {
            timezone: chrono_tz::Tz::Asia__Shanghai,
            code_maps: connector.code_maps.clone(),
            id_key: Some(Sensitive::new("a key of the bench".into())),
            codes_unknown: Arc::default(),
        };
        let mapping = Mapping::new(&connector.name, table, &surroundings)?;
        let refiner = Refiner::new(table.contract.clone())?;
        let mut steps = Self {
            runtime,
            mapping,
            refiner,
            checker: Checker::new(&table.contract)?,
            encoder: Encoder::new(table.contract.clone()),
            inputs,
            mapped: Vec::new(),
            records: Vec::new(),
            folder,
        };
        for input in &steps.inputs {
            let mapped = runtime.block_on(steps.mapping.run(input))?;
            let (records, violations) = steps.refiner.records("bench", &mapped, Utc::now())?;
            ensure!(violations.is_empty(), "{:?}", violations[0]);
            steps.records.push(records);
            steps.mapped.push(mapped);
        }
        Ok(steps)
    }

    fn map(&self) -> Result<Duration> {
        timed(&self.inputs, |input| Ok(self.runtime.block_on(self.mapping.run(input))?.rows.len()))
    }

    fn types(&self) -> Result<Duration> {
        let contract = self.refiner.contract();
        timed(&self.mapped, |mapped| Ok(coerce::coerce(contract, &mapped.batch)?.0[0].len()))
    }

    fn rules(&self) -> Result<Duration> {
        timed(&self.records, |records| Ok(records.len() - self.checker.check(&records.batch)?.len()))
    }

    fn hashes(&self) -> Result<Duration> {
        let fields = self.refiner.contract().fields.len();
        timed(&self.records, |Records { batch, .. }| {
            let op = batch.column_by_name("op").context("no op")?;
            Ok(self.encoder.hashes(&batch.columns()[..fields], op)?.len())
        })
    }

    fn keys(&self) -> Result<Duration> {
        timed(&self.records, |records| Ok(self.encoder.keys(&records.batch)?.len()))
    }

    fn records(&self) -> Result<Duration> {
        timed(&self.mapped, |mapped| Ok(self.refiner.records("bench", mapped, Utc::now())?.0.len()))
    }

    fn messages(&self) -> Result<Duration> {
        timed(&self.records, |records| Ok(self.refiner.messages(records, Utc::now())?.len()))
    }

    /// As a first pull does: no row is known yet.
    fn remember(&self) -> Result<Duration> {
        let folder = tempfile::tempdir_in(self.folder)?;
        let state = State::open(folder.path())?;
        let table = state.table("bench", "table");
        timed(&self.records, |records| {
            let mut known = Vec::with_capacity(records.len());
            for version in records.versions() {
                ensure!(table.seen(version.key)?.is_none(), "a row that nobody has seen is known");
                let seen = Seen { hash: version.hash.to_string(), pull: 1, updated_us: version.updated_us };
                known.push((version.key, Some(seen)));
            }
            let count = known.len();
            table.save(known.into_iter(), &Cursor::default())?;
            Ok(count)
        })
    }
}

/// How long `step` takes over all batches; it says how many rows came through.
fn timed<T>(batches: &[T], mut step: impl FnMut(&T) -> Result<usize>) -> Result<Duration> {
    let started = Instant::now();
    let mut rows = 0;
    for batch in batches {
        rows += step(batch)?;
    }
    ensure!(rows == BATCHES * BATCH_ROWS_MAX, "{rows} rows came through");
    Ok(started.elapsed())
}
