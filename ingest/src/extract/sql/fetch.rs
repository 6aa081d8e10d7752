//! The rows of a statement as batches of text.
//!
//! A driver's cursor enters; batches of nullable text leave, columns named in upper case. A value gets as much room as the
//! driver says values of its column need, times more: MariaDB's says 19 characters where a DATETIME(3) has 23.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow_odbc::odbc_api::buffers::{TextColumnSlice, TextRowSet};
use arrow_odbc::odbc_api::{self, Cursor, DataType as SqlType, ResultSetMetadata};

use super::connection::one_line;
use crate::error::Error;
use crate::extract::source::Limits;

/// Memory for one batch on its way out of the driver.
const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Room for a time with nine digits of a second and a zone.
const TIME_BYTES: usize = 40;
/// Room for a value to begin with.
const VALUE_BYTES: usize = 16;

struct Column {
    name: String,
    bytes_max: usize,
}

/// Gives `each` the batches one after another, until it wants no more.
///
/// # Errors
/// `Source` with the driver's words, or the column whose text is too long or no UTF-8.
pub(super) fn fetch(
    mut cursor: impl Cursor,
    limits: Limits,
    mut each: impl FnMut(RecordBatch) -> bool,
) -> Result<(), Error> {
    let failed =
        |error: odbc_api::Error| Error::source(format!("could not read the query's columns: {}", one_line(&error)));
    let columns = columns(&mut cursor, limits).map_err(failed)?;
    let row_bytes: usize = columns.iter().map(|column| column.bytes_max + 1 + size_of::<isize>()).sum();
    let rows_max = (BATCH_BYTES_MAX / row_bytes.max(1)).clamp(1, limits.rows_max.max(1));
    let buffer = TextRowSet::from_max_str_lens(rows_max, columns.iter().map(|column| column.bytes_max));
    let mut cursor = cursor.bind_buffer(buffer.map_err(failed)?).map_err(failed)?;
    let fields: Vec<_> = columns.iter().map(|column| Field::new(&column.name, DataType::Utf8, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    while let Some(rows) = cursor.fetch_with_truncation_check(true).map_err(|error| unread(&error, &columns, limits))? {
        let array = |(at, column): (usize, &Column)| {
            let not_text = |_| Error::source(format!("`{}` is not UTF-8: set the driver's character set", column.name));
            text(rows.column(at)).map(|values| Arc::new(values) as ArrayRef).map_err(not_text)
        };
        let arrays = columns.iter().enumerate().map(array).collect::<Result<Vec<_>, _>>()?;
        let batch = RecordBatch::try_new(schema.clone(), arrays);
        if !each(batch.map_err(|error| Error::internal("make a batch of rows", error))?) {
            break;
        }
    }
    Ok(())
}

/// The values of a column, whose text is checked as a whole.
fn text(column: TextColumnSlice<'_, u8>) -> Result<StringArray, ArrowError> {
    let mut values = BinaryBuilder::with_capacity(column.len(), column.len() * column.max_len().min(VALUE_BYTES));
    column.iter().for_each(|value| values.append_option(value));
    let (offsets, values, nulls) = values.finish().into_parts();
    StringArray::try_new(offsets, values, nulls)
}

fn columns(cursor: &mut impl ResultSetMetadata, limits: Limits) -> Result<Vec<Column>, odbc_api::Error> {
    let count = u16::try_from(cursor.num_result_cols()?).unwrap_or_default();
    let column = |number| -> Result<Column, odbc_api::Error> {
        let bytes_max = match cursor.col_data_type(number)? {
            SqlType::Timestamp { .. } | SqlType::Time { .. } => TIME_BYTES,
            sql_type => {
                let told = sql_type.utf8_len().map_or_else(|| cursor.col_display_size(number), |len| Ok(Some(len)))?;
                told.map_or(limits.text_bytes_max, |bytes| bytes.get().min(limits.text_bytes_max))
            }
        };
        Ok(Column { name: cursor.col_name(number)?.to_uppercase(), bytes_max })
    };
    (1..=count).map(column).collect()
}

fn unread(error: &odbc_api::Error, columns: &[Column], limits: Limits) -> Error {
    let odbc_api::Error::TooLargeValueForBuffer { indicator, buffer_index } = error else {
        return Error::source(format!("could not read rows: {}", one_line(error)));
    };
    let (name, bytes_max) = columns.get(*buffer_index).map_or(("?", 0), |column| (&column.name, column.bytes_max));
    let bytes = indicator.map_or(String::new(), |bytes| format!(" of {bytes} bytes"));
    Error::source(match bytes_max == limits.text_bytes_max {
        true => format!("`{name}` has a text{bytes}, more than extract.text_bytes_max ({bytes_max})"),
        false => format!(
            "`{name}` has a text{bytes}, and the driver says that none is longer than {bytes_max}: let the query make text of \
             it, as CAST({name} AS CHAR({room})) does in many databases",
            room = indicator.unwrap_or(2 * bytes_max),
        ),
    })
}
