//! Times and dates, in the formats campus systems were seen to write.
//!
//! A time that does not name its zone is local.

use std::cell::Cell;

use chrono::{DateTime, Duration, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use schemas::rfc3339::number;

/// What a date without a time of day means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DayPart {
    Start,
    End,
}

/// Local formats with a time of day.
const DATE_TIMES: [&str; 8] = [
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y/%m/%d %H:%M",
    "%Y%m%d%H%M%S",
    "%Y%m%d %H:%M:%S%.f",
    "%Y年%m月%d日 %H:%M:%S",
];

const DATES: [&str; 4] = ["%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y年%m月%d日"];

/// A clock time as the minute of its day, whose end is 24:00.
pub fn minute_of_day(text: &str) -> Option<u32> {
    let text = text.trim();
    if is_end_of_day(text) {
        return Some(1440);
    }
    let time = ["%H:%M", "%H:%M:%S"].iter().find_map(|format| NaiveTime::parse_from_str(text, format).ok())?;
    Some(time.hour() * 60 + time.minute())
}

/// Some systems write 24:00:00 for the end of a day.
fn is_end_of_day(clock: &str) -> bool {
    matches!(clock, "24:00" | "24:00:00")
}

/// A time in any format, or a date alone.
pub fn timestamp(text: &str, zone: Tz, day_part: DayPart) -> Option<DateTime<Utc>> {
    let text = text.trim();
    read_usual(text, zone).or_else(|| read(text, zone, day_part))
}

/// What nearly every source writes, `2026-11-24 07:05:09` with `-`, `/` or `T`, a fraction and a zone or not, or its 14 digits,
/// ten times faster than by formats in turns.
fn read_usual(text: &str, zone: Tz) -> Option<DateTime<Utc>> {
    let bytes = text.as_bytes();
    if bytes.len() == 14 {
        let date = read_digits(&bytes[..8])?;
        let [hour, minute, second] = [&bytes[8..10], &bytes[10..12], &bytes[12..]].map(number);
        let local = date.and_hms_opt(hour?, minute?, second?)?;
        return moment(local, zone);
    }
    let is_usual = bytes.len() >= 19
        && matches!(bytes[4], b'-' | b'/')
        && bytes[7] == bytes[4]
        && matches!(bytes[10], b' ' | b'T')
        && bytes[13] == b':'
        && bytes[16] == b':';
    if !is_usual {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(number(&bytes[..4])? as i32, number(&bytes[5..7])?, number(&bytes[8..10])?)?;
    let (mut nanos, mut rest) = (0, &bytes[19..]);
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || digits > 9 {
            return None;
        }
        nanos = number(&fraction[..digits])? * 10u32.pow(9 - digits as u32);
        rest = &fraction[digits..];
    }
    let seconds = [&bytes[11..13], &bytes[14..16], &bytes[17..19]].map(number);
    let local = date.and_hms_nano_opt(seconds[0]?, seconds[1]?, seconds[2]?, nanos)?;
    match rest {
        b"" => moment(local, zone),
        b"Z" => Some(local.and_utc()),
        [sign @ (b'+' | b'-'), hours @ ..] if hours.len() == 4 || (hours.len() == 5 && hours[2] == b':') => {
            let (hour, minute) = (number(&hours[..2])?, number(&hours[hours.len() - 2..])?);
            if hour > 23 || minute > 59 {
                return None;
            }
            let ahead = Duration::minutes(i64::from(hour * 60 + minute));
            Some(if *sign == b'+' { local - ahead } else { local + ahead }.and_utc())
        }
        _ => None,
    }
}

fn read(text: &str, zone: Tz, day_part: DayPart) -> Option<DateTime<Utc>> {
    if let Ok(time) =
        DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"))
    {
        return Some(time.with_timezone(&Utc));
    }
    let local = DATE_TIMES.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok()).or_else(|| {
        let (day, rest) = text.split_once(' ')?;
        is_end_of_day(rest.trim())
            .then(|| read_date(day))
            .flatten()
            .map(|day| (day + Duration::days(1)).and_time(NaiveTime::MIN))
    });
    let local = local.or_else(|| {
        let day = read_date(text)?;
        Some(match day_part {
            DayPart::Start => day.and_time(NaiveTime::MIN),
            DayPart::End => day.and_hms_opt(23, 59, 59)?,
        })
    })?;
    moment(local, zone)
}

/// The moment of a local time, the earlier where a clock was put back; none in an hour that was left out.
fn moment(local: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
    // Times come by days, and on nearly every day a zone has one offset.
    thread_local! {
        static LAST: Cell<Option<(Tz, NaiveDate, FixedOffset)>> = const { Cell::new(None) };
    }
    let day = local.date();
    if let Some((of, known, offset)) = LAST.get()
        && (of, known) == (zone, day)
    {
        return Some(local.checked_sub_offset(offset)?.and_utc());
    }
    let offset =
        |day: NaiveDate| Some(zone.from_local_datetime(&day.and_time(NaiveTime::MIN)).single()?.offset().fix());
    let (begin, end) = (offset(day), day.succ_opt().and_then(offset));
    if let Some(offset) = begin.filter(|_| begin == end) {
        LAST.set(Some((zone, day, offset)));
    }
    zone.from_local_datetime(&local).earliest().map(|time| time.to_utc())
}

/// A date, or that of a local time.
pub fn date(text: &str) -> Option<NaiveDate> {
    let text = text.trim();
    let with_time = || DATE_TIMES.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    read_date(text).or_else(|| with_time().map(|time| time.date()))
}

/// The day that eight digits are.
fn read_digits(digits: &[u8]) -> Option<NaiveDate> {
    NaiveDate::from_ymd_opt(number(&digits[..4])? as i32, number(&digits[4..6])?, number(&digits[6..])?)
}

