//! JSON records → batches of text columns, for every source that speaks JSON.
//!
//! Values and the pointer of each column enter; one nullable text column each leaves. A value that is no text is given as
//! its JSON, so that nothing is lost on the way to the mapping.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::Value;

use crate::error::Error;

/// Nullable text columns of these names.
pub fn schema<'n>(names: impl Iterator<Item = &'n String>) -> SchemaRef {
    Arc::new(Schema::new(names.map(|name| Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>()))
}

/// One row a record; `input` gives each column its JSON pointer inside a record.
///
/// # Errors
/// `Internal`, which no record can cause.
pub fn batch(records: &[Value], input: &BTreeMap<String, String>) -> Result<RecordBatch, Error> {
    let column = |pointer: &String| -> ArrayRef {
        Arc::new(records.iter().map(|record| record.pointer(pointer).and_then(text)).collect::<StringArray>())
    };
    RecordBatch::try_new(schema(input.keys()), input.values().map(column).collect())
        .map_err(|error| Error::internal("put records together", error))
}

/// A value as text; null is none.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
