//! Profiles as they change. A watcher enters with a scope, items and perhaps a token; events leave round by round, each round
//! what has changed from one computation to the newest.
//!
//! Nothing is queued for a slow watcher: its next round begins at whatever is newest then. A token names the last computation
//! that was told whole, so a watcher that comes back with it misses nothing; one of another process begins anew.

use std::collections::HashMap;
use std::sync::Arc;

use prost_types::FieldMask;
use proto::profile::server::WatchProfilesResponse;
use proto::profile::server::watch_profiles_response::Event;
use proto::profile::v1::WatchProfilesRequest;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::audit;
use super::convert::{self, Reading};
use super::encode::Encoder;
use super::mask::Mask;
use super::scope::Scope;
use crate::access::Principal;
use crate::error::{Error, ErrorKind};
use crate::policy::{Door, Purpose};
use crate::profile::{Person, Profiles, Store};

/// One watcher.
pub struct Watcher {
    store: Arc<Store>,
    principal: Principal,
    scope: Scope,
    item_mask: Option<FieldMask>,
    /// The mask, by the items of the definitions in use.
    mask: Mask,
    encoder: Encoder,
    purpose: Purpose,
    /// As it came, for the audit.
    purpose_said: i32,
    /// The computation that was told whole; `None` before the first.
    told: Option<u64>,
    /// Whether it came back with a token that still holds.
    is_resumed: bool,
    /// What was sent last of each person in scope, as a hash of its items.
    sent: HashMap<Arc<str>, [u8; 8]>,
    round: Option<Round>,
    is_over: bool,
    /// How many profiles were sent.
    persons: usize,
    _permit: OwnedSemaphorePermit,
}

/// A round that is being told.
struct Round {
    profiles: Arc<Profiles>,
    /// The next person to look at.
    next: usize,
    /// The next of those who have no profile any more.
    next_gone: usize,
    /// Whether everything is told, to a watcher who knows nothing that holds.
    is_whole: bool,
    is_begun: bool,
    events: usize,
}

