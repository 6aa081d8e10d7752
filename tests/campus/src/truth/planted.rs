//! How often each of the observed defects (L1 to L21) was planted, counted over what the sources wrote.

use std::collections::{BTreeMap, HashMap};

use chrono::{NaiveDateTime, TimeDelta};

use crate::campus::Campus;
use crate::gates::{Direction, Event, PersonField, Place};
use crate::homes::SpaceKind;
use crate::record::{Fate, Record};

/// Physical numbers of the campus begin here; strangers' cards are below.
const CARD_MIN: u32 = 0x1000_0000;

impl Campus {
    /// By number: the rows, or for L6, L19 and L20 the pairs of rows, that show the defect before `until`.
    pub(super) fn planted(&self, until: NaiveDateTime) -> BTreeMap<u8, u64> {
        let mut planted = BTreeMap::new();
        self.planted_in_events(until, &mut planted);
        self.planted_in_rows(until, &mut planted);
        planted
    }

    fn planted_in_events(&self, until: NaiveDateTime, planted: &mut BTreeMap<u8, u64>) {
        let heard: Vec<&Record<Event>> = self.gates.events.iter().filter(|record| record.at < until).collect();
        let landed = || heard.iter().filter(|record| record.fate == Fate::Lands).map(|record| &record.value);
        let mut put = |number, count: usize| planted.insert(number, count as u64);
        put(2, landed().filter(|event| event.received - event.at > TimeDelta::hours(1)).count());
        put(3, landed().filter(|event| event.received < event.at).count());
        let has_card = |event: &Event| event.card.is_some_and(|card| card >= CARD_MIN);
        let is_nameless = |event: &&Event| !matches!(event.person, PersonField::Student(_));
        put(4, landed().filter(is_nameless).filter(|event| !has_card(event)).count());
        put(7, landed().filter(is_nameless).filter(|event| has_card(event)).count());
        put(5, landed().filter(|event| self.told(event) == Direction::Unknown).count());
        put(19, heard.windows(2).filter(|pair| pair[1].value.at < pair[0].value.at).count());

        let mut of_one: HashMap<(Option<u32>, Option<u32>), Vec<&Event>> = HashMap::new();
        for event in landed() {
            let key = match event.person {
                PersonField::Student(index) => (Some(index), None),
                _ => (None, event.card),
            };
            if key != (None, None) {
                of_one.entry(key).or_default().push(event);
            }
        }
        let (mut repeated, mut read_twice) = (0, 0);
        for events in of_one.values_mut() {
            events.sort_by_key(|event| (event.at, event.serial));
            let told = |event: &Event| (event.direction != Direction::Unknown).then(|| self.told(event));
            repeated += events.windows(2).filter(|of| told(of[0]).is_some() && told(of[0]) == told(of[1])).count();
            let mut readings: HashMap<(u16, NaiveDateTime), usize> = HashMap::new();
            for event in events {
                *readings.entry((event.device, minute_of(event.at))).or_default() += 1;
            }
            read_twice += readings.values().map(|count| count - 1).sum::<usize>();
        }
        put(6, repeated);
        put(20, read_twice);
    }

    pub(crate) fn told(&self, event: &Event) -> Direction {
        match self.gates.devices[event.device as usize].value.place {
            Place::LibraryIn => Direction::In,
            Place::LibraryOut => Direction::Out,
            _ => event.direction,
        }
    }

    fn planted_in_rows(&self, until: NaiveDateTime, planted: &mut BTreeMap<u8, u64>) {
        fn count<T>(records: &[Record<T>], until: NaiveDateTime, has: impl Fn(&Record<T>) -> bool) -> u64 {
            records.iter().filter(|record| record.at < until && has(record)).count() as u64
        }
        let lands = |fate| fate == Fate::Lands;
        let terminal = |txn: &crate::spending::Txn| &self.spending.terminals[txn.terminal as usize];
        let txns = &self.spending.records;
        let of_grades = |has: &dyn Fn(&Record<crate::academics::Grade>) -> bool| count(&self.grades, until, has);
        planted.extend([
            (1, count(txns, until, |record| terminal(&record.value).offline)),
            (8, count(&self.cards.records, until, |r| lands(r.fate) && r.value.previous.is_some())),
            (9, count(&self.homes.moves, until, |r| r.value.kind != "00" && self.plan.befalls(9, r.value.id))),
            (10, count(&self.bases, until, |r| !self.plan.style(r.value.student).is_multiple_of(3))),
            (11, of_grades(&|_| true)),
            (12, count(txns, until, |record| terminal(&record.value).untyped)),
            (13, of_grades(&|record| lands(record.fate) && !record.value.valid)),
            (14, count(&self.leaves, until, |record| record.value.cancel_state == "2")),
            (
                15,
                count(&self.bases, until, |r| {
                    !r.value.current
                        && self.plan.befalls(15, r.value.student as u64)
                        && self.students[r.value.student].student_no == r.value.student_no
                }),
            ),
            (16, of_grades(&|record| lands(record.fate) && record.value.attempt > 1)),
            (17, count(&self.enrollments, until, |r| lands(r.fate) && !r.value.student_no.starts_with('2'))),
            (18, count(&self.homes.spaces, until, |r| r.value.kind == SpaceKind::Bed && r.value.bed.ends_with('铺'))),
            (21, count(&self.meters.readings, until, |r| !self.meters.meters[r.value.meter].is_listed)),
        ]);
    }
}

fn minute_of(time: NaiveDateTime) -> NaiveDateTime {
    time - TimeDelta::seconds(time.and_utc().timestamp().rem_euclid(60))
}
