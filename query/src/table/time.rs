//! The wall clock in SQL: `local_time(ts)` and `local_midnight(date)`. Moments and dates enter, the school's clock and
//! moments leave.

use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;
use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Date32Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use schemas::record::timestamp_type;

const DAY_US: i64 = 86_400_000_000;
const HOUR_US: i64 = 3_600_000_000;

/// Both functions for a zone; `Settings::validate` has checked its name.
pub fn all(timezone: &str) -> Vec<ScalarUDF> {
    let zone = Tz::from_str(timezone).unwrap_or(Tz::Asia__Shanghai);
    [("local_time", timestamp_type()), ("local_midnight", DataType::Date32)]
        .into_iter()
        .map(|(name, from)| {
            let signature = Signature::exact(vec![from], Volatility::Immutable);
            ScalarUDF::from(LocalTime { name, zone: zone.name(), signature })
        })
        .collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct LocalTime {
    name: &'static str,
    zone: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for LocalTime {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::Date32] => Ok(timestamp_type()),
            _ => Ok(DataType::Timestamp(TimeUnit::Microsecond, None)),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Ok(zone) = Tz::from_str(self.zone) else { return exec_err!("{} is not a time zone", self.zone) };
        let Some(argument) = args.args.first() else { return exec_err!("{} needs one argument", self.name) };
        let array = argument.to_array(args.number_rows)?;
        let out: ArrayRef = match array.data_type() {
            DataType::Date32 => {
                let midnights = array.as_primitive::<Date32Type>();
                let to = |day: i32| midnight(zone, day).unwrap_or(i64::from(day) * DAY_US);
                Arc::new(midnights.unary::<_, TimestampMicrosecondType>(to).with_timezone("UTC"))
            }
            _ => {
                // Neighbouring rows mostly share the hour, and with it the offset from UTC.
                let mut known = (i64::MIN, 0);
                let times = array.as_primitive::<TimestampMicrosecondType>();
                let mut to = |at: i64| {
                    let hour = at.div_euclid(HOUR_US);
                    if known.0 != hour {
                        known = (hour, offset_us(zone, at));
                    }
                    at + known.1
                };
                let local: datafusion::arrow::array::TimestampMicrosecondArray =
                    times.iter().map(|at| at.map(&mut to)).collect();
                Arc::new(local)
            }
        };
        match argument {
            ColumnarValue::Scalar(_) => {
                Ok(ColumnarValue::Scalar(datafusion::scalar::ScalarValue::try_from_array(&out, 0)?))
            }
            ColumnarValue::Array(_) => Ok(ColumnarValue::Array(out)),
        }
    }
}

/// How far the zone is ahead of UTC at a moment, in microseconds.
pub fn offset_us(zone: Tz, at_us: i64) -> i64 {
    let at = DateTime::from_timestamp_micros(at_us).unwrap_or_default().naive_utc();
    i64::from(zone.offset_from_utc_datetime(&at).fix().local_minus_utc()) * 1_000_000
}

/// The moment a local day begins, in microseconds UTC. Where the clock jumps over midnight, the first moment after.
pub fn midnight(zone: Tz, day: i32) -> Option<i64> {
    let local: NaiveDateTime = DateTime::from_timestamp(i64::from(day) * 86_400, 0)?.naive_utc();
    match zone.from_local_datetime(&local) {
        LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => Some(at.timestamp_micros()),
        LocalResult::None => Some(zone.offset_from_utc_datetime(&local).fix().local_minus_utc())
            .map(|ahead| local.and_utc().timestamp_micros() - i64::from(ahead) * 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shanghai_is_eight_hours_ahead_and_once_had_summer_time() {
        let zone = Tz::Asia__Shanghai;
        let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
        assert_eq!(offset_us(zone, at("2026-07-01T00:00:00Z")), 8 * HOUR_US);
        assert_eq!(offset_us(zone, at("1990-07-01T00:00:00Z")), 9 * HOUR_US);
        assert_eq!(midnight(zone, 20_699), Some(at("2026-08-31T16:00:00Z") + 86_400_000_000 * 2));
    }
}
