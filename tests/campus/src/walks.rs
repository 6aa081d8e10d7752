//! Who walks where: ordinary days of everybody, and the planted days of the cast.

use chrono::{Datelike, NaiveDate, NaiveDateTime, TimeDelta, Weekday};

use crate::calendar::curfew_minute;
use crate::cards::Cards;
use crate::cast::Role;
use crate::clock::{at, days_before, second_of};
use crate::gates::{
    CAMPUS_GATE, DOORS_OF_DORMITORY, Direction, EventKind, LIBRARY_IN, LIBRARY_OUT, Pass, PersonField, door_of,
    is_weekend,
};
use crate::homes::Homes;
use crate::people::Student;
use crate::plan::Plan;
use crate::random::Random;

/// The passes of all but the cast (whose evenings are planted) on one day.
pub fn ordinary(plan: &Plan, day: NaiveDate, students: &[Student], homes: &Homes, cards: &Cards) -> Vec<Pass> {
    let mut passes = Vec::new();
    for index in 0..students.len() {
        if !walks_freely(index) {
            continue;
        }
        let mut random =
            Random::new(plan.seed, "walk", index as u64 * 100_000 + u64::from(day.num_days_from_ce() as u32 % 100_000));
        let mut walker = Walker { plan, index, random: &mut random, cards, last: None, passes: &mut passes };
        match homes.bed_of[index] {
            Some(bed) => walker.resident(day, door_of(&homes.beds[bed].building)),
            None => walker.commuter(day),
        }
    }
    passes
}

fn walks_freely(index: usize) -> bool {
    use Role::*;
    !matches!(
        Role::at(index),
        Some(
            Silent
                | OnLeave
                | NotBack
                | LateEvent
                | FridayEvening
                | LateReturn
                | RepeatedDenials
                | TwoPlaces
                | ReissuedCard
                | ReusedCard
                | LostCardUsed
        )
    )
}

struct Walker<'a> {
    plan: &'a Plan,
    index: usize,
    random: &'a mut Random,
    cards: &'a Cards,
    /// In which direction the pass before was told.
    last: Option<Direction>,
    passes: &'a mut Vec<Pass>,
}

impl Walker<'_> {
    fn resident(&mut self, day: NaiveDate, door: usize) {
        let weekend = is_weekend(day);
        let out = if weekend { self.random.normal(600, 60) } else { self.random.normal(455, 20) };
        self.walk(day, out, door, Direction::Out);
        if self.random.chance(450) {
            let back = self.random.normal(745, 15);
            self.walk(day, back, door, Direction::In);
            let again = self.random.normal(815, 10);
            self.walk(day, again, door, Direction::Out);
        }
        if self.random.chance(180) {
            let arrives = self.random.between(850, 1000);
            self.walk(day, arrives, LIBRARY_IN, Direction::In);
            let leaves = self.random.between(1100, 1240);
            self.walk(day, leaves, LIBRARY_OUT, Direction::Out);
        }
        if self.random.chance(if weekend { 350 } else { 60 }) {
            self.walk(day, out + 25, CAMPUS_GATE, Direction::Out);
            let back = self.random.between(1000, 1180);
            self.walk(day, back, CAMPUS_GATE + 1, Direction::In);
        }
        // Few come home after the door has closed; those are the returns a rule should find.
        let late = self.random.chance(8);
        let home = if late {
            i64::from(curfew_minute(day)) + self.random.between(5, 25)
        } else {
            self.random.normal(1270, 40).min(1370)
        };
        self.walk(day, home, door, Direction::In);
    }

    fn commuter(&mut self, day: NaiveDate) {
        if is_weekend(day) {
            return;
        }
        let (comes, goes) = (self.random.normal(470, 15), self.random.normal(1080, 40));
        self.walk(day, comes, CAMPUS_GATE, Direction::In);
        self.walk(day, goes, CAMPUS_GATE, Direction::Out);
    }

    fn walk(&mut self, day: NaiveDate, minute: i64, device: usize, direction: Direction) {
        // Tailgating and propped doors: a pass nobody read, so directions repeat (L6).
        if self.random.chance(60) {
            return;
        }
        let time = second_of(day, minute.clamp(1, 1438) * 60 + self.random.between(0, 59));
        let side = if device >= door_of("D01") { self.random.index(DOORS_OF_DORMITORY) } else { 0 };
        let nameless = self.befallen(7);
        let how = if nameless { CARD } else { self.random.below(100) };
        let direction = self.told(device, direction);
        let delay_s = self.delay_s(time);
        let mut pass = pass_of(self.index, self.cards, time, device + side, direction, how, nameless);
        pass.delay_s = delay_s;
        self.passes.push(pass);
    }

    fn befallen(&mut self, number: u8) -> bool {
        self.random.chance(self.plan.defects.per_mille(number))
    }

    /// The direction as the door tells it: readers take the one before for the present one (L6), or do not know (L5). In
    /// the library the label of the door says it.
    fn told(&mut self, device: usize, direction: Direction) -> Direction {
        if matches!(device, LIBRARY_IN | LIBRARY_OUT) {
            return direction;
        }
        if self.befallen(5) {
            return Direction::Unknown;
        }
        let repeats = self.befallen(6);
        let told = self.last.filter(|_| repeats).unwrap_or(direction);
        self.last = Some(told);
        told
    }

    /// Seconds until the platform has it. At the end of the day everything was told.
    fn delay_s(&mut self, time: NaiveDateTime) -> i64 {
        if self.befallen(3) {
            return -54;
        }
        let delay_s = if self.befallen(2) {
            self.random.between(3600 + 1, 47 * 3600)
        } else if self.befallen(19) {
            self.random.between(300, 1800)
        } else {
            self.random.between(1, 4)
        };
        delay_s.min((at(self.plan.day, 23, 50, 0) - time).num_seconds().max(1))
    }
}

