//! Values as columns. Values of one item and its type enter, an Arrow array leaves.
//!
//! The types are those the profile service has: decimals are numbers with a fraction, whole numbers have 64 bits; dates stay
//! dates, structs and lists stay what they are.

use std::sync::Arc;

use chrono::NaiveDate;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array, ListArray, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::exec_err;
use datafusion::error::Result;
use schemas::record::timestamp_type;

use crate::error::Error;
use crate::profile::definition::{Answer, Definition};
use crate::profile::value::Value;

/// The SQL type of what a question gives as `given`.
///
/// # Errors
/// A type no item has.
pub fn sql_type(given: &DataType) -> Result<DataType, Error> {
    let part = |field: &Arc<Field>| Ok::<_, Error>(Field::new(field.name(), sql_type(field.data_type())?, true));
    Ok(match given {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => DataType::Utf8,
        DataType::Boolean => DataType::Boolean,
        DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => DataType::Float64,
        DataType::Date32 => DataType::Date32,
        DataType::Timestamp(..) => timestamp_type(),
        DataType::Dictionary(_, value) => sql_type(value)?,
        DataType::List(element) => {
            DataType::List(Arc::new(Field::new_list_field(sql_type(element.data_type())?, true)))
        }
        DataType::Struct(parts) => DataType::Struct(parts.iter().map(part).collect::<Result<Fields, _>>()?),
        whole if whole.is_integer() => DataType::Int64,
        other => {
            let message =
                format!("no item has values of type {other}; cast it to text, a number, a date or a timestamp");
            return Err(Error::settings(message));
        }
    })
}

/// The SQL type of an item that no question gives.
pub fn type_without_question(definition: &Definition) -> DataType {
    match definition {
        Definition::Answer(Answer::Computed) => DataType::Struct(Fields::from(vec![
            Field::new("snapshot", DataType::Int64, true),
            Field::new("computed_at", timestamp_type(), true),
        ])),
        _ => DataType::Utf8,
    }
}

/// A type that [`sql_type`] gives, in the words of contracts.
pub fn sql_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "string".to_string(),
        DataType::Int32 => "int".to_string(),
        DataType::Int64 => "bigint".to_string(),
        DataType::Float64 => "double".to_string(),
        DataType::Boolean => "bool".to_string(),
        DataType::Date32 => "date".to_string(),
        DataType::Timestamp(..) => "timestamp".to_string(),
        DataType::List(element) => format!("list<{}>", sql_name(element.data_type())),
        DataType::Struct(parts) => {
            let parts: Vec<_> =
                parts.iter().map(|part| format!("{} {}", part.name(), sql_name(part.data_type()))).collect();
            format!("struct<{}>", parts.join(", "))
        }
        other => other.to_string(),
    }
}

pub fn text(values: impl Iterator<Item = Option<impl AsRef<str>>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

/// Microseconds UTC.
pub fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

pub fn numbers(values: impl Iterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

/// Lists of texts; `data_type` is that of such a list.
pub fn texts<'a>(lists: impl Iterator<Item = &'a [String]>, data_type: &DataType) -> Result<ArrayRef> {
    let DataType::List(element) = data_type else { return exec_err!("{data_type} is no list") };
    let lists: Vec<&[String]> = lists.collect();
    let offsets = OffsetBuffer::from_lengths(lists.iter().map(|list| list.len()));
    let elements = text(lists.iter().flat_map(|list| list.iter()).map(Some));
    Ok(Arc::new(ListArray::try_new(element.clone(), offsets, elements, None)?))
}

/// Values of a type that [`sql_type`] gives.
///
/// # Errors
/// A value is not of the type: a mistake of ours.
pub fn values(values: &[Option<&Value>], data_type: &DataType) -> Result<ArrayRef> {
    Ok(match data_type {
        DataType::Utf8 => text(cells(values, data_type, |value| value.text(""))?.into_iter()),
        DataType::Int64 => Arc::new(Int64Array::from(cells(values, data_type, |value| value.int(""))?)),
        DataType::Float64 => Arc::new(Float64Array::from(cells(values, data_type, double)?)),
        DataType::Boolean => Arc::new(BooleanArray::from(cells(values, data_type, truth)?)),
        DataType::Date32 => Arc::new(Date32Array::from(cells(values, data_type, day)?)),
        DataType::Timestamp(..) => times(cells(values, data_type, time)?.into_iter()),
        DataType::List(element) => {
            let lists = cells(values, data_type, |value| match value {
                Value::List(list) => Some(list.as_slice()),
                _ => None,
            })?;
            let offsets = OffsetBuffer::from_lengths(lists.iter().map(|list| list.map_or(0, <[Value]>::len)));
            let elements: Vec<Option<&Value>> = lists.iter().copied().flatten().flatten().map(Some).collect();
            let elements = self::values(&elements, element.data_type())?;
            Arc::new(ListArray::try_new(element.clone(), offsets, elements, Some(validity(&lists)))?)
        }
        DataType::Struct(parts) => {
            let objects = cells(values, data_type, |value| match value {
                Value::Object(object) => Some(object.as_slice()),
                _ => None,
            })?;
            let column = |part: &Arc<Field>| {
                let given = objects.iter().map(|object| object.and_then(|object| value_of(object, part.name())));
                self::values(&given.collect::<Vec<_>>(), part.data_type())
            };
            let columns = parts.iter().map(column).collect::<Result<_>>()?;
            Arc::new(StructArray::try_new(parts.clone(), columns, Some(validity(&objects)))?)
        }
        other => return exec_err!("no item has values of type {other}"),
    })
}

fn value_of<'a>(object: &'a [(String, Value)], part: &str) -> Option<&'a Value> {
    object.iter().find(|(name, _)| name == part).map(|(_, value)| value)
}

/// Each value as `cell` takes it; what it does not take is of another type.
fn cells<'a, T>(
    values: &[Option<&'a Value>],
    data_type: &DataType,
    cell: impl Fn(&'a Value) -> Option<T>,
) -> Result<Vec<Option<T>>> {
    let cells = values.iter().map(|value| match value.map(&cell) {
        None => Ok(None),
        Some(Some(cell)) => Ok(Some(cell)),
        Some(None) => exec_err!("the value of an item is no {data_type}"),
    });
    cells.collect()
}

fn validity<T>(values: &[Option<T>]) -> NullBuffer {
    values.iter().map(Option::is_some).collect()
}

fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        _ => None,
    }
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        _ => None,
    }
}

fn time(value: &Value) -> Option<i64> {
    match value {
        Value::Time(at) => Some(*at),
        _ => None,
    }
}

/// Days since 1970.
fn day(value: &Value) -> Option<i32> {
    let day: NaiveDate = value.text("")?.parse().ok()?;
    i32::try_from(day.signed_duration_since(NaiveDate::default()).num_days()).ok()
}
