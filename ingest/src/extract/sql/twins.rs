//! Rows without a key that are equal in every column: told apart by their number.
//!
//! Batches in the order of a cursor enter; the same leave with one more column, `_TWIN`: 1 for the first of equal rows, 2 for
//! the second. Equal rows stand together, or at least within one group of equal cursors, so that their numbers are the
//! same in every pull.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use crate::error::Error;

const TWIN: &str = "_TWIN";

type Cells = Vec<Option<String>>;

/// Numbers rows from batch to batch.
pub(super) struct Twins<'a> {
    cursor: &'a [String],
    /// The cursor of the rows that were last seen, and how often each of them came.
    group: Cells,
    counts: HashMap<Cells, u32>,
}

impl<'a> Twins<'a> {
    pub(super) fn new(cursor: &'a [String]) -> Self {
        Self { cursor, group: Vec::new(), counts: HashMap::new() }
    }

    /// # Errors
    /// `Settings` when a column of the cursor is missing.
    pub(super) fn number(&mut self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        let names = batch.schema();
        let missing = |name: &String| Error::settings(format!("cursor column `{name}` is not in the query"));
        let places = self.cursor.iter().map(|name| names.index_of(&name.to_uppercase()).map_err(|_| missing(name)));
        let places = places.collect::<Result<Vec<_>, _>>()?;
        let columns: Vec<_> = batch.columns().iter().map(|column| column.as_string::<i32>()).collect();
        let cell = |column: &StringArray, row: usize| column.is_valid(row).then(|| column.value(row).to_string());
        let mut numbers = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let group: Cells = places.iter().map(|&at| cell(columns[at], row)).collect();
            if group != self.group {
                self.counts.clear();
                self.group = group;
            }
            let count = self.counts.entry(columns.iter().map(|column| cell(column, row)).collect()).or_default();
            *count += 1;
            numbers.push(count.to_string());
        }
        let mut fields: Vec<_> = names.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(TWIN, DataType::Utf8, true)));
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(StringArray::from(numbers)) as ArrayRef);
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
            .map_err(|error| Error::internal("number rows", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rows_are_numbered_over_batches() {
        let cursor = ["SJ".to_string()];
        let mut twins = Twins::new(&cursor);
        let mut numbers = |rows: &[(&str, &str)]| {
            let column = |of: fn(&(&str, &str)) -> String| -> ArrayRef {
                Arc::new(rows.iter().map(|row| Some(of(row))).collect::<StringArray>())
            };
            let columns = [("SJ", column(|row| row.0.into())), ("XH", column(|row| row.1.into()))];
            let batch = RecordBatch::try_from_iter(columns).expect("a batch");
            let numbered = twins.number(&batch).expect("has the cursor");
            numbered.column(2).as_string::<i32>().iter().flatten().map(str::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(numbers(&[("1", "a"), ("1", "b"), ("1", "a"), ("2", "a"), ("2", "a")]), "1 1 2 1 2");
        assert_eq!(numbers(&[("2", "a"), ("3", "a")]), "3 1");
    }
}
