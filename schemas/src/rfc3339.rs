//! Times as text: RFC 3339 in UTC, with as many digits of a second as the time has.
//!
//! Every record's times are written so once or twice on their way, so this is done digit by digit: chrono's own
//! `to_rfc3339_opts(SecondsFormat::AutoSi, true)` gives the same text through the machinery of `fmt`.

use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};

const SECOND_NANOS: u32 = 1_000_000_000;

/// Appends `time`.
pub fn push(text: &mut String, time: DateTime<Utc>) {
    let (year, nanos) = (time.year(), time.nanosecond());
    // Other years have a sign, and a leap second is written as its 60th.
    if !(0..=9999).contains(&year) || nanos >= SECOND_NANOS {
        text.push_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        return;
    }
    let mut whole = *b"0000-00-00T00:00:00";
    for (at, digits, number) in [
        (0, 4, year.unsigned_abs()),
        (5, 2, time.month()),
        (8, 2, time.day()),
        (11, 2, time.hour()),
        (14, 2, time.minute()),
        (17, 2, time.second()),
    ] {
        write(&mut whole[at..at + digits], number);
    }
    push_ascii(text, &whole);
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
