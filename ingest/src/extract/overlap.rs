//! A cursor value moved back, so that rows which come late are seen.
//!
//! A text as a source writes it enters, a number of seconds too; the earlier value in the same format leaves.

use chrono::{DateTime, Duration, NaiveDateTime, SecondsFormat};

/// Whole numbers from here on are milliseconds: as seconds they would be the year 5138.
const MILLISECONDS_MIN: i64 = 100_000_000_000;

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
    for format in ["%Y-%m-%d %H:%M:%S%.f", "%Y/%m/%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(value, format) {
            return Some(time.checked_sub_signed(overlap)?.format(format).to_string());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::earlier;

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
