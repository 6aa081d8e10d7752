//! JSON records → batches of text columns, for every source that speaks JSON.
//!
//! Values and the pointer of each column enter; one nullable text column each leaves. A value that is no text is given as
//! its JSON, so that nothing is lost on the way to the mapping.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringBuilder};
use arrow::compute::{filter_record_batch, is_null};
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
        let mut column = StringBuilder::new();
        for record in records {
            match at(record, pointer) {
                None | Some(Value::Null) => column.append_null(),
                Some(Value::String(text)) => column.append_value(text),
                Some(other) => column.append_value(other.to_string()),
            }
        }
        Arc::new(column.finish())
    };
    RecordBatch::try_new(schema(input.keys()), input.values().map(column).collect())
        .map_err(|error| Error::internal("put records together", error))
}

/// As [`Value::pointer`], which copies each name that it looks up: here are no copies where all are plain names.
fn at<'v>(record: &'v Value, pointer: &str) -> Option<&'v Value> {
    let Some(names) = pointer.strip_prefix('/').filter(|names| !names.contains('~')) else {
        return record.pointer(pointer);
    };
    names.split('/').try_fold(record, |value, name| match value {
        Value::Object(members) => members.get(name),
        list => list.pointer(&format!("/{name}")),
    })
}

/// The column in which a source says why a record could not be read; such a row becomes a dead letter as it is, unmapped.
/// A batch without it has no such rows.
pub const UNREADABLE: &str = "_error";
/// The column in which it gives the beginning of such a record.
pub const UNREADABLE_VALUE: &str = "_value";

/// The rows that could be read.
///
/// # Errors
/// `Internal`, which no record can cause.
pub fn readable(input: &RecordBatch) -> Result<RecordBatch, Error> {
    let Some(errors) = input.column_by_name(UNREADABLE).filter(|errors| errors.null_count() < errors.len()) else {
        return Ok(input.clone());
    };
    let is_readable = is_null(errors).and_then(|readable| filter_record_batch(input, &readable));
    is_readable.map_err(|error| Error::internal("set unreadable records aside", error))
}

/// The longest number that a parsed value is sure to hold as it was written.
const DIGITS_MAX: usize = 15;

/// Parses JSON in which no number loses a digit: one that is too long, or has an exponent, is a text of its digits.
///
/// # Errors
/// As `serde_json`; its position is that in `json`, but for numbers before it that became texts.
pub fn parse(json: &[u8]) -> serde_json::Result<Value> {
    let (mut quoted, mut copied, mut at) = (Vec::new(), 0, 0);
    while at < json.len() {
        let begin = at;
        match json[at] {
            b'"' => {
                at += 1;
                while at < json.len() && json[at] != b'"' {
                    at += if json[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                let number = &json[begin..begin + json[begin..].iter().take_while(is_part).count()];
                at += number.len();
                if number.len() > DIGITS_MAX || number.iter().any(|byte| b"eE".contains(byte)) {
                    quoted.extend_from_slice(&json[copied..begin]);
                    quoted.push(b'"');
                    quoted.extend_from_slice(number);
                    quoted.push(b'"');
                    copied = at;
                }
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return serde_json::from_slice(json);
    }
    quoted.extend_from_slice(&json[copied..]);
    serde_json::from_slice(&quoted)
}

/// A value as text; null is none.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_place_in_a_record_is_that_of_the_pointer() {
        let record = json!({ "a": { "b": [1, { "c": 2 }], "": 3 }, "x/y": 4, "m~n": 5, "0": 6 });
        for pointer in [
            "", "/a", "/a/b/0", "/a/b/1/c", "/a/b/01", "/a/b/2", "/a/", "/x~1y", "/m~0n", "/0", "/a/b/c", "a", "/",
            "/0/1",
        ] {
            assert_eq!(at(&record, pointer), record.pointer(pointer), "{pointer}");
        }
    }

    #[test]
    fn no_number_loses_a_digit() {
        let json = r#"{"a":123456789012345678901234,"b":[0.10000000000000000001,-1E400,7,-2.5],"1e5\\":"a \" 123456789012345678"}"#;
        let value = parse(json.as_bytes()).expect("JSON");
        let read = |pointer| value.pointer(pointer).and_then(text).unwrap_or_default();
        let told = ["/a", "/b/0", "/b/1", "/b/2", "/b/3", "/1e5\\"].map(read).join(" ");
        assert_eq!(told, "123456789012345678901234 0.10000000000000000001 -1E400 7 -2.5 a \" 123456789012345678");
        for wrong in ["{\"a\":\"", "\"\\", "12345678901234567890,", "", "{12345678901234567890:1"] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
