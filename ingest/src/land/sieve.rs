//! Decoded records → rows of the lake, and letters.
//!
//! Records enter, decoded or not; they are checked once more, since anyone may write to a topic. Every record leaves as one
//! row or as one letter with its place.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int32Array, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono_tz::Tz;
use schemas::{BadRecord, Contract, Decoded, Sifted};

use crate::error::Error;
use crate::letter::{Letter, Place, Stage};

/// The sieve of one table.
pub struct Sieve {
    inner: schemas::Sieve,
    topic: String,
}

impl Sieve {
    /// # Errors
    /// `Settings` when a rule of the contract does not compile.
    pub fn new(contract: Arc<Contract>, timezone: Tz) -> Result<Self, Error> {
        Ok(Self { topic: contract.topic(), inner: schemas::Sieve::new(contract, timezone)? })
    }

    /// The good rows, if there are any, and a letter for each bad record.
    ///
    /// # Errors
    /// `Internal`, which no record can cause.
    pub fn sift(&self, decoded: &[Decoded], bad: Vec<BadRecord>) -> Result<(Option<RecordBatch>, Vec<Letter>), Error> {
        let mut letters: Vec<Letter> = bad.into_iter().map(|bad| self.record_letter(bad)).collect();
        let Some(sifted) = self.inner.sift(decoded)? else { return Ok((None, letters)) };
        self.write_letters(&sifted, &mut letters)?;
        Ok((Some(sifted.good()?).filter(|good| good.num_rows() > 0), letters))
    }

    /// A letter for each row that breaks the contract.
    fn write_letters(&self, sifted: &Sifted, letters: &mut Vec<Letter>) -> Result<(), Error> {
        let rows = &sifted.rows;
        let partitions = partitions(rows);
        let offsets =
            rows.column_by_name("kafka_offset").expect("a lake row has its place").as_primitive::<Int64Type>();
        let sources = rows.column_by_name("src").expect("a record has a source").as_string::<i32>();
        for violation in &sifted.violations {
            letters.push(Letter {
                stage: Stage::Land,
                source: sources.value(violation.row).to_string(),
                target: self.inner.contract().name(),
                place: Some(self.place(partitions.value(violation.row), offsets.value(violation.row))),
                rule: violation.rule.clone(),
                field: violation.field.clone(),
                message: violation.message.clone(),
                bytes: row_json(rows, violation.row)?,
            });
        }
        Ok(())
    }

    fn record_letter(&self, bad: BadRecord) -> Letter {
        Letter {
            stage: Stage::Land,
            source: String::new(),
            target: self.inner.contract().name(),
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
}

/// The partition of each row.
pub fn partitions(rows: &RecordBatch) -> Int32Array {
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
