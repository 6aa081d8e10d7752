//! Campus cards: accounts, the cards issued on them one after another, and their states.

use chrono::{NaiveDate, NaiveDateTime};

use crate::cast::Role;
use crate::clock::{at, date, days_before};
use crate::people::Student;
use crate::plan::Plan;
use crate::random::Random;
use crate::record::{Defect, Record};

/// A card of an account.
#[derive(Clone, Debug)]
pub struct Card {
    pub student: usize,
    /// Account number, the same for every card of the chain.
    pub card_no: String,
    /// Rising number over all cards.
    pub sequence: u32,
    pub previous: Option<u32>,
    pub physical: u32,
    /// Vendor's word for the kind.
    pub kind: &'static str,
    /// KPZT: 1 normal, 2 cancelled, 3 lost, 7 expired.
    pub state: &'static str,
    /// Known to the second for reissued cards, to the day for the first ones.
    pub opened_at: NaiveDateTime,
    pub expires_on: NaiveDate,
    pub balance_fen: i64,
    pub changed_at: NaiveDateTime,
}

/// Cards and the way from a person and a moment to one of them.
pub struct Cards {
    pub records: Vec<Record<Card>>,
    /// Per student, indexes of the cards that were ever hers, oldest first. Only first versions.
    chains: Vec<Vec<usize>>,
}

impl Cards {
    /// The card a student carries at `time`.
    pub fn carried(&self, student: usize, time: NaiveDateTime) -> Option<usize> {
        self.chains[student].iter().rev().copied().find(|index| self.records[*index].value.opened_at <= time)
    }

    /// The first card of a student, whatever became of it.
    pub fn first(&self, student: usize) -> usize {
        self.chains[student][0]
    }

    /// The card that replaced `index`, if one did.
    pub fn successor(&self, index: usize) -> Option<&Card> {
        let card = &self.records[index].value;
        let next = |other: &usize| self.records[*other].value.previous == Some(card.sequence);
        self.chains[card.student].iter().find(|other| next(other)).map(|other| &self.records[*other].value)
    }

    pub fn card(&self, index: usize) -> &Card {
        &self.records[index].value
    }

    /// The chain of a student's cards, oldest first.
    pub fn chain(&self, student: usize) -> &[usize] {
        &self.chains[student]
    }
}

/// Issues a card to everyone, and another one to who lost or broke it.
pub fn cards(plan: &Plan, students: &[Student]) -> Cards {
    let mut cards = Cards { records: Vec::new(), chains: vec![Vec::new(); students.len()] };
    for (index, student) in students.iter().enumerate() {
        let mut random = Random::new(plan.seed, "card", index as u64);
        let opened = date(student.study.grade_year, 9, 1);
        let first = cards.issue(plan, index, student, None, opened.and_time(chrono::NaiveTime::MIN));
        match Role::at(index) {
            Some(Role::ReissuedCard) => {
                cards.replace(plan, index, student, first, at(days_before(plan.day, 3), 10, 0, 0), "2")
            }
            Some(Role::LostCardUsed) => {
                cards.replace(plan, index, student, first, at(days_before(plan.day, 2), 17, 30, 0), "3")
            }
            None if plan.befalls(8, index as u64) => {
                let days = (plan.day - opened).num_days();
                let day = days_before(plan.day, random.between(2, days.max(3) - 1) as u64);
                let time = at(day, random.between(9, 16) as u32, random.between(0, 59) as u32, 0);
                cards.replace(plan, index, student, first, time, "2");
            }
            _ => {}
        }
    }
    cards.reuse(plan);
    for index in 0..plan.dead_of_each_kind() {
        let mut random = Random::new(plan.seed, "card dead", index as u64);
        let changed_at = at(days_before(plan.day, 40), 9, 0, 0);
        let mut broken = cards.card(random.index(cards.records.len())).clone();
        broken.sequence = 90_000_000 + index as u32;
        broken.previous = None;
        broken.card_no = format!("9{index:07}");
        broken.balance_fen = 9_999_999_900;
        broken.changed_at = changed_at;
        cards.records.push(Record::dead(changed_at, Defect::CardBalance, broken));
    }
    cards
}

impl Cards {
    fn issue(
        &mut self,
        plan: &Plan,
        index: usize,
        student: &Student,
        previous: Option<u32>,
        opened_at: NaiveDateTime,
    ) -> usize {
        let place = self.records.len();
        let sequence = 10_000_001 + place as u32;
        let years = student.study.years();
        let mut random = Random::new(plan.seed, "physical", place as u64);
        // High bits random, low bits the place: physical numbers never meet by chance.
        let physical = ((random.below(0x0f00) as u32 + 0x0100) << 20) | place as u32;
        let card = Card {
            student: index,
            card_no: format!("{:08}", 20_000_000 + index),
            sequence,
            previous,
            physical,
            kind: if random.chance(30) && previous.is_none() { "虚拟卡" } else { "正式卡" },
            state: "1",
            opened_at,
            expires_on: date(student.study.grade_year + years, 7, 31),
            balance_fen: 0,
            changed_at: opened_at,
        };
        self.records.push(Record::insert(opened_at, card));
        self.chains[index].push(place);
        place
    }

    /// The old card gets `state`, a new one opens at `time`, both in one moment.
    fn replace(
        &mut self,
        plan: &Plan,
        index: usize,
        student: &Student,
        old: usize,
        time: NaiveDateTime,
        state: &'static str,
    ) {
        let record = &mut self.records[old];
        record.value.state = state;
        record.value.changed_at = time;
        record.at = time;
        let sequence = record.value.sequence;
        self.issue(plan, index, student, Some(sequence), time);
    }

    /// The physical card that came back is written anew for somebody else, a day later.
    fn reuse(&mut self, plan: &Plan) {
        let back = self.card(self.first(Role::ReissuedCard.index())).physical;
        let time = at(days_before(plan.day, 2), 11, 0, 0);
        let old = self.first(Role::ReusedCard.index());
        let record = &mut self.records[old];
        record.value.state = "2";
        record.value.changed_at = time;
        record.at = time;
        let mut next = record.value.clone();
        next.previous = Some(next.sequence);
        next.sequence = 10_000_001 + self.records.len() as u32;
        next.physical = back;
        next.state = "1";
        next.opened_at = time;
        self.chains[Role::ReusedCard.index()].push(self.records.len());
        self.records.push(Record::insert(time, next));
    }
}
