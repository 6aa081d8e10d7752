//! Persons of what was asked. Answers by person and the profiles before enter; everybody leaves, shared with those before where
//! nothing is otherwise.

use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::common::HashMap;
use sha2::{Digest, Sha256};

use super::compute::Computer;
use super::definition::Item;
use super::kept::Persons;
use super::store::{ItemValue, ItemValues, Person, Profiles, Silence, State};
use super::value::Value;
use crate::identity::{self, PersonNo};
use crate::snapshot::Snapshot;

/// What a question gave one person for one item: the value, its time, and whether its sources disagree.
pub type Given = Option<(Value, Option<i64>, bool)>;

/// What a question gave, by person: parallel to its items.
pub type Answers = HashMap<PersonNo, Vec<Given>>;

/// What was asked again: the places of the items, who was asked for where it is not everybody, and what was given.
pub type Asked<'a> = (&'a [usize], Option<Arc<Persons>>, Answers);

impl Computer {
    /// Everybody with what was asked again in place. Who was not asked for is not even looked at, where that can be told.
    pub(super) fn persons(
        &self,
        snapshot: &Snapshot,
        mut asked: Vec<Asked<'_>>,
        silences: &[Silence],
        before: Option<&Profiles>,
    ) -> Vec<Arc<Person>> {
        let same = before
            .filter(|before| Arc::ptr_eq(&before.snapshot.identity, &snapshot.identity) && before.silences == silences);
        let of_some: Option<Vec<&Arc<Persons>>> = asked.iter().map(|(_, persons, _)| persons.as_ref()).collect();
        if let Some((before, of_some)) = same.zip(of_some) {
            let touched = of_some.into_iter().fold(Persons::new(), |touched, persons| &touched | &**persons);
            let mut persons = before.persons.clone();
            for number in touched.ones() {
                let person = &snapshot.identity.persons[number];
                if let Some(place) = before.place(&person.id) {
                    persons[place] = self.person(number, person, &mut asked, silences, Some(before));
                }
            }
            return persons;
        }
        let students = snapshot.identity.persons.iter().enumerate().filter(|(_, person)| person.is_student);
        students.map(|(number, student)| self.person(number, student, &mut asked, silences, before)).collect()
    }

    fn person(
        &self,
        number: usize,
        of: &identity::Person,
        asked: &mut [Asked<'_>],
        silences: &[Silence],
        before: Option<&Profiles>,
    ) -> Arc<Person> {
        let identity::Person { id, student_nos, .. } = of;
        let old = before.and_then(|before| before.by_id(id));
        let mut changed = Vec::new();
        for (items, persons, answers) in asked {
            if persons.as_ref().is_some_and(|persons| !persons.contains(number)) {
                continue;
            }
            let mut given =
                PersonNo::try_from(number).ok().and_then(|number| answers.remove(&number)).into_iter().flatten();
            for place in &**items {
                let item = settle(given.next().flatten(), silences[*place]);
                if old.is_none_or(|old| old.items[*place] != item) {
                    changed.push((*place, item));
                }
            }
        }
        let are_silences_the_same = before.is_some_and(|before| before.silences == silences);
        if let Some(old) = old.filter(|old| old.student_nos == *student_nos)
            && changed.is_empty()
            && are_silences_the_same
        {
            return old.clone();
        }
        let mut items =
            old.map_or_else(|| self.items().iter().map(|_| ItemValue::MISSING).collect(), |old| old.items.clone());
        let mut text = String::new();
        let mut digest = |place: usize, item: &ItemValue| digest(&self.items()[place], item, &mut text);
        let version = match old {
            Some(old) if are_silences_the_same => changed.into_iter().fold(old.version, |version, (place, item)| {
                let version = version.wrapping_sub(digest(place, &items[place])).wrapping_add(digest(place, &item));
                items.set(place, item);
                version
            }),
            _ => {
                for (place, silence) in silences.iter().enumerate() {
                    let mut item = items[place].clone();
                    item.hear(*silence);
                    items.set(place, item);
                }
                changed.into_iter().for_each(|(place, item)| items.set(place, item));
                items
                    .iter()
                    .enumerate()
                    .fold(0, |version: u64, (place, item)| version.wrapping_add(digest(place, item)))
            }
        };
        self.with_items(id, student_nos, items, version, before)
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
            self.items().iter().position(|item| item.id == id).and_then(|place| items[place].value.as_deref())
        };
        let (college, class, bed, contacts) = (of("A08"), of("A09"), of("D01"), of("A11"));
        let text =
            |value: Option<&Value>, part: &str| value.and_then(|value| value.text(part)).map(ToString::to_string);
        let old = before.and_then(|before| before.by_id(id)).filter(|old| old.version == version);
        let person = Person {
            id: id.clone(),
            student_nos: student_nos.to_vec(),
            version,
            class_id: text(class, "class_id"),
            college_id: text(college, "college_id"),
            building_id: text(bed, "building_id"),
            counselor_staff_no: text(contacts, "counselor_staff_no"),
            grade_year: class.and_then(|value| value.int("grade_year")),
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
            let mut item = ItemValue { value: Some(Arc::new(value)), as_of, state };
            item.hear(silence);
            item
        }
        _ => ItemValue::MISSING,
    }
}

/// The first 64 bits of the SHA-256 of an item: a version is the sum of all, so that it follows a change of one. `text` is room
/// to write in.
fn digest(item: &Item, given: &ItemValue, text: &mut String) -> u64 {
    text.clear();
    text.push_str(&item.id);
    if let Some(value) = &given.value {
        value.canonical(text);
    }
    // Writing to a String cannot fail.
    let _ = write!(text, "|{:?}|{:?}", given.as_of, given.state);
    let digest = Sha256::digest(text.as_bytes());
    digest[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
