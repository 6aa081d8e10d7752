//! Values of persons → values of nobody that look alike.
//!
//! The same value and key give the same pseudonym, so that joins and repeats stay what they were. Digits become digits,
//! letters letters, chip numbers hex, Chinese characters those of given names; dates stay dates, resident numbers keep a right check digit.

use chrono::NaiveDate;
use hmac::{Hmac, KeyInit, Mac};
use schemas::Sensitive;
use sha2::Sha256;

use crate::functions::{identity, time};

/// Characters of given names.
const NAMES: [char; 32] = [
    '安', '博', '晨', '达', '恩', '帆', '光', '海', '佳', '凯', '兰', '明', '宁', '平', '琪', '瑞', '思', '天', '伟',
    '夏', '欣', '雅', '逸', '永', '雨', '远', '云', '泽', '哲', '真', '志', '卓',
];

/// Where the date stands in a resident number.
const BIRTH: std::ops::Range<usize> = 6..14;
/// A date is moved by up to so many days.
const DAYS_MAX: u32 = 360;

/// Makes pseudonyms by one key.
pub struct Pseudonyms<'k> {
    pub key: &'k Sensitive<String>,
}

impl Pseudonyms<'_> {
    /// The pseudonym of a text; of an empty one, the same.
    pub fn of(&self, text: &str) -> String {
        let seed = self.digest(text.as_bytes());
        if identity::is_valid_resident_number(text) && text.len() == 18 {
            return resident_number(text, &seed);
        }
        match time::date(text) {
            Some(day) => moved(text, day, &seed).unwrap_or_else(|| self.disguised(text, seed)),
            None => self.disguised(text, seed),
        }
    }

    /// Each character by another of its kind.
    fn disguised(&self, text: &str, seed: [u8; 32]) -> String {
        let (mut block, mut at) = (seed, 0);
        let mut next = || {
            if at == block.len() {
                (block, at) = (self.digest(&block), 0);
            }
            at += 1;
            block[at - 1]
        };
        let letters = if is_hex(text) { 6 } else { 26 };
        text.chars().map(|letter| of_its_kind(letter, letters, next())).collect()
    }

    fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        let mut hmac =
            Hmac::<Sha256>::new_from_slice(self.key.expose().as_bytes()).expect("HMAC takes keys of any length");
        hmac.update(bytes);
        hmac.finalize().into_bytes().into()
    }
}

/// Whether it looks like the number of a chip, which stays one.
fn is_hex(text: &str) -> bool {
    text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Another character of the same kind; of the alphabet only the first `letters`.
fn of_its_kind(letter: char, letters: u8, random: u8) -> char {
    match letter {
        '0' => '0',
        '1'..='9' => char::from(b'1' + random % 9),
        'a'..='z' => char::from(b'a' + random % letters),
        'A'..='Z' => char::from(b'A' + random % letters),
        '\u{4e00}'..='\u{9fff}' => NAMES[random as usize % NAMES.len()],
        other => other,
    }
}

/// The date at the beginning of `text`, which is `day`, moved back; `None` when its digits are not those of the day.
fn moved(text: &str, day: NaiveDate, seed: &[u8; 32]) -> Option<String> {
    let days = 1 + u32::from(u16::from_be_bytes([seed[0], seed[1]])) % DAYS_MAX;
    let other = day.checked_sub_days(chrono::Days::new(days.into()))?.format("%Y%m%d").to_string();
    let written: String = text.chars().filter(char::is_ascii_digit).take(8).collect();
    if written != day.format("%Y%m%d").to_string() {
        return None;
    }
    let mut digits = other.chars();
    Some(
        text.chars()
            .map(|letter| if letter.is_ascii_digit() { digits.next().unwrap_or(letter) } else { letter })
            .collect(),
    )
}

fn resident_number(text: &str, seed: &[u8; 32]) -> String {
    let birth = text.get(BIRTH).unwrap_or_default();
    let birth = time::date(birth).and_then(|day| moved(birth, day, seed)).unwrap_or_else(|| "19900101".to_string());
    let serial = 100 + u16::from_be_bytes([seed[2], seed[3]]) % 900;
    let begin = format!("110101{birth}{serial}");
    let mut checked = "0123456789X".chars().map(|check| format!("{begin}{check}"));
    checked.find(|number| identity::is_valid_resident_number(number)).unwrap_or(begin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_pseudonym_looks_like_its_value_and_tells_nothing() {
        let key = Sensitive::new("key".to_string());
        let pseudonyms = Pseudonyms { key: &key };
        let of = |text: &str| pseudonyms.of(text);
        let told: Vec<_> = [
            "2026010001",
            "王小明",
            "11010519491231002X",
            "2005-11-25",
            "20051125",
            "Wang-07 a",
            "",
            "95.5",
            "AABBCCDD",
        ]
        .iter()
        .map(|text| of(text))
        .collect();
        expect![[r#"
            2062080006
            明琪宁
            110101194906272359
            2005-02-28
            20050301
            Nekf-07 i

            27.7
            AEBBCCAA"#]]
        .assert_eq(&told.join("\n"));
        assert_eq!(of("王小明"), of("王小明"));
        assert!(identity::is_valid_resident_number(&told[2]));
        let other = Sensitive::new("other".to_string());
        assert_ne!(Pseudonyms { key: &other }.of("2026010001"), told[0]);
    }
}
