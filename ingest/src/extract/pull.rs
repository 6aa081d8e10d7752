//! One pull of one table: batches come from the source, what is new goes to the log, and what was sent is remembered.
//!
//! A connection and the memory of the table enter. Two threads share the work: this one takes a batch from the source, maps
//! and checks it, while the other leaves out of the batch before what is known, encodes the rest, appends it to the log,
//! waits for the disk, and saves the cursor.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use chrono::{DateTime, Utc};
use datafusion::common::HashMap;
use schemas::Contract;

use super::pipeline::{Pipeline, Ready, Sent};
use super::run::PreparedSource;
use super::source::{Coverage, Source, Worker};
use super::state::{Cursor, Seen, TableState, Vanished};
use crate::connector::Pull;
use crate::error::Error;
use crate::metrics;

/// One pull of one table.
pub(super) struct TablePull<'a> {
    source: &'a PreparedSource,
    worker: &'a Worker,
    sender: Sender<'a>,
}

/// A checked batch on its way to the log, and what is saved with it.
struct Batch {
    ready: Ready,
    cursor: Cursor,
    /// Source rows before this one never come again: nothing is remembered of them.
    settled: usize,
}

impl<'a> TablePull<'a> {
    pub(super) fn new(
        source: &'a PreparedSource,
        pipeline: &'a Pipeline,
        state: TableState<'a>,
        worker: &'a Worker,
    ) -> Self {
        Self { source, worker, sender: Sender { pipeline, state, pull: 0, is_new: false, sent: Sent::default() } }
    }

    /// What was sent so far.
    pub(super) fn sent(&self) -> Sent {
        self.sender.sent
    }

    /// Pulls what there is.
    ///
    /// # Errors
    /// `Source` when the source fails, `Log` and `Internal` when what came could not be sent or remembered.
    pub(super) fn run(&mut self, connection: &mut dyn Source) -> Result<(), Error> {
        let mut cursor = self.sender.state.cursor()?;
        let pull = cursor.pull + 1;
        (self.sender.pull, self.sender.is_new) = (pull, self.sender.state.is_empty()?);
        let (pipeline, after) = (self.sender.pipeline, cursor.values.clone());
        let table = &pipeline.table;
        let mut whole = None;
        if table.pull == Pull::Changes {
            // Saved with the first rows: what this pull shows looks older to a later one that shows the whole table.
            cursor.pull = pull;
        }
        let (source, worker) = (self.source, self.worker);
        let waits = connection.waits_for_the_log();
        let coverage = alongside(&mut self.sender, waits, |hand_over| {
            connection.pull(table, &after, &mut |rows, values| {
                worker.check()?;
                source.check_open(Utc::now())?;
                let settled = values.as_ref().map_or(0, |values| table.settled(&rows, values));
                match table.pull {
                    // What vanished is not known before the end: until then it must not look as if nothing had changed.
                    Pull::Snapshot { .. } => whole = values,
                    _ => cursor.values = values.unwrap_or_else(|| std::mem::take(&mut cursor.values)),
                }
                let ready = match rows.num_rows() {
                    0 => Ready::empty(pipeline.contract(), Utc::now()),
                    _ => worker.block_on(pipeline.prepare(&rows, Utc::now()))??,
                };
                hand_over(Batch { ready, cursor: cursor.clone(), settled })
            })
        })?;
        cursor.pull = pull;
        match coverage {
            Coverage::Whole => cursor.values = whole.unwrap_or(cursor.values),
            Coverage::Anew(values) => cursor.values = values,
            Coverage::Part => return Ok(()),
        }
        self.finish(&cursor)
    }

