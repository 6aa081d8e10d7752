//! One table's lane: chunks in, commits out.
//!
//! Decoded rows enter and are checked once more, since anyone may write to a topic; good rows go to Parquet, bad ones
//! and undecodable records become letters. A commit carries the rows and the offsets they came from. Letters are
//! committed before it, under the same positions in their own table, so that a crash between the two repeats neither.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{Array, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow::compute::{concat, concat_batches, filter_record_batch};
use arrow::datatypes::{Int32Type, Int64Type};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use lake::{Appender, Progress};
use schemas::{BadRecord, Checker, Contract, Violation};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::poll::Chunk;
use super::{Land, rows};
use crate::error::Error;
use crate::letter::{self, Letter, Place, Stage};
use crate::mapping::Mapped;
use crate::refine::Refiner;

/// A stream of nothing but bad records commits at least this often.
const LETTERS_WAITING_MAX: usize = 10_000;

/// The lane of one table.
pub struct Lane {
    land: Arc<Land>,
    contract: Arc<Contract>,
    topic: String,
    checker: Checker,
    appender: Appender,
    letters: Arc<Mutex<LetterBox>>,
    waiting: Waiting,
}

/// What was taken from the log and is not committed.
#[derive(Default)]
struct Waiting {
    since: Option<Instant>,
    letters: Vec<Letter>,
    next_offsets: BTreeMap<i32, i64>,
}

impl Lane {
    /// # Errors
    /// `Settings` when the table has other columns than its contract; `Lake` when it cannot be opened.
    pub async fn open(land: Arc<Land>, contract: Arc<Contract>, letters: Arc<Mutex<LetterBox>>) -> Result<Self, Error> {
        let table = land.lake.table(&contract).await?;
        Ok(Self {
            topic: contract.topic(),
            checker: Checker::new(&contract)?,
            appender: Appender::new(table, &land.settings.id),
            land,
            contract,
            letters,
            waiting: Waiting::default(),
        })
    }

    /// Takes chunks until their channel closes, then commits the rest.
    ///
    /// # Errors
    /// `Lake` when a write or commit fails, `Fenced` when another process has taken over.
    pub async fn run(mut self, mut chunks: mpsc::Receiver<Chunk>) -> Result<(), Error> {
        let age_max = Duration::from_millis(self.land.settings.batch_age_ms_max);
        loop {
            let due = self.waiting.since.map(|since| since + age_max);
            let far = Instant::now() + Duration::from_secs(3600);
            tokio::select! {
                chunk = chunks.recv() => match chunk {
                    Some(chunk) => self.take(chunk).await?,
                    None => return self.commit().await,
                },
                () = tokio::time::sleep_until(due.unwrap_or(far)), if due.is_some() => self.commit().await?,
            }
            let settings = &self.land.settings;
            let is_full = self.appender.rows() >= settings.batch_rows_max
                || self.appender.bytes() >= settings.batch_bytes_max
                || self.waiting.letters.len() >= LETTERS_WAITING_MAX;
            if is_full {
                self.commit().await?;
            }
        }
    }

    async fn take(&mut self, chunk: Chunk) -> Result<(), Error> {
        self.waiting.since.get_or_insert_with(Instant::now);
        self.waiting.next_offsets.extend(chunk.next_offsets);
        let letters: Vec<Letter> = chunk.bad.into_iter().map(|bad| self.record_letter(bad)).collect();
        self.waiting.letters.extend(letters);
        let Some(rows) = self.rows(&chunk.decoded)? else {
            return Ok(());
        };
        let violations = self.checker.check(&rows)?;
        let good = if violations.is_empty() { rows } else { self.set_aside(rows, &violations)? };
        if good.num_rows() > 0 {
            self.appender.write(good).await?;
        }
        Ok(())
    }

    /// All decoded runs as one batch of lake rows.
    fn rows(&self, decoded: &[schemas::Decoded]) -> Result<Option<RecordBatch>, Error> {
        let Some(first) = decoded.first() else {
            return Ok(None);
        };
        let failed = |error| Error::internal("join decoded rows", error);
        let batch = concat_batches(&first.batch.schema(), decoded.iter().map(|part| &part.batch)).map_err(failed)?;
        let partitions: Vec<&dyn Array> = decoded.iter().map(|part| &part.partitions as &dyn Array).collect();
        let offsets: Vec<&dyn Array> = decoded.iter().map(|part| &part.offsets as &dyn Array).collect();
        let partitions = concat(&partitions).map_err(failed)?.as_primitive::<Int32Type>().clone();
        let offsets = concat(&offsets).map_err(failed)?.as_primitive::<Int64Type>().clone();
        Ok(Some(rows::rows(&self.contract, &batch, partitions, offsets, self.land.timezone)?))
    }

    /// Turns rows that break the contract into letters, and gives the others.
    fn set_aside(&mut self, rows: RecordBatch, violations: &[Violation]) -> Result<RecordBatch, Error> {
        let partitions =
            rows.column_by_name("kafka_partition").expect("a lake row has its place").as_primitive::<Int32Type>();
        let offsets =
            rows.column_by_name("kafka_offset").expect("a lake row has its place").as_primitive::<Int64Type>();
        let sources = rows.column_by_name("src").expect("a record has a source").as_string::<i32>();
        let mut is_good = vec![true; rows.num_rows()];
        for violation in violations {
            is_good[violation.row] = false;
            self.waiting.letters.push(Letter {
                stage: Stage::Land,
                source: sources.value(violation.row).to_string(),
                target: self.contract.name(),
                place: Some(self.place(partitions.value(violation.row), offsets.value(violation.row))),
                rule: violation.rule.clone(),
                field: violation.field.clone(),
                message: violation.message.clone(),
                bytes: row_json(&rows, violation.row)?,
            });
        }
        filter_record_batch(&rows, &BooleanArray::from(is_good))
            .map_err(|error| Error::internal("set bad rows aside", error))
    }

