//! Mapped columns → the contract's types. Text that does not parse becomes a violation, never an error.
//!
//! A batch of mapped columns (usually text) enters; a batch in the record's field types leaves, with the rows
//! whose values could not be read. Empty text is an absent value for every type but string.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Schema, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use crate::check::Violation;
use crate::contract::{Contract, Field, FieldType};
use crate::error::Error;
use crate::record::timestamp_type;
use crate::rfc3339;

/// Gives each field of `contract` its column, by name; a column the mapping does not have is all null.
///
/// Returns columns in the order of the contract's fields, without the envelope. All fields are nullable here:
/// what must be present is for [`crate::Checker`] to say.
///
/// # Errors
/// `Shape` when a column has a type that no cast leads from, or when it has no contract field of its name.
pub fn coerce(contract: &Contract, mapped: &RecordBatch) -> Result<(Vec<ArrayRef>, Vec<Violation>), Error> {
    let mut violations = Vec::new();
    let mut columns = Vec::with_capacity(contract.fields.len());
    for field in &contract.fields {
        columns.push(match mapped.column_by_name(&field.name) {
            Some(column) => coerce_column(field, column, &mut violations)?,
            None => new_null_array(&field.field_type.arrow(), mapped.num_rows()),
        });
    }
    Ok((columns, violations))
}

/// The columns of `mapped` that are neither a field nor one of `others`: mistakes in a mapping.
pub fn unknown_columns(contract: &Contract, mapped: &Schema, others: &[&str]) -> Vec<String> {
    let names = mapped.fields().iter().map(|field| field.name());
    let unknown = names.filter(|name| contract.field(name).is_none() && !others.contains(&name.as_str()));
    unknown.cloned().collect()
}

fn coerce_column(field: &Field, column: &ArrayRef, violations: &mut Vec<Violation>) -> Result<ArrayRef, Error> {
    let target = field.field_type.arrow();
    if column.data_type() == &target {
        return Ok(column.clone());
    }
    let text = match column.data_type() {
        DataType::Utf8View | DataType::LargeUtf8 => cast(field, column, &DataType::Utf8)?,
        _ => column.clone(),
    };
    let present = match text.data_type() {
        DataType::Utf8 if field.field_type != FieldType::String => blank_to_null(text),
        _ => text,
    };
    let typed = cast(field, &present, &target)?;
    if typed.null_count() > present.null_count() {
        let lost = (0..typed.len()).filter(|&row| typed.is_null(row) && present.is_valid(row));
        violations.extend(lost.map(|row| Violation {
            row,
            field: field.name.clone(),
            rule: "type".to_string(),
            message: format!("not a {}", type_name(field.field_type)),
        }));
    }
    Ok(typed)
}

fn cast(field: &Field, column: &ArrayRef, target: &DataType) -> Result<ArrayRef, Error> {
    values(column, target).map_err(|_| {
        let found = column.data_type();
        Error::shape(format!("column `{}` is a {found}, which cannot become a {target}", field.name))
    })
}

/// `column` as `target`; what cannot be read is null.
///
/// # Errors
/// When no cast leads there from the column's type.
pub fn values(column: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    if *target != timestamp_type() || !column.data_type().is_string() {
        return cast_with_options(column, target, &options);
    }
    // Nearly all times have been written by ourselves.
    if let Some(text) = column.as_string_opt::<i32>()
        && let Some(times) =
            text.iter().map(|text| text.map_or(Some(None), |text| rfc3339::read(text).map(Some))).collect()
    {
        let times: TimestampMicrosecondArray = times;
        return Ok(Arc::new(times.with_data_type(timestamp_type())));
    }
    // A text without a zone is in UTC either way, and to read it so does not ask the database of zones.
    let naive = cast_with_options(column, &DataType::Timestamp(TimeUnit::Microsecond, None), &options)?;
    Ok(Arc::new(naive.as_primitive::<TimestampMicrosecondType>().clone().with_data_type(timestamp_type())))
}

/// Text without outer white space; nothing left is null.
fn blank_to_null(text: ArrayRef) -> ArrayRef {
    let values = text.as_string::<i32>();
    if values.iter().flatten().all(|value| !value.is_empty() && value.trim().len() == value.len()) {
        return text;
    }
    let trimmed = values.iter().map(|value| value.map(str::trim).filter(|value| !value.is_empty()));
    Arc::new(trimmed.collect::<StringArray>())
}

fn type_name(field_type: FieldType) -> String {
    match field_type {
        FieldType::String => "string".into(),
        FieldType::Int => "32-bit integer".into(),
        FieldType::BigInt => "64-bit integer".into(),
        FieldType::Bool => "boolean (true, false, 1, 0)".into(),
        FieldType::Date => "date (YYYY-MM-DD)".into(),
        FieldType::Timestamp => "timestamp (RFC 3339)".into(),
        FieldType::Double => "number".into(),
        FieldType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
    }
}
