//! Records of a topic → batches of text columns.
//!
//! Records enter in the order of their partitions; the columns of `[input]` leave, and with them where each row stood and
//! what it does. A record that cannot be read leaves as a row that says why in `_error`. Only a tombstone behind a
//! Debezium delete leaves nothing: the delete has said it.

use arrow::array::RecordBatch;
use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value};
use topic::Record;

use super::avro::Registry;
use super::{Format, Table};
use crate::error::Error;
use crate::extract::source::Limits;
use crate::extract::{records, rows};

/// The columns that every row has: `_op` is I, U or D where the record tells; `_timestamp` is Debezium's `ts_ms`, or else
/// the record's own; `_value` begins a record that could not be read.
pub(super) const META: [&str; 7] =
    [records::UNREADABLE, "_key", "_offset", "_op", "_partition", "_timestamp", records::UNREADABLE_VALUE];

/// What one record does to one row.
struct Change {
    op: Option<&'static str>,
    row: Value,
    timestamp_ms: Option<i64>,
}

/// Collects the rows of a batch.
pub(super) struct Rows<'a> {
    declared: &'a Table,
    /// For Avro.
    registry: Option<&'a mut Registry>,
    text_bytes_max: usize,
    rows: rows::Rows,
}

impl<'a> Rows<'a> {
    pub(super) fn new(declared: &'a Table, registry: Option<&'a mut Registry>, limits: Limits) -> Self {
        let rows = rows::Rows::new(declared.columns(), limits);
        Self { declared, registry, text_bytes_max: limits.text_bytes_max, rows }
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.is_full()
    }

    /// Takes a record, whatever it holds.
    ///
    /// # Errors
    /// `Source` when the registry of its schema does not answer.
    pub(super) fn push(&mut self, record: &Record<'_>) -> Result<(), Error> {
        let object = match record.value {
            [] => Ok(None),
            value => self.object(value)?.map(Some),
        };
        let read = object.and_then(|object| match (self.declared.format, object) {
            (Format::Json, None) => Ok(Some(Change { op: Some("D"), row: Value::Null, timestamp_ms: None })),
            (Format::Json, Some(row)) => Ok(Some(Change { op: None, row: Value::Object(row), timestamp_ms: None })),
            // A tombstone, behind the delete that has said it.
            (Format::Debezium, None) => Ok(None),
            (Format::Debezium, Some(envelope)) => debezium(envelope),
        });
        let read = read.and_then(|change| match change {
            Some(change) => self.cells(&change.row).map(|cells| Some((cells, change.op, change.timestamp_ms))),
            None => Ok(None),
        });
        let (cells, op, timestamp_ms, error) = match read {
            Ok(None) => return Ok(()),
            Ok(Some((cells, op, timestamp_ms))) => (cells, op, timestamp_ms, None),
            Err(error) => (vec![None; self.declared.input.len()], None, None, Some(error)),
        };
        let timestamp_ms = Some(timestamp_ms.unwrap_or(record.timestamp_ms)).filter(|known| *known > 0);
        let timestamp = timestamp_ms.and_then(DateTime::from_timestamp_millis);
        let key = match (&mut self.registry, record.key) {
            (Some(registry), [0, ..]) => registry.read(record.key)?.ok().map(|key| Value::Object(key).to_string()),
            (_, key) => Some(rows::begin(key, self.text_bytes_max)).filter(|key| !key.is_empty()),
        };
        let meta = [
            error.clone(),
            key,
            Some(record.offset.to_string()),
            op.map(str::to_string),
            Some(record.partition.to_string()),
            timestamp.map(|timestamp| timestamp.to_rfc3339_opts(SecondsFormat::Millis, true)),
            error.map(|_| rows::begin(record.value, self.text_bytes_max)),
        ];
        self.rows.push(cells.into_iter().chain(meta));
        Ok(())
    }

    /// The object that a value is, or what else it is.
    fn object(&mut self, value: &[u8]) -> Result<Result<Map<String, Value>, String>, Error> {
        match &mut self.registry {
            Some(registry) => registry.read(value),
            None => Ok(object(value)),
        }
    }

    fn cells(&self, row: &Value) -> Result<Vec<Option<String>>, String> {
        let input = self.declared.input.iter();
        let cells = input.map(|(name, pointer)| (name, row.pointer(pointer).and_then(records::text)));
        rows::checked(cells, self.text_bytes_max)
    }

    /// What was collected, which may be nothing.
    ///
    /// # Errors
    /// `Internal`, which no record can cause.
    pub(super) fn take(&mut self) -> Result<RecordBatch, Error> {
        self.rows.take()
    }
}

/// The change of an envelope; none for a tombstone.
fn debezium(mut envelope: Map<String, Value>) -> Result<Option<Change>, String> {
    if envelope.contains_key("schema") && envelope.contains_key("payload") {
        envelope = match envelope.remove("payload") {
            Some(Value::Object(payload)) => payload,
            Some(Value::Null) => return Ok(None),
            _ => return Err("`payload` is no object".to_string()),
        };
    }
    let (op, side) = match envelope.get("op").and_then(Value::as_str) {
        Some("c" | "r") => ("I", "after"),
        Some("u") => ("U", "after"),
        Some("d") => ("D", "before"),
        Some("t") => return Err("a TRUNCATE, which names no row: load the table anew".to_string()),
        Some(_) => return Err("`op` is none of c, u, r and d".to_string()),
        None => return Err("no `op`: not an envelope of Debezium; is the format \"json\"?".to_string()),
    };
    match envelope.remove(side) {
        Some(row @ Value::Object(_)) => {
            Ok(Some(Change { op: Some(op), row, timestamp_ms: envelope.get("ts_ms").and_then(Value::as_i64) }))
        }
        _ if op == "D" => {
            Err("a delete without `before`: give the table a primary key or a replica identity".to_string())
        }
        _ => Err(format!("no row in `{side}`")),
    }
}

fn object(value: &[u8]) -> Result<Map<String, Value>, String> {
    rows::object(rows::json(value)?)
}
