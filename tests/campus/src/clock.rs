//! Local wall-clock time (Asia/Shanghai, no summer time since 1991) and the many ways sources write it down.

use chrono::{Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};

/// `day` at a clock time.
pub fn at(day: NaiveDate, hour: u32, minute: u32, second: u32) -> NaiveDateTime {
    let time = NaiveTime::from_hms_opt(hour, minute, second).expect("callers pass a clock time below 24:00:00");
    day.and_time(time)
}

/// `day` plus seconds since its midnight; may leave the day.
pub fn second_of(day: NaiveDate, second: i64) -> NaiveDateTime {
    day.and_time(NaiveTime::MIN) + TimeDelta::seconds(second)
}

/// A date that exists.
pub fn date(year: i32, month: u32, day: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(year, month, day).expect("callers pass dates that exist")
}

pub fn days_before(day: NaiveDate, days: u64) -> NaiveDate {
    day - Days::new(days)
}

/// `2026-11-24 08:05:09`
pub fn dashed(time: NaiveDateTime) -> String {
    time.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// `2026-11-24`
pub fn dashed_date(date: NaiveDate) -> String {
    date.format("%Y-%m-%d").to_string()
}

/// `20261124`
pub fn compact_date(date: NaiveDate) -> String {
    date.format("%Y%m%d").to_string()
}

/// `20261124080509`
pub fn compact(time: NaiveDateTime) -> String {
    time.format("%Y%m%d%H%M%S").to_string()
}

/// `080509`
pub fn compact_time(time: NaiveDateTime) -> String {
    time.format("%H%M%S").to_string()
}

/// `2026-11-24T08:05:09.000+08:00`
pub fn iso(time: NaiveDateTime) -> String {
    time.format("%Y-%m-%dT%H:%M:%S.000+08:00").to_string()
}

/// A time the way a form of many hands holds it (L10): dashes, slashes, no separators, a fraction.
pub fn mixed(time: NaiveDateTime, style: usize) -> String {
    match style % 4 {
        0 => dashed(time),
        1 => time.format("%Y/%m/%d %H:%M:%S").to_string(),
        2 => compact(time),
        _ => time.format("%Y-%m-%d %H:%M:%S.0").to_string(),
    }
}

/// A date the way a form of many hands holds it (L10).
pub fn mixed_date(date: NaiveDate, style: usize) -> String {
    match style % 4 {
        0 => dashed_date(date),
        1 => format!("{}/{:02}/{:02}", date.year(), date.month(), date.day()),
        2 => compact_date(date),
        _ => format!("{} 00:00:00", dashed_date(date)),
    }
}