fn read_date(text: &str) -> Option<NaiveDate> {
    // Eight digits are a date, others are not.
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return if text.len() == 8 { read_digits(text.as_bytes()) } else { None };
    }
    if let [y0, y1, y2, y3, separator @ (b'-' | b'/' | b'.'), m0, m1, other, d0, d1] = *text.as_bytes()
        && separator == other
        && let Some(day) = read_digits(&[y0, y1, y2, y3, m0, m1, d0, d1])
    {
        return Some(day);
    }
    DATES.iter().find_map(|format| NaiveDate::parse_from_str(text, format).ok())
}

/// Unix time in seconds, or in milliseconds from 12 digits on.
pub fn epoch(text: &str) -> Option<DateTime<Utc>> {
    let number: i64 = text.trim().parse().ok()?;
    let millis = if number.abs() < 100_000_000_000 { number.checked_mul(1000)? } else { number };
    DateTime::from_timestamp_millis(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_time_is_a_minute() {
        for (clock, minute) in
            [("23:30", Some(1410)), (" 0:05:59", Some(5)), ("24:00", Some(1440)), ("24:01", None), ("11点", None)]
        {
            assert_eq!(minute_of_day(clock), minute, "{clock}");
        }
    }

    #[test]
    fn local_times_are_moments_also_where_clocks_are_changed() {
        // Summer time began on 10 March 2024 at 2:00 and ended on 3 November at 2:00.
        let zone = Tz::America__New_York;
        for day in [(3, 9), (3, 10), (3, 11), (11, 2), (11, 3), (11, 4), (3, 10)] {
            let day = NaiveDate::from_ymd_opt(2024, day.0, day.1).unwrap();
            for minute in (0..1440).step_by(15) {
                let local = day.and_time(NaiveTime::MIN) + Duration::minutes(minute);
                let expected = zone.from_local_datetime(&local).earliest().map(|time| time.to_utc());
                assert_eq!(moment(local, zone), expected, "{local}");
            }
        }
        let noon = NaiveDate::from_ymd_opt(2024, 3, 10).unwrap().and_hms_opt(12, 0, 0).unwrap();
        assert_ne!(moment(noon, zone), moment(noon, Tz::Asia__Shanghai));
    }

    fn check(text: &str, day_part: DayPart, expected: Option<&str>) {
        let time = timestamp(text, Tz::Asia__Shanghai, day_part);
        let expected = expected.map(|time| DateTime::parse_from_rfc3339(time).expect("a time").to_utc());
        assert_eq!(time, expected, "{text}");
    }

    #[test]
    fn the_usual_formats_are_read_as_all_others_are() {
        for text in [
            "2026-11-24 07:05:09",
            "2026/11/24 07:05:09.5",
            "2026-11-24T07:05:09.123456789+08:00",
            "2026-11-24T07:05:09+0530",
            "2026-11-24T07:05:09-11:30",
            "2026-11-23T23:05:09.000Z",
            "20261124070509",
        ] {
            let usual = read_usual(text, Tz::Asia__Shanghai);
            assert!(usual.is_some() && usual == read(text, Tz::Asia__Shanghai, DayPart::Start), "{text}: {usual:?}");
        }
        for text in ["2026-11-24 24:00:00", "2026-13-24 07:05:09", "2026-11-24 07:05:09.", "2026-11-24 07:05:09 +08:00"]
            .into_iter()
            .chain(["20261124 70509", "20261124070560"])
        {
            assert_eq!(read_usual(text, Tz::Asia__Shanghai), None, "{text}");
        }
    }

    #[test]
    fn every_format_seen_is_the_same_moment() {
        let moment = Some("2026-11-23T23:05:09Z");
        let formats = [
            "2026-11-24 07:05:09",
            "2026/11/24 07:05:09",
            "20261124070509",
            "2026-11-24T07:05:09",
            "2026-11-24T07:05:09+08:00",
            "2026-11-24T07:05:09.000+0800",
            "2026-11-23T23:05:09Z",
            " 2026-11-24 07:05:09.0 ",
            "2026年11月24日 07:05:09",
        ];
        for text in formats {
            check(text, DayPart::Start, moment);
        }
        let seconds = DateTime::from_timestamp(1_795_475_109, 0);
        assert_eq!((epoch("1795475109"), epoch("1795475109000")), (seconds, seconds));
        check("1795475109", DayPart::Start, None);
        assert_eq!(seconds.map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)).as_deref(), moment);
    }

    #[test]
    fn a_bare_date_is_its_start_or_its_end() {
        check("20261124", DayPart::Start, Some("2026-11-23T16:00:00Z"));
        check("2026/11/24", DayPart::End, Some("2026-11-24T15:59:59Z"));
        check("2026-12-31 24:00:00", DayPart::Start, Some("2026-12-31T16:00:00Z"));
        check("2024-02-29", DayPart::Start, Some("2024-02-28T16:00:00Z"));
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        for text in ["2026-13-45", "2025-02-29", "昨天", "99999999", "2026-11-24 25:00:00", "1", " "] {
            check(text, DayPart::Start, None);
        }
        assert_eq!(date("2026-11-24 07:05:09"), NaiveDate::from_ymd_opt(2026, 11, 24));
        for text in ["2005-09-07", "2005/9/7", "2005.09.07", "20050907", "2005年9月7日"] {
            assert_eq!(date(text), NaiveDate::from_ymd_opt(2005, 9, 7), "{text}");
        }
        for text in ["20010230", "2001-02-30", "2001-02/03", "200a-02-03"] {
            assert_eq!(date(text), None, "{text}");
        }
    }
}
