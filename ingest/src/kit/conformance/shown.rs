//! What pulls of a table have shown, counted; of the rows themselves only key and content hash are kept.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use schemas::record::timestamp_type;

use super::{Trial, leak};
use crate::connector::{Spec, TableMapping};
use crate::error::Error;
use crate::extract::pull::LETTER;
use crate::extract::source::Coverage;
use crate::kit::rehearsal::{Rehearsal, Taken};

/// The newest version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub hash: String,
    /// Microseconds since 1970.
    pub updated_us: Option<i64>,
}

/// One pull, whole or put together from its parts.
#[derive(Default)]
pub(super) struct Shown {
    pub rows: usize,
    pub left_out: usize,
    pub deletes: usize,
    pub cuts: usize,
    /// By the contract's key; a letter by [`LETTER`] and its id.
    pub versions: HashMap<String, Version>,
    /// Keys that came again with other content and no later time of change.
    pub collisions: usize,
    /// Keys that came again with other content, changed later.
    pub changes: usize,
    /// By field, rule and message.
    pub rejected: BTreeMap<(String, String, String), usize>,
    pub has_leak: bool,
    /// The columns of the source, and which of the cursor's were empty in a row.
    pub columns: Vec<String>,
    pub cursor_nulls: BTreeMap<String, usize>,
    pub cursor: Vec<String>,
    pub cursor_backwards: bool,
    pub cursor_ties: usize,
    pub batch_rows_max: usize,
    pub batch_bytes_max: usize,
    /// The longest text and its column.
    pub text_max: (usize, String),
    /// Event times, microseconds since 1970: the first, the last.
    pub events_us: Option<(i64, i64)>,
    /// The longest time from an event to the change of its row, in microseconds.
    pub lag_us_max: Option<i64>,
    pub newest_us: Option<i64>,
    pub coverage: Option<Coverage>,
    /// The row limit ended it.
    pub is_cut_short: bool,
    last_of_cursor: Option<Vec<String>>,
}

impl Shown {
    pub(super) fn letters(&self) -> usize {
        self.rejected.values().sum()
    }

    /// A source is asked once more, from a cursor that may lie before what was shown.
    pub(super) fn begin(&mut self) {
        self.last_of_cursor = None;
    }

    pub(super) fn take(
        &mut self,
        rehearsal: &Rehearsal,
        trial: &Trial<'_>,
        input: &RecordBatch,
        taken: &Taken,
    ) -> Result<(), Error> {
        self.rows += input.num_rows();
        self.left_out += taken.left_out.len();
        self.take_input(rehearsal, input);
        self.take_records(&rehearsal.table, taken)?;
        for (_, letter) in &taken.rejected {
            let reason = (letter.field.clone(), letter.rule.clone(), letter.message.clone());
            self.has_leak |= leak(trial.secrets, [letter.bytes.as_str(), letter.message.as_str()]);
            let known = Version { hash: String::new(), updated_us: None };
            if self.versions.insert(format!("{LETTER}{}", letter.id()), known).is_none() {
                *self.rejected.entry(reason).or_default() += 1;
            }
        }
        Ok(())
    }

