//! One table's lane: chunks in, commits out.
//!
//! Decoded rows enter; the good ones go to Parquet, bad ones and undecodable records become letters. A commit carries the rows and the offsets they came from. Letters are
//! committed before it, under the same positions in their own table, so that a crash between the two repeats neither.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use chrono::Utc;
use lake::{Appender, Progress};
use schemas::Contract;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;
use tracing::Instrument;

use super::Land;
use super::ledger::Ledger;
use super::letters::LetterBox;
use super::poll::Chunk;
use super::sieve::{self, Sieve};
use crate::error::Error;
use crate::landing::Landed;
use crate::letter::Letter;
use crate::metrics;

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
    /// Bytes of rows that wait for their commit, over all lanes.
    pub bytes_waiting: Arc<AtomicUsize>,
}

/// The lane of one table.
pub struct Lane {
    shared: Shared,
    contract: Arc<Contract>,
    topic: String,
    sieve: Sieve,
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
            sieve: Sieve::new(contract.clone(), shared.land.timezone)?,
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
                || (self.appender.bytes() > 0 && self.shared.bytes_waiting.load(Relaxed) >= settings.batch_bytes_max)
                || self.waiting.letters.len() >= LETTERS_WAITING_MAX;
            if is_full {
                self.commit().await?;
            }
        }
    }

    async fn take_over(&mut self, oldest: &BTreeMap<i32, i64>) -> Result<BTreeMap<i32, i64>, Error> {
        let positions = self.appender.take(&self.topic, oldest).await?;
        if !self.shared.land.is_letters(&self.contract) {
            // Their own table's positions are this lane's: it commits letters about letters itself.
            self.shared.letters.lock().await.take(&self.topic, oldest).await?;
        }
        self.shared.ledger.take(self.appender.table(), &self.topic, oldest, &positions).await?;
        for (&partition, &offset) in &positions {
            self.shared.land.landing.position(&self.contract.name(), partition, offset);
        }
        Ok(positions)
    }

    async fn give_up(&mut self, partitions: &[i32]) -> Result<(), Error> {
        self.commit().await?;
        self.appender.give_up(&self.topic, partitions);
        if !self.shared.land.is_letters(&self.contract) {
            self.shared.letters.lock().await.give_up(&self.topic, partitions);
        }
        self.shared.ledger.give_up(&self.topic, partitions).await?;
        for &partition in partitions {
            self.shared.land.landing.lost(&self.contract.name(), partition);
        }
        Ok(())
    }

    async fn take(&mut self, chunk: Chunk) -> Result<(), Error> {
        self.waiting.since.get_or_insert_with(Instant::now);
        for (partition, next_offset) in chunk.next_offsets {
            self.waiting.partitions.entry(partition).or_default().next_offset = next_offset;
        }
        let (rows, letters) = self.sieve.sift(&chunk.decoded, chunk.bad)?;
        for letter in letters {
            let place = letter.place.as_ref().expect("a letter of landing has a place");
            self.waiting.partitions.entry(place.partition).or_default().letters += 1;
            self.waiting.letters.push(letter);
        }
        if let Some(rows) = rows {
            for stretch in sieve::partitions(&rows).values().chunk_by(|one, next| one == next) {
                self.waiting.partitions.entry(stretch[0]).or_default().rows += stretch.len() as u64;
            }
            self.write(rows).await?;
        }
        Ok(())
    }

    async fn write(&mut self, rows: RecordBatch) -> Result<(), Error> {
        let before = self.appender.bytes();
        self.appender.write(rows).await?;
        self.shared.bytes_waiting.fetch_add(self.appender.bytes() - before, Relaxed);
        Ok(())
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
            let letter_box = self.shared.letters.clone();
            let mut letter_box = letter_box.lock().await;
            if self.shared.land.is_letters(&self.contract) {
                // Letters about letters go into the same table: the same commit keeps them together.
                self.write(letter_box.rows(&letters)?).await?;
            } else {
                letter_box.commit(&letters, &progress).await?;
            }
        }
        let table = self.contract.name();
        let span = metrics::span("commit", "", &table);
        let (began, bytes) = (Instant::now(), self.appender.bytes());
        let commit = self.appender.commit(&progress).instrument(span.clone()).await?;
        metrics::end_span(&span, commit.rows, letters.len(), None);
        self.waiting = Waiting::default();
        self.shared.bytes_waiting.fetch_sub(bytes, Relaxed);
        let landing = &self.shared.land.landing;
        landing.landed(commit.rows, letters.len());
        let bytes = usize::try_from(commit.landing.bytes).unwrap_or(usize::MAX);
        landing.committed(&table, Landed { rows: commit.rows, bytes, took: began.elapsed() }, &letters);
        for moved in &progress {
            landing.position(&table, moved.partition, moved.next_offset);
        }
        self.shared.ledger.note(&table, commit.version, Utc::now().timestamp_millis(), &commit.landing);
        tracing::debug!(table, rows = commit.rows, dead_letters = letters.len(), version = commit.version, "committed");
        Ok(())
    }
}
