//! Dead letters: what was wrong with a row or a record, and its bytes.
//!
//! A bad row of a source or a bad record of a topic enters; rows of the contract `platform.dead_letter` leave. The
//! same bad row gives the same letter, however often it comes.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use chrono::{DateTime, SecondsFormat, Utc};
use schemas::Contract;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// The contract of the table of letters.
pub const CONTRACT: &str = "platform.dead_letter";

/// Where a letter was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// Letters as mapped rows of their contract, written at `now`.
///
/// # Errors
/// `Internal` when the columns are uneven, which they cannot be.
pub fn mapped(letters: &[Letter], now: DateTime<Utc>) -> Result<RecordBatch, Error> {
    let text = |value: &dyn Fn(&Letter) -> Option<String>| -> ArrayRef {
        Arc::new(letters.iter().map(value).collect::<StringArray>())
    };
    let some = |value: &str| Some(value.to_string()).filter(|value| !value.is_empty());
    let place = |get: fn(&Place) -> String| move |letter: &Letter| letter.place.as_ref().map(get);
    let written = now.to_rfc3339_opts(SecondsFormat::Micros, true);
    let columns: [(&str, ArrayRef); 12] = [
        ("letter_id", text(&|letter| Some(letter.id()))),
        ("source", text(&|letter| some(&letter.source))),
        ("target", text(&|letter| some(&letter.target))),
        ("topic", text(&place(|place| place.topic.clone()))),
        ("letter_partition", text(&place(|place| place.partition.to_string()))),
        ("letter_offset", text(&place(|place| place.offset.to_string()))),
        ("rule", text(&|letter| Some(letter.rule.clone()))),
        ("field", text(&|letter| some(&letter.field))),
        ("message", text(&|letter| Some(letter.message.clone()))),
        ("bytes", text(&|letter| Some(letter.bytes.clone()))),
        ("occurred_at", text(&|_| Some(written.clone()))),
        ("stage", text(&|letter| Some(letter.stage.name().to_string()))),
    ];
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
