//! The definitions in use and the profiles by them, and how both are changed while everybody reads. Snapshots enter, profiles
//! go to the store; a comparison of two sets of profiles leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};

use lake::Lake;
use schemas::Contracts;
use tokio::sync::Mutex;

use super::checkpoint;
use super::definition::Definitions;
use super::packed::Packed;
use super::store::{Profiles, Store};
use super::{Computer, Item};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::settings::Settings;
use crate::snapshot::Snapshot;

/// Older profiles say too little of now.
const RESUME_US_MAX: i64 = 3_600_000_000;

/// What is in use.
#[derive(Clone)]
struct InUse {
    computer: Arc<Computer>,
    definitions: Arc<Definitions>,
}

/// Profiles by definitions that can be changed.
pub struct Live {
    settings: Settings,
    engine: Arc<Engine>,
    store: Arc<Store>,
    in_use: RwLock<InUse>,
    /// Whoever sets profiles holds it: those of old definitions never follow those of new ones.
    setting: Mutex<()>,
    /// Whoever computes beside holds it.
    beside: Mutex<()>,
}

/// Two sets of profiles, held against each other.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// In either.
    pub persons: usize,
    pub persons_different: usize,
    /// By id: the name, how it differs, and for how many.
    pub items: BTreeMap<String, (String, Change, usize)>,
    pub watermark: String,
}

/// How an item differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Added,
    Removed,
    Changed,
}

impl Live {
    /// Reads the definitions that the settings name.
    ///
    /// # Errors
    /// Definitions that cannot be used, with their file.
    pub async fn new(settings: &Settings, engine: &Arc<Engine>, store: &Arc<Store>) -> Result<Self, Error> {
        let in_use = read(settings, engine.contracts()).await?;
        engine.show_profiles(&in_use.computer)?;
        let (settings, engine, store) = (settings.clone(), engine.clone(), store.clone());
        let in_use = RwLock::new(in_use);
        Ok(Self { settings, engine, store, in_use, setting: Mutex::default(), beside: Mutex::default() })
    }

    fn in_use(&self) -> InUse {
        self.in_use.read().expect("nobody panics with it").clone()
    }

    pub fn definitions(&self) -> Arc<Definitions> {
        self.in_use().definitions
    }

    /// What computes by them.
    pub fn computer(&self) -> Arc<Computer> {
        self.in_use().computer
    }

    /// Computes the profiles of `snapshot` and has them take the place of those before.
    ///
    /// # Errors
    /// A question that failed; the profiles before stay.
    pub async fn follow(&self, snapshot: Arc<Snapshot>, now: i64) -> Result<Arc<Profiles>, Error> {
        let _setting = self.setting.lock().await;
        let (computer, shown) = (self.in_use().computer, self.store.get());
        let before = shown.as_ref().filter(|shown| !shown.is_checkpoint);
        let clock_us = i64::try_from(self.settings.profile_idle_refresh_s * 1_000_000).unwrap_or(i64::MAX);
        let now = computer.moment(&snapshot, now, before.map(|before| &**before), clock_us);
        let profiles = computer.follow(snapshot, now, before.map(|before| &**before)).await?;
        let profiles = Arc::new(match shown.filter(|shown| shown.is_checkpoint) {
            Some(resumed) => profiles.in_the_place_of(&resumed),
            None => profiles,
        });
        self.store.set(profiles.clone());
        Ok(profiles)
    }

    /// Has the profiles of the last checkpoint in `lake` answered with until others are computed, if it is of the definitions in use
    /// and not too old; how many they are. `newest` says who is who.
    ///
    /// # Errors
    /// A checkpoint that cannot be read.
    pub async fn resume(&self, lake: &Lake, newest: &Snapshot, now: i64) -> Result<Option<usize>, Error> {
        let _setting = self.setting.lock().await;
        let computer = self.in_use().computer;
        let Some(found) = checkpoint::read(lake, &computer, now - RESUME_US_MAX).await? else { return Ok(None) };
        let Some(profiles) = found.profiles(&computer, newest, now) else { return Ok(None) };
        let count = profiles.persons.len();
        self.store.set(Arc::new(profiles));
        Ok(Some(count))
    }

    /// Holds the profiles in use against what the same definitions give from nothing.
    ///
    /// # Errors
    /// `Busy` while another computation beside runs, `Unavailable` before the first profiles, a question that failed.
    pub async fn verify(&self) -> Result<Comparison, Error> {
        let _beside = self.beside()?;
        // The two belong together only while nobody sets another.
        let (computer, profiles) = {
            let _setting = self.setting.lock().await;
            (self.in_use().computer, self.store.newest()?.computed()?)
        };
        let anew = computer.compute(profiles.snapshot.clone(), profiles.computed_at).await?;
        Ok(Comparison::of(&anew, &profiles))
    }

