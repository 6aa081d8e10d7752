//! Profiles as the bytes of `quad.profile.v1.Profile`. What is the same for everybody is encoded once, and values are kept encoded:
//! messages of a hundred items would be seven hundred pieces of memory, made and thrown away with each answer.

use std::sync::{Arc, RwLock};

use proto::profile::v1::ItemState;

use crate::profile::packed::Packed;
use crate::profile::value::wire::{bytes, nested, number, text, timestamp};
use crate::profile::{Item, State};

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
    pub fn item(&self, place: usize, given: Packed<'_>, is_withheld: bool, out: &mut Vec<u8>) {
        let Parts { before, after } = &self.items[place];
        nested(field::ITEMS, out, |out| {
            out.extend_from_slice(before);
            if !is_withheld {
                if let Some(value) = given.value {
                    bytes(4, value, out);
                }
                if let Some(at) = given.as_of {
                    nested(5, out, |out| timestamp(at, out));
                }
            }
            out.extend_from_slice(after);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use proto::profile::v1::Profile;

    use super::super::convert;
    use super::*;
    use crate::profile::definition::Definition;
    use crate::profile::packed::ItemValues;
    use crate::profile::store::ItemValue;
    use crate::profile::value::wire::tests::values;

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
            let given = ItemValue { value, as_of, state };
            let items: ItemValues = [given.clone()].into_iter().collect();
            let mut out = Vec::new();
            Encoder::new(&Arc::new(vec![item.clone()])).item(0, items.get(0), is_withheld, &mut out);
            let decoded = Profile::decode(out.as_slice()).expect("the bytes of a profile");
            prop_assert_eq!(decoded.items, vec![convert::item(&item, &given, is_withheld)]);
        }
    }
}