    fn take_input(&mut self, rehearsal: &Rehearsal, input: &RecordBatch) {
        self.batch_rows_max = self.batch_rows_max.max(input.num_rows());
        self.batch_bytes_max = self.batch_bytes_max.max(input.get_array_memory_size());
        let schema = input.schema();
        if self.columns.is_empty() {
            self.columns = schema.fields().iter().map(|field| field.name().clone()).collect();
        }
        for (field, column) in schema.fields().iter().zip(input.columns()) {
            let longest = column.as_string_opt::<i32>().and_then(|text| text.iter().flatten().map(str::len).max());
            if let Some(longest) = longest.filter(|longest| *longest > self.text_max.0) {
                self.text_max = (longest, field.name().clone());
            }
        }
        let Spec::Sql(declared) = &rehearsal.table.spec else { return };
        let named = declared.cursor.iter().map(|name| (name, input.column_by_name(&name.to_uppercase())));
        let columns: Vec<_> =
            named.filter_map(|(name, column)| Some((name, column?.as_string_opt::<i32>()?))).collect();
        if columns.len() < declared.cursor.len() || columns.is_empty() {
            return;
        }
        for (name, column) in &columns {
            if column.null_count() > 0 {
                *self.cursor_nulls.entry(name.to_string()).or_default() += column.null_count();
            }
        }
        for row in 0..input.num_rows() {
            let values = columns.iter().map(|(_, column)| column.is_valid(row).then(|| column.value(row).to_string()));
            let Some(values) = values.collect::<Option<Vec<_>>>() else { continue };
            if let Some(last) = &self.last_of_cursor {
                self.cursor_ties += usize::from(*last == values);
                self.cursor_backwards |= is_before(&values[0], &last[0]);
            }
            self.last_of_cursor = Some(values);
        }
    }

    fn take_records(&mut self, table: &TableMapping, taken: &Taken) -> Result<(), Error> {
        let batch = &taken.records.batch;
        let micros = |name: &str| -> Result<Vec<Option<i64>>, Error> {
            let column = batch.column_by_name(name).ok_or_else(|| Error::internal("look at records", name))?;
            let times = cast(column, &timestamp_type()).map_err(|error| Error::internal("look at records", error))?;
            Ok(times.as_primitive::<TimestampMicrosecondType>().iter().collect())
        };
        let text = |name: &str| {
            let column = batch.column_by_name(name).filter(|column| column.data_type() == &DataType::Utf8);
            column.map(|column| column.as_string::<i32>()).ok_or_else(|| Error::internal("look at records", name))
        };
        let (hashes, operations) = (text("raw_hash")?, text("op")?);
        let (updated, events) = (micros("src_updated_at")?, micros(&table.contract.event_time)?);
        for (row, key) in taken.records.keys.iter().flatten().enumerate() {
            self.deletes += usize::from(operations.value(row) == "D");
            let version = Version { hash: hashes.value(row).to_string(), updated_us: updated[row] };
            match self.versions.get(key) {
                Some(before) if before.hash == version.hash => {}
                Some(before) if version.updated_us > before.updated_us => self.changes += 1,
                Some(_) => self.collisions += 1,
                None => {}
            }
            self.newest_us = self.newest_us.max(version.updated_us);
            if let Some(event) = events[row] {
                let (first, last) = self.events_us.unwrap_or((event, event));
                self.events_us = Some((first.min(event), last.max(event)));
                self.lag_us_max = self.lag_us_max.max(version.updated_us.map(|updated| updated - event));
            }
            let is_newest = self.versions.get(key).is_none_or(|before| version.updated_us >= before.updated_us);
            if is_newest {
                self.versions.insert(key.to_string(), version);
            }
        }
        Ok(())
    }

    /// The cursor has moved.
    pub(super) fn moved(&mut self, table: &TableMapping, cursor: &[String]) {
        let Spec::Http(asked) = &table.spec else { return };
        // A token may be anything.
        if let ([value], true) = (cursor, asked.pages.id.is_some() || asked.pages.since.is_some()) {
            let last = self.last_of_cursor.as_ref().and_then(|last| last.first());
            self.cursor_backwards |= last.is_some_and(|last| is_before(value, last));
            self.last_of_cursor = Some(cursor.to_vec());
        }
    }

    pub(super) fn ended(&mut self, coverage: Coverage, is_cut_short: bool, cursor: Vec<String>) {
        (self.coverage, self.is_cut_short, self.cursor) = (Some(coverage), is_cut_short, cursor);
    }
}

/// Whether a cursor went back; numbers are compared as such, other texts when both have one form.
fn is_before(value: &str, last: &str) -> bool {
    match (value.parse::<f64>(), last.parse::<f64>()) {
        (Ok(value), Ok(last)) => value < last,
        _ => value.len() == last.len() && value < last,
    }
}