/// A pass by face (6 of 10), card, or code; `nameless` readers send '0' for the person of a card (L4, L7).
fn pass_of(
    index: usize,
    cards: &Cards,
    time: NaiveDateTime,
    device: usize,
    direction: Direction,
    how: u64,
    nameless: bool,
) -> Pass {
    let carried = cards.carried(index, time).map(|card| cards.card(card).physical);
    let (kind, card) = match (how, carried) {
        (60..=91, Some(card)) => (EventKind::CardPassed, Some(card)),
        (92.., Some(card)) => (EventKind::CodePassed, Some(card)),
        _ => (EventKind::FacePassed, None),
    };
    let person = match (nameless, card) {
        (true, Some(_)) => PersonField::Zero,
        _ => PersonField::Student(index as u32),
    };
    Pass { at: time, device, person, card, direction, kind, delay_s: 2 }
}

const FACE: u64 = 0;
const CARD: u64 = 70;

/// The planted passes of one day.
pub fn cast(plan: &Plan, day: NaiveDate, homes: &Homes, cards: &Cards) -> Vec<Pass> {
    let mut passes = Vec::new();
    let back = (plan.day - day).num_days();
    for role in [
        Role::NotBack,
        Role::LateEvent,
        Role::FridayEvening,
        Role::LateReturn,
        Role::OnLeave,
        Role::RepeatedDenials,
        Role::TwoPlaces,
        Role::ReissuedCard,
        Role::ReusedCard,
        Role::LostCardUsed,
    ] {
        let index = role.index();
        let bed = homes.bed_of[index].expect("the cast lives in dormitories");
        let mut stage = Stage { index, door: door_of(&homes.beds[bed].building), day, cards, passes: &mut passes };
        stage.play(role, back);
    }
    passes
}

struct Stage<'a> {
    index: usize,
    door: usize,
    day: NaiveDate,
    cards: &'a Cards,
    passes: &'a mut Vec<Pass>,
}

impl Stage<'_> {
    fn pass(&mut self, time: NaiveDateTime, direction: Direction, how: u64) -> &mut Pass {
        let nameless = how == CARD;
        self.passes.push(pass_of(self.index, self.cards, time, self.door, direction, how, nameless));
        self.passes.last_mut().expect("a pass was just pushed")
    }

    fn out_and_in(&mut self, home: (u32, u32), how: u64) {
        self.pass(at(self.day, 7, 40, self.index as u32), Direction::Out, how);
        self.pass(at(self.day, home.0, home.1, self.index as u32), Direction::In, how);
    }

    fn play(&mut self, role: Role, back: i64) {
        let friday = self.day.weekday() == Weekday::Fri;
        match role {
            Role::NotBack if back == 0 => {
                self.pass(at(self.day, 9, 0, 0), Direction::In, FACE);
                self.out_and_in((21, 5), FACE);
            }
            Role::NotBack if back == 1 => {
                self.out_and_in((18, 0), FACE);
                self.pass(at(self.day, 20, 0, 0), Direction::Out, FACE);
            }
            Role::LateEvent if back == 2 => {
                self.pass(at(self.day, 7, 40, 5), Direction::Out, FACE);
                // Forty hours later, at 13:50 on the day, the platform hears of it.
                self.pass(at(self.day, 21, 50, 0), Direction::In, FACE).delay_s = 40 * 3600;
            }
            Role::FridayEvening if friday => self.out_and_in((23, 20), FACE),
            Role::LateReturn if !friday && back == late_return_back(self.day, back) => self.out_and_in((23, 40), FACE),
            Role::OnLeave if back <= 1 => {}
            Role::OnLeave if back == 2 => {
                self.pass(at(self.day, 16, 10, 0), Direction::Out, FACE);
            }
            Role::RepeatedDenials if back == 0 => {
                self.out_and_in((21, 0), FACE);
                for minute in [5, 8, 11] {
                    self.pass(at(self.day, 18, minute, 0), Direction::In, CARD).kind = EventKind::NoPermission;
                }
            }
            Role::TwoPlaces if back == 0 => {
                self.out_and_in((21, 0), CARD);
                self.pass(at(self.day, 12, 30, 0), Direction::In, CARD);
                self.pass(at(self.day, 12, 31, 30), Direction::In, CARD).device = LIBRARY_IN;
            }
            Role::ReissuedCard | Role::ReusedCard => self.out_and_in((21, 15), CARD),
            Role::LostCardUsed if back == 0 => {
                self.out_and_in((21, 0), FACE);
                let lost = self.cards.card(self.cards.first(self.index)).physical;
                // The finder opens a gate that has not heard of the loss.
                let pass = self.pass(at(self.day, 19, 10, 0), Direction::In, CARD);
                pass.card = Some(lost);
            }
            _ => self.out_and_in((21, 0), FACE),
        }
    }
}

/// Days back of the one late return: the day before, or the one before that if it was a Friday or Saturday.
fn late_return_back(day: NaiveDate, back: i64) -> i64 {
    let plan_day = day + TimeDelta::days(back);
    (1..=4).find(|back| curfew_minute(days_before(plan_day, *back as u64)) == 1380).unwrap_or(1)
}
