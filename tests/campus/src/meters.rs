//! Electricity meters of the rooms that are lived in, and the list of which meter is whose room, which somebody keeps by hand.
//!
//! Homes enter; a meter a room and its readings leave: one each morning, and now and then an overload. Meters that nobody has
//! written into the list (L21) read all the same.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{NaiveDateTime, TimeDelta};

use crate::clock::{at, days_before};
use crate::homes::Homes;
use crate::plan::Plan;
use crate::random::Random;
use crate::record::{Defect, Fate, Record};

/// A meter behind the gateway of its building.
#[derive(Clone, Debug)]
pub struct Meter {
    pub no: String,
    pub gateway: String,
    /// As `Bed::space_id`, without the bed.
    pub room: String,
    pub is_listed: bool,
}

/// What a meter tells at a moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Index into the meters.
    pub meter: usize,
    pub at: NaiveDateTime,
    /// Energy so far.
    pub watt_hours: u64,
    pub power_w: i64,
    /// Of the room; negative when it owes.
    pub balance_fen: i64,
    pub is_overload: bool,
}

/// All meters, and what they told in the order of time.
pub struct Meters {
    pub meters: Vec<Meter>,
    pub readings: Vec<Record<Reading>>,
}

/// A meter in each room in which somebody lives.
pub fn meters(plan: &Plan, homes: &Homes) -> Meters {
    let lived_in = homes.bed_of.iter().flatten().map(|bed| &homes.beds[*bed]);
    let rooms: BTreeSet<_> = lived_in.map(|bed| (&bed.building, format!("{}-{}", bed.building, bed.room))).collect();
    let meter = |(number, (building, room)): (usize, (&String, String))| Meter {
        no: format!("0001002{number:05}"),
        gateway: format!("gw-{}", building.to_lowercase()),
        room,
        is_listed: !plan.befalls(21, number as u64),
    };
    let meters: Vec<Meter> = rooms.into_iter().enumerate().map(meter).collect();
    let mut readings = Vec::new();
    for back in (0..=u64::from(plan.history_days)).rev() {
        for (index, meter) in meters.iter().enumerate() {
            let mut random = Random::new(plan.seed, "reading", index as u64 * 1000 + back);
            let days = u64::from(plan.history_days) - back;
            let reading = Reading {
                meter: index,
                at: at(days_before(plan.day, back), 6, 0, 0) + TimeDelta::seconds(index as i64 % 600),
                watt_hours: 1_523_250 + days * 4_800 + random.below(4_000),
                power_w: random.between(5, 900),
                balance_fen: random.between(-500, 20_000),
                is_overload: false,
            };
            let fate = if meter.is_listed { Fate::Lands } else { Fate::Dead(Defect::ReadingUnmapped) };
            if random.chance(50) {
                let at = reading.at + TimeDelta::hours(15);
                let overload = Reading { at, power_w: 2_300, is_overload: true, ..reading.clone() };
                readings.push(Record { fate, ..Record::insert(at, overload) });
            }
            readings.push(Record { fate, ..Record::insert(reading.at, reading) });
        }
    }
    if let Some(listed) = readings.iter().find(|record| record.fate == Fate::Lands).cloned() {
        for index in 0..plan.dead_of_each_kind() {
            let at = listed.at + TimeDelta::seconds(index as i64 + 1);
            let broken = Reading { at, power_w: -1, ..listed.value.clone() };
            readings.push(Record::dead(at, Defect::ReadingPower, broken));
        }
    }
    readings.sort_by_key(|record| record.at);
    Meters { meters, readings }
}

impl Meters {
    /// The list that is kept by hand: meter → room.
    pub fn list(&self) -> BTreeMap<String, String> {
        let listed = self.meters.iter().filter(|meter| meter.is_listed);
        listed.map(|meter| (meter.no.clone(), meter.room.clone())).collect()
    }
}
