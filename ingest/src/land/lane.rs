//! One table's lane: chunks in, commits out.
//!
//! Decoded rows enter and are checked once more, since anyone may write to a topic; good rows go to Parquet, bad ones
//! and undecodable records become letters. A commit carries the rows and the offsets they came from. Letters are
//! committed before it, under the same positions in their own table, so that a crash between the two repeats neither.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{Array, AsArray, BooleanArray, Int32Array, RecordBatch};
use arrow::compute::{concat, concat_batches, filter_record_batch};
use arrow::datatypes::{Int32Type, Int64Type};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use lake::{Appender, Progress};
use schemas::{BadRecord, Checker, Contract, Violation};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use super::ledger::Ledger;
use super::letters::LetterBox;
use super::poll::Chunk;
use super::{Land, rows};
use crate::error::Error;
use crate::letter::{Letter, Place, Stage};

/// A stream of nothing but bad records commits at least this often.
const LETTERS_WAITING_MAX: usize = 10_000;

/// What a lane is told, in order.
pub enum Order {
    Rows(Chunk),
    /// Take these partitions over, at their oldest offsets if nothing has landed; the answer is where to read on.
    Take(BTreeMap<i32, i64>, oneshot::Sender<BTreeMap<i32, i64>>),
    /// Commit, and give these partitions up.
    GiveUp(Vec<i32>, oneshot::Sender<()>),
}

/// What all lanes share.
#[derive(Clone)]
pub struct Shared {
    pub land: Arc<Land>,
    pub letters: Arc<Mutex<LetterBox>>,
    pub ledger: Arc<Ledger>,
}

/// The lane of one table.
pub struct Lane {
    shared: Shared,
    contract: Arc<Contract>,
    topic: String,
    checker: Checker,
    appender: Appender,
    waiting: Waiting,
}

/// What was taken from the log and is not committed.
#[derive(Default)]
struct Waiting {
    since: Option<Instant>,
    letters: Vec<Letter>,
    partitions: BTreeMap<i32, Part>,
}

/// What is waiting of one partition.
#[derive(Default)]
struct Part {
    next_offset: i64,
    rows: u64,
    letters: u64,
}

impl Lane {
    /// # Errors
    /// `Settings` when the table has other columns than its contract; `Lake` when it cannot be opened.
    pub async fn open(shared: Shared, contract: Arc<Contract>) -> Result<Self, Error> {
        let table = shared.land.lake.table(&contract).await?;
        Ok(Self {
            topic: contract.topic(),
            checker: Checker::new(&contract)?,
            appender: Appender::new(table, contract.lake_schema(), &shared.land.settings.id),
            shared,
            contract,
            waiting: Waiting::default(),
        })
    }