    fn record_letter(&self, bad: BadRecord) -> Letter {
        Letter {
            stage: Stage::Land,
            source: String::new(),
            target: self.contract.name(),
            place: Some(self.place(bad.partition, bad.offset)),
            rule: bad.rule.to_string(),
            field: String::new(),
            message: bad.message,
            bytes: STANDARD.encode(bad.bytes),
        }
    }

    fn place(&self, partition: i32, offset: i64) -> Place {
        Place { topic: self.topic.clone(), partition, offset }
    }

    async fn commit(&mut self) -> Result<(), Error> {
        if self.waiting.since.is_none() {
            return Ok(());
        }
        let progress: Vec<Progress> = self
            .waiting
            .next_offsets
            .iter()
            .map(|(&partition, &next_offset)| Progress { topic: self.topic.clone(), partition, next_offset })
            .collect();
        let letters = std::mem::take(&mut self.waiting.letters);
        if !letters.is_empty() {
            let mut letter_box = self.letters.lock().await;
            if self.land.is_letters(&self.contract) {
                // Letters about letters go into the same table: the same commit keeps them together.
                let rows = letter_box.rows(&letters, self.land.timezone)?;
                self.appender.write(rows).await?;
            } else {
                letter_box.commit(&letters, &self.topic, &progress, self.land.timezone).await?;
            }
        }
        let commit = self.appender.commit(&progress).await?;
        self.waiting = Waiting::default();
        let totals = &self.land.totals;
        totals.rows.fetch_add(commit.rows as u64, Ordering::Relaxed);
        totals.letters.fetch_add(letters.len() as u64, Ordering::Relaxed);
        totals.commits.fetch_add(1, Ordering::Relaxed);
        let (table, rows, version) = (self.contract.name(), commit.rows, commit.version);
        tracing::debug!(table, rows, dead_letters = letters.len(), version, "committed");
        Ok(())
    }
}

/// The table of letters, as landing writes it.
pub struct LetterBox {
    contract: Arc<Contract>,
    refiner: Refiner,
    appender: Appender,
    /// What this landing has committed of each topic's partition, so that a repeat after a crash is recognised.
    next_offsets: HashMap<(String, i32), i64>,
    landing: String,
}

impl LetterBox {
    /// # Errors
    /// As [`Lane::open`].
    pub async fn open(land: &Land) -> Result<Self, Error> {
        let contract = letter::contract(&land.contracts)?;
        let table = land.lake.table(&contract).await?;
        let landing = land.settings.id.clone();
        let refiner = Refiner::new(contract.clone())?;
        Ok(Self { refiner, contract, appender: Appender::new(table, &landing), next_offsets: HashMap::new(), landing })
    }

    async fn commit(
        &mut self,
        letters: &[Letter],
        topic: &str,
        progress: &[Progress],
        timezone: chrono_tz::Tz,
    ) -> Result<(), Error> {
        for moved in progress {
            let key = (topic.to_string(), moved.partition);
            if !self.next_offsets.contains_key(&key) {
                let known = self.appender.table().next_offset(&self.landing, topic, moved.partition).await?;
                self.next_offsets.insert(key, known.unwrap_or(0));
            }
        }
        let known =
            |place: &Place| self.next_offsets.get(&(place.topic.clone(), place.partition)).copied().unwrap_or(0);
        let is_new = |letter: &&Letter| letter.place.as_ref().is_none_or(|place| place.offset >= known(place));
        let fresh: Vec<Letter> = letters.iter().filter(is_new).cloned().collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let rows = self.rows(&fresh, timezone)?;
        self.appender.write(rows).await?;
        self.appender.commit(progress).await?;
        for moved in progress {
            self.next_offsets.insert((topic.to_string(), moved.partition), moved.next_offset);
        }
        Ok(())
    }

    /// Letters as rows of their table; a letter's place is that of its record.
    fn rows(&self, letters: &[Letter], timezone: chrono_tz::Tz) -> Result<RecordBatch, Error> {
        let now = Utc::now();
        let mapped =
            Mapped { batch: letter::mapped(letters, now)?, rows: (0..letters.len()).collect(), failed: Vec::new() };
        let (records, violations) = self.refiner.records("land", &mapped, now)?;
        if let Some(violation) = violations.first() {
            let what = format!("write a letter: {} {}", violation.field, violation.rule);
            return Err(Error::internal(what, violation.message.clone()));
        }
        let place = |get: fn(&Place) -> i64| letters.iter().map(move |letter| letter.place.as_ref().map_or(0, get));
        let partitions = place(|place| i64::from(place.partition)).map(|partition| partition as i32);
        let partitions = Int32Array::from_iter_values(partitions);
        let offsets = Int64Array::from_iter_values(place(|place| place.offset));
        rows::rows(&self.contract, &records.batch, partitions, offsets, timezone)
    }
}

/// A lake row as JSON text.
fn row_json(rows: &RecordBatch, row: usize) -> Result<String, Error> {
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    let options = FormatOptions::default();
    let mut object = serde_json::Map::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()).filter(|(_, column)| column.is_valid(row))
    {
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options);
        let formatter = formatter.map_err(|error| Error::internal("write a row down", error))?;
        object.insert(field.name().clone(), formatter.value(row).to_string().into());
    }
    Ok(serde_json::Value::Object(object).to_string())
}
