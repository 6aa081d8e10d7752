//! Times as text: RFC 3339 in UTC, with as many digits of a second as the time has.
//!
//! Every record's times are written and read so once or twice on their way, so this is done digit by digit: chrono's own
//! `to_rfc3339_opts(SecondsFormat::AutoSi, true)` gives the same text through the machinery of `fmt`.

use chrono::{DateTime, Datelike, NaiveDate, SecondsFormat, Timelike, Utc};

const SECOND_NANOS: u32 = 1_000_000_000;

/// Appends `time`.
pub fn push(text: &mut String, time: DateTime<Utc>) {
    let (day, clock) = (time.naive_utc().date(), time.naive_utc().time());
    let (seconds, nanos) = (clock.num_seconds_from_midnight(), clock.nanosecond());
    // A leap second is written as the 60th of its minute.
    if !is_plain(day) || nanos >= SECOND_NANOS {
        text.push_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        return;
    }
    let mut whole = *b"0000-00-00T00:00:00.000000000Z";
    write_day(&mut whole, day);
    write(&mut whole[11..13], seconds / 3600);
    write(&mut whole[14..16], seconds / 60 % 60);
    write(&mut whole[17..19], seconds % 60);
    let end = match nanos {
        0 => 19,
        _ if nanos.is_multiple_of(1_000_000) => 23,
        _ if nanos.is_multiple_of(1000) => 26,
        _ => 29,
    };
    if nanos > 0 {
        write(&mut whole[20..29], nanos);
    }
    whole[end] = b'Z';
    push_ascii(text, &whole[..=end]);
}

/// Appends `day` as `YYYY-MM-DD`.
pub fn push_day(text: &mut String, day: NaiveDate) {
    if !is_plain(day) {
        text.push_str(&day.to_string());
        return;
    }
    let mut whole = *b"0000-00-00";
    write_day(&mut whole, day);
    push_ascii(text, &whole);
}

/// The time that [`push`] wrote with at most six digits of a second, microseconds UTC; none of any other text.
pub fn read(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (whole, fraction) = (bytes.get(..19)?, bytes[19..].strip_suffix(b"Z")?);
    let is_right =
        [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')].iter().all(|(at, sign)| whole[*at] == *sign);
    let micros = match (is_right, fraction) {
        (true, []) => 0,
        (true, [b'.', digits @ ..]) if digits.len() == 3 => number(digits)? * 1000,
        (true, [b'.', digits @ ..]) if digits.len() == 6 => number(digits)?,
        _ => return None,
    };
    let [hour, minute, second] = [number(&whole[11..13])?, number(&whole[14..16])?, number(&whole[17..])?];
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (year, month, day) = (number(&whole[..4])?, number(&whole[5..7])?, number(&whole[8..10])?);
    let day = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?.to_epoch_days();
    let seconds = i64::from(day) * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    Some(seconds * 1_000_000 + i64::from(micros))
}

/// The number that these digits are, nine at the most.
pub fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0')))
}

/// Other years have a sign.
fn is_plain(day: NaiveDate) -> bool {
    (0..=9999).contains(&day.year())
}

fn write_day(room: &mut [u8], day: NaiveDate) {
    write(&mut room[..4], day.year().unsigned_abs());
    write(&mut room[5..7], day.month());
    write(&mut room[8..10], day.day());
}

/// `number` in as many digits as there is room for.
fn write(room: &mut [u8], mut number: u32) {
    for digit in room.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn push_ascii(text: &mut String, bytes: &[u8]) {
    text.push_str(std::str::from_utf8(bytes).expect("digits are ASCII"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(time: DateTime<Utc>) {
        let mut text = String::new();
        push(&mut text, time);
        assert_eq!(text, time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        text.clear();
        push_day(&mut text, time.date_naive());
        assert_eq!(text, time.date_naive().format("%Y-%m-%d").to_string());
    }

    #[test]
    fn years_fractions_and_leap_seconds_are_written_as_by_chrono() {
        for (seconds, nanos) in [
            (0, 0),
            (1_795_475_109, 0),
            (1_795_475_109, 500_000_000),
            (1_795_475_109, 1000),
            (1_795_475_109, 1),
            (1_483_228_799, 1_500_000_000),
            (-62_167_219_200, 0),
            (-62_167_219_201, 0),
            (253_402_300_799, 999_999_999),
            (253_402_300_800, 0),
        ] {
            check(DateTime::from_timestamp(seconds, nanos).expect("a time"));
        }
    }

    proptest! {
        #[test]
        fn any_time_is_written_as_by_chrono(micros in -100_000_000_000_000_000i64..300_000_000_000_000_000) {
            check(DateTime::from_timestamp_micros(micros).expect("a time"));
        }

        #[test]
        fn what_was_written_is_read(micros in -62_167_219_200_000_000i64..253_402_300_800_000_000, whole in 0..3u32) {
            let micros = micros / 1000i64.pow(whole) * 1000i64.pow(whole);
            let mut text = String::new();
            push(&mut text, DateTime::from_timestamp_micros(micros).expect("a time"));
            prop_assert_eq!(read(&text), Some(micros));
        }

        /// A text that is read means what chrono says; most are none of ours.
        #[test]
        fn nothing_else_is_read(text in "(1970|2024|20.6)-(02|1[0-3])-(29|3.)[T ](2[0-4]|.5):[0-6]9:[0-6]0(\\.[0-9]{0,9})?(Z|\\+00:00)?") {
            if let Some(micros) = read(&text) {
                prop_assert_eq!(DateTime::parse_from_rfc3339(&text).map(|time| time.timestamp_micros()), Ok(micros));
            }
        }
    }
}
