//! Doors and the passes through them: a week of coming and going, with everything that gates get wrong.

use chrono::{Datelike, NaiveDate, NaiveDateTime, TimeDelta, Timelike, Weekday};

use crate::cards::Cards;
use crate::clock::{at, days_before};
use crate::homes::Homes;
use crate::people::Student;
use crate::plan::Plan;
use crate::random::Random;
use crate::record::{Change, Defect, Fate, Record};
use crate::walks;

/// A door with its reader.
#[derive(Clone, Debug)]
pub struct Device {
    /// The platform's identifier.
    pub index_code: String,
    pub door_no: u32,
    /// `D01-东门1`; the school names its doors by building code.
    pub name: String,
    pub building: String,
    pub place: Place,
    pub turnstile: bool,
    pub changed_at: NaiveDateTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Dormitory,
    CampusGate,
    /// Direction only in the label of the door.
    LibraryIn,
    LibraryOut,
}

/// One event as the device reports it.
#[derive(Clone, Debug)]
pub struct Event {
    /// Index into the devices.
    pub device: u16,
    pub serial: u32,
    pub at: NaiveDateTime,
    pub received: NaiveDateTime,
    pub person: PersonField,
    /// Number the reader saw; none for a face.
    pub card: Option<u32>,
    pub direction: Direction,
    pub kind: EventKind,
}

/// What stands in the person field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PersonField {
    Student(u32),
    Zero,
    Empty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
    /// The door does not know (L5).
    Unknown,
}

/// The vendor's event type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    CardPassed,
    FacePassed,
    CodePassed,
    NoPermission,
    UnknownCard,
}

impl EventKind {
    pub fn code(self) -> u32 {
        match self {
            EventKind::CardPassed | EventKind::CodePassed => 198_914,
            EventKind::FacePassed => 196_893,
            EventKind::NoPermission => 197_635,
            EventKind::UnknownCard => 197_634,
        }
    }

    pub fn granted(self) -> bool {
        !matches!(self, EventKind::NoPermission | EventKind::UnknownCard)
    }
}

/// A pass before devices and counters have their say.
#[derive(Clone, Debug)]
pub struct Pass {
    pub at: NaiveDateTime,
    pub device: usize,
    pub person: PersonField,
    pub card: Option<u32>,
    pub direction: Direction,
    pub kind: EventKind,
    /// Seconds until the platform has it; negative when the device's clock is ahead.
    pub delay_s: i64,
}

/// Devices and events; records in the order of delivery.
pub struct Gates {
    pub devices: Vec<Record<Device>>,
    pub events: Vec<Record<Event>>,
    /// Place of the device whose clock is a day ahead.
    pub sick: usize,
}

pub const CAMPUS_GATE: usize = 0;
pub const LIBRARY_IN: usize = 2;
pub const LIBRARY_OUT: usize = 3;
const DORMITORY_FIRST: usize = 4;
/// Doors of each dormitory.
pub const DOORS_OF_DORMITORY: usize = 2;

/// The first door of the dormitory with this code.
pub fn door_of(building: &str) -> usize {
    let number: usize = building[1..].parse().expect("dormitories are called D and a number");
    DORMITORY_FIRST + (number - 1) * DOORS_OF_DORMITORY
}

fn devices(plan: &Plan, homes: &Homes) -> Vec<Record<Device>> {
    let mut list: Vec<(String, String, Place)> = vec![
        ("S01".into(), "南门1".into(), Place::CampusGate),
        ("S01".into(), "北门1".into(), Place::CampusGate),
        ("L01".into(), "大厅1[进门]".into(), Place::LibraryIn),
        ("L01".into(), "大厅2[出门]".into(), Place::LibraryOut),
    ];
    let dormitories = homes.beds.iter().map(|bed| bed.building.clone()).collect::<std::collections::BTreeSet<_>>();
    for building in dormitories {
        list.push((building.clone(), "东门1".into(), Place::Dormitory));
        list.push((building, "西门1".into(), Place::Dormitory));
    }
    list.push(("S01".into(), "侧门9".into(), Place::CampusGate));
    let changed_at = at(days_before(plan.day, u64::from(plan.history_days)), 0, 5, 0);
    let mut records = Vec::new();
    for (index, (building, door, place)) in list.into_iter().enumerate() {
        let mut random = Random::new(plan.seed, "device", index as u64);
        let device = Device {
            index_code: format!("{:016x}{:016x}", random.next(), random.next()),
            door_no: 1,
            name: format!("{building}-{door}"),
            building,
            place,
            turnstile: place == Place::Dormitory,
            changed_at,
        };
        records.push(Record::insert(changed_at, device));
    }
    records
}

impl Gates {
    /// Lets everybody walk through the history and the day.
    pub fn new(plan: &Plan, students: &[Student], homes: &Homes, cards: &Cards) -> Gates {
        let devices = devices(plan, homes);
        let sick = devices.len() - 1;
        let mut gates = Gates { devices, events: Vec::new(), sick };
        let mut serials: Vec<u32> = (0..gates.devices.len() as u32).map(|index| 10_000 + 977 * index).collect();
        for back in (0..=plan.history_days).rev() {
            let day = days_before(plan.day, u64::from(back));
            let mut passes = walks::ordinary(plan, day, students, homes, cards);
            passes.extend(read_twice(plan, &passes));
            passes.extend(walks::cast(plan, day, homes, cards));
            gates.strangers(plan, day, &mut passes);
            passes.sort_by_key(|pass| (pass.at, pass.device));
            for pass in passes {
                serials[pass.device] += 1;
                let serial = serials[pass.device];
                gates.events.push(event(pass, serial, sick));
            }
        }
        gates.repeat(plan);
        gates.broken(plan);
        // Devices deliver in the order the platform has them, not in the order of the events (L19).
        gates.events.sort_by_key(|record| record.at);
        gates.rename_on_the_day(plan);
        gates
    }

