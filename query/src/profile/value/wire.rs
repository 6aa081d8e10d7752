//! Values as bytes: the fields of `quad.profile.v1.Value`. Values enter, bytes leave, and the other way round. Profiles are kept
//! as these bytes, and answered with them.
//!
//! Wire format: <https://protobuf.dev/programming-guides/encoding/>

use prost::bytes::{Buf as _, BufMut as _};
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

use super::Value;

/// Field numbers of `Value`; those of what is in it stand where they are used.
mod field {
    pub const STRING: u32 = 1;
    pub const INT64: u32 = 2;
    pub const DOUBLE: u32 = 3;
    pub const BOOL: u32 = 4;
    pub const TIMESTAMP: u32 = 5;
    pub const LIST: u32 = 6;
    pub const OBJECT: u32 = 7;
}

/// Appends the fields of a `Value`.
pub fn put(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Text(value) => bytes(field::STRING, value.as_bytes(), out),
        Value::Int(value) => varint(field::INT64, *value as u64, out),
        Value::Double(value) => {
            encode_key(field::DOUBLE, WireType::SixtyFourBit, out);
            out.put_f64_le(*value);
        }
        Value::Bool(value) => varint(field::BOOL, u64::from(*value), out),
        Value::Time(at) => nested(field::TIMESTAMP, out, |out| timestamp(*at, out)),
        Value::List(values) => nested(field::LIST, out, |out| {
            values.iter().for_each(|value| nested(1, out, |out| put(value, out)));
        }),
        Value::Object(parts) => nested(field::OBJECT, out, |out| {
            for (name, value) in parts {
                nested(1, out, |out| {
                    text(1, name, out);
                    nested(2, out, |out| put(value, out));
                });
            }
        }),
    }
}

/// Values within values that are read; no question gives so many.
const DEPTH_MAX: u32 = 100;

/// The value of bytes that [`put`] gave, the parts of an object in their order; none of others.
pub fn read(from: &[u8]) -> Option<Value> {
    read_within(from, DEPTH_MAX)
}

fn read_within(mut from: &[u8], depth: u32) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let (tag, wire_type) = decode_key(&mut from).ok()?;
    let value = match (tag, wire_type) {
        (field::STRING, WireType::LengthDelimited) => Value::Text(str::from_utf8(part(&mut from)?).ok()?.to_string()),
        (field::INT64, WireType::Varint) => Value::Int(decode_varint(&mut from).ok()? as i64),
        (field::DOUBLE, WireType::SixtyFourBit) => Value::Double(from.try_get_f64_le().ok()?),
        (field::BOOL, WireType::Varint) => Value::Bool(decode_varint(&mut from).ok()? != 0),
        (field::TIMESTAMP, WireType::LengthDelimited) => Value::Time(read_timestamp(part(&mut from)?)?),
        (field::LIST, WireType::LengthDelimited) => {
            let (mut list, mut values) = (part(&mut from)?, Vec::new());
            while !list.is_empty() {
                values.push(read_within(member(&mut list)?, depth)?);
            }
            Value::List(values)
        }
        (field::OBJECT, WireType::LengthDelimited) => {
            let (mut object, mut parts) = (part(&mut from)?, Vec::new());
            while !object.is_empty() {
                parts.push(read_entry(member(&mut object)?, depth)?);
            }
            Value::Object(parts)
        }
        _ => return None,
    };
    from.is_empty().then_some(value)
}

/// An entry of an object: its name, left out when it is empty, and its value.
fn read_entry(mut entry: &[u8], depth: u32) -> Option<(String, Value)> {
    let (mut name, mut value) = (String::new(), None);
    while !entry.is_empty() {
        match decode_key(&mut entry).ok()? {
            (1, WireType::LengthDelimited) => name = str::from_utf8(part(&mut entry)?).ok()?.to_string(),
            (2, WireType::LengthDelimited) => value = Some(read_within(part(&mut entry)?, depth)?),
            _ => return None,
        }
    }
    Some((name, value?))
}

fn read_timestamp(mut from: &[u8]) -> Option<i64> {
    let (mut seconds, mut nanos) = (0, 0);
    while !from.is_empty() {
        match decode_key(&mut from).ok()? {
            (1, WireType::Varint) => seconds = decode_varint(&mut from).ok()? as i64,
            (2, WireType::Varint) => nanos = decode_varint(&mut from).ok()? as i64,
            _ => return None,
        }
    }
    seconds.checked_mul(1_000_000)?.checked_add(nanos / 1000)
}

/// The next message of those that a field, numbered 1, repeats.
fn member<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    matches!(decode_key(from).ok()?, (1, WireType::LengthDelimited)).then(|| part(from))?
}

/// As many bytes as their length before them says.
pub fn part<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(from).ok()?).ok()?;
    from.split_off(..length)
}

/// The fields of a `google.protobuf.Timestamp`.
pub fn timestamp(at_us: i64, out: &mut Vec<u8>) {
    number(1, at_us.div_euclid(1_000_000) as u64, out);
    number(2, at_us.rem_euclid(1_000_000) as u64 * 1000, out);
}

/// A text, left out when it is empty.
pub fn text(tag: u32, value: &str, out: &mut Vec<u8>) {
    if !value.is_empty() {
        bytes(tag, value.as_bytes(), out);
    }
}

/// A whole number, left out when it is nought.
pub fn number(tag: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        varint(tag, value, out);
    }
}

fn varint(tag: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(tag, WireType::Varint, out);
    encode_varint(value, out);
}

/// Bytes, or a message that is bytes already.
pub fn bytes(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.put_slice(value);
}

/// A message within a message.
pub fn nested(tag: u32, out: &mut Vec<u8>, fields: impl FnOnce(&mut Vec<u8>)) {
    encode_key(tag, WireType::LengthDelimited, out);
    sized(out, fields);
}

/// What `fields` appends, its length before it. Most are shorter than 128 bytes: their length takes the one byte that is kept for it.
pub fn sized(out: &mut Vec<u8>, fields: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    fields(out);
    let length = out.len() - at - 1;
    if let Ok(short @ 0..128) = u8::try_from(length) {
        out[at] = short;
    } else {
        let mut prefix = Vec::new();
        encode_varint(length as u64, &mut prefix);
        out.splice(at..=at, prefix);
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any value, of any depth.
    pub fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            "\\PC{0,200}".prop_map(Value::Text),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_filter("a NaN equals nothing", |number| !number.is_nan()).prop_map(Value::Double),
            any::<bool>().prop_map(Value::Bool),
            (-62_135_596_800_000_000..253_402_300_800_000_000i64).prop_map(Value::Time),
        ];
        leaf.prop_recursive(3, 20, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
                prop::collection::btree_map("[a-z_]{0,140}", inner, 0..5)
                    .prop_map(|parts| Value::Object(parts.into_iter().rev().collect())),
            ]
        })
    }

    #[test]
    fn what_nests_without_end_is_not_read() {
        let is_read = |depth: u32| {
            let mut bytes = Vec::new();
            put(&(1..depth).fold(Value::Int(7), |value, _| Value::List(vec![value])), &mut bytes);
            read(&bytes).is_some()
        };
        assert_eq!([is_read(DEPTH_MAX), is_read(DEPTH_MAX + 1)], [true, false]);
    }

    proptest! {
        /// What is read is what was put, in its order; of a part of the bytes nothing is read.
        #[test]
        fn bytes_are_their_value(value in values(), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            put(&value, &mut bytes);
            prop_assert_eq!(read(&bytes), Some(value));
            let cut = cut.index(bytes.len());
            prop_assert_eq!(read(&bytes[..cut]), None);
        }
    }
}
