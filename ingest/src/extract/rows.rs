//! Records that come as bytes → batches of text columns, for every source that is given a stream.
//!
//! The cells of one record after the other enter; batches of nullable text columns leave, and are full at so many rows or
//! bytes. A record that cannot be read is a row as well, which says why in `records::UNREADABLE`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use serde_json::{Map, Value};

use super::records;
use super::source::Limits;
use crate::error::Error;

/// A batch is full once it is so large, however few its rows.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Collects the rows of a batch.
pub struct Rows {
    names: Vec<String>,
    columns: Vec<StringBuilder>,
    rows_max: usize,
    rows: usize,
    bytes: usize,
}

impl Rows {
    pub fn new(names: Vec<String>, limits: Limits) -> Self {
        let columns = names.iter().map(|_| StringBuilder::new()).collect();
        Self { names, columns, rows_max: limits.rows_max, rows: 0, bytes: 0 }
    }

    pub fn is_full(&self) -> bool {
        self.rows >= self.rows_max || self.bytes >= BATCH_BYTES_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Adds a row: a cell for each column, in their order.
    pub fn push(&mut self, cells: impl IntoIterator<Item = Option<String>>) {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            self.bytes += cell.as_ref().map_or(0, String::len);
            column.append_option(cell);
        }
        self.rows += 1;
    }

    /// What was collected, which may be nothing.
    ///
    /// # Errors
    /// `Internal`, which no record can cause.
    pub fn take(&mut self) -> Result<RecordBatch, Error> {
        (self.rows, self.bytes) = (0, 0);
        let columns = self.columns.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef).collect();
        RecordBatch::try_new(records::schema(self.names.iter()), columns)
            .map_err(|error| Error::internal("put records together", error))
    }
}

/// The texts of named columns, or which of them is too long.
pub fn checked<'n>(
    cells: impl Iterator<Item = (&'n String, Option<String>)>,
    bytes_max: usize,
) -> Result<Vec<Option<String>>, String> {
    let check = |(name, cell): (&String, Option<String>)| match cell {
        Some(text) if text.len() > bytes_max => {
            Err(format!("`{name}` has {} bytes, more than extract.text_bytes_max ({bytes_max})", text.len()))
        }
        cell => Ok(cell),
    };
    cells.map(check).collect()
}

/// Bytes as text, cut off behind `bytes_max`.
pub fn begin(bytes: &[u8], bytes_max: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(bytes_max)]).into_owned()
}

/// The JSON of some bytes, or where it ends to be that.
pub fn json(bytes: &[u8]) -> Result<Value, String> {
    records::parse(bytes).map_err(|error| format!("not JSON, at line {} column {}", error.line(), error.column()))
}

/// The object that a JSON value is to be.
pub fn object(value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(object) => Ok(object),
        _ => Err("JSON, but no object".to_string()),
    }
}
