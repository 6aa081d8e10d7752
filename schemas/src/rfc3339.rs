//! Times as text: RFC 3339 in UTC, with as many digits of a second as the time has.
//!
//! Every record's times are written so once or twice on their way, so this is done digit by digit: chrono's own
//! `to_rfc3339_opts(SecondsFormat::AutoSi, true)` gives the same text through the machinery of `fmt`.

use chrono::{DateTime, Datelike, NaiveDate, SecondsFormat, Timelike, Utc};

const SECOND_NANOS: u32 = 1_000_000_000;

/// Appends `time`.
pub fn push(text: &mut String, time: DateTime<Utc>) {
    let nanos = time.nanosecond();
    // A leap second is written as the 60th of its minute.
    if !is_plain(time.date_naive()) || nanos >= SECOND_NANOS {
        text.push_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        return;
    }
    push_day(text, time.date_naive());
    let mut clock = *b"T00:00:00";
    write(&mut clock[1..3], time.hour());
    write(&mut clock[4..6], time.minute());
    write(&mut clock[7..9], time.second());
    push_ascii(text, &clock);
    let digits = match nanos {
        0 => 0,
        _ if nanos.is_multiple_of(1_000_000) => 3,
        _ if nanos.is_multiple_of(1000) => 6,
        _ => 9,
    };
    if digits > 0 {
        let mut fraction = *b".000000000";
        write(&mut fraction[1..], nanos);
        push_ascii(text, &fraction[..=digits]);
    }
    text.push('Z');
}

/// Appends `day` as `YYYY-MM-DD`.
pub fn push_day(text: &mut String, day: NaiveDate) {
    if !is_plain(day) {
        text.push_str(&day.to_string());
        return;
    }
    let mut whole = *b"0000-00-00";
    write(&mut whole[..4], day.year().unsigned_abs());
    write(&mut whole[5..7], day.month());
    write(&mut whole[8..], day.day());
    push_ascii(text, &whole);
}

/// Other years have a sign.
fn is_plain(day: NaiveDate) -> bool {
    (0..=9999).contains(&day.year())
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
    }
}
