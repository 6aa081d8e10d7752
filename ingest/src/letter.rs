//! Dead letters: what was wrong with a row or a record, and its bytes.
//!
//! A bad row of a source or a bad record of a topic enters; rows of the contract `platform.dead_letter` leave. The
//! same bad row gives the same letter, however often it comes. What becomes of a letter is a later row of its key, so that
//! the current table shows its state and the history keeps all.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use chrono::{DateTime, SecondsFormat, Utc};
use schemas::Contract;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// The contract of the table of letters.
pub const CONTRACT: &str = "platform.dead_letter";

/// Where a letter was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Extract,
    Land,
}

impl Stage {
    /// As the table of letters and the metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Extract => "extract",
            Self::Land => "land",
        }
    }
}

/// The place of a record on a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// One bad row or record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    pub stage: Stage,
    /// The source's id; empty when a record does not tell.
    pub source: String,
    /// The table it was for.
    pub target: String,
    pub place: Option<Place>,
    pub rule: String,
    pub field: String,
    pub message: String,
    /// JSON of the masked source row, or the record in base64.
    pub bytes: String,
}

impl Letter {
    /// A record's letter is known by its place, a row's by its content.
    pub fn id(&self) -> String {
        match &self.place {
            Some(place) => format!("{}/{}/{}", place.topic, place.partition, place.offset),
            None => {
                let mut digest = Sha256::new();
                for part in [&self.source, &self.target, &self.rule, &self.field, &self.bytes] {
                    digest.update(part.as_bytes());
                    digest.update([0]);
                }
                digest.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
            }
        }
    }
}

/// A letter as its table gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    pub letter_id: String,
    pub stage: Stage,
    #[serde(default)]
    pub source: String,
    #[serde(default)]
    pub target: String,
    #[serde(default)]
    pub topic: Option<String>,
    #[serde(default)]
    pub letter_partition: Option<i32>,
    #[serde(default)]
    pub letter_offset: Option<i64>,
    #[serde(default)]
    pub rule: String,
    #[serde(default)]
    pub field: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub bytes: String,
    /// RFC 3339.
    pub occurred_at: String,
}

impl Stored {
    /// The letter; none when its content is not that of its number.
    pub fn letter(&self) -> Option<Letter> {
        let place = match (&self.topic, self.letter_partition, self.letter_offset) {
            (Some(topic), Some(partition), Some(offset)) => Some(Place { topic: topic.clone(), partition, offset }),
            _ => None,
        };
        let letter = Letter {
            stage: self.stage,
            source: self.source.clone(),
            target: self.target.clone(),
            place,
            rule: self.rule.clone(),
            field: self.field.clone(),
            message: self.message.clone(),
            bytes: self.bytes.clone(),
        };
        Some(letter).filter(|letter| letter.id() == self.letter_id)
    }
}

/// What becomes of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its row or record was taken in after all.
    Resolved,
    /// Somebody decided that it will never be.
    Discarded,
}

/// A letter whose fate is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    pub letter: Letter,
    /// RFC 3339, as it was.
    pub occurred_at: String,
    pub fate: Fate,
    pub note: String,
}

/// Letters as mapped rows of their contract, written at `now`.
///
/// # Errors
/// `Internal` when the columns are uneven, which they cannot be.
pub fn mapped(letters: &[Letter], now: DateTime<Utc>) -> Result<RecordBatch, Error> {
    let written = now.to_rfc3339_opts(SecondsFormat::Micros, true);
    let written = text(letters, |_| Some(written.clone()));
    let columns = columns(letters).into_iter().chain([("occurred_at", written)]);
    batch(columns.collect())
}

