//! One table's rows as they would be taken in, with no log to take them.
//!
//! A batch of source rows enters; records, letters and the rows that the mapping leaves out leave, each with the number of
//! the row it came from. Mapping, contract and code maps are the real ones.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use crate::connector::{Connector, TableMapping};
use crate::error::Error;
use crate::extract::pipeline::check_output;
use crate::extract::records::{self, UNREADABLE};
use crate::functions::{Surroundings, UnknownCodes};
use crate::letter::Letter;
use crate::mapping::{Mapped, Mapping};
use crate::refine::{self, Records, Refiner};
use crate::settings::ExtractSettings;

/// The way of one table of one source, up to the log.
pub struct Rehearsal {
    source: String,
    pub table: TableMapping,
    sensitive: Vec<String>,
    pub mapping: Mapping,
    refiner: Refiner,
    pub codes_unknown: Arc<UnknownCodes>,
}

/// What became of a batch. Each of its rows is in exactly one of `records`, `rejected` and `left_out`.
pub struct Taken {
    pub mapped: Mapped,
    pub records: Records,
    pub rejected: Vec<(usize, Letter)>,
    /// Rows that the mapping's WHERE does not take.
    pub left_out: Vec<usize>,
}

impl Rehearsal {
    /// # Errors
    /// `Settings` for a wrong mapping, or when it hashes and has no key for it.
    pub fn new(
        extract: &ExtractSettings,
        source: &str,
        connector: &Connector,
        table: &TableMapping,
        timezone: Tz,
    ) -> Result<Self, Error> {
        connector.check_id_key(extract).map_err(|message| Error::settings(format!("{}: {message}", connector.name)))?;
        let surroundings = Surroundings::of(connector, extract, timezone);
        Ok(Self {
            source: source.to_string(),
            table: table.clone(),
            sensitive: connector.sensitive.clone(),
            mapping: Mapping::new(&connector.name, table, &surroundings)?,
            refiner: Refiner::new(table.contract.clone())?,
            codes_unknown: surroundings.codes_unknown,
        })
    }

    pub(super) fn has_sensitive(&self) -> bool {
        !self.sensitive.is_empty()
    }

    /// Maps and checks source rows, received `now`.
    ///
    /// # Errors
    /// `Settings` when the mapping does not fit the source's columns or the contract.
    pub async fn run(&self, input: &RecordBatch, now: DateTime<Utc>) -> Result<Taken, Error> {
        let contract = &self.table.contract;
        let errors = input.column_by_name(UNREADABLE).and_then(|column| column.as_string_opt::<i32>());
        let is_unreadable = |row: &usize| errors.is_some_and(|errors| errors.is_valid(*row));
        let (broken, readable): (Vec<usize>, Vec<usize>) = (0..input.num_rows()).partition(is_unreadable);
        let unreadable = refine::unreadable(&self.source, contract, input, &self.sensitive);
        let rows = &records::readable(input)?;
        let mut mapped = self.mapping.run(rows).await?;
        check_output(&self.source, &self.table, &mapped.batch.schema())?;
        let (mut records, violations) = self.refiner.records(&self.source, &mapped, now)?;
        let letters = refine::letters(&self.source, contract, rows, &mapped, &violations, &self.sensitive);
        let origins = violations.iter().map(|violation| mapped.rows[violation.row]).chain(mapped.failed.clone());
        let mut rejected: Vec<_> = origins.map(|row| readable[row]).zip(letters).collect();
        rejected.extend(broken.into_iter().zip(unreadable));
        for row in mapped.rows.iter_mut().chain(&mut mapped.failed).chain(&mut records.rows) {
            *row = readable[*row];
        }
        let taken = mapped.rows.iter().chain(&mapped.failed).collect::<std::collections::HashSet<_>>();
        let left_out = readable.iter().filter(|row| !taken.contains(row)).copied().collect();
        Ok(Taken { mapped, records, rejected, left_out })
    }

    /// As [`Rehearsal::run`], for rows that are in the contract's own columns.
    ///
    /// # Errors
    /// `Settings` when a column has a type that no field can be made of.
    pub(super) fn run_mapped(&self, batch: RecordBatch) -> Result<(StringArray, Vec<schemas::Violation>), Error> {
        let rows = (0..batch.num_rows()).collect();
        let (records, violations) =
            self.refiner.records(&self.source, &Mapped { batch, rows, failed: Vec::new() }, Utc::now())?;
        Ok((records.keys, violations))
    }
}