    /// Visitors, foreign cards, failed readings: nobody's events, and a device whose clock is wrong.
    fn strangers(&self, plan: &Plan, day: NaiveDate, passes: &mut Vec<Pass>) {
        let mut random = Random::new(plan.seed, "strangers", u64::from(day.num_days_from_ce() as u32));
        let rate = plan.defects.per_mille(4);
        let count = passes.len() as u64 * rate / 1000 + u64::from(rate > 0);
        for _ in 0..count {
            let time =
                at(day, random.between(7, 22) as u32, random.between(0, 59) as u32, random.between(0, 59) as u32);
            let unknown_card = random.chance(500);
            passes.push(Pass {
                at: time,
                device: random.index(DORMITORY_FIRST),
                person: if random.chance(500) { PersonField::Zero } else { PersonField::Empty },
                // Below every card of the campus.
                card: unknown_card.then(|| random.below(0x0fff_ffff) as u32),
                direction: if random.chance(500) { Direction::In } else { Direction::Out },
                kind: if unknown_card { EventKind::UnknownCard } else { EventKind::FacePassed },
                delay_s: 2,
            });
        }
        for _ in 0..plan.dead_of_each_kind().min(20) {
            passes.push(Pass {
                at: at(day, random.between(8, 21) as u32, random.between(0, 59) as u32, random.between(0, 59) as u32),
                device: self.sick,
                person: PersonField::Zero,
                card: None,
                direction: Direction::In,
                kind: EventKind::FacePassed,
                delay_s: 1,
            });
        }
    }

    /// Devices send again what they are not sure of.
    fn repeat(&mut self, plan: &Plan) {
        let mut random = Random::new(plan.seed, "event repeat", 0);
        let again = |record: &Record<Event>| {
            let at = (record.at + TimeDelta::minutes(7)).min(at(record.at.date(), 23, 59, 59));
            Record { at, fate: Fate::Repeat, ..record.clone() }
        };
        let repeats: Vec<Record<Event>> = self
            .events
            .iter()
            .filter(|record| record.fate == Fate::Lands && random.chance(plan.defects.repeats_per_mille))
            .map(again)
            .collect();
        self.events.extend(repeats);
    }

    fn broken(&mut self, plan: &Plan) {
        for index in 0..plan.dead_of_each_kind() {
            let mut random = Random::new(plan.seed, "event dead", index as u64);
            let time = at(plan.day, 6, 0, 0) + TimeDelta::minutes(random.between(0, 900));
            let event = Event {
                device: CAMPUS_GATE as u16,
                serial: index as u32 + 1,
                at: time,
                received: time + TimeDelta::seconds(3),
                person: PersonField::Zero,
                card: None,
                direction: Direction::In,
                kind: EventKind::FacePassed,
            };
            self.events.push(Record::dead(event.received, Defect::EventDeviceMissing, event));
            let mut device = self.devices[CAMPUS_GATE].value.clone();
            device.index_code = format!("{:032x}", index + 1);
            device.door_no = 0;
            self.devices.push(Record::dead(device.changed_at, Defect::DeviceDoor, device));
        }
    }

    /// A door gets another name on the day: the platform sends its list again with one change.
    fn rename_on_the_day(&mut self, plan: &Plan) {
        let mut device = self.devices[CAMPUS_GATE + 1].value.clone();
        device.name = "S01-北门1(改造)".to_string();
        device.changed_at = at(plan.day, 14, 30, 0);
        self.devices.push(Record { change: Change::Update, ..Record::insert(device.changed_at, device) });
    }
}

/// A second reading of one pass: another serial, the same minute (L20). Both are kept.
fn read_twice(plan: &Plan, passes: &[Pass]) -> Vec<Pass> {
    let again = |pass: &Pass| Pass { at: pass.at + TimeDelta::seconds(3), ..pass.clone() };
    let index = |pass: &Pass| pass.at.and_utc().timestamp() as u64 * 64 + pass.device as u64;
    let is_early = |pass: &&Pass| pass.at.second() < 57 && plan.befalls(20, index(pass));
    passes.iter().filter(is_early).map(again).collect()
}

fn event(pass: Pass, serial: u32, sick: usize) -> Record<Event> {
    let received = pass.at + TimeDelta::seconds(pass.delay_s);
    let mut event = Event {
        device: pass.device as u16,
        serial,
        at: pass.at,
        received,
        person: pass.person,
        card: pass.card,
        direction: pass.direction,
        kind: pass.kind,
    };
    if pass.device == sick {
        // L2: the clock is a day ahead.
        event.at = received + TimeDelta::days(1);
        return Record::dead(received, Defect::EventAhead, event);
    }
    Record::insert(received, event)
}

/// True on days without lectures.
pub fn is_weekend(day: NaiveDate) -> bool {
    matches!(day.weekday(), Weekday::Sat | Weekday::Sun)
}
