//! The day, step by step: what each system writes and each gate sends in the same ten minutes.
//!
//! A campus enters; steps in the order of time leave, each with the changes of the databases (one transaction each)
//! and the deliveries to the webhook. Playing them twice as fast changes nothing but the waiting.

use std::collections::BTreeMap;

use chrono::{NaiveDateTime, TimeDelta};

use crate::campus::Campus;
use crate::database::{Database, Databases};
use crate::gates::{Device, Event};
use crate::push::Pusher;
use crate::record::{Change, Record};
use crate::source::gates::{Push, device_push, event_push};
use crate::source::{SYSTEMS, System, Write};

/// The length of a step.
pub const STEP_MIN: i64 = 10;
/// Events of one delivery of history, and of one delivery of the day.
const EVENTS_OF_BACKFILL: usize = 200;
const EVENTS_OF_NOTIFICATION: usize = 20;

/// Ten minutes of the day.
#[derive(Debug)]
pub struct Step {
    /// Local time at which the step begins.
    pub at: NaiveDateTime,
    pub writes: Vec<(System, Vec<Write>)>,
    pub pushes: Vec<Push>,
}

impl Campus {
    /// What the gates push before the day: their list of doors, then the events of the past days.
    pub fn history_pushes(&self) -> impl Iterator<Item = Push> + '_ {
        let day_start = self.plan.day_start();
        let past: Vec<&Record<Event>> = self.gates.events.iter().filter(|record| record.at < day_start).collect();
        let events = past.chunks(EVENTS_OF_BACKFILL).map(|chunk| event_push(self, chunk, false)).collect::<Vec<_>>();
        std::iter::once(self.door_list(day_start)).chain(events)
    }

    /// The platform's list of doors as it is at `time`, broken entries in the first one only.
    fn door_list(&self, time: NaiveDateTime) -> Push {
        let first = time <= self.plan.day_start();
        let mut doors: BTreeMap<&str, &Device> = BTreeMap::new();
        let mut heard: Vec<_> = self.gates.devices.iter().filter(|record| record.at < time).collect();
        heard.retain(|record| first || record.defect().is_none());
        heard.sort_by_key(|record| record.at);
        for record in heard {
            doors.insert(&record.value.index_code, &record.value);
        }
        device_push(&doors.into_values().collect::<Vec<_>>())
    }

    /// The steps of the day in which something happens.
    pub fn live(&self) -> impl Iterator<Item = Step> + '_ {
        let mut steps: BTreeMap<NaiveDateTime, Step> = BTreeMap::new();
        for system in SYSTEMS {
            for write in system.writes(self, self.plan.day_start()..NaiveDateTime::MAX) {
                let step = step_at(&mut steps, write.at);
                match step.writes.iter_mut().find(|(other, _)| *other == system) {
                    Some((_, writes)) => writes.push(write),
                    None => step.writes.push((system, vec![write])),
                }
            }
        }
        let mut events: BTreeMap<NaiveDateTime, Vec<&Record<Event>>> = BTreeMap::new();
        for record in self.gates.events.iter().filter(|record| record.at >= self.plan.day_start()) {
            events.entry(step_start(record.at)).or_default().push(record);
        }
        for (at, records) in events {
            let step = step_at(&mut steps, at);
            // Platforms send what they have: now a batch, now one event, now one without the list around it.
            for (number, chunk) in records.chunks(EVENTS_OF_NOTIFICATION).enumerate() {
                step.pushes.push(event_push(self, chunk, number % 2 == 0));
            }
        }
        for record in self.gates.devices.iter().filter(|record| record.change == Change::Update) {
            let list = self.door_list(record.at + TimeDelta::seconds(1));
            step_at(&mut steps, record.at).pushes.push(list);
        }
        for step in steps.values_mut() {
            step.writes.iter_mut().for_each(|(_, writes)| writes.sort_by_key(|write| write.at));
        }
        steps.into_values()
    }
}

fn step_start(time: NaiveDateTime) -> NaiveDateTime {
    let seconds = time.and_utc().timestamp();
    time - TimeDelta::seconds(seconds.rem_euclid(STEP_MIN * 60))
}

fn step_at(steps: &mut BTreeMap<NaiveDateTime, Step>, time: NaiveDateTime) -> &mut Step {
    let at = step_start(time);
    steps.entry(at).or_insert_with(|| Step { at, writes: Vec::new(), pushes: Vec::new() })
}

/// Open connections to everything, to play steps on.
pub struct Stage {
    databases: Vec<(System, Database)>,
    pusher: Pusher,
}

impl Stage {
    /// Connects to the databases; the webhook is connected with the first push.
    ///
    /// # Errors
    /// A database that does not answer.
    pub fn open(databases: &Databases, pusher: Pusher) -> anyhow::Result<Stage> {
        let open = |system| anyhow::Ok((system, Database::open(databases.of(system), system)?));
        Ok(Stage { databases: SYSTEMS.into_iter().map(open).collect::<anyhow::Result<_>>()?, pusher })
    }

    /// The step up to which every database has come, `YYYY-MM-DD HH:MM:SS`; empty before the first.
    pub fn progress(&self) -> String {
        self.databases.iter().filter_map(|(_, database)| database.progress()).max().unwrap_or_default()
    }

    /// Delivers one push.
    ///
    /// # Errors
    /// As [`Pusher::push`].
    pub fn push(&mut self, push: &Push) -> anyhow::Result<()> {
        self.pusher.push(push)
    }

    /// Plays one step: databases first, then the gates.
    ///
    /// # Errors
    /// What a database or the webhook says.
    pub fn play(&mut self, step: &Step) -> anyhow::Result<()> {
        self.write(step)?;
        step.pushes.iter().try_for_each(|push| self.push(push))
    }

    /// Plays what a step does to the databases.
    ///
    /// # Errors
    /// What a database says.
    pub fn write(&mut self, step: &Step) -> anyhow::Result<()> {
        for (system, writes) in &step.writes {
            let database = self.databases.iter().find(|(other, _)| other == system).map(|(_, database)| database);
            database.expect("every system is open").apply(step.at, writes)?;
        }
        Ok(())
    }
}
