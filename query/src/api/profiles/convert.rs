//! Profiles as messages. Persons enter; policy decides item by item; messages leave.

use prost_types::Timestamp;
use proto::Encoded;
use proto::profile::v1::{Item as WireItem, Purpose as WirePurpose, Value as WireValue, ValueList, ValueObject, value};

use super::encode::{self, Encoder, field};
use super::mask::Mask;
use crate::access::Principal;
use crate::error::{Error, ErrorKind};
use crate::policy::{self, Purpose};
use crate::profile::packed::ItemValues;
use crate::profile::store::ItemValue;
use crate::profile::value::wire;
use crate::profile::{Item, Person, Profiles, Value};

/// Who reads what for what: the same for every person of a call.
pub struct Reading<'a> {
    profiles: &'a Profiles,
    encoder: &'a Encoder,
    /// Of each item that is wanted, whether it is withheld.
    items: Vec<Option<bool>>,
}

impl<'a> Reading<'a> {
    /// `encoder` is that of the items of `profiles`.
    pub fn new(
        profiles: &'a Profiles,
        encoder: &'a Encoder,
        principal: &Principal,
        purpose: Purpose,
        mask: &Mask,
    ) -> Self {
        let is_withheld = |item: &Item| policy::is_withheld(principal, purpose, item.class);
        let items = profiles.items.iter().enumerate();
        let items = items.map(|(place, item)| mask.has(place).then(|| is_withheld(item))).collect();
        Self { profiles, encoder, items }
    }

    /// The message of one person.
    pub fn profile(&self, person: &Person) -> Encoded {
        let mut out = self.head(person);
        self.put_items(person, &mut out);
        Encoded::from(out)
    }

    /// The message of one person whose items are encoded.
    pub fn with_items(&self, person: &Person, items: &[u8]) -> Encoded {
        let mut out = self.head(person);
        out.extend_from_slice(items);
        Encoded::from(out)
    }

    /// The items of one person, encoded.
    pub fn items(&self, person: &Person) -> Vec<u8> {
        let mut out = Vec::new();
        self.put_items(person, &mut out);
        out
    }

    fn put_items(&self, person: &Person, out: &mut Vec<u8>) {
        // Beside the values, an item has about so many bytes of names and sources.
        out.reserve(person.items.as_bytes().len() + 80 * self.items.len());
        for (place, (given, is_withheld)) in person.items.iter().zip(&self.items).enumerate() {
            let Some(is_withheld) = *is_withheld else { continue };
            match self.profiles.of_itself(person, place) {
                Some(item) => {
                    let item = ItemValues::from_iter([item]);
                    self.encoder.item(place, item.get(0), is_withheld, out);
                }
                None => self.encoder.item(place, given, is_withheld, out),
            }
        }
    }

    /// What stands before the items.
    fn head(&self, person: &Person) -> Vec<u8> {
        let mut out = Vec::new();
        wire::text(field::PERSON_ID, &person.id, &mut out);
        person.student_nos.iter().for_each(|number| wire::text(field::STUDENT_NOS, number, &mut out));
        wire::text(field::PROFILE_VERSION, &person.version_text(), &mut out);
        wire::nested(field::COMPUTED_AT, &mut out, |out| wire::timestamp(self.profiles.computed_at, out));
        wire::number(field::SNAPSHOT, self.profiles.snapshot.id, &mut out);
        out
    }
}

/// One item of a person.
pub fn item(item: &Item, given: &ItemValue, withheld: bool) -> WireItem {
    WireItem {
        id: item.id.clone(),
        name: item.name.clone(),
        section: item.section.clone(),
        value: given.value.as_ref().filter(|_| !withheld).map(wire_value),
        as_of: given.as_of.filter(|_| !withheld).map(timestamp),
        sources: item.sources.clone(),
        sensitivity_class: i32::from(item.class),
        state: encode::state(given.state, withheld).into(),
    }
}

/// A value as a message.
pub fn wire_value(value: &Value) -> WireValue {
    let kind = match value {
        Value::Text(text) => value::Kind::StringValue(text.clone()),
        Value::Int(number) => value::Kind::Int64Value(*number),
        Value::Double(number) => value::Kind::DoubleValue(*number),
        Value::Bool(truth) => value::Kind::BoolValue(*truth),
        Value::Time(at) => value::Kind::TimestampValue(timestamp(*at)),
        Value::List(values) => value::Kind::ListValue(ValueList { values: values.iter().map(wire_value).collect() }),
        Value::Object(parts) => {
            let fields = parts.iter().map(|(name, value)| (name.clone(), wire_value(value))).collect();
            value::Kind::ObjectValue(ValueObject { fields })
        }
    };
    WireValue { kind: Some(kind) }
}

/// The purpose of a request.
pub fn purpose(wire: i32) -> Result<Purpose, Error> {
    match WirePurpose::try_from(wire) {
        Ok(WirePurpose::Unspecified | WirePurpose::DailyWork) => Ok(Purpose::DailyWork),
        Ok(WirePurpose::Safety) => Ok(Purpose::Safety),
        Ok(WirePurpose::StudyHelp) => Ok(Purpose::StudyHelp),
        Ok(WirePurpose::Aid) => Ok(Purpose::Aid),
        Ok(WirePurpose::Statistics) => Ok(Purpose::Statistics),
        Err(_) => {
            Err(Error::new(ErrorKind::InvalidArgument, "purpose is unknown")
                .with_hint("use one of PURPOSE_DAILY_WORK, …"))
        }
    }
}

/// Microseconds UTC as a message.
pub fn timestamp(at_us: i64) -> Timestamp {
    let nanos = i32::try_from(at_us.rem_euclid(1_000_000) * 1000).expect("less than a second");
    Timestamp { seconds: at_us.div_euclid(1_000_000), nanos }
}

/// A message as microseconds UTC.
pub fn micros(at: &Timestamp) -> Result<i64, Error> {
    let micros = at.seconds.checked_mul(1_000_000).and_then(|micros| micros.checked_add(i64::from(at.nanos / 1000)));
    micros.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "a moment is out of range"))
}
