//! Times in cursors: moved back, so that rows which come late are seen, and kept from running ahead.
//!
//! A text as a source writes it enters; the earlier value in the same format leaves, or whether it is still to come.

use chrono::{DateTime, Duration, NaiveDateTime, SecondsFormat, TimeZone, Utc};
use chrono_tz::Tz;

/// Whole numbers from here on are milliseconds: as seconds they would be the year 5138.
const MILLISECONDS_MIN: i64 = 100_000_000_000;

/// Times that do not name their zone.
const LOCAL: [&str; 3] = ["%Y-%m-%d %H:%M:%S%.f", "%Y/%m/%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];

/// `None` when the value is neither a time nor a number.
pub fn earlier(value: &str, seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok()?;
    if let Ok(number) = value.parse::<i64>() {
        let factor = if number >= MILLISECONDS_MIN { 1000 } else { 1 };
        return Some(number.saturating_sub(seconds.saturating_mul(factor)).to_string());
    }
    let overlap = Duration::try_seconds(seconds)?;
    if let Ok(time) = DateTime::parse_from_rfc3339(value) {
        let earlier = time.checked_sub_signed(overlap)?.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        return Some(if value.contains('T') { earlier } else { earlier.replace('T', " ") });
    }
    for format in LOCAL {
        if let Ok(time) = NaiveDateTime::parse_from_str(value, format) {
            return Some(time.checked_sub_signed(overlap)?.format(format).to_string());
        }
    }
    None
}

/// Whether the value is a time after `now`: the clock that wrote it is ahead. A number is Unix time; a time without a zone
/// is one of `timezone`; whatever else is no time.
pub fn is_ahead(value: &str, now: DateTime<Utc>, timezone: Tz) -> bool {
    let time = if let Ok(number) = value.parse::<i64>() {
        let factor = if number >= MILLISECONDS_MIN { 1 } else { 1000 };
        DateTime::from_timestamp_millis(number.saturating_mul(factor))
    } else if let Ok(time) = DateTime::parse_from_rfc3339(value) {
        Some(time.to_utc())
    } else {
        let local = LOCAL.iter().find_map(|format| NaiveDateTime::parse_from_str(value, format).ok());
        local.and_then(|local| timezone.from_local_datetime(&local).earliest()).map(|time| time.to_utc())
    };
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
            ("2026-11-24T00:05:00Z", Some("2026-11-23T23:55:00Z")),
            ("1795475109", Some("1795474509")),
            ("1795475109123", Some("1795474509123")),
            ("A-17", None),
        ] {
            assert_eq!(earlier(value, 600).as_deref(), expected, "{value}");
            let far = earlier(value, u64::MAX / 2);
            assert!(far.is_none() || value.parse::<i64>().is_ok(), "{value} has no such time: {far:?}");
        }
    }
}