    /// A whole pull is through: what it did not see has vanished, or lies before the overlap.
    fn finish(&mut self, cursor: &Cursor) -> Result<(), Error> {
        let how = self.sender.pipeline.table.pull;
        if how == Pull::Changed {
            return self.sender.state.forget(&[], Some(cursor));
        }
        if let Pull::Snapshot { deletes_share_max } = how {
            let (vanished, known) = self.sender.state.count_unseen(cursor.pull, LETTER)?;
            if vanished as f64 / known.max(1) as f64 > deletes_share_max {
                return Err(Error::source(format!(
                    "{vanished} of {known} rows vanished from the source; nothing was deleted. If that is right, raise \
                     deletes_share_max of this table in the connector"
                )));
            }
        }
        let mut after = String::new();
        loop {
            let vanished = self.sender.state.unseen_since(cursor.pull, &after, VANISHED_MAX)?;
            let rows: Vec<_> = vanished.iter().filter(|row| !row.key.starts_with(LETTER)).collect();
            if matches!(how, Pull::Snapshot { .. } | Pull::Changes) && !rows.is_empty() {
                let deletes = deletes(self.sender.pipeline.contract(), &rows)?;
                let ready = self.sender.pipeline.prepare_mapped(deletes, Utc::now())?;
                self.sender.pipeline.send(&ready)?;
                self.sender.sent.records += ready.records.len();
            }
            let is_last = vanished.len() < VANISHED_MAX;
            self.sender.state.forget(&vanished, is_last.then_some(cursor))?;
            match vanished.last() {
                Some(last) if !is_last => after.clone_from(&last.key),
                _ => return Ok(()),
            }
        }
    }
}

/// Runs `pull` while `sender` sends what it hands over, behind it unless it `waits` for each: one batch is sent and another
/// waits. None is sent after one that could not be, which fails one of the next to be handed over, or the end.
fn alongside<T>(
    sender: &mut Sender<'_>,
    waits: bool,
    pull: impl FnOnce(&mut dyn FnMut(Batch) -> Result<(), Error>) -> Result<T, Error>,
) -> Result<T, Error> {
    let (batches, waiting) = sync_channel(1);
    let (done, is_done) = sync_channel(1);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("send".to_string());
        let sending = thread.spawn_scoped(scope, move || sender.serve(waiting, waits.then_some(done)));
        let sending = sending.map_err(|error| Error::internal("start a thread", error))?;
        // The other thread has ended, and says itself why.
        let ended = || Error::internal("send a batch", "an earlier one could not be sent");
        let pulled = pull(&mut |batch| {
            batches.send(batch).map_err(|_| ended())?;
            if waits { is_done.recv().map_err(|_| ended()) } else { Ok(()) }
        });
        // What was handed over is sent and remembered, even if the source failed after it.
        drop(batches);
        match sending.join() {
            Ok(sent) => sent.and(pulled),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The way of one pull's batches to the log and into memory.
struct Sender<'a> {
    pipeline: &'a Pipeline,
    state: TableState<'a>,
    /// The number of the pull.
    pull: u64,
    /// No row is known yet: there is nothing to look up.
    is_new: bool,
    sent: Sent,
}

impl Sender<'_> {
    /// Sends batches as they come, and tells when each is `done`.
    fn serve(&mut self, batches: Receiver<Batch>, done: Option<SyncSender<()>>) -> Result<(), Error> {
        for batch in batches {
            self.send(batch)?;
            // Nobody may be waiting any more.
            let _ = done.as_ref().map(|done| done.send(()));
        }
        Ok(())
    }

    /// Sends what is new in a batch, then saves what was sent.
    fn send(&mut self, batch: Batch) -> Result<(), Error> {
        let Batch { ready, cursor, settled } = batch;
        let Ready { records, letters, now, newest } = ready;
        let forgets_deletes = self.pipeline.table.pull == Pull::Changes;
        let total = records.len() + letters.len();
        let letter_keys: Vec<_> = letters.iter().map(|letter| format!("{LETTER}{}", letter.id())).collect();
        let before = (!self.is_new).then_some(&self.state);
        let mut known = Known { before, pull: self.pull, rows: HashMap::with_capacity(total) };
        let is_fresh = records.versions().zip(&records.rows).map(|(version, row)| {
            let keeps = match (forgets_deletes && version.is_delete, *row < settled) {
                (true, _) => Keep::Nothing,
                (false, true) => Keep::WithinTheBatch,
                (false, false) => Keep::Row,
            };
            known.is_new(version.key, version.hash, version.updated_us, keeps).map(Some)
        });
        let records = records.select(&is_fresh.collect::<Result<_, _>>()?)?;
        let mut fresh = Ready { records, letters: Vec::new(), now, newest };
        for (letter, key) in letters.into_iter().zip(&letter_keys) {
            if known.is_new(key, "", None, Keep::Row)? {
                fresh.letters.push(letter);
            }
        }
        self.state.check_room()?;
        self.pipeline.send(&fresh)?;
        self.sent.records += fresh.records.len();
        self.sent.letters += fresh.letters.len();
        let repeats = total - fresh.records.len() - fresh.letters.len();
        self.sent.repeats += repeats;
        self.sent.newest = self.sent.newest.max(fresh.newest);
        metrics::repeated(&self.pipeline.source, &self.pipeline.table.name, repeats);
        self.state.save(known.to_save(), &cursor)?;
        self.is_new &= known.to_save().next().is_none();
        Ok(())
    }
}

