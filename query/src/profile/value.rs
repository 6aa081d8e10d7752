//! A value of an item. Cells of an answer enter, values leave; what is null or empty is no value.

pub mod wire;

use chrono::{DateTime, SecondsFormat};
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::scalar::ScalarValue;

/// Text, number, truth, moment, or several of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Codes and dates (YYYY-MM-DD) too.
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
    /// Microseconds UTC.
    Time(i64),
    List(Vec<Value>),
    /// In the order of the question's columns.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// The value of a column's cell.
    ///
    /// # Errors
    /// A type no item has.
    pub fn at(column: &ArrayRef, row: usize) -> Result<Option<Self>> {
        if column.is_null(row) {
            return Ok(None);
        }
        // What most items are is read as it is, without a copy between.
        Ok(Some(match column.data_type() {
            DataType::Utf8 => Self::Text(column.as_string::<i32>().value(row).to_string()),
            DataType::Int64 => Self::Int(column.as_primitive::<Int64Type>().value(row)),
            DataType::Float64 => Self::double(column.as_primitive::<Float64Type>().value(row)),
            DataType::Boolean => Self::Bool(column.as_boolean().value(row)),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Time(column.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            DataType::Date32 => {
                let day = i64::from(column.as_primitive::<Date32Type>().value(row));
                Self::Text(DateTime::from_timestamp(day * 86_400, 0).unwrap_or_default().date_naive().to_string())
            }
            DataType::List(_) => return Self::list(&column.as_list::<i32>().value(row)),
            DataType::Struct(fields) => {
                let mut object = Vec::with_capacity(fields.len());
                for (field, part) in fields.iter().zip(column.as_struct().columns()) {
                    object.extend(Self::at(part, row)?.map(|value| (field.name().clone(), value)));
                }
                return Ok((!object.is_empty()).then_some(Self::Object(object)));
            }
            _ => return Self::of(&ScalarValue::try_from_array(column, row)?),
        }))
    }

    fn of(cell: &ScalarValue) -> Result<Option<Self>> {
        if cell.is_null() {
            return Ok(None);
        }
        let value = match cell {
            ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => Self::Text(text.clone()),
            ScalarValue::Float32(Some(number)) => Self::double(f64::from(*number)),
            ScalarValue::Decimal128(Some(number), _, scale) => {
                Self::double(*number as f64 / 10_f64.powi(i32::from(*scale)))
            }
            ScalarValue::TimestampSecond(Some(at), _) => Self::Time(at * 1_000_000),
            ScalarValue::TimestampMillisecond(Some(at), _) => Self::Time(at * 1000),
            ScalarValue::TimestampNanosecond(Some(at), _) => Self::Time(at.div_euclid(1000)),
            ScalarValue::Dictionary(_, inner) => return Self::at(&inner.to_array()?, 0),
            other if other.data_type().is_integer() => match other.cast_to(&DataType::Int64)? {
                ScalarValue::Int64(Some(number)) => Self::Int(number),
                _ => return exec_err!("a whole number does not fit 64 bits"),
            },
            other => return exec_err!("no item has values of type {}", other.data_type()),
        };
        Ok(Some(value))
    }

    /// Rounded to nine places: sums in another order differ behind them, and a profile must not change by that, nor by the sign of nought.
    fn double(number: f64) -> Self {
        Self::Double((number * 1e9).round() / 1e9 + 0.0)
    }

    fn list(values: &ArrayRef) -> Result<Option<Self>> {
        let mut list = Vec::with_capacity(values.len());
        for row in 0..values.len() {
            list.extend(Self::at(values, row)?);
        }
        Ok((!list.is_empty()).then_some(Self::List(list)))
    }

    /// As JSON; moments as RFC 3339.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Int(number) => (*number).into(),
            Self::Double(number) => (*number).into(),
            Self::Bool(truth) => (*truth).into(),
            Self::Time(at) => {
                let at = DateTime::from_timestamp_micros(*at).unwrap_or_default();
                at.to_rfc3339_opts(SecondsFormat::AutoSi, true).into()
            }
            Self::List(values) => values.iter().map(Self::json).collect(),
            Self::Object(parts) => parts.iter().map(|(name, value)| (name.clone(), value.json())).collect(),
        }
    }

    /// The text of a value or of a part of it; `None` for other types.
    pub fn text(&self, part: &str) -> Option<&str> {
        match self {
            Self::Text(text) if part.is_empty() => Some(text),
            Self::Object(parts) => parts.iter().find(|(name, _)| name == part).and_then(|(_, value)| value.text("")),
            _ => None,
        }
    }

    /// The whole number of a part of a value.
    pub fn int(&self, part: &str) -> Option<i64> {
        match self {
            Self::Int(number) if part.is_empty() => Some(*number),
            Self::Object(parts) => parts.iter().find(|(name, _)| name == part).and_then(|(_, value)| value.int("")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_does_not_depend_on_the_order_of_a_sum() {
        let bits = |number: f64| match Value::double(number) {
            Value::Double(number) => number.to_bits(),
            _ => unreachable!("a number"),
        };
        assert_eq!(bits(-1e-16), bits(1e-16));
        assert_eq!(bits(0.1 + 0.2), bits(0.3));
        assert_ne!(bits(0.3), bits(0.300_000_01));
    }
}
