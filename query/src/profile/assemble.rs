//! Persons of what was asked. Answers by person and the profiles before enter; everybody leaves, shared with those before where
//! nothing is otherwise.

use std::ops::Range;
use std::sync::Arc;

use datafusion::common::HashMap;
use sha2::{Digest, Sha256};

use super::compute::Computer;
use super::definition::Item;
use super::kept::Persons;
use super::packed::{ItemValues, pack};
use super::store::{ItemValue, Person, Profiles, Silence, State};
use super::value::Value;
use crate::identity::{self, PersonNo};
use crate::snapshot::Snapshot;

/// What a question gave one person for one item: the value, its time, and whether its sources disagree.
pub type Given = Option<(Value, Option<i64>, bool)>;

/// What a question gave, by person: parallel to its items.
pub type Answers = HashMap<PersonNo, Vec<Given>>;

/// What was asked again: the places of the items, who was asked for where it is not everybody, and what was given.
pub type Asked<'a> = (&'a [usize], Option<Arc<Persons>>, Answers);

/// What persons are made of.
struct Assembly<'a> {
    asked: Vec<Asked<'a>>,
    silences: &'a [Silence],
    /// The items whose sources have fallen silent, or have been heard again.
    turned: Vec<usize>,
    /// The items of a person of whom nothing is known, and their version.
    nothing: (ItemValues, u64),
    before: Option<&'a Profiles>,
    room: Room,
}

/// Room to make a person in, the same for all.
#[derive(Default)]
struct Room {
    /// New items, packed.
    new: Vec<u8>,
    /// Where they are, by their places.
    places: Vec<Option<Range<usize>>>,
    /// All items, packed.
    all: Vec<u8>,
}

impl Computer {
    /// Everybody with what was asked again in place. Who was not asked for is not even looked at, where that can be told.
    pub(super) fn persons(
        &self,
        snapshot: &Snapshot,
        asked: Vec<Asked<'_>>,
        silences: &[Silence],
        before: Option<&Profiles>,
    ) -> Vec<Arc<Person>> {
        let is_turned =
            |place: &usize| before.is_some_and(|before| before.silences.get(*place) != silences.get(*place));
        let turned: Vec<usize> = (0..silences.len()).filter(is_turned).collect();
        let of_some: Option<Vec<&Arc<Persons>>> = asked.iter().map(|(_, persons, _)| persons.as_ref()).collect();
        let touched = of_some.map(|of_some| of_some.into_iter().fold(Persons::new(), |all, some| &all | &**some));
        let nothing: ItemValues = self.items().iter().map(|_| ItemValue::MISSING).collect();
        let digests = self.items().iter().zip(nothing.with_bytes()).map(|(item, (_, packed))| digest(item, packed));
        let version = digests.fold(0, u64::wrapping_add);
        let nothing = (nothing, version);
        let mut assembly = Assembly { asked, silences, turned, nothing, before, room: Room::default() };
        let same = before
            .filter(|before| Arc::ptr_eq(&before.snapshot.identity, &snapshot.identity) && assembly.turned.is_empty());
        if let Some((before, touched)) = same.zip(touched) {
            let mut persons = before.persons.clone();
            for number in touched.ones() {
                let person = &snapshot.identity.persons[number];
                if let Some(place) = before.place(&person.id) {
                    persons[place] = self.person(number, person, &mut assembly);
                }
            }
            return persons;
        }
        let students = snapshot.identity.persons.iter().enumerate().filter(|(_, person)| person.is_student);
        students.map(|(number, student)| self.person(number, student, &mut assembly)).collect()
    }

    fn person(&self, number: usize, of: &identity::Person, assembly: &mut Assembly<'_>) -> Arc<Person> {
        let identity::Person { id, student_nos, .. } = of;
        let Assembly { asked, silences, turned, nothing, before, room } = assembly;
        let Room { new, places, all } = room;
        let old = before.and_then(|before| before.by_id(id));
        let (items, mut version) = old.map_or((&nothing.0, nothing.1), |old| (&old.items, old.version));
        new.clear();
        all.clear();
        places.clear();
        places.resize(self.items().len(), None);
        for place in &*turned {
            let (mut item, begin) = (items.get(*place), new.len());
            item.state = item.state.heard(silences[*place]);
            item.put(new);
            places[*place] = Some(begin..new.len());
        }
        for (asked, persons, answers) in asked {
            if persons.as_ref().is_some_and(|persons| !persons.contains(number)) {
                continue;
            }
            let given = PersonNo::try_from(number).ok().and_then(|number| answers.remove(&number));
            let mut given = given.into_iter().flatten();
            for place in &**asked {
                let begin = new.len();
                pack(&settle(given.next().flatten(), silences[*place]), new);
                places[*place] = Some(begin..new.len());
            }
        }
        let mut is_changed = old.is_none_or(|old| old.student_nos != *student_nos);
        for ((item, place), (_, was)) in self.items().iter().zip(&*places).zip(items.with_bytes()) {
            let is = place.clone().map_or(was, |place| &new[place]);
            if is != was {
                version = version.wrapping_sub(digest(item, was)).wrapping_add(digest(item, is));
                is_changed = true;
            }
            all.extend_from_slice(is);
        }
        match old {
            Some(old) if !is_changed => old.clone(),
            _ => self.with_items(id, student_nos, ItemValues::from(all.clone()), version, *before),
        }
    }

    fn with_items(
        &self,
        id: &Arc<str>,
        student_nos: &[Arc<str>],
        items: ItemValues,
        version: u64,
        before: Option<&Profiles>,
    ) -> Arc<Person> {
        let of = |id: &str| {
            let place = self.items().iter().position(|item| item.id == id);
            place.and_then(|place| items.get(place).unpack().value)
        };
        let (college, class, bed, contacts) = (of("A08"), of("A09"), of("D01"), of("A11"));
        let text = |value: &Option<Value>, part: &str| {
            value.as_ref().and_then(|value| value.text(part)).map(ToString::to_string)
        };
        let old = before.and_then(|before| before.by_id(id)).filter(|old| old.version == version);
        let person = Person {
            id: id.clone(),
            student_nos: student_nos.to_vec(),
            version,
            class_id: text(&class, "class_id"),
            college_id: text(&college, "college_id"),
            building_id: text(&bed, "building_id"),
            counselor_staff_no: text(&contacts, "counselor_staff_no"),
            grade_year: class.as_ref().and_then(|value| value.int("grade_year")),
            changed_in: old.map_or_else(|| Profiles::revision_after(before), |old| old.changed_in),
            items,
        };
        match old {
            Some(old) if **old == person => old.clone(),
            _ => Arc::new(person),
        }
    }
}

/// An item, by what its question gave and how long its sources have been silent.
fn settle(given: Given, silence: Silence) -> ItemValue {
    match given {
        Some((value, as_of, conflict)) if silence != Silence::Ever => {
            let state = if conflict { State::Conflict } else { State::Ok };
            ItemValue { value: Some(value), as_of, state: state.heard(silence) }
        }
        _ => ItemValue::MISSING,
    }
}

/// The first 64 bits of the SHA-256 of an item as it is packed: a version is the sum of all, so that it follows a change of one.
fn digest(item: &Item, packed: &[u8]) -> u64 {
    let digest = Sha256::new().chain_update(&item.id).chain_update(packed).finalize();
    digest[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
