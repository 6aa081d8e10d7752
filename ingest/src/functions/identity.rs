//! Identity documents and cards: checked, made canonical, and hashed before anything is stored.

use hmac::{Hmac, KeyInit, Mac};
use schemas::Sensitive;
use sha2::{Digest, Sha256};

use super::text;

/// Weights of GB 11643-1999, which is ISO 7064 MOD 11-2 over 17 digits.
const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
const CHECK_DIGITS: &[u8; 11] = b"10X98765432";

/// From 2^64 − 3 on, ISAPI says "no card" in different ways.
const NO_CARD_MIN: u64 = 18_446_744_073_709_551_613;

/// Whether `number` is an 18-character resident identity number with a right check digit.
pub fn is_valid_resident_number(number: &str) -> bool {
    let Some(number) = text::clean_id(number) else {
        return false;
    };
    let bytes = number.as_bytes();
    if bytes.len() != 18 || !bytes[..17].iter().all(u8::is_ascii_digit) {
        return false;
    }
    let sum: u32 = bytes.iter().zip(WEIGHTS).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
    CHECK_DIGITS[(sum % 11) as usize] == bytes[17]
}

/// What hashes documents by a key.
pub fn hasher(key: &Sensitive<String>) -> Hmac<Sha256> {
    Hmac::new_from_slice(key.expose().as_bytes()).expect("HMAC takes a key of any length")
}

/// HMAC-SHA256 in hex over `<type>:<normalised number>`. A resident number (type 1) with a wrong check digit is
/// no identity: NULL.
pub fn document_hash(kind: &str, number: &str, hasher: &Hmac<Sha256>) -> Option<String> {
    let kind = text::clean_id(kind)?;
    let number = text::clean_id(number)?;
    if kind == "1" && !is_valid_resident_number(&number) {
        return None;
    }
    let hash = hasher.clone().chain_update(kind.as_bytes()).chain_update(b":").chain_update(number.as_bytes());
    Some(schemas::hex(&hash.finalize().into_bytes()))
}

/// The first 63 bits of the SHA-256 of a text, so that it fits a bigint; nothing left is NULL.
pub fn stable_number(text: &str) -> Option<String> {
    let digest = Sha256::digest(text::clean(text)?.as_bytes());
    let first = digest.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    Some((first >> 1).to_string())
}

/// A physical card number in upper hex, without leading zeros. Only digits are decimal, anything else is hex.
/// `None` for no card; other text is passed on.
pub fn card_hex(number: &str) -> Option<String> {
    let number = text::clean_id(number)?;
    let value = match number.bytes().all(|byte| byte.is_ascii_digit()) {
        true => number.parse::<u64>().ok(),
        false => u64::from_str_radix(number.trim_start_matches("0X"), 16).ok(),
    };
    match value {
        Some(0) | Some(NO_CARD_MIN..) => None,
        Some(value) => Some(format!("{value:X}")),
        None => Some(number.into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_digit_of_gb_11643() {
        // The example of the standard itself.
        assert!(is_valid_resident_number("11010519491231002X"));
        assert!(is_valid_resident_number(" 11010519491231002x "));
        assert!(!is_valid_resident_number("110105194912310021"));
        assert!(!is_valid_resident_number("11010519491231002"));
    }

    #[test]
    fn one_document_has_one_hash_however_it_is_written() {
        let key = hasher(&Sensitive::new("key".to_string()));
        let hash = document_hash("1", "11010519491231002X", &key);
        assert_eq!(hash.as_ref().map(String::len), Some(64));
        assert_eq!(hash, document_hash("1", "１１010519491231002x", &key));
        assert_ne!(hash, document_hash("A", "11010519491231002X", &key));
        assert_eq!(document_hash("1", "110105194912310021", &key), None);
        // The letter O for a zero, and a number of the first generation, without century and check digit.
        assert_eq!(document_hash("1", "11O10519491231002X", &key), None);
        assert_eq!(document_hash("1", "110105491231002", &key), None);
    }

    #[test]
    fn a_text_has_one_number() {
        // The SHA-256 of "abc" begins with ba7816bf8f01cfea.
        assert_eq!(stable_number(" abc"), Some((0xba78_16bf_8f01_cfea_u64 >> 1).to_string()));
        assert_eq!(stable_number(" "), None);
        assert_eq!(stable_number("2024030001|1"), stable_number("2024030001|1"));
        assert_ne!(stable_number("2024030001|1"), stable_number("2024030001|2"));
    }

    #[test]
    fn a_card_is_one_card_in_decimal_and_hex() {
        assert_eq!(card_hex("2864434397").as_deref(), Some("AABBCCDD"));
        assert_eq!(card_hex("aabbccdd").as_deref(), Some("AABBCCDD"));
        assert_eq!(card_hex("18446744073709551615"), None);
        assert_eq!(card_hex("0"), None);
        assert_eq!(card_hex(""), None);
    }
}
