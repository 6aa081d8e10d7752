//! Identifiers as every source writes them enter; their one canonical form leaves, or nothing for a placeholder (R0).

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization as _;

/// NFKC (full-width letters and digits narrowed), spaces dropped, upper case. Leading zeros stay: a number is a text.
///
/// `None` is R0: empty, `*`, all zeros, or the values readers send for "no card" (2⁶⁴ − 3 and above).
pub fn identifier(value: &str) -> Option<Cow<'_, str>> {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_lowercase());
    let text = if is_plain { Cow::Borrowed(value) } else { Cow::Owned(value.nfkc().filter_map(canonical).collect()) };
    if is_placeholder(&text) { None } else { Some(text) }
}

/// A name without what sources write differently: width, spaces, and the dots inside foreign names.
pub fn name(value: &str) -> String {
    value.nfkc().filter(|letter| !matches!(letter, '·' | '•' | '・' | '.')).filter_map(canonical).collect()
}

fn canonical(letter: char) -> Option<char> {
    if letter.is_whitespace() || letter.is_control() { None } else { Some(letter.to_ascii_uppercase()) }
}

fn is_placeholder(text: &str) -> bool {
    const NO_CARD: [&str; 6] = [
        "18446744073709551613",
        "18446744073709551614",
        "18446744073709551615",
        "FFFFFFFFFFFFFFFD",
        "FFFFFFFFFFFFFFFE",
        "FFFFFFFFFFFFFFFF",
    ];
    text == "*" || text.bytes().all(|byte| byte == b'0') || NO_CARD.contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_identifier_many_spellings() {
        for spelling in ["2024010a", "２０２４０１０Ａ", " 2024 010A\t", "2024010A"] {
            assert_eq!(identifier(spelling).as_deref(), Some("2024010A"), "{spelling}");
        }
        assert_eq!(identifier("00123").as_deref(), Some("00123"));
    }

    #[test]
    fn placeholders_are_nobody() {
        for value in ["", " ", "0", "0000", "*", "18446744073709551614", "ffffffffffffffff"] {
            assert_eq!(identifier(value), None, "{value:?}");
        }
    }

    #[test]
    fn names_differ_only_in_what_matters() {
        assert_eq!(name("阿卜杜·热合曼"), name("阿卜杜•热合曼 "));
        assert_ne!(name("张三"), name("张山"));
    }
}
