//! Profiles as the bytes of `quad.profile.v1.Profile`. What is the same for everybody is encoded once; of a person only values,
//! times and states are, straight from memory: messages of a hundred items would be seven hundred pieces of it, made and
//! thrown away with each answer.
//!
//! Wire format: <https://protobuf.dev/programming-guides/encoding/>

use std::sync::{Arc, RwLock};

use prost::bytes::BufMut as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use proto::profile::v1::ItemState;

use super::convert;
use crate::profile::store::ItemValue;
use crate::profile::{Item, State, Value};

/// Field numbers of `Profile`; those of `Item`, `Value` and what is in them stand where they are used.
pub(super) mod field {
    pub const PERSON_ID: u32 = 1;
    pub const STUDENT_NOS: u32 = 2;
    pub const PROFILE_VERSION: u32 = 3;
    pub const COMPUTED_AT: u32 = 4;
    pub const SNAPSHOT: u32 = 5;
    pub const ITEMS: u32 = 6;
}

/// What is the same for everybody of each item, encoded.
pub struct Encoder {
    of: Arc<Vec<Item>>,
    items: Vec<Parts>,
}

/// An item's fields around its value and time, which stand in the middle, and before its state, which is the last.
struct Parts {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Encoder {
    pub fn new(items: &Arc<Vec<Item>>) -> Self {
        let parts = |item: &Item| {
            let (mut before, mut after) = (Vec::new(), Vec::new());
            text(1, &item.id, &mut before);
            text(2, &item.name, &mut before);
            text(3, &item.section, &mut before);
            item.sources.iter().for_each(|source| text(6, source, &mut after));
            number(7, u64::from(item.class), &mut after);
            Parts { before, after }
        };
        Self { of: items.clone(), items: items.iter().map(parts).collect() }
    }

    /// Whether it is that of `items`.
    pub fn is_of(&self, items: &Arc<Vec<Item>>) -> bool {
        Arc::ptr_eq(&self.of, items)
    }

    /// Appends an item of a profile, by its place.
    pub fn item(&self, place: usize, given: &ItemValue, is_withheld: bool, out: &mut Vec<u8>) {
        let Parts { before, after } = &self.items[place];
        nested(field::ITEMS, out, |out| {
            out.put_slice(before);
            if !is_withheld {
                if let Some(value) = &given.value {
                    nested(4, out, |out| put(value, out));
                }
                if let Some(at) = given.as_of {
                    nested(5, out, |out| timestamp(at, out));
                }
            }
            out.put_slice(after);
            number(8, i32::from(state(given.state, is_withheld)) as u64, out);
        });
    }
}

/// The encoder of the items in use; they change with the definitions.
#[derive(Default)]
pub struct Encoders(RwLock<Option<Arc<Encoder>>>);

impl Encoders {
    pub fn of(&self, items: &Arc<Vec<Item>>) -> Arc<Encoder> {
        let made = self.0.read().expect("no holder of this lock panics").clone();
        if let Some(encoder) = made.filter(|encoder| encoder.is_of(items)) {
            return encoder;
        }
        let encoder = Arc::new(Encoder::new(items));
        *self.0.write().expect("no holder of this lock panics") = Some(encoder.clone());
        encoder
    }
}

/// The state that a caller is told.
pub(super) fn state(given: State, is_withheld: bool) -> ItemState {
    match (is_withheld, given) {
        (true, _) => ItemState::Withheld,
        (false, State::Ok) => ItemState::Ok,
        (false, State::Stale) => ItemState::Stale,
        (false, State::Missing) => ItemState::Missing,
        (false, State::Conflict) => ItemState::Conflict,
    }
}

/// The fields of a `Value`.
fn put(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Text(value) => bytes(1, value.as_bytes(), out),
        Value::Int(value) => varint(2, *value as u64, out),
        Value::Double(value) => {
            encode_key(3, WireType::SixtyFourBit, out);
            out.put_f64_le(*value);
        }
        Value::Bool(value) => varint(4, u64::from(*value), out),
        Value::Time(at) => nested(5, out, |out| timestamp(*at, out)),
        Value::List(values) => nested(6, out, |out| {
            values.iter().for_each(|value| nested(1, out, |out| put(value, out)));
        }),
        Value::Object(parts) => nested(7, out, |out| {
            for (name, value) in parts {
                nested(1, out, |out| {
                    text(1, name, out);
                    nested(2, out, |out| put(value, out));
                });
            }
        }),
    }
}

/// The fields of a `google.protobuf.Timestamp`.
pub(super) fn timestamp(at_us: i64, out: &mut Vec<u8>) {
    let at = convert::timestamp(at_us);
    number(1, at.seconds as u64, out);
    number(2, u64::from(at.nanos.unsigned_abs()), out);
}

/// A text, left out when it is empty.
pub(super) fn text(tag: u32, value: &str, out: &mut Vec<u8>) {
    if !value.is_empty() {
        bytes(tag, value.as_bytes(), out);
    }
}

/// A whole number, left out when it is nought.
pub(super) fn number(tag: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        varint(tag, value, out);
    }
}

fn varint(tag: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(tag, WireType::Varint, out);
    encode_varint(value, out);
}

fn bytes(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.put_slice(value);
}

/// A message within a message. Most are shorter than 128 bytes: their length takes the one byte that is kept for it.
pub(super) fn nested(tag: u32, out: &mut Vec<u8>, fields: impl FnOnce(&mut Vec<u8>)) {
    encode_key(tag, WireType::LengthDelimited, out);
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
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use proto::profile::v1::Profile;

    use super::*;
    use crate::profile::definition::Definition;

    fn values() -> impl Strategy<Value = Value> {
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
                    .prop_map(|parts| Value::Object(parts.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whoever decodes the bytes has what the message of the item says.
        #[test]
        fn an_item_is_the_bytes_of_its_message(
            value in prop::option::of(values()),
            as_of in prop::option::of(-1_000_000_000_000_000..4_000_000_000_000_000i64),
            state in prop::sample::select(vec![State::Ok, State::Stale, State::Missing, State::Conflict]),
            is_withheld in any::<bool>(),
            class in 0u8..4,
        ) {
            let item = Item {
                id: "A02".to_string(),
                name: "name".to_string(),
                section: "A".to_string(),
                title: "姓名".to_string(),
                window: "now".to_string(),
                owner: "student affairs".to_string(),
                class,
                fresh_s: None,
                sources: vec!["student_affairs.student_base".to_string(), "identity.person".to_string()],
                definition: Definition::NoSource("none".to_string()),
            };
            let given = ItemValue { value: value.map(Arc::new), as_of, state };
            let mut out = Vec::new();
            Encoder::new(&Arc::new(vec![item.clone()])).item(0, &given, is_withheld, &mut out);
            let decoded = Profile::decode(out.as_slice()).expect("the bytes of a profile");
            prop_assert_eq!(decoded.items, vec![convert::item(&item, &given, is_withheld)]);
        }
    }
}
