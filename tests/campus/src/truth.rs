//! Ground truth: what must be in Quad once everything is through, said by the generator's own arithmetic.
//!
//! A campus and a stage enter; counts per contract table, dead letters to expect, and a record per student leave. It
//! never asks Quad, its contracts or its mappings: a mistake there must show as a difference.

pub mod person;
mod planted;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hash;

use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};

use crate::campus::Campus;
use crate::cast::ROLES;
use crate::published::Stream;
use crate::record::{Change, Fate, Record};
use crate::served::{LISTS, Service};
use crate::truth::person::{Identifier, StudentTruth};

/// Up to when the sources have been heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Databases filled, history pushed; the day has not begun.
    Filled,
    /// The day is over and all of it was delivered.
    DayOver,
}

/// All of it. `truth.json` is this, serialised.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Truth {
    pub seed: u64,
    pub day: String,
    /// By contract table, `academic.grade`.
    pub tables: BTreeMap<String, TableTruth>,
    /// By `connector/table`: what the platforms list that are asked over HTTP.
    pub served: BTreeMap<String, TableTruth>,
    /// By `connector/table`: what devices publish over MQTT.
    pub published: BTreeMap<String, TableTruth>,
    /// Observed defects (1 for L1) and how often each is in what the sources hold.
    pub planted: BTreeMap<u8, u64>,
    /// Planted cases: role to student number.
    pub cast: BTreeMap<String, String>,
    pub students: Vec<StudentTruth>,
    /// What systems know each of the staff by, by the generator's name of the person.
    pub staff: BTreeMap<String, Vec<Identifier>>,
}

/// What becomes of the rows of one contract table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableTruth {
    /// Rows the sources wrote or delivered: `versions + repeats + dead_letters`.
    pub generated: u64,
    /// Delivered again, equal in every byte: no version of their own.
    pub repeats: u64,
    /// Different versions of rows in `<table>_history`, deletes included.
    pub versions: u64,
    /// Rows of `<table>`: keys whose last version is not a delete.
    pub current: u64,
    /// Rows that become dead letters, in all.
    pub dead_letters: u64,
    /// The same by rule and field; the field is empty for rules over the whole row.
    pub letters: Vec<LettersTruth>,
    /// Access events only: versions whose person is found by number or card.
    pub linked: Option<u64>,
}

/// Dead letters of one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LettersTruth {
    pub rule: String,
    pub field: String,
    pub count: u64,
}

impl Campus {
    /// The truth at a stage.
    pub fn truth(&self, stage: Stage) -> Truth {
        let until = match stage {
            Stage::Filled => self.plan.day_start(),
            Stage::DayOver => NaiveDateTime::MAX,
        };
        let name = |role| serde_json::to_value(role).ok().and_then(|value| value.as_str().map(str::to_string));
        Truth {
            seed: self.plan.seed,
            day: self.plan.day.to_string(),
            tables: self.table_truths(until),
            served: self.served_truths(until),
            published: self.published_truths(until),
            planted: self.planted(until),
            cast: ROLES.iter().filter_map(|role| Some((name(role)?, self.student_of(*role).to_string()))).collect(),
            students: person::students(self, until),
            staff: person::staff(self, until),
        }
    }

    fn table_truths(&self, until: NaiveDateTime) -> BTreeMap<String, TableTruth> {
        let mut tables = BTreeMap::new();
        let mut add = |name: &str, truth: TableTruth| tables.insert(name.to_string(), truth);
        add("student_affairs.student_base", count(&self.bases, until, |base| base.student_no.clone()));
        add("student_affairs.leave_request", count(&self.leaves, until, |leave| leave.id.clone()));
        add("student_affairs.contact_record", count(&self.contacts, until, |contact| contact.id.clone()));
        add("identity.account", count(&self.accounts, until, |account| account.uid.clone()));
        add("identity.card", count(&self.cards.records, until, |card| card.sequence));
        let period = |row: &crate::registry::Enrollment| (row.student_no.clone(), row.valid_from);
        add("academic.enrollment", count(&self.enrollments, until, period));
        add("academic.course", count(&self.courses, until, |course| course.course_no.clone()));
        add("academic.grade", count(&self.grades, until, |grade| grade.id));
        let place = |space: &crate::homes::Space| (space.building.clone(), space.room.clone(), space.bed.clone());
        add("logistics.space", count(&self.homes.spaces, until, place));
        add("logistics.bed_assignment", self.bed_truth(until));
        let txn = |txn: &crate::spending::Txn| (txn.terminal, txn.serial, txn.at);
        add("logistics.card_txn", count(&self.spending.records, until, txn));
        add("access_control.device", self.device_truth(until));
        let event = |event: &crate::gates::Event| (event.device, event.serial, event.at);
        let mut events = count(&self.gates.events, until, event);
        events.linked = Some(self.linked_events(until));
        add("access_control.access_event", events);
        let days = self.calendar.len() as u64;
        add(
            "extension.calendar_day",
            TableTruth { generated: days, versions: days, current: days, ..Default::default() },
        );
        let contracts: BTreeSet<&str> = self.offices.iter().map(|office| office.contract).collect();
        for contract in contracts {
            let offices = self.offices.iter().filter(|office| office.contract == contract);
            let records = offices.flat_map(|office| &office.records);
            tables.insert(contract.to_string(), count(records, until, |entry| entry.key.clone()));
        }
        tables
    }