    /// Obeys until the channel closes, then commits the rest.
    ///
    /// # Errors
    /// `Lake` when a write or commit fails, `Fenced` when another process has taken over.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) -> Result<(), Error> {
        let age_max = Duration::from_millis(self.shared.land.settings.batch_age_ms_max);
        loop {
            let due = self.waiting.since.map(|since| since + age_max);
            let far = Instant::now() + Duration::from_secs(3600);
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Rows(chunk)) => self.take(chunk).await?,
                    Some(Order::Take(oldest, reply)) => {
                        // Whoever asked is gone when nobody listens.
                        let _ = reply.send(self.take_over(&oldest).await?);
                    }
                    Some(Order::GiveUp(partitions, reply)) => {
                        self.give_up(&partitions).await?;
                        let _ = reply.send(());
                    }
                    None => return self.commit().await,
                },
                () = tokio::time::sleep_until(due.unwrap_or(far)), if due.is_some() => self.commit().await?,
            }
            let settings = &self.shared.land.settings;
            let is_full = self.appender.rows() >= settings.batch_rows_max
                || self.appender.bytes() >= settings.batch_bytes_max
                || self.waiting.letters.len() >= LETTERS_WAITING_MAX;
            if is_full {
                self.commit().await?;
            }
        }
    }

    async fn take_over(&mut self, oldest: &BTreeMap<i32, i64>) -> Result<BTreeMap<i32, i64>, Error> {
        let positions = self.appender.take(&self.topic, oldest).await?;
        self.shared.letters.lock().await.take(&self.topic, oldest).await?;
        self.shared.ledger.take(self.appender.table(), &self.topic, oldest, &positions).await?;
        self.shared.land.totals.landed(&self.topic, positions.iter().map(|(&partition, &offset)| (partition, offset)));
        Ok(positions)
    }

    async fn give_up(&mut self, partitions: &[i32]) -> Result<(), Error> {
        self.commit().await?;
        self.appender.give_up(&self.topic, partitions);
        self.shared.letters.lock().await.give_up(&self.topic, partitions);
        self.shared.ledger.give_up(&self.topic, partitions).await?;
        self.shared.land.totals.forget(&self.topic, partitions);
        Ok(())
    }

    async fn take(&mut self, chunk: Chunk) -> Result<(), Error> {
        self.waiting.since.get_or_insert_with(Instant::now);
        for (partition, next_offset) in chunk.next_offsets {
            self.waiting.partitions.entry(partition).or_default().next_offset = next_offset;
        }
        for bad in chunk.bad {
            let letter = self.record_letter(bad);
            self.set_letter_aside(letter);
        }
        let Some(rows) = self.rows(&chunk.decoded)? else {
            return Ok(());
        };
        let violations = self.checker.check(&rows)?;
        let good = if violations.is_empty() { rows } else { self.set_aside(rows, &violations)? };
        for partition in partitions(&good).values() {
            self.waiting.partitions.entry(*partition).or_default().rows += 1;
        }
        if good.num_rows() > 0 {
            self.appender.write(good).await?;
        }
        Ok(())
    }

    fn set_letter_aside(&mut self, letter: Letter) {
        let place = letter.place.as_ref().expect("a letter of landing has a place");
        self.waiting.partitions.entry(place.partition).or_default().letters += 1;
        self.waiting.letters.push(letter);
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
        Ok(Some(rows::rows(&self.contract, &batch, partitions, offsets, self.shared.land.timezone)?))
    }

    /// Turns rows that break the contract into letters, and gives the others.
    fn set_aside(&mut self, rows: RecordBatch, violations: &[Violation]) -> Result<RecordBatch, Error> {
        let partitions = partitions(&rows);
        let offsets =
            rows.column_by_name("kafka_offset").expect("a lake row has its place").as_primitive::<Int64Type>();
        let sources = rows.column_by_name("src").expect("a record has a source").as_string::<i32>();
        let mut is_good = vec![true; rows.num_rows()];
        for violation in violations {
            is_good[violation.row] = false;
            self.set_letter_aside(Letter {
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
        let of_partition = |(&partition, part): (&i32, &Part)| {
            let Part { next_offset, rows, letters } = *part;
            Progress { topic: self.topic.clone(), partition, next_offset, rows, letters }
        };
        let progress: Vec<Progress> = self.waiting.partitions.iter().map(of_partition).collect();
        let letters = std::mem::take(&mut self.waiting.letters);
        if !letters.is_empty() {
            let mut letter_box = self.shared.letters.lock().await;
            if self.shared.land.is_letters(&self.contract) {
                // Letters about letters go into the same table: the same commit keeps them together.
                self.appender.write(letter_box.rows(&letters)?).await?;
            } else {
                letter_box.commit(&letters, &progress).await?;
            }
        }
        let commit = self.appender.commit(&progress).await?;
        self.waiting = Waiting::default();
        let table = self.contract.name();
        self.shared.ledger.note(&table, commit.version, Utc::now().timestamp_millis(), &commit.landing);
        let totals = &self.shared.land.totals;
        totals.rows.fetch_add(commit.rows as u64, Ordering::Relaxed);
        totals.letters.fetch_add(letters.len() as u64, Ordering::Relaxed);
        totals.commits.fetch_add(1, Ordering::Relaxed);
        totals.landed(&self.topic, progress.iter().map(|moved| (moved.partition, moved.next_offset)));
        tracing::debug!(table, rows = commit.rows, dead_letters = letters.len(), version = commit.version, "committed");
        Ok(())
    }
}

fn partitions(rows: &RecordBatch) -> Int32Array {
    rows.column_by_name("kafka_partition").expect("a lake row has its place").as_primitive::<Int32Type>().clone()
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
