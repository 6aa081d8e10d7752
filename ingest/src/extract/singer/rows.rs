//! Records of a tap → batches of text columns.
//!
//! Records enter; the columns of `[input]` leave, and with them what the tap says of each. A record with a text that is too
//! long leaves as a row that says so in `_error`.

use arrow::array::RecordBatch;
use serde_json::Value;

use super::Table;
use crate::error::Error;
use crate::extract::source::Limits;
use crate::extract::{records, rows};

/// The columns that every row has: `_op` is D where the record bears a time of deletion (`_sdc_deleted_at`), else null;
/// `_value` begins a record that could not be read.
pub(super) const META: [&str; 4] = [records::UNREADABLE, "_op", "_time_extracted", records::UNREADABLE_VALUE];

/// Collects the rows of a batch.
pub(super) struct Rows<'a> {
    declared: &'a Table,
    text_bytes_max: usize,
    rows: rows::Rows,
}

impl<'a> Rows<'a> {
    pub(super) fn new(declared: &'a Table, limits: Limits) -> Self {
        let rows = rows::Rows::new(declared.columns(), limits);
        Self { declared, text_bytes_max: limits.text_bytes_max, rows }
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.is_full()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn push(&mut self, record: &Value, time_extracted: Option<&str>) {
        let cells = self.declared.input.iter().map(|(name, at)| (name, record.pointer(at).and_then(records::text)));
        let (cells, error) = match rows::checked(cells, self.text_bytes_max) {
            Ok(cells) => (cells, None),
            Err(error) => (vec![None; self.declared.input.len()], Some(error)),
        };
        let is_deleted = record.get("_sdc_deleted_at").is_some_and(|at| !at.is_null());
        let value = error.as_ref().map(|_| rows::begin(record.to_string().as_bytes(), self.text_bytes_max));
        let meta = [error, is_deleted.then(|| "D".to_string()), time_extracted.map(str::to_string), value];
        self.rows.push(cells.into_iter().chain(meta));
    }

    /// What was collected, which may be nothing.
    ///
    /// # Errors
    /// `Internal`, which no record can cause.
    pub(super) fn take(&mut self) -> Result<RecordBatch, Error> {
        self.rows.take()
    }
}