/// What becomes of a row in memory.
#[derive(Clone, Copy, PartialEq)]
enum Keep {
    Row,
    /// It never comes again; another row of the same batch may be the same.
    WithinTheBatch,
    /// It is deleted, and what is gone is not remembered.
    Nothing,
}

/// What is known of the rows of a batch.
struct Known<'a> {
    /// What is known from before; none while that is nothing.
    before: Option<&'a TableState<'a>>,
    pull: u64,
    /// By key: its last version, unless that is forgotten, and whether this is to be saved.
    rows: HashMap<&'a str, (Option<Last<'a>>, bool)>,
}

/// The last version of a row.
struct Last<'a> {
    hash: Cow<'a, str>,
    updated_us: Option<i64>,
}

impl<'a> Known<'a> {
    /// Whether a row differs from what was sent of it last.
    fn is_new(&mut self, key: &'a str, hash: &'a str, updated_us: Option<i64>, keep: Keep) -> Result<bool, Error> {
        let last = match self.rows.remove(key) {
            Some((last, _)) => last,
            None => self.before.map_or(Ok(None), |state| state.seen(key))?.map(Last::from),
        };
        let is_new = last.as_ref().is_none_or(|last| last.hash != hash);
        let updated_us = updated_us.max(last.and_then(|last| last.updated_us));
        let now = (keep != Keep::Nothing).then_some(Last { hash: Cow::Borrowed(hash), updated_us });
        self.rows.insert(key, (now, keep != Keep::WithinTheBatch));
        Ok(is_new)
    }

    fn to_save(&self) -> impl Iterator<Item = (&str, Option<Seen>)> {
        let rows = self.rows.iter().filter(|(_, (_, is_saved))| *is_saved);
        rows.map(|(key, (last, _))| {
            let seen = |last: &Last| Seen { hash: last.hash.to_string(), pull: self.pull, updated_us: last.updated_us };
            (*key, last.as_ref().map(seen))
        })
    }
}

impl From<Seen> for Last<'_> {
    fn from(seen: Seen) -> Self {
        Self { hash: Cow::Owned(seen.hash), updated_us: seen.updated_us }
    }
}

/// Rows that vanished that are deleted at once.
const VANISHED_MAX: usize = 4096;

/// Marks a letter among the keys that were seen; no contract key begins with it.
pub(crate) const LETTER: &str = "\u{1}letter/";

/// Rows that delete: the key's fields, `op` = D, and the change time of the version that is deleted. So the delete wins over
/// that version by its place in the log, and a row that comes back wins over the delete, whatever any clock says.
pub(crate) fn deletes(contract: &Contract, rows: &[&Vanished]) -> Result<RecordBatch, Error> {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (at, name) in contract.key.iter().enumerate() {
        fields.push(Field::new(name, DataType::Utf8, true));
        columns.push(Arc::new(rows.iter().map(|row| row.key.split('|').nth(at)).collect::<StringArray>()));
    }
    fields.push(Field::new("op", DataType::Utf8, true));
    columns.push(Arc::new(StringArray::from(vec!["D"; rows.len()])));
    fields.push(Field::new("src_updated_at", DataType::Utf8, true));
    let updated = |row: &&Vanished| Some(DateTime::from_timestamp_micros(row.updated_us?)?.to_rfc3339());
    columns.push(Arc::new(rows.iter().map(updated).collect::<StringArray>()));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| Error::internal("delete rows", error))
}
