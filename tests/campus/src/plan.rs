//! What campus to make: seed, size, day and how often sources misbehave. Enters everything, reads nothing.

use std::collections::BTreeMap;

use chrono::{NaiveDate, NaiveDateTime};

use crate::random::Random;

/// The whole input of [`crate::campus::Campus::generate`]. Equal plans give equal campuses.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Any number; another seed is another campus.
    pub seed: u64,
    /// Current students, 50 to 100 000 and more. Former numbers, staff and visitors come on top.
    pub students: usize,
    /// The day that is played live, local date.
    pub day: NaiveDate,
    /// Days of card and gate history before `day`, at least 4 so that the planted cases fit.
    pub history_days: u32,
    /// How often sources misbehave.
    pub defects: Defects,
}

/// How often. Each broken kind comes at least once, unless its rate is 0.
#[derive(Clone, Debug)]
pub struct Defects {
    /// Rows of each broken kind per 1000 students: they must become dead letters.
    pub dead_per_mille: u64,
    /// Rows and events that are delivered a second time, unchanged.
    pub repeats_per_mille: u64,
    /// By number, as in [`RATES`].
    rates: BTreeMap<u8, u64>,
}

/// What real sources were observed to do (L1 to L21), where it has a rate: number, what is counted, and the rate per mille
/// unless the plan has another. L6, L7, L19 and L20 are as measured on a public set of gate records. L11, L14, L16, L17 and
/// L18 are how a source is made, at any rate.
pub const RATES: &[(u8, &str, u64)] = &[
    (1, "terminals that post many rows with one time", 400),
    (2, "passes that are told hours to two days late", 5),
    (3, "passes at a door whose clock is a minute ahead", 20),
    (4, "passes of nobody: no number, and no card of the campus", 30),
    (5, "passes whose direction the door does not know", 10),
    // On top of those that nobody read and that lead from one gate to the next: 39 % in all.
    (6, "passes that are told in the direction of the one before", 300),
    (7, "passes that name a card only: nobody's until the list of cards is there", 570),
    (8, "cards that were replaced", 80),
    (9, "rows with padded building codes", 900),
    (10, "students whose row is spelt in another way than the first", 800),
    (12, "terminals that leave the kind of a transaction to its sign", 400),
    (13, "results that were withdrawn, their row still there", 5),
    (15, "students whom one system has here and another has not", 50),
    // On top of those that L2 and L3 bring out of order: 5 % in all.
    (19, "passes that are told after later ones", 22),
    (20, "passes that are read a second time within the minute", 37),
    (21, "meters that nobody has written into the list of which room is whose", 100),
];

/// The first cast members have fixed places; a smaller campus has no room for them.
pub const STUDENTS_MIN: usize = 50;
/// The planted cases reach four days back.
pub const HISTORY_DAYS_MIN: u32 = 4;

impl Plan {
    /// A plan of the default rates and seven days of history.
    pub fn new(seed: u64, students: usize, day: NaiveDate) -> Self {
        Self { seed, students, day, history_days: 7, defects: Defects::default() }
    }

    /// Midnight that begins the live day.
    pub fn day_start(&self) -> NaiveDateTime {
        self.day.and_time(chrono::NaiveTime::MIN)
    }

    /// Whether the observed defect `number` befalls its case `index`.
    pub(crate) fn befalls(&self, number: u8, index: u64) -> bool {
        let stream = u64::from(number) << 48 | index;
        Random::new(self.seed, "observed defect", stream).chance(self.defects.per_mille(number))
    }

    /// In which of its ways a form writes the row of a student (L10); 0 is the first.
    pub(crate) fn style(&self, student: usize) -> usize {
        if self.befalls(10, student as u64) { student } else { 0 }
    }

    /// How many rows of one broken kind the campus gets.
    pub(crate) fn dead_of_each_kind(&self) -> usize {
        match self.defects.dead_per_mille {
            0 => 0,
            rate => (self.students * rate as usize / 1000).max(1),
        }
    }
}

impl Defects {
    /// The rate of the observed defect `number`.
    pub fn per_mille(&self, number: u8) -> u64 {
        self.rates[&number]
    }

    /// Takes `L7=0.1`: a tenth of all cases.
    ///
    /// # Errors
    /// In words: what is wrong, and what would be right.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let wrong = |what: &str| format!("{what}: `{text}` is not like `L7=0.1`, a defect and its share from 0 to 1");
        let (name, share) = text.split_once('=').ok_or_else(|| wrong("no `=`"))?;
        let number =
            name.strip_prefix('L').and_then(|number| number.parse::<u8>().ok()).filter(|n| (1..=21).contains(n));
        let number = number.ok_or_else(|| wrong("no defect"))?;
        let share = share.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
        let per_mille = (share.ok_or_else(|| wrong("no share"))? * 1000.0).round() as u64;
        let rate = self.rates.get_mut(&number);
        *rate.ok_or_else(|| format!("L{number} has no rate: it is how the sources are made"))? = per_mille;
        Ok(())
    }
}

impl Default for Defects {
    fn default() -> Self {
        let rates = RATES.iter().map(|(number, _, per_mille)| (*number, *per_mille)).collect();
        Self { dead_per_mille: 4, repeats_per_mille: 5, rates }
    }
}
