//! Times as sources write them: moved, compared with the clock, and made of it.
//!
//! A text as a source writes it enters; another time in the same format leaves, or whether it is still to come. A cursor is
//! moved back, so that rows which come late are seen, and kept from running ahead.

use chrono::{DateTime, Duration, FixedOffset, NaiveDateTime, SecondsFormat, SubsecRound, TimeZone, Utc};
use chrono_tz::Tz;

/// Whole numbers from here on are milliseconds: as seconds they would be the year 5138.
const MILLISECONDS_MIN: i64 = 100_000_000_000;

/// Times that do not name their zone.
const LOCAL: [&str; 3] = ["%Y-%m-%d %H:%M:%S%.f", "%Y/%m/%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];

/// A time that was read, and how it was written.
enum Time {
    Seconds(i64),
    Milliseconds(i64),
    Zoned(DateTime<FixedOffset>),
    Local(NaiveDateTime, &'static str),
}

impl Time {
    fn read(value: &str) -> Option<Self> {
        if let Ok(number) = value.parse::<i64>() {
            return Some(if number >= MILLISECONDS_MIN { Self::Milliseconds(number) } else { Self::Seconds(number) });
        }
        if let Ok(time) = DateTime::parse_from_rfc3339(value) {
            return Some(Self::Zoned(time));
        }
        let local = |format| Some(Self::Local(NaiveDateTime::parse_from_str(value, format).ok()?, format));
        LOCAL.into_iter().find_map(local)
    }

    /// `None` beyond what a calendar holds.
    fn moved(self, seconds: i64) -> Option<Self> {
        let by = Duration::try_seconds(seconds);
        Some(match self {
            Self::Seconds(number) => Self::Seconds(number.saturating_add(seconds)),
            Self::Milliseconds(number) => Self::Milliseconds(number.saturating_add(seconds.saturating_mul(1000))),
            Self::Zoned(time) => Self::Zoned(time.checked_add_signed(by?)?),
            Self::Local(time, format) => Self::Local(time.checked_add_signed(by?)?, format),
        })
    }

    /// As text, with as many digits of a second as `model` has.
    fn write(&self, model: &str) -> String {
        let fraction = model.split_once('.').map_or("", |(_, rest)| rest);
        let (digits, format_digits) = match fraction.bytes().take_while(u8::is_ascii_digit).count() {
            3 => (SecondsFormat::Millis, "%.3f"),
            6 => (SecondsFormat::Micros, "%.6f"),
            _ => (SecondsFormat::AutoSi, "%.f"),
        };
        match self {
            Self::Seconds(number) | Self::Milliseconds(number) => number.to_string(),
            Self::Zoned(time) if model.contains('T') => time.to_rfc3339_opts(digits, true),
            Self::Zoned(time) => time.to_rfc3339_opts(digits, true).replace('T', " "),
            Self::Local(time, format) => time.format(&format.replace("%.f", format_digits)).to_string(),
        }
    }
}

/// `None` when the value is neither a time nor a number.
pub fn earlier(value: &str, seconds: u64) -> Option<String> {
    Some(Time::read(value)?.moved(-i64::try_from(seconds).ok()?)?.write(value))
}

/// As [`earlier`], in the other direction.
pub fn later(value: &str, seconds: u64) -> Option<String> {
    Some(Time::read(value)?.moved(i64::try_from(seconds).ok()?)?.write(value))
}

/// Whether both are times, written alike, and the one comes before the other.
pub fn is_earlier(value: &str, than: &str) -> bool {
    match (Time::read(value), Time::read(than)) {
        (Some(Time::Seconds(one)), Some(Time::Seconds(other))) => one < other,
        (Some(Time::Milliseconds(one)), Some(Time::Milliseconds(other))) => one < other,
        (Some(Time::Zoned(one)), Some(Time::Zoned(other))) => one < other,
        (Some(Time::Local(one, _)), Some(Time::Local(other, _))) => one < other,
        _ => false,
    }
}

/// The second in which `now` is, written as `model` is; a number is Unix time, a time without a zone one of `timezone`.
pub fn written_as(model: &str, now: DateTime<Utc>, timezone: Tz) -> Option<String> {
    let now = now.trunc_subsecs(0);
    let time = match Time::read(model)? {
        Time::Seconds(_) => Time::Seconds(now.timestamp()),
        Time::Milliseconds(_) => Time::Milliseconds(now.timestamp_millis()),
        Time::Zoned(time) => Time::Zoned(now.with_timezone(time.offset())),
        Time::Local(_, format) => Time::Local(now.with_timezone(&timezone).naive_local(), format),
    };
    Some(time.write(model))
}

/// Whether the value is a time after `now`: the clock that wrote it is ahead. A number is Unix time; a time without a zone
/// is one of `timezone`; whatever else is no time.
pub fn is_ahead(value: &str, now: DateTime<Utc>, timezone: Tz) -> bool {
    let time = Time::read(value).and_then(|time| match time {
        Time::Seconds(number) => DateTime::from_timestamp_millis(number.saturating_mul(1000)),
        Time::Milliseconds(number) => DateTime::from_timestamp_millis(number),
        Time::Zoned(time) => Some(time.to_utc()),
        Time::Local(local, _) => timezone.from_local_datetime(&local).earliest().map(|time| time.to_utc()),
    });
    time.is_some_and(|time| time > now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_come_is_known_in_every_format() {
        let now = DateTime::parse_from_rfc3339("2026-11-24T07:05:09+08:00").expect("a time").to_utc();
        for (value, expected) in [
            ("2026-11-24 07:05:09", false),
            ("2026-11-24 07:05:10", true),
            ("2026/11/25 00:00:00.5", true),
            ("2026-11-24T07:05:10", true),
            ("2026-11-23T23:05:10Z", true),
            ("2026-11-24 07:05:09+08:00", false),
            ("1795475109", false),
            ("1795475110", true),
            ("1795475109001", true),
            ("9999", false),
            ("A-17", false),
        ] {
            assert_eq!(is_ahead(value, now, Tz::Asia__Shanghai), expected, "{value}");
        }
    }

    #[test]
    fn a_value_keeps_its_format() {
        for (value, expected) in [
            ("2026-11-24 00:05:00.5", Some("2026-11-23 23:55:00.500")),
            ("2026/11/24 00:05:00", Some("2026/11/23 23:55:00")),
            ("2026-11-24T00:05:00", Some("2026-11-23T23:55:00")),
            ("2026-11-24T00:05:00+08:00", Some("2026-11-23T23:55:00+08:00")),
            ("2026-11-24T00:05:00.000+08:00", Some("2026-11-23T23:55:00.000+08:00")),
            ("2026-11-24 00:05:00.000000", Some("2026-11-23 23:55:00.000000")),
            ("2026-11-24T00:05:00Z", Some("2026-11-23T23:55:00Z")),
            ("1795475109", Some("1795474509")),
            ("1795475109123", Some("1795474509123")),
            ("A-17", None),
        ] {
            assert_eq!(earlier(value, 600).as_deref(), expected, "{value}");
            let back = expected.and_then(|expected| later(expected, 600));
            assert_eq!(back.is_some(), expected.is_some(), "{value}");
            assert!(back.is_none_or(|back| back.starts_with(value)), "{value} moved back and forth");
            let far = earlier(value, u64::MAX / 2);
            assert!(far.is_none() || value.parse::<i64>().is_ok(), "{value} has no such time: {far:?}");
        }
    }

    #[test]
    fn the_clock_is_written_as_the_source_writes() {
        let now = DateTime::parse_from_rfc3339("2026-11-24T07:05:09.987+08:00").expect("a time").to_utc();
        for (model, expected) in [
            ("2000-01-01 00:00:00", Some("2026-11-24 07:05:09")),
            ("2000/01/01 00:00:00.000", Some("2026/11/24 07:05:09.000")),
            ("2000-01-01T00:00:00Z", Some("2026-11-23T23:05:09Z")),
            ("2000-01-01T00:00:00.000+08:00", Some("2026-11-24T07:05:09.000+08:00")),
            ("946684800", Some("1795475109")),
            ("946684800000", Some("1795475109000")),
            ("A-17", None),
        ] {
            assert_eq!(written_as(model, now, Tz::Asia__Shanghai).as_deref(), expected, "{model}");
        }
    }
}
