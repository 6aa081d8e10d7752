//! Text and money, as sources write them.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

/// NFKC (full-width digits and letters become plain), without outer white space; nothing left is NULL.
pub fn clean(text: &str) -> Option<Cow<'_, str>> {
    let is_plain = text.is_ascii() || is_nfkc_quick(text.chars()) == IsNormalized::Yes;
    let is_trim = |end: Option<&u8>| end.is_some_and(u8::is_ascii_graphic);
    let cleaned = match is_plain {
        true if is_trim(text.as_bytes().first()) && is_trim(text.as_bytes().last()) => Cow::Borrowed(text),
        true => Cow::Borrowed(text.trim()),
        false => Cow::Owned(text.nfkc().collect::<String>().trim().to_string()),
    };
    (!cleaned.is_empty()).then_some(cleaned)
}

/// An identifier: cleaned and upper-case. Leading zeros stay; it is never a number.
pub fn clean_id(text: &str) -> Option<Cow<'_, str>> {
    let cleaned = clean(text)?;
    match cleaned.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_lowercase()) {
        true => Some(cleaned),
        false => Some(cleaned.to_uppercase().into()),
    }
}

/// 元 with at most two decimals → 分, exactly. `None` when it is not such an amount.
pub fn yuan_to_fen(text: &str) -> Option<i64> {
    let text = text.trim();
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (yuan, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (yuan.is_empty() && fraction.is_empty()) || fraction.len() > 2 || !is_digits(yuan) || !is_digits(fraction) {
        return None;
    }
    let mut digits = yuan.bytes().chain(fraction.bytes().chain(*b"00").take(2)).map(|digit| i64::from(digit - b'0'));
    let fen = digits.try_fold(0i64, |fen, digit| fen.checked_mul(10)?.checked_add(digit))?;
    Some(if is_negative { -fen } else { fen })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_keep_their_zeros_and_lose_their_width() {
        assert_eq!(clean_id(" ００１2ａ　").as_deref(), Some("0012A"));
        for (text, cleaned) in
            [("  ", None), ("　王小明 ", Some("王小明")), ("①é", Some("1é")), (" e\u{301}", Some("é"))]
        {
            assert_eq!(clean(text).as_deref(), cleaned, "{text}");
        }
    }

    #[test]
    fn money_is_exact_or_refused() {
        for (yuan, fen) in [("12.5", 1250), ("-0.01", -1), ("7", 700), ("1.1000", 110), (".5", 50), ("-0", 0)] {
            assert_eq!(yuan_to_fen(yuan), Some(fen), "{yuan}");
        }
        for wrong in ["1.005", "", "-", "1,000", "12元", "1e3", "92233720368547758.08"] {
            assert_eq!(yuan_to_fen(wrong), None, "{wrong}");
        }
    }
}
