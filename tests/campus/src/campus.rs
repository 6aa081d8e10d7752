//! A whole campus out of a plan. Nothing here reads a clock, a file or a network; equal plans give equal campuses.

use crate::academics::{self, Course, Grade};
use crate::affairs::{self, Contact, Leave};
use crate::calendar::{self, CalendarDay};
use crate::cards::{self, Cards};
use crate::cast::Role;
use crate::gates::Gates;
use crate::homes::{self, Homes};
use crate::meters::{self, Meters};
use crate::offices::{self, Office};
use crate::people::{self, Staff, Student};
use crate::plan::{HISTORY_DAYS_MIN, Plan, STUDENTS_MIN};
use crate::record::Record;
use crate::registry::{self, Account, Base, Enrollment};
use crate::spending::{self, Spending};

/// Everything the source systems of one school hold when the day begins, and what they write during it.
pub struct Campus {
    pub plan: Plan,
    pub staff: Vec<Staff>,
    pub students: Vec<Student>,
    pub calendar: Vec<CalendarDay>,
    pub bases: Vec<Record<Base>>,
    pub enrollments: Vec<Record<Enrollment>>,
    pub accounts: Vec<Record<Account>>,
    pub leaves: Vec<Record<Leave>>,
    pub contacts: Vec<Record<Contact>>,
    pub courses: Vec<Record<Course>>,
    pub grades: Vec<Record<Grade>>,
    pub homes: Homes,
    pub cards: Cards,
    pub spending: Spending,
    pub gates: Gates,
    pub meters: Meters,
    pub offices: Vec<Office>,
}

impl Campus {
    /// Makes the campus of `plan`. 100 000 students take some seconds and about a gigabyte in a release build.
    ///
    /// # Panics
    /// With fewer than 50 students or fewer than 4 days of history: the planted cases would not fit.
    pub fn generate(plan: Plan) -> Campus {
        assert!(plan.students >= STUDENTS_MIN, "a campus has at least {STUDENTS_MIN} students");
        assert!(plan.history_days >= HISTORY_DAYS_MIN, "a campus has at least {HISTORY_DAYS_MIN} days of history");
        let staff = people::staff(&plan);
        let students = people::students(&plan, &staff);
        let courses = academics::courses(&plan);
        let homes = homes::homes(&plan, &students);
        let mut cards = cards::cards(&plan, &students);
        let spending = spending::spending(&plan, &students, &cards);
        cards.settle(&spending.balance_before_day);
        let gates = Gates::new(&plan, &students, &homes, &cards);
        let meters = meters::meters(&plan, &homes);
        let mut campus = Campus {
            calendar: calendar::days_around(plan.day),
            bases: registry::bases(&plan, &students, &staff),
            enrollments: registry::enrollments(&plan, &students, &staff),
            accounts: registry::accounts(&plan, &students, &staff),
            leaves: affairs::leaves(&plan, &students),
            contacts: affairs::contacts(&plan, &students, &staff),
            grades: academics::grades(&plan, &students, &courses),
            staff,
            students,
            courses,
            homes,
            cards,
            spending,
            gates,
            meters,
            offices: Vec::new(),
            plan,
        };
        campus.offices = offices::offices(&campus);
        campus
    }

    /// The student number under which a planted case is to be found.
    pub fn student_of(&self, role: Role) -> &str {
        &self.students[role.index()].student_no
    }
}

impl Cards {
    /// Writes into each account's cards what is left when the day begins; the card office posts it at night.
    fn settle(&mut self, balance_before_day: &[i64]) {
        for (student, balance) in balance_before_day.iter().enumerate() {
            for index in self.chain(student).to_vec() {
                self.records[index].value.balance_fen = *balance;
            }
        }
    }
}
