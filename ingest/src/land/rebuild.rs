//! Making a table anew from its topic, under the present contract.
//!
//! A table and a log enter; the records up to the table's position are decoded and checked again, rows that the log no
//! longer holds are carried over, and one commit switches over. Landing goes on meanwhile. Records that are bad now and
//! were not before become letters; those that are letters already are not written twice, and open letters whose records are
//! rows now are marked as resolved.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, Int32Array, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use chrono::Utc;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::{Expr, SessionContext, col, lit};
use futures::StreamExt;
use lake::Rebuild;
use schemas::{Contract, Decoder};
use topic::{Log, Position, Subscription};

use super::Land;
use super::letters::LetterBox;
use super::own::OwnTable;
use super::sieve::Sieve;
use crate::error::{Error, ErrorKind};
use crate::letter::{self, Fate, Letter, Marked};

/// Records in one batch.
const BATCH_RECORDS_MAX: usize = 16 * 1024;

/// Who has resolved the letters that a rebuild made good.
const BY: &str = "quad land --rebuild";

/// The longest that the log may stay silent about records that it holds.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What a rebuild did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    pub version: u64,
    /// Rows read from the topic again, and rows that the topic no longer holds.
    pub rows: u64,
    pub carried: u64,
    /// Records that break the contract, and how many of them were no letters before.
    pub bad: u64,
    pub letters: u64,
    /// Open letters whose records are rows now.
    pub resolved: u64,
}

/// Rebuilds the table of `contract`; `tell` hears how many records have been read, of how many.
///
/// # Errors
/// `Settings` when nothing has landed; `Log` and `Lake` when one of them fails, which leaves the table as it was.
pub async fn rebuild(
    land: &Arc<Land>,
    contract: &Arc<Contract>,
    mut tell: impl FnMut(u64, u64),
) -> Result<Rebuilt, Error> {
    let name = contract.name();
    let table = land.lake.find(contract).await?;
    let table =
        table.ok_or_else(|| Error::settings(format!("nothing has landed in {name}; there is nothing to rebuild")))?;
    let spans = spans(land, contract, &table).await?;
    let mut rebuild = Rebuild::new(table, contract.lake_schema())?;
    let mut rebuilt = Rebuilt { carried: carry_over(&mut rebuild, contract, &spans).await?, ..Rebuilt::default() };
    let total: u64 = spans.values().map(|span| (span.end - span.start).unsigned_abs()).sum();
    let sieve = Sieve::new(contract.clone(), land.timezone)?;
    let mut letters = Vec::new();
    let decoder = land.lake.decoder(contract).await?;
    let read_again = spans.clone();
    let mut reading = read(land.log.clone(), contract.topic(), decoder, spans);
    let mut read = 0;
    while let Some(part) = reading.recv().await {
        let (records, decoded, bad) = part?;
        let (rows, aside) = sieve.sift(&decoded, bad)?;
        letters.extend(aside);
        if let Some(rows) = rows {
            rebuilt.rows += rows.num_rows() as u64;
            rebuild.write(rows).await?;
        }
        read += records;
        tell(read, total);
    }
    if read < total {
        return Err(Error::new(ErrorKind::Log, format!("the log gave {read} of {total} records of {name}; try again")));
    }
    let place = |letter: &Letter| letter.place.as_ref().map(|at| (at.partition, at.offset));
    let bad: HashSet<(i32, i64)> = letters.iter().filter_map(place).collect();
    rebuilt.bad = letters.len() as u64;
    rebuilt.letters = write_letters(land, contract, letters).await?;
    (rebuilt.version, _) = rebuild.finish().await?;
    rebuilt.resolved = resolve_letters(land, contract, |at| !bad.contains(&at) && is_read(&read_again, at)).await?;
    Ok(rebuilt)
}

/// What to read of each partition: from the oldest record to where the table is.
async fn spans(
    land: &Land,
    contract: &Contract,
    table: &lake::Table,
) -> Result<BTreeMap<i32, std::ops::Range<i64>>, Error> {
    let (log, topic) = (land.log.clone(), contract.topic());
    let extents = tokio::task::spawn_blocking(move || log.extents(&topic)).await;
    let extents = extents.map_err(|error| Error::internal("ask for a topic's extent", error))??;
    let mut spans = BTreeMap::new();
    for extent in extents {
        let landed = table.next_offset(&land.settings.id, &contract.topic(), extent.partition).await?;
        let landed = landed.unwrap_or(extent.low);
        spans.insert(extent.partition, extent.low.min(landed)..landed);
    }
    Ok(spans)
}

