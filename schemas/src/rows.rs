//! Records and their positions → rows of the lake.
//!
//! A batch of records enters; the same rows leave with their place on the topic, the contract's version, and, in a
//! partitioned table, the local day of their event time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, TimestampMicrosecondType};
use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;

use crate::contract::Contract;
use crate::error::Error;

const MICROS_A_DAY: i64 = 86_400_000_000;

/// Offsets from UTC change only at whole quarters of an hour, so one offset serves a quarter.
const MICROS_A_QUARTER: i64 = 900_000_000;

/// Rows in the lake's schema of `contract`.
///
/// # Errors
/// `Shape` when the batch is not in the contract's record schema.
pub fn rows(
    contract: &Contract,
    records: &RecordBatch,
    partitions: Int32Array,
    offsets: Int64Array,
    timezone: Tz,
) -> Result<RecordBatch, Error> {
    let mut columns = records.columns().to_vec();
    columns.push(Arc::new(Int32Array::from(vec![contract.major_version(); records.num_rows()])));
    columns.push(Arc::new(partitions));
    columns.push(Arc::new(offsets));
    if contract.is_partitioned() {
        let time = records.column_by_name(&contract.event_time);
        let time = time.ok_or_else(|| Error::shape(format!("no column {}", contract.event_time)))?;
        columns.push(Arc::new(local_day(time, timezone)));
    }
    RecordBatch::try_new(contract.lake_schema(), columns)
        .map_err(|error| Error::shape(format!("rows of {}: {error}", contract.name())))
}

/// The day in `timezone` of each moment; a date is its own day.
pub fn local_day(time: &ArrayRef, timezone: Tz) -> Date32Array {
    if time.data_type() == &DataType::Date32 {
        return time.as_primitive::<Date32Type>().clone();
    }
    let (mut quarter, mut offset_micros) = (i64::MIN, 0);
    let mut day = |micros: i64| {
        if micros.div_euclid(MICROS_A_QUARTER) != quarter {
            quarter = micros.div_euclid(MICROS_A_QUARTER);
            offset_micros = offset(micros, timezone);
        }
        (micros + offset_micros).div_euclid(MICROS_A_DAY) as i32
    };
    time.as_primitive::<TimestampMicrosecondType>().iter().map(|micros| micros.map(&mut day)).collect()
}

fn offset(micros: i64, timezone: Tz) -> i64 {
    let Some(moment) = DateTime::from_timestamp_micros(micros) else {
        return 0;
    };
    let offset = timezone.offset_from_utc_datetime(&moment.naive_utc());
    i64::from(offset.fix().local_minus_utc()) * 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::TimestampMicrosecondArray;

    #[test]
    fn a_day_begins_at_local_midnight_also_around_leap_days_and_new_year() {
        let days = |moments: &[&str]| {
            let micros =
                moments.iter().map(|text| DateTime::parse_from_rfc3339(text).expect("a time").timestamp_micros());
            let array: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC"));
            let days = local_day(&array, Tz::Asia__Shanghai);
            days.iter().map(|day| Date32Type::to_naive_date_opt(day?).map(|day| day.to_string())).collect::<Vec<_>>()
        };
        let expected = ["2026-11-24", "2026-11-25", "2024-02-29", "2027-01-01", "1969-12-31"];
        let moments = [
            "2026-11-24T15:59:59.999999Z",
            "2026-11-24T16:00:00Z",
            "2024-02-28T16:00:00Z",
            "2026-12-31T16:00:00Z",
            "1969-12-31T15:59:59Z",
        ];
        assert_eq!(days(&moments), expected.map(|day| Some(day.to_string())));
    }
}
