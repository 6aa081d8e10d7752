//! The computed profiles, in memory. A computation's result enters and replaces the one before as a whole; persons leave.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::HashMap as FastMap;
use tokio::sync::watch;
use tokio::time::Instant;
use topic::Watermark;

use super::definition::{Answer, Definition, Item};
use super::inputs::{Content, Inputs};
use super::packed::ItemValues;
use super::value::Value;
use crate::engine::not_reached;
use crate::error::{Error, ErrorKind};
use crate::identity::{IdType, Resolution};
use crate::snapshot::Snapshot;

/// What state an item is in, before policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Ok,
    /// There is a value, but a source has been silent for too long.
    Stale,
    /// No data for this person; never with a value.
    Missing,
    /// Sources disagree; the value is the leading one's.
    Conflict,
}

impl State {
    /// The state of an item whose sources have been silent for so long.
    pub fn heard(self, silence: Silence) -> Self {
        match (self, silence) {
            (Self::Ok | Self::Stale, Silence::TooLong) => Self::Stale,
            (Self::Ok | Self::Stale, _) => Self::Ok,
            (state, _) => state,
        }
    }
}

/// One item of one person.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemValue {
    pub value: Option<Value>,
    /// Microseconds UTC.
    pub as_of: Option<i64>,
    pub state: State,
}

impl ItemValue {
    pub const MISSING: Self = Self { value: None, as_of: None, state: State::Missing };
}

/// How long the sources of an item have been silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    Fresh,
    /// One of them for longer than the item may be old.
    TooLong,
    /// The leading one has never given anything: there is no value.
    Ever,
}

/// What is in each source, and when it last gave anything, microseconds UTC.
pub type Heard = BTreeMap<String, (Content, Option<i64>)>;

/// The profile of one person.
#[derive(Debug, Clone, PartialEq)]
pub struct Person {
    pub id: Arc<str>,
    pub student_nos: Vec<Arc<str>>,
    /// Equal exactly when all items are; see [`Person::version_text`].
    pub version: u64,
    /// Parallel to [`Profiles::items`].
    pub items: ItemValues,
    pub class_id: Option<String>,
    pub college_id: Option<String>,
    pub building_id: Option<String>,
    pub counselor_staff_no: Option<String>,
    pub grade_year: Option<i64>,
    /// The revision of [`Profiles`] in which anything of it changed last.
    pub changed_in: u64,
}

impl Person {
    /// The version as it is told: 16 hexadecimal digits.
    pub fn version_text(&self) -> String {
        format!("{:016x}", self.version)
    }
}

/// All profiles of one snapshot.
#[derive(Debug)]
pub struct Profiles {
    pub snapshot: Arc<Snapshot>,
    /// How far the snapshot reaches, as a token.
    pub watermark: String,
    /// Microseconds UTC.
    pub computed_at: i64,
    /// The past moment that they are of, microseconds UTC; none for those that follow the records.
    pub at: Option<i64>,
    /// Whether they are of before a start, and have been read from a checkpoint; none ever follow them.
    pub is_checkpoint: bool,
    /// Names the definitions that they are computed by.
    pub(super) definitions: Arc<str>,
    /// Names the run of computations, of which this is the one numbered `revision`, from 1.
    pub epoch: i64,
    pub revision: u64,
    /// Who had a profile and has none any more, and since which revision.
    pub gone: Vec<(Arc<str>, u64)>,
    pub items: Arc<Vec<Item>>,
    /// The SQL type of each item's value.
    pub(super) types: Arc<Vec<DataType>>,
    /// Ordered by id.
    pub persons: Vec<Arc<Person>>,
    by_id: Arc<FastMap<Arc<str>, usize>>,
    /// What the questions were answered from, in their order.
    pub(super) inputs: Vec<Inputs>,
    /// When each source last gave anything, microseconds UTC.
    pub(super) heard: Heard,
    /// Parallel to `items`.
    pub(super) silences: Vec<Silence>,
}

impl Profiles {
    /// The computation that follows `before`.
    pub fn new(
        snapshot: Arc<Snapshot>,
        computed_at: i64,
        items: Arc<Vec<Item>>,
        persons: Vec<Arc<Person>>,
        before: Option<&Self>,
    ) -> Self {
        let are_the_same = |before: &&Self| {
            before.persons.len() == persons.len()
                && before.persons.iter().zip(&persons).all(|(old, new)| Arc::ptr_eq(old, new) || old.id == new.id)
        };
        let place = |(place, person): (usize, &Arc<Person>)| (person.id.clone(), place);
        let mut gone = before.map(|before| before.gone.clone()).unwrap_or_default();
        let revision = Self::revision_after(before);
        let by_id = match before.filter(are_the_same) {
            Some(before) => before.by_id.clone(),
            None => {
                let by_id: FastMap<Arc<str>, usize> = persons.iter().enumerate().map(place).collect();
                let left = before.into_iter().flat_map(|before| &before.persons);
                gone.extend(left.map(|person| (person.id.clone(), revision)));
                gone.retain(|(id, _)| !by_id.contains_key(id));
                Arc::new(by_id)
            }
        };
        let watermark = snapshot.watermark.to_string();
        Self {
            snapshot,
            watermark,
            computed_at,
            at: None,
            is_checkpoint: false,
            definitions: Arc::default(),
            epoch: before.map_or(computed_at, |before| before.epoch),
            revision,
            gone,
            items,
            types: Arc::default(),
            persons,
            by_id,
            inputs: Vec::new(),
            heard: Heard::new(),
            silences: Vec::new(),
        }
    }

    /// The same as those of the moment `at`, computed at `computed_at`. None ever follow them, and no row is read beside them.
    pub fn of_moment(self, at: i64, computed_at: i64) -> Self {
        let snapshot = Arc::new(self.snapshot.with_tables(HashMap::new()));
        Self { snapshot, at: Some(at), computed_at, inputs: Vec::new(), ..self }
    }

