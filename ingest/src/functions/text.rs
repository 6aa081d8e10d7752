//! Text and money, as sources write them.

use unicode_normalization::UnicodeNormalization;

/// NFKC (full-width digits and letters become plain), without outer white space; nothing left is NULL.
pub fn clean(text: &str) -> Option<String> {
    let normal: String = text.nfkc().collect();
    let trimmed = normal.trim();
    (!trimmed.is_empty()).then(|| trimmed.to_string())
}

/// An identifier: cleaned and upper-case. Leading zeros stay; it is never a number.
pub fn clean_id(text: &str) -> Option<String> {
    clean(text).map(|id| id.to_uppercase())
}

/// 元 with at most two decimals → 分, exactly. `None` when it is not such an amount.
pub fn yuan_to_fen(text: &str) -> Option<String> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (yuan, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (yuan.is_empty() && fraction.is_empty()) || fraction.len() > 2 || !is_digits(yuan) || !is_digits(fraction) {
        return None;
    }
    let fen: i64 = format!("{yuan}{fraction:0<2}").parse().ok()?;
    Some(if fen == 0 { "0".to_string() } else { format!("{sign}{fen}") })
}

/// FNV-1a of the text without its first bit, so that it fits a bigint; nothing left is NULL.
pub fn stable_number(text: &str) -> Option<String> {
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    clean(text).map(|text| (text.bytes().fold(0xcbf2_9ce4_8422_2325, add) >> 1).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_keep_their_zeros_and_lose_their_width() {
        assert_eq!(clean_id(" ００１2ａ　").as_deref(), Some("0012A"));
        assert_eq!(clean("  "), None);
    }

    #[test]
    fn a_number_is_the_same_for_ever() {
        // The published test vector of FNV-1a for "foobar" is 85944171f73967e8.
        assert_eq!(stable_number("foobar"), Some((0x8594_4171_f739_67e8_u64 >> 1).to_string()));
        assert_eq!(stable_number(" "), None);
    }

    #[test]
    fn money_is_exact_or_refused() {
        let cases = [("12.5", "1250"), ("-0.01", "-1"), ("7", "700"), ("1.1000", "110"), (".5", "50"), ("-0", "0")];
        for (yuan, fen) in cases {
            assert_eq!(yuan_to_fen(yuan).as_deref(), Some(fen), "{yuan}");
        }
        for wrong in ["1.005", "", "-", "1,000", "12元", "1e3"] {
            assert_eq!(yuan_to_fen(wrong), None, "{wrong}");
        }
    }
}