    /// Holds what the definitions in the files give against the profiles in use.
    ///
    /// # Errors
    /// As [`Live::verify`], and definitions that cannot be used.
    pub async fn diff(&self) -> Result<Comparison, Error> {
        let _beside = self.beside()?;
        let drafted = read(&self.settings, self.engine.contracts()).await?;
        let profiles = self.store.newest()?.computed()?;
        let draft = drafted.computer.compute(profiles.snapshot.clone(), profiles.computed_at).await?;
        Ok(Comparison::of(&profiles, &draft))
    }

    /// As [`Live::diff`], and then takes the definitions in the files into use.
    ///
    /// # Errors
    /// As [`Live::diff`]; what was in use stays.
    pub async fn switch(&self) -> Result<Comparison, Error> {
        let _beside = self.beside()?;
        let drafted = read(&self.settings, self.engine.contracts()).await?;
        let profiles = self.store.newest()?.computed()?;
        let draft = drafted.computer.follow(profiles.snapshot.clone(), profiles.computed_at, None).await?;
        let comparison = Comparison::of(&profiles, &draft);
        let _setting = self.setting.lock().await;
        // What has come meanwhile is little, and no reader is to see less than before.
        let (snapshot, now) = (self.engine.pin().snapshot.clone(), chrono::Utc::now().timestamp_micros());
        let newest = drafted.computer.follow(snapshot, now, Some(&draft)).await?;
        self.engine.show_profiles(&drafted.computer)?;
        *self.in_use.write().expect("nobody panics with it") = drafted;
        self.store.set(Arc::new(newest.in_the_place_of(&*self.store.newest()?)));
        Ok(comparison)
    }

    fn beside(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Error> {
        self.beside.try_lock().map_err(|_| {
            Error::new(ErrorKind::Busy, "profiles are being computed beside for another call")
                .with_hint("try again when it has ended")
        })
    }
}

async fn read(settings: &Settings, contracts: &Contracts) -> Result<InUse, Error> {
    let definitions = Definitions::load(&settings.profile_dir, contracts, &settings.profile_sections_on)?;
    let computer = Arc::new(Computer::new(settings, contracts, definitions.clone()).await?);
    Ok(InUse { computer, definitions: Arc::new(definitions) })
}

impl Comparison {
    /// What `after` has otherwise than `before`.
    pub fn of<'a>(before: &'a Profiles, after: &'a Profiles) -> Self {
        let places = |profiles: &Profiles| -> BTreeMap<String, usize> {
            profiles.items.iter().enumerate().map(|(place, item)| (item.id.clone(), place)).collect()
        };
        let (old, new) = (places(before), places(after));
        let ids: BTreeSet<Arc<str>> =
            before.persons.iter().chain(&after.persons).map(|person| person.id.clone()).collect();
        let mut comparison = Self { persons: ids.len(), watermark: after.watermark.clone(), ..Self::default() };
        let name = |items: &[Item], place: usize| items[place].name.clone();
        for (id, place) in &new {
            if !old.contains_key(id) {
                comparison.items.insert(id.clone(), (name(&after.items, *place), Change::Added, 0));
            }
        }
        for (id, place) in old.iter().filter(|(id, _)| !new.contains_key(*id)) {
            comparison.items.insert(id.clone(), (name(&before.items, *place), Change::Removed, 0));
        }
        for id in ids {
            let items = |profiles: &'a Profiles| Some(profiles.by_id(&id)?.items.iter().collect::<Vec<Packed<'a>>>());
            let (left, right) = (items(before), items(after));
            let mut is_different = left.is_none() || right.is_none();
            for item in old.keys().chain(new.keys().filter(|id| !old.contains_key(*id))) {
                let value = |items: &Option<Vec<Packed<'a>>>, places: &BTreeMap<String, usize>| {
                    items.as_ref().zip(places.get(item)).map_or(Packed::MISSING, |(items, place)| items[*place])
                };
                if value(&left, &old) != value(&right, &new) {
                    is_different = true;
                    let changed = || (name(&after.items, new[item]), Change::Changed, 0);
                    comparison.items.entry(item.clone()).or_insert_with(changed).2 += 1;
                }
            }
            comparison.persons_different += usize::from(is_different);
        }
        comparison
    }
}