    /// As seen by who asks before the day and, when it is over, once more.
    fn served_truths(&self, until: NaiveDateTime) -> BTreeMap<String, TableTruth> {
        let day_start = self.plan.day_start();
        let services = self.services();
        let truth = |service: &Service| {
            let later = service.shown(until).into_iter().filter(|record| record.at >= day_start);
            let seen = service.shown(day_start).into_iter().chain(later);
            (service.name.to_string(), count(seen, until, |listed| listed.key.clone()))
        };
        services.iter().map(truth).collect()
    }

    fn published_truths(&self, until: NaiveDateTime) -> BTreeMap<String, TableTruth> {
        let truth = |stream: Stream| (stream.name.to_string(), count(&stream.records, until, |message| message.key));
        self.streams().map(truth).into()
    }

    /// The change log's rows become assignments; a row on the day also ends the assignment before it, which is then
    /// told a second time with its end.
    fn bed_truth(&self, until: NaiveDateTime) -> TableTruth {
        let day_start = self.plan.day_start();
        let stays: Vec<_> = self.homes.moves.iter().filter(|record| record.value.kind != "00").cloned().collect();
        let mut truth = count(&stays, until, |row| row.id);
        let ended_on_the_day = |record: &&Record<crate::homes::Move>| {
            record.at >= day_start
                && record.at < until
                && stays.iter().any(|other| other.at < day_start && other.value.student_no == record.value.student_no)
        };
        let told_again = self.homes.moves.iter().filter(ended_on_the_day).count() as u64;
        truth.generated += told_again;
        truth.versions += told_again;
        truth
    }

    /// The platform sends its whole list again when something changed: all other doors are repeats then.
    fn device_truth(&self, until: NaiveDateTime) -> TableTruth {
        let mut truth = count(&self.gates.devices, until, |device| device.index_code.clone());
        let changed = self.gates.devices.iter().filter(|record| record.change == Change::Update && record.at < until);
        let lists_again = changed.count() as u64;
        let others = truth.current - lists_again;
        truth.generated += lists_again * others;
        truth.repeats += lists_again * others;
        truth
    }

    fn linked_events(&self, until: NaiveDateTime) -> u64 {
        let lands = |record: &&Record<crate::gates::Event>| record.fate == Fate::Lands && record.at < until;
        let owners = person::Owners::new(self);
        self.gates.events.iter().filter(lands).filter(|record| owners.of(&record.value).is_some()).count() as u64
    }
}

impl Truth {
    /// With the tables that only the lists over HTTP fill, for who pulls them too.
    pub fn with_lists(mut self) -> Truth {
        for (list, table) in LISTS {
            self.tables.insert(table.to_string(), self.served[list].clone());
        }
        self
    }
}

/// Counts the records before `until`; `key` is what makes two of them the same row.
fn count<'a, T: 'a, K: Hash + Eq>(
    records: impl IntoIterator<Item = &'a Record<T>>,
    until: NaiveDateTime,
    key: impl Fn(&T) -> K,
) -> TableTruth {
    let mut truth = TableTruth::default();
    let mut letters: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut present: HashSet<K> = HashSet::new();
    let heard: Vec<&Record<T>> = records.into_iter().filter(|record| record.at < until).collect();
    for record in &heard {
        truth.generated += 1;
        match record.fate {
            Fate::Lands => {
                truth.versions += 1;
                present.insert(key(&record.value));
            }
            Fate::Deletes => truth.versions += 1,
            Fate::Repeat => truth.repeats += 1,
            Fate::Dead(defect) => {
                truth.dead_letters += 1;
                let (_, rule, field) = defect.letter();
                *letters.entry((rule, field)).or_insert(0) += 1;
            }
        }
    }
    for record in heard.iter().filter(|record| record.fate == Fate::Deletes) {
        present.remove(&key(&record.value));
    }
    truth.current = present.len() as u64;
    truth.letters = letters
        .into_iter()
        .map(|((rule, field), count)| LettersTruth { rule: rule.to_string(), field: field.to_string(), count })
        .collect();
    truth
}