/// Copies the rows whose records the log no longer holds.
async fn carry_over(
    rebuild: &mut Rebuild,
    contract: &Contract,
    spans: &BTreeMap<i32, std::ops::Range<i64>>,
) -> Result<u64, Error> {
    let failed = |error: datafusion::error::DataFusionError| Error {
        kind: ErrorKind::Lake,
        message: format!("could not read the rows of {}", contract.name()),
        source: Some(Box::new(error)),
    };
    let is_gone = |(partition, span): (&i32, &std::ops::Range<i64>)| {
        col("kafka_partition").eq(lit(*partition)).and(col("kafka_offset").lt(lit(span.start)))
    };
    let Some(gone) = spans.iter().filter(|(_, span)| span.start > 0).map(is_gone).reduce(Expr::or) else {
        return Ok(0);
    };
    let before = rebuild.before().await?;
    let frame = SessionContext::new().read_table(before.provider).and_then(|frame| frame.filter(gone));
    let mut stream = frame.map_err(failed)?.execute_stream().await.map_err(failed)?;
    let mut carried = 0;
    while let Some(batch) = stream.next().await {
        let batch = conform(&batch.map_err(failed)?, contract)?;
        carried += batch.num_rows() as u64;
        rebuild.write(batch).await?;
    }
    Ok(carried)
}

/// Rows of an earlier form of the table in the present one: wider types, new names, nulls for new columns.
fn conform(batch: &RecordBatch, contract: &Contract) -> Result<RecordBatch, Error> {
    let schema = contract.lake_schema();
    let stored = |name: &str| {
        let aliases = contract.field(name).map(|field| field.aliases.as_slice()).unwrap_or_default();
        let by_alias = || aliases.iter().find_map(|alias| batch.column_by_name(alias));
        batch.column_by_name(name).or_else(by_alias)
    };
    let column = |field: &Arc<arrow::datatypes::Field>| match stored(field.name()) {
        Some(column) => cast(column, field.data_type()),
        None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
    };
    let columns: Result<Vec<_>, _> = schema.fields().iter().map(column).collect();
    let batch = columns.and_then(|columns| RecordBatch::try_new(schema.clone(), columns));
    batch.map_err(|error| Error::internal("carry rows over", error))
}

type Part = Result<(u64, Vec<schemas::Decoded>, Vec<schemas::BadRecord>), Error>;

/// Reads and decodes on a thread of its own; ends early when the log fails or stays silent.
fn read(
    log: Arc<dyn Log>,
    topic: String,
    decoder: Decoder,
    spans: BTreeMap<i32, std::ops::Range<i64>>,
) -> tokio::sync::mpsc::Receiver<Part> {
    let (parts, receiver) = tokio::sync::mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = read_spans(&*log, &topic, decoder, &spans, &parts) {
            // Nobody listens any more when the rebuild has failed.
            let _ = parts.blocking_send(Err(error));
        }
    });
    receiver
}