/// The later rows of letters whose fate `by` has decided at `now`, as mapped rows of their contract.
///
/// # Errors
/// As [`mapped`].
pub fn marked(marks: &[Marked], by: &str, now: DateTime<Utc>) -> Result<RecordBatch, Error> {
    let decided = now.to_rfc3339_opts(SecondsFormat::Micros, true);
    let letters: Vec<Letter> = marks.iter().map(|mark| mark.letter.clone()).collect();
    let state = |mark: &Marked| match mark.fate {
        Fate::Resolved => "resolved",
        Fate::Discarded => "discarded",
    };
    let columns = columns(&letters).into_iter().chain([
        ("occurred_at", text(marks, |mark| Some(mark.occurred_at.clone()))),
        ("state", text(marks, |mark| Some(state(mark).to_string()))),
        ("resolved_at", text(marks, |_| Some(decided.clone()))),
        ("resolved_by", text(marks, |_| Some(by.to_string()))),
        ("note", text(marks, |mark| some(&mark.note))),
        // The time of change orders the rows of a key: the letter itself has none, and so comes before all of these.
        ("src_updated_at", text(marks, |_| Some(decided.clone()))),
    ]);
    batch(columns.collect())
}

/// Letters of landing as their table has them, each with the time it was written, RFC 3339.
///
/// # Errors
/// `Internal` when `batch` is not of that table.
pub fn stored(batch: &RecordBatch) -> Result<Vec<(Letter, String)>, Error> {
    let column = |name: &str| {
        let column = batch.column_by_name(name).ok_or_else(|| Error::internal("read letters", format!("no {name}")))?;
        cast(column, &DataType::Utf8).map_err(|error| Error::internal("read letters", error))
    };
    let names = ["source", "target", "topic", "letter_partition", "letter_offset", "rule", "field", "message", "bytes"];
    let columns = names.map(column).into_iter().collect::<Result<Vec<_>, _>>()?;
    let occurred_at = column("occurred_at")?;
    let value = |column: &ArrayRef, row: usize| {
        let text = column.as_string::<i32>();
        if text.is_null(row) { String::new() } else { text.value(row).to_string() }
    };
    let letter = |row: usize| {
        let mut values = columns.iter().map(|column| value(column, row));
        let mut next = || values.next().unwrap_or_default();
        let (source, target, topic) = (next(), next(), next());
        let (partition, offset) = (next().parse().unwrap_or_default(), next().parse().unwrap_or_default());
        let place = Some(Place { topic, partition, offset });
        let (rule, field, message, bytes) = (next(), next(), next(), next());
        let letter = Letter { stage: Stage::Land, source, target, place, rule, field, message, bytes };
        (letter, value(&occurred_at, row))
    };
    Ok((0..batch.num_rows()).map(letter).collect())
}

/// What a letter says, but when.
fn columns(letters: &[Letter]) -> Vec<(&'static str, ArrayRef)> {
    let place = |get: fn(&Place) -> String| move |letter: &Letter| letter.place.as_ref().map(get);
    vec![
        ("letter_id", text(letters, |letter| Some(letter.id()))),
        ("source", text(letters, |letter| some(&letter.source))),
        ("target", text(letters, |letter| some(&letter.target))),
        ("topic", text(letters, place(|place| place.topic.clone()))),
        ("letter_partition", text(letters, place(|place| place.partition.to_string()))),
        ("letter_offset", text(letters, place(|place| place.offset.to_string()))),
        ("rule", text(letters, |letter| Some(letter.rule.clone()))),
        ("field", text(letters, |letter| some(&letter.field))),
        ("message", text(letters, |letter| Some(letter.message.clone()))),
        ("bytes", text(letters, |letter| Some(letter.bytes.clone()))),
        ("stage", text(letters, |letter| Some(letter.stage.name().to_string()))),
    ]
}

fn text<T>(rows: &[T], value: impl Fn(&T) -> Option<String>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<StringArray>())
}

fn some(value: &str) -> Option<String> {
    Some(value.to_string()).filter(|value| !value.is_empty())
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, Error> {
    let fields: Vec<_> = columns.iter().map(|(name, _)| Field::new(*name, DataType::Utf8, true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(|error| Error::internal("write letters", error))
}

/// The contract of letters among all.
///
/// # Errors
/// `Settings` when the contracts lack it.
pub fn contract(contracts: &schemas::Contracts) -> Result<Arc<Contract>, Error> {
    let contract = contracts.get(CONTRACT);
    contract.cloned().ok_or_else(|| Error::settings(format!("the contract `{CONTRACT}` is missing")))
}
