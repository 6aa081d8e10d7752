//! The first rows of a table as they would be taken in.
//!
//! A source or the body of a push enters; mapped rows, letters and code values that no map knows leave, with what is
//! sensitive masked. The mapping and the contract are the real ones; nothing is written.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema};
use chrono::Utc;

use super::rehearsal::Rehearsal;
use crate::connector::{Connector, Pull, Spec, TableMapping};
use crate::error::Error;
use crate::extract::source::Source;
use crate::extract::webhook;
use crate::functions::text;
use crate::letter::Letter;
use crate::refine::MASK;

/// What would become of some rows. Each that was read is among the records, the letters or those left out.
pub struct Preview {
    pub rows_read: usize,
    /// The fields that the mapping gives, in the contract's types; those made of sensitive columns hold a mask.
    pub records: RecordBatch,
    pub letters: Vec<Letter>,
    /// Rows that the mapping's WHERE does not take.
    pub left_out: usize,
    /// Code set, value that its map lacks, and how often it was looked up.
    pub codes_unknown: Vec<(String, String, u64)>,
}

/// Some `rows_max` rows of a pulled table: the first, but of a database any, which need not sort a whole table for ten rows.
///
/// # Errors
/// As [`Source::pull`].
pub fn sampled(source: &mut dyn Source, table: &TableMapping, rows_max: usize) -> Result<RecordBatch, Error> {
    let mut table = table.clone();
    if matches!(table.spec, Spec::Sql(_)) {
        table.pull = Pull::Snapshot { deletes_share_max: 0.0 };
    }
    pulled(source, &table, rows_max)
}

/// The first `rows_max` rows of a pulled table, in their order, without columns when there are none.
///
/// # Errors
/// As [`Source::pull`].
pub fn pulled(source: &mut dyn Source, table: &TableMapping, rows_max: usize) -> Result<RecordBatch, Error> {
    let mut batches = Vec::new();
    let mut rows = 0;
    let pulled = source.pull(table, &[], &mut |batch, _| {
        rows += batch.num_rows();
        if batch.num_rows() > 0 {
            batches.push(batch);
        }
        // Only an error ends a pull early.
        if rows < rows_max { Ok(()) } else { Err(Error::source("enough rows for a preview")) }
    });
    if rows < rows_max {
        pulled?;
    }
    let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    let all = concat_batches(&schema, &batches).map_err(|error| Error::internal("join rows", error))?;
    Ok(all.slice(0, rows.min(rows_max)))
}

/// The first `rows_max` rows of a push to `table`, whose body is JSON.
///
/// # Errors
/// `Settings` when the body is not as the connector says.
pub fn pushed(table: &TableMapping, body: &[u8], rows_max: usize) -> Result<RecordBatch, Error> {
    let rows = webhook::input(table, body, usize::MAX).map_err(|refusal| Error::settings(refusal.1))?;
    Ok(rows.slice(0, rows.num_rows().min(rows_max)))
}

/// Maps and checks the rows `input` of the connector's table that is rehearsed.
///
/// # Errors
/// `Settings` when the mapping does not fit the source's columns or the contract.
pub async fn preview(rehearsal: &Rehearsal, connector: &Connector, input: &RecordBatch) -> Result<Preview, Error> {
    if input.num_rows() == 0 {
        let records = RecordBatch::new_empty(Arc::new(Schema::empty()));
        return Ok(Preview { rows_read: 0, records, letters: vec![], left_out: 0, codes_unknown: vec![] });
    }
    let taken = rehearsal.run(input, Utc::now()).await?;
    let masked = rehearsal.mapping.made_of(&connector.sensitive, input).await?;
    Ok(Preview {
        rows_read: input.num_rows(),
        records: shown(&taken.mapped.batch.schema(), &taken.records.batch, &masked)?,
        letters: taken.rejected.into_iter().map(|(_, letter)| letter).collect(),
        left_out: taken.left_out.len(),
        codes_unknown: masked_codes(rehearsal.codes_unknown.values(), input, &connector.sensitive),
    })
}

/// The columns of `records` that the mapping gives, masked.
fn shown(mapped: &Schema, records: &RecordBatch, masked: &[String]) -> Result<RecordBatch, Error> {
    let is_masked = |name: &str| masked.iter().any(|masked| masked.eq_ignore_ascii_case(name));
    let (mut fields, mut columns) = (Vec::new(), Vec::<ArrayRef>::new());
    for (field, column) in records.schema().fields().iter().zip(records.columns()) {
        // A key of the source is not shown: it may be made of what is masked.
        if field.name() == "src_key" || mapped.field_with_name(field.name()).is_err() {
            continue;
        }
        let column: ArrayRef = match is_masked(field.name()) {
            true => {
                Arc::new((0..column.len()).map(|row| column.is_valid(row).then_some(MASK)).collect::<StringArray>())
            }
            false => column.clone(),
        };
        fields.push(Field::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| Error::internal("show rows", error))
}

/// Unknown codes; one that a sensitive column holds is masked.
fn masked_codes(
    codes: Vec<(String, String, u64)>,
    input: &RecordBatch,
    sensitive: &[String],
) -> Vec<(String, String, u64)> {
    let is_sensitive = |name: &str| sensitive.iter().any(|sensitive| sensitive.eq_ignore_ascii_case(name));
    let schema = input.schema();
    let columns = schema.fields().iter().zip(input.columns()).filter(|(field, _)| is_sensitive(field.name()));
    let secret: HashSet<String> = columns
        .filter_map(|(_, column)| column.as_string_opt::<i32>())
        .flat_map(|column| column.iter().flatten().filter_map(text::clean_id).map(Into::into))
        .collect();
    let mask = |value: String| match text::clean_id(&value).is_some_and(|value| secret.contains(value.as_ref())) {
        true => MASK.to_string(),
        false => value,
    };
    codes.into_iter().map(|(set, value, times)| (set, mask(value), times)).collect()
}
