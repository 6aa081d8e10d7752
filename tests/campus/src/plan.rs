//! What campus to make: seed, size, day and how often sources misbehave. Enters everything, reads nothing.

use chrono::{NaiveDate, NaiveDateTime};

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

/// Rates in per mille. Each kind is planted at least once whatever the rate, unless the rate is 0.
#[derive(Clone, Debug)]
pub struct Defects {
    /// Rows of each broken kind per 1000 students: they must become dead letters.
    pub dead_per_mille: u64,
    /// Rows and events that are delivered a second time, unchanged.
    pub repeats_per_mille: u64,
    /// Gate events of nobody known: visitors, lost tags, failed readings.
    pub strangers_per_mille: u64,
}

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

    /// How many rows of one broken kind the campus gets.
    pub(crate) fn dead_of_each_kind(&self) -> usize {
        match self.defects.dead_per_mille {
            0 => 0,
            rate => (self.students * rate as usize / 1000).max(1),
        }
    }
}

impl Default for Defects {
    fn default() -> Self {
        Self { dead_per_mille: 4, repeats_per_mille: 5, strangers_per_mille: 30 }
    }
}
