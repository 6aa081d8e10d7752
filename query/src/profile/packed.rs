//! The items of a person as bytes, in a fraction of the memory that values take, and ready to be answered with.
//!
//! Item after item: a byte that says its state and what follows, its time where there is one (microseconds UTC, 8 bytes,
//! little-endian), its value where there is one ([`wire`], the length before it).

use prost::bytes::{Buf as _, BufMut as _};

use super::store::{ItemValue, State};
use super::value::wire;

const HAS_VALUE: u8 = 0x10;
const HAS_TIME: u8 = 0x20;
const STATE: u8 = 0x0f;
const STATES: [State; 4] = [State::Ok, State::Stale, State::Missing, State::Conflict];

/// All items of a person, by their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemValues(Box<[u8]>);

/// One item, its value as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed<'a> {
    pub state: State,
    /// Microseconds UTC.
    pub as_of: Option<i64>,
    /// The fields of a `quad.profile.v1.Value`.
    pub value: Option<&'a [u8]>,
}

impl Packed<'_> {
    pub const MISSING: Self = Self { state: State::Missing, as_of: None, value: None };

    /// Appends the item.
    pub fn put(self, out: &mut Vec<u8>) {
        put_head(self.state, self.as_of, self.value.is_some(), out);
        if let Some(value) = self.value {
            wire::sized(out, |out| out.put_slice(value));
        }
    }

    /// The item with its value read.
    pub fn unpack(self) -> ItemValue {
        let value = self.value.map(|value| wire::read(value).expect("it was looked at when it was packed"));
        ItemValue { value, as_of: self.as_of, state: self.state }
    }
}

/// Appends an item.
pub fn pack(item: &ItemValue, out: &mut Vec<u8>) {
    put_head(item.state, item.as_of, item.value.is_some(), out);
    if let Some(value) = &item.value {
        wire::sized(out, |out| wire::put(value, out));
    }
}

fn put_head(state: State, as_of: Option<i64>, has_value: bool, out: &mut Vec<u8>) {
    let state = STATES.iter().position(|known| *known == state).unwrap_or_default() as u8;
    let value = if has_value { HAS_VALUE } else { 0 };
    let time = if as_of.is_some() { HAS_TIME } else { 0 };
    out.push(state | value | time);
    if let Some(at) = as_of {
        out.put_i64_le(at);
    }
}

/// The next item, and its bytes.
fn next<'a>(from: &mut &'a [u8]) -> Option<(Packed<'a>, &'a [u8])> {
    let all = *from;
    let head = from.try_get_u8().ok()?;
    let state = *STATES.get(usize::from(head & STATE))?;
    let as_of = if head & HAS_TIME == 0 { None } else { Some(from.try_get_i64_le().ok()?) };
    let value = if head & HAS_VALUE == 0 { None } else { Some(wire::part(from)?) };
    Some((Packed { state, as_of, value }, &all[..all.len() - from.len()]))
}

impl ItemValues {
    /// Those of `count` items whose bytes these are; none of other bytes.
    pub fn of_bytes(bytes: &[u8], count: usize) -> Option<Self> {
        let mut rest = bytes;
        for _ in 0..count {
            let (item, _) = next(&mut rest)?;
            if let Some(value) = item.value {
                wire::read(value)?;
            }
        }
        rest.is_empty().then(|| Self(bytes.into()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn iter(&self) -> impl Iterator<Item = Packed<'_>> {
        self.with_bytes().map(|(item, _)| item)
    }

    /// Each item with its bytes.
    pub fn with_bytes(&self) -> impl Iterator<Item = (Packed<'_>, &[u8])> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || next(&mut rest))
    }

    /// The item of a place, which there must be.
    pub fn get(&self, place: usize) -> Packed<'_> {
        self.iter().nth(place).expect("all items have a place")
    }
}

impl FromIterator<ItemValue> for ItemValues {
    fn from_iter<I: IntoIterator<Item = ItemValue>>(items: I) -> Self {
        let mut bytes = Vec::new();
        items.into_iter().for_each(|item| pack(&item, &mut bytes));
        Self::from(bytes)
    }
}

/// Of items that were packed one after the other.
impl From<Vec<u8>> for ItemValues {
    fn from(packed: Vec<u8>) -> Self {
        Self(packed.into_boxed_slice())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::value::wire::tests::values;
    use super::*;

    proptest! {
        /// Items are read as they were packed, and damaged bytes are refused.
        #[test]
        fn items_are_kept_as_they_are(
            given in prop::collection::vec(
                (prop::option::of(values()), prop::option::of(any::<i64>()), prop::sample::select(STATES.to_vec())), 1..6,
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let given: Vec<_> =
                given.into_iter().map(|(value, as_of, state)| ItemValue { value, as_of, state }).collect();
            let items: ItemValues = given.iter().cloned().collect();
            prop_assert_eq!(items.iter().map(Packed::unpack).collect::<Vec<_>>(), given.clone());
            let bytes = items.as_bytes();
            prop_assert_eq!(ItemValues::of_bytes(bytes, given.len()), Some(items.clone()));
            prop_assert_eq!(ItemValues::of_bytes(&bytes[..cut.index(bytes.len())], given.len()), None);
        }
    }
}