fn read_spans(
    log: &dyn Log,
    topic: &str,
    mut decoder: Decoder,
    spans: &BTreeMap<i32, std::ops::Range<i64>>,
    parts: &tokio::sync::mpsc::Sender<Part>,
) -> Result<(), Error> {
    let wanted = spans.iter().filter(|(_, span)| !span.is_empty());
    let position = |(&partition, span): (&i32, &std::ops::Range<i64>)| Position {
        topic: topic.to_string(),
        partition,
        offset: span.start,
    };
    let positions: Vec<Position> = wanted.map(position).collect();
    if positions.is_empty() {
        return Ok(());
    }
    let mut consumer = log.consumer(Subscription::Assign(positions))?;
    let mut left: i64 = spans.values().map(|span| span.end - span.start).sum();
    let mut heard = Instant::now();
    while left > 0 && heard.elapsed() < SILENCE_MAX {
        let (mut records, mut failure) = (0, None);
        consumer.poll(BATCH_RECORDS_MAX, Duration::from_millis(500), &mut |record| {
            if spans.get(&record.partition).is_some_and(|span| record.offset < span.end) {
                records += 1;
                failure = decoder.push(record.partition, record.offset, record.value).err().or(failure.take());
            }
        })?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        if records > 0 {
            heard = Instant::now();
            left -= records;
            let (decoded, bad) = decoder.finish()?;
            if parts.blocking_send(Ok((records.unsigned_abs(), decoded, bad))).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Writes the letters of places that have none yet.
async fn write_letters(land: &Land, contract: &Contract, mut letters: Vec<Letter>) -> Result<u64, Error> {
    if letters.is_empty() {
        return Ok(0);
    }
    let known = places(land, contract).await?;
    letters.retain(|letter| letter.place.as_ref().is_some_and(|at| !known.contains(&(at.partition, at.offset))));
    let mut letter_box = LetterBox::open(land).await?;
    letter_box.add(&letters).await?;
    Ok(letters.len() as u64)
}

fn is_read(spans: &BTreeMap<i32, std::ops::Range<i64>>, (partition, offset): (i32, i64)) -> bool {
    spans.get(&partition).is_some_and(|span| span.contains(&offset))
}

/// Marks the open letters of a topic at places where there `is_row` now; how many.
async fn resolve_letters(land: &Land, contract: &Contract, is_row: impl Fn((i32, i64)) -> bool) -> Result<u64, Error> {
    let mut own = OwnTable::open(land, letter::CONTRACT).await?;
    let mut resolved = 0;
    let Some(mut open) = open_letters(land, contract).await? else { return Ok(0) };
    while let Some(batch) = open.next().await {
        let letters = letter::stored(&batch.map_err(unreadable)?)?;
        let places = |mark: &Marked| mark.letter.place.as_ref().map_or((0, 0), |at| (at.partition, at.offset));
        let note = "its record is a row since the table was rebuilt".to_string();
        let mark = |(letter, occurred_at)| Marked { letter, occurred_at, fate: Fate::Resolved, note: note.clone() };
        let marks: Vec<Marked> = letters.into_iter().map(mark).filter(|mark| is_row(places(mark))).collect();
        if marks.is_empty() {
            continue;
        }
        let partitions = Int32Array::from_iter_values(marks.iter().map(|mark| places(mark).0));
        let offsets = Int64Array::from_iter_values(marks.iter().map(|mark| places(mark).1));
        own.appender.write(own.rows(letter::marked(&marks, BY, Utc::now())?, partitions, offsets)?).await?;
        resolved += marks.len() as u64;
    }
    if resolved > 0 {
        own.commit(&[]).await?;
    }
    Ok(resolved)
}

/// The letters of a topic's records whose fate is not decided.
async fn open_letters(land: &Land, contract: &Contract) -> Result<Option<SendableRecordBatchStream>, Error> {
    let Some(snapshot) = land.lake.snapshot(&*letter::contract(&land.contracts)?).await? else { return Ok(None) };
    let context = SessionContext::new();
    let sql = format!(
        "SELECT * FROM letter WHERE topic = '{}' AND stage = 'land' AND state IS NULL \
         AND letter_id NOT IN (SELECT letter_id FROM letter WHERE state IS NOT NULL)",
        contract.topic()
    );
    context.register_table("letter", snapshot.provider).map_err(unreadable)?;
    let frame = context.sql(&sql).await.map_err(unreadable)?;
    frame.execute_stream().await.map(Some).map_err(unreadable)
}

fn unreadable(error: datafusion::error::DataFusionError) -> Error {
    let message = "could not read the dead letters".to_string();
    Error { kind: ErrorKind::Lake, message, source: Some(Box::new(error)) }
}

/// The places of a topic that have a letter.
async fn places(land: &Land, contract: &Contract) -> Result<HashSet<(i32, i64)>, Error> {
    let Some(snapshot) = land.lake.snapshot(&*letter::contract(&land.contracts)?).await? else {
        return Ok(HashSet::new());
    };
    let of_topic = col("topic").eq(lit(contract.topic())).and(col("stage").eq(lit("land")));
    let columns = vec![col("letter_partition"), col("letter_offset")];
    let frame = SessionContext::new().read_table(snapshot.provider);
    let frame = frame.and_then(|frame| frame.filter(of_topic)?.select(columns)).map_err(unreadable)?;
    let mut places = HashSet::new();
    for batch in frame.collect().await.map_err(unreadable)? {
        let partitions = batch.column(0).as_primitive::<Int32Type>();
        let offsets = cast(batch.column(1), &DataType::Int64).map_err(|error| unreadable(error.into()))?;
        let offsets = offsets.as_primitive::<Int64Type>();
        places.extend(partitions.values().iter().copied().zip(offsets.values().iter().copied()));
    }
    Ok(places)
}