    /// The same as those of before a start; `now` (microseconds UTC) names the computations that come.
    pub(super) fn of_checkpoint(self, now: i64) -> Self {
        Self { epoch: now, is_checkpoint: true, ..self }
    }

    /// The same, where the tables that they were computed from are at hand.
    ///
    /// # Errors
    /// `Unavailable` for those of before a start.
    pub fn computed(self: Arc<Self>) -> Result<Arc<Self>, Error> {
        if self.is_checkpoint { Err(not_computed()) } else { Ok(self) }
    }

    /// Whether any source of an item has ever given anything.
    pub fn have_sources(&self) -> bool {
        self.heard.values().any(|(_, at)| at.is_some())
    }

    /// The same as the next ones after `before`, which came from other definitions: everybody's may be others.
    pub fn in_the_place_of(self, before: &Self) -> Self {
        let revision = before.revision + 1;
        let changed = |person| Arc::new(Person { changed_in: revision, ..Arc::unwrap_or_clone(person) });
        let left = before.persons.iter().filter(|person| !self.by_id.contains_key(&person.id));
        let left = left.map(|person| (person.id.clone(), revision));
        let gone = before.gone.iter().cloned().chain(left).filter(|(id, _)| !self.by_id.contains_key(id)).collect();
        Self { epoch: before.epoch, revision, gone, persons: self.persons.into_iter().map(changed).collect(), ..self }
    }

    /// The number of the computation that follows `before`.
    pub fn revision_after(before: Option<&Self>) -> u64 {
        before.map_or(1, |before| before.revision + 1)
    }

    /// An item of a person, by its place: what was computed, or what the answer says of itself.
    pub fn item(&self, person: &Person, place: usize) -> ItemValue {
        self.of_itself(person, place).unwrap_or_else(|| person.items.get(place).unpack())
    }

    /// What the answer says of itself, where the item of a place is that.
    pub fn of_itself(&self, person: &Person, place: usize) -> Option<ItemValue> {
        let Definition::Answer(answer) = self.items[place].definition else { return None };
        let value = match answer {
            Answer::Version => Value::Text(person.version_text()),
            Answer::Computed => Value::Object(vec![
                ("snapshot".to_string(), Value::Int(i64::try_from(self.snapshot.id).unwrap_or(i64::MAX))),
                ("computed_at".to_string(), Value::Time(self.computed_at)),
            ]),
        };
        Some(ItemValue { value: Some(value), as_of: Some(self.computed_at), state: State::Ok })
    }

    /// By person id, letter case aside.
    pub fn by_id(&self, id: &str) -> Option<&Arc<Person>> {
        let place = self.place(id).or_else(|| self.place(&id.to_ascii_lowercase()))?;
        self.persons.get(place)
    }

    /// Where in `persons` somebody is.
    pub(super) fn place(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// By student number: its present holder.
    pub fn by_student_no(&self, student_no: &str) -> Option<&Arc<Person>> {
        let identity = &self.snapshot.identity;
        match identity.resolve(IdType::StudentNo, student_no, None) {
            // A disputed number still has one holder: the profile says in A12 that it is disputed.
            Resolution::Linked(span) | Resolution::Disputed(Some(span)) => self.by_id(&identity.person(span.person).id),
            _ => None,
        }
    }
}

/// The newest profiles; none before the first computation.
#[derive(Debug, Default)]
pub struct Store {
    profiles: watch::Sender<Option<Arc<Profiles>>>,
    is_closed: watch::Sender<bool>,
}

impl Store {
    pub fn get(&self) -> Option<Arc<Profiles>> {
        self.profiles.borrow().clone()
    }

    /// As [`Store::get`].
    ///
    /// # Errors
    /// `Unavailable` before the first computation.
    pub fn newest(&self) -> Result<Arc<Profiles>, Error> {
        self.get().ok_or_else(not_computed)
    }

    /// The newest profiles, once they reach to `watermark`.
    ///
    /// # Errors
    /// `Timeout` when they do not by `deadline`.
    pub async fn after(&self, watermark: &Watermark, deadline: Instant) -> Result<Arc<Profiles>, Error> {
        let mut newer = self.profiles.subscribe();
        let covers = |profiles: &Arc<Profiles>| profiles.snapshot.watermark.covers(watermark);
        let reached = newer.wait_for(|profiles| profiles.as_ref().is_some_and(covers));
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(profiles)) => Ok(profiles.as_ref().expect("it has been waited for").clone()),
            _ => Err(not_reached()),
        }
    }

    /// The newest profiles, once they are of a later revision; `None` when the store is closed.
    pub async fn newer_than(&self, revision: Option<u64>) -> Option<Arc<Profiles>> {
        let (mut newer, mut closed) = (self.profiles.subscribe(), self.is_closed.subscribe());
        let is_newer = |profiles: &Option<Arc<Profiles>>| {
            profiles.as_ref().is_some_and(|profiles| revision.is_none_or(|revision| profiles.revision > revision))
        };
        tokio::select! {
            profiles = newer.wait_for(is_newer) => profiles.ok()?.clone(),
            _ = closed.wait_for(|closed| *closed) => None,
        }
    }

    /// Nobody is to wait any longer.
    pub fn close(&self) {
        self.is_closed.send_replace(true);
    }

    pub fn set(&self, profiles: Arc<Profiles>) {
        self.profiles.send_replace(Some(profiles));
    }
}

/// There are no profiles yet, or none of what has been asked for.
pub fn not_computed() -> Error {
    Error::new(ErrorKind::Unavailable, "profiles are being computed for the first time")
        .with_hint("try again in a moment")
}