impl Watcher {
    /// # Errors
    /// A mask that names nothing, a purpose that is none, a token that is no token.
    pub fn new(
        store: Arc<Store>,
        profiles: &Arc<Profiles>,
        principal: Principal,
        request: &WatchProfilesRequest,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, Error> {
        let told = match request.resume_token.as_str() {
            "" => None,
            token => {
                Some(read_token(token)?).filter(|(epoch, _)| *epoch == profiles.epoch).map(|(_, revision)| revision)
            }
        };
        Ok(Self {
            store,
            principal,
            scope: Scope::from(request),
            item_mask: request.item_mask.clone(),
            mask: Mask::new(request.item_mask.as_ref(), &profiles.items)?,
            encoder: Encoder::new(&profiles.items),
            purpose: convert::purpose(request.purpose)?,
            purpose_said: request.purpose,
            told,
            is_resumed: told.is_some(),
            sent: HashMap::new(),
            round: None,
            is_over: false,
            persons: 0,
            _permit: permit,
        })
    }

    /// The next event, once there is one; `None` after the last, which says why.
    pub async fn next(&mut self) -> Option<Result<WatchProfilesResponse, Status>> {
        loop {
            if self.is_over {
                return None;
            }
            let Some(mut round) = self.round.take() else {
                // Who comes back is told at once that it has missed nothing.
                let known = self.told.filter(|_| !self.is_resumed);
                match self.store.newer_than(known).await {
                    Some(profiles) => match self.fit(&profiles) {
                        Ok(()) => self.round = Some(Round::new(profiles, self.told.is_none())),
                        Err(error) => {
                            self.is_over = true;
                            return Some(Err(error
                                .with_hint("the definitions have changed: watch other items")
                                .into()));
                        }
                    },
                    None => {
                        self.is_over = true;
                        let error = Error::new(ErrorKind::Unavailable, "quad is shutting down");
                        return Some(Err(error.with_hint("watch again with the last resume_token").into()));
                    }
                }
                continue;
            };
            if let Some(event) = self.step(&mut round) {
                round.events += 1;
                self.round = Some(round);
                return Some(Ok(WatchProfilesResponse { event: Some(event), resume_token: String::new() }));
            }
            let (is_first, revision) = (round.is_whole || self.is_resumed, round.profiles.revision);
            self.told = Some(revision);
            self.is_resumed = false;
            if is_first || round.events > 0 {
                let resume_token = token(round.profiles.epoch, revision);
                return Some(Ok(WatchProfilesResponse { event: None, resume_token }));
            }
        }
    }

    /// Has the mask fit definitions that have changed.
    fn fit(&mut self, profiles: &Profiles) -> Result<(), Error> {
        if !self.encoder.is_of(&profiles.items) {
            self.mask = Mask::new(self.item_mask.as_ref(), &profiles.items)?;
            self.encoder = Encoder::new(&profiles.items);
        }
        Ok(())
    }

    /// The next event of a round; `None` at its end.
    fn step(&mut self, round: &mut Round) -> Option<Event> {
        if !std::mem::replace(&mut round.is_begun, true) && round.is_whole {
            self.sent.clear();
            return Some(Event::Reset(true));
        }
        let since = if round.is_whole { 0 } else { self.told.unwrap_or(0) };
        let profiles = round.profiles.clone();
        while let Some(person) = profiles.persons.get(round.next) {
            round.next += 1;
            if person.changed_in > since
                && let Some(event) = self.look(&profiles, person)
            {
                return Some(event);
            }
        }
        while let Some((id, gone_in)) = profiles.gone.get(round.next_gone) {
            round.next_gone += 1;
            if *gone_in > since && (self.sent.remove(id).is_some() || self.is_resumed) {
                return Some(Event::LeftPersonId(id.to_string()));
            }
        }
        None
    }

    /// What is told of a person who has changed.
    fn look(&mut self, profiles: &Profiles, person: &Person) -> Option<Event> {
        if !self.scope.has(person) {
            let was_in = self.sent.remove(&person.id).is_some() || self.is_resumed;
            return was_in.then(|| Event::LeftPersonId(person.id.to_string()));
        }
        let reading = Reading::new(profiles, &self.encoder, &self.principal, self.purpose, &self.mask);
        let items = reading.items(person);
        let hash = hash(&items);
        if self.sent.insert(person.id.clone(), hash) == Some(hash) {
            return None;
        }
        self.persons += 1;
        Some(Event::Changed(reading.with_items(person, &items)))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        audit(&self.principal, Door::WatchProfiles, self.purpose_said, self.persons);
    }
}

impl Round {
    fn new(profiles: Arc<Profiles>, is_whole: bool) -> Self {
        Self { profiles, next: 0, next_gone: 0, is_whole, is_begun: false, events: 0 }
    }
}

/// The same for two profiles whose items, as this watcher sees them, are the same.
fn hash(items: &[u8]) -> [u8; 8] {
    Sha256::digest(items)[..8].try_into().expect("a digest has 32 bytes")
}

fn token(epoch: i64, revision: u64) -> String {
    format!("{epoch:x}.{revision:x}")
}

fn read_token(token: &str) -> Result<(i64, u64), Error> {
    let read = token.split_once('.').and_then(|(epoch, revision)| {
        Some((i64::from_str_radix(epoch, 16).ok()?, u64::from_str_radix(revision, 16).ok()?))
    });
    read.ok_or_else(|| {
        Error::new(ErrorKind::InvalidArgument, "resume_token is not of an event that was received")
            .with_hint("begin again without a token")
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::profile::v1::Profile;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::access::Role;
    use crate::profile::definition::{Definition, Item};
    use crate::profile::store::ItemValue;
    use crate::profile::{State, Value};

    /// Persons of one class with one item each, after `before`.
    fn profiles(before: Option<&Profiles>, persons: &[(&str, &str, i64)]) -> Arc<Profiles> {
        let item = Item {
            id: "A02".into(),
            name: "name".into(),
            title: String::new(),
            section: "A".into(),
            definition: Definition::NoSource("a test".into()),
            window: String::new(),
            class: 1,
            fresh_s: None,
            owner: String::new(),
            sources: Vec::new(),
        };
        let person = |(id, class, value): &(&str, &str, i64)| {
            let version = format!("{class}{value}").bytes().fold(0, |version, byte| version << 8 | u64::from(byte));
            let old = before.and_then(|before| before.by_id(id)).filter(|old| old.version == version);
            Arc::new(Person {
                id: (*id).into(),
                student_nos: Vec::new(),
                changed_in: old.map_or_else(|| Profiles::revision_after(before), |old| old.changed_in),
                version,
                items: [ItemValue { value: Some(Value::Int(*value)), as_of: None, state: State::Ok }]
                    .into_iter()
                    .collect(),
                class_id: Some(class.to_string()),
                college_id: None,
                building_id: None,
                counselor_staff_no: None,
                grade_year: None,
            })
        };
        let persons = persons.iter().map(person).collect();
        Arc::new(Profiles::new(Arc::default(), 7, Arc::new(vec![item]), persons, before))
    }

    fn watcher(store: &Arc<Store>, class_id: &str, resume_token: &str) -> Watcher {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("there is one");
        let request = WatchProfilesRequest {
            class_id: class_id.into(),
            resume_token: resume_token.into(),
            ..WatchProfilesRequest::default()
        };
        let principal = Principal { name: "carl".into(), role: Role::Counselor };
        let profiles = store.get().expect("there are profiles");
        Watcher::new(store.clone(), &profiles, principal, &request, permit).expect("a watcher")
    }

    /// The events of one round, the token last.
    async fn round(watcher: &mut Watcher) -> String {
        let mut told = Vec::new();
        loop {
            let response = watcher.next().await.expect("it goes on").expect("an event");
            match response.event {
                Some(Event::Changed(profile)) => {
                    let profile = Profile::decode(profile.as_bytes()).expect("the bytes of a profile");
                    told.push(format!("+{}", profile.person_id));
                }
                Some(Event::LeftPersonId(id)) => told.push(format!("-{id}")),
                Some(Event::Reset(_)) => told.push("reset".into()),
                None => {
                    told.push(response.resume_token);
                    return told.join(" ");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_watcher_is_told_each_change_once_and_misses_none_when_it_comes_back() {
        let store = Arc::new(Store::default());
        let first = profiles(None, &[("a", "K1", 1), ("b", "K2", 1), ("c", "K1", 1)]);
        store.set(first.clone());
        let (mut all, mut class) = (watcher(&store, "", ""), watcher(&store, "K1", ""));
        assert_eq!(round(&mut all).await, "reset +a +b +c 7.1");
        assert_eq!(round(&mut class).await, "reset +a +c 7.1");
        // One changes, one comes into the class, one leaves it, one is as before.
        let second = profiles(Some(&first), &[("a", "K1", 2), ("b", "K1", 1), ("c", "K2", 1)]);
        store.set(second.clone());
        assert_eq!(round(&mut class).await, "+a +b -c 7.2");
        // What changed for nobody in scope is no round; of two computations the newest is told.
        let third = profiles(Some(&second), &[("a", "K1", 2), ("b", "K1", 1), ("c", "K2", 9)]);
        let fourth = profiles(Some(&third), &[("a", "K1", 3), ("c", "K2", 9)]);
        store.set(third);
        store.set(fourth);
        assert_eq!(round(&mut class).await, "+a -b 7.4");
        assert_eq!(round(&mut all).await, "+a +c -b 7.4");
        // Whoever comes back is told all since, and perhaps of some who were never in scope.
        assert_eq!(round(&mut watcher(&store, "K1", "7.1")).await, "+a -c -b 7.4");
        assert_eq!(round(&mut watcher(&store, "K1", "7.4")).await, "7.4");
        assert_eq!(round(&mut watcher(&store, "K1", "6.4")).await, "reset +a 7.4");
        store.close();
        assert!(class.next().await.expect("why it ends").is_err());
        assert!(class.next().await.is_none());
    }
}
