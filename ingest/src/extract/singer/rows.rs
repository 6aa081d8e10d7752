//! Records of a tap → batches of text columns.
//!
//! Records enter; the columns of `[input]` leave, and with them what the tap says of each. A record with a text that is too
//! long leaves as a row that says so in `_error`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use serde_json::Value;

use super::Table;
use crate::error::Error;
use crate::extract::records;
use crate::extract::source::Limits;

/// The columns that every row has: `_op` is D where the record bears a time of deletion (`_sdc_deleted_at`), else null;
/// `_value` begins a record that could not be read.
pub(super) const META: [&str; 4] = [records::UNREADABLE, "_op", "_time_extracted", records::UNREADABLE_VALUE];

/// A batch is given once it is so large, however few its rows.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Collects the rows of a batch.
pub(super) struct Rows<'a> {
    declared: &'a Table,
    limits: Limits,
    columns: Vec<StringBuilder>,
    rows: usize,
    bytes: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(declared: &'a Table, limits: Limits) -> Self {
        let columns = declared.columns().iter().map(|_| StringBuilder::new()).collect();
        Self { declared, limits, columns, rows: 0, bytes: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows >= self.limits.rows_max || self.bytes >= BATCH_BYTES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub(super) fn push(&mut self, record: &Value, time_extracted: Option<&str>) {
        let (cells, error) = match self.cells(record) {
            Ok(cells) => (cells, None),
            Err(error) => (vec![None; self.declared.input.len()], Some(error)),
        };
        let is_deleted = record.get("_sdc_deleted_at").is_some_and(|at| !at.is_null());
        let begin = || record.to_string().chars().take(self.limits.text_bytes_max / 4).collect();
        let value = error.as_ref().map(|_| begin());
        let meta = [error, is_deleted.then(|| "D".to_string()), time_extracted.map(str::to_string), value];
        for (column, cell) in self.columns.iter_mut().zip(cells.into_iter().chain(meta)) {
            self.bytes += cell.as_ref().map_or(0, String::len);
            column.append_option(cell);
        }
        self.rows += 1;
    }

    fn cells(&self, record: &Value) -> Result<Vec<Option<String>>, String> {
        let bytes_max = self.limits.text_bytes_max;
        let cell = |(name, pointer): (&String, &String)| match record.pointer(pointer).and_then(records::text) {
            Some(text) if text.len() > bytes_max => {
                Err(format!("`{name}` has {} bytes, more than extract.text_bytes_max ({bytes_max})", text.len()))
            }
            cell => Ok(cell),
        };
        self.declared.input.iter().map(cell).collect()
    }

    /// What was collected, which may be nothing.
    ///
    /// # Errors
    /// `Internal`, which no record can cause.
    pub(super) fn take(&mut self) -> Result<RecordBatch, Error> {
        (self.rows, self.bytes) = (0, 0);
        let columns = self.columns.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef).collect();
        RecordBatch::try_new(records::schema(self.declared.columns().iter()), columns)
            .map_err(|error| Error::internal("put records together", error))
    }
}
