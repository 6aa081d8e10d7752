//! The school calendar: terms, teaching weeks, holidays and the evening hour at which doors close.

use chrono::{Datelike, Days, NaiveDate, TimeDelta, Weekday};

use crate::clock::date;

/// One term of an academic year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// The year in which the academic year begins: 2026 for 2026-2027.
    pub year: i32,
    /// 1 autumn, 2 spring.
    pub number: u8,
}

/// One day of the calendar as the registrar keeps it.
#[derive(Clone, Debug)]
pub struct CalendarDay {
    pub date: NaiveDate,
    pub term: Term,
    /// 0 in holidays, 1 to 20 in term.
    pub teaching_week: u32,
    pub is_teaching_day: bool,
    /// Minute of the day at which a return is late: 1380 is 23:00.
    pub curfew_minute: u32,
}

const WEEKS_OF_TERM: u64 = 20;
const WEEKS_OF_TEACHING: u32 = 18;

impl Term {
    /// The Monday of its first week.
    pub fn start(self) -> NaiveDate {
        let earliest = match self.number {
            1 => date(self.year, 8, 30),
            _ => date(self.year + 1, 2, 22),
        };
        let days_to_monday = (7 - earliest.weekday().num_days_from_monday()) % 7;
        earliest + Days::new(u64::from(days_to_monday))
    }

    /// The day after its last week.
    pub fn end(self) -> NaiveDate {
        self.start() + Days::new(7 * WEEKS_OF_TERM)
    }

    pub fn next(self) -> Term {
        match self.number {
            1 => Term { number: 2, ..self },
            _ => Term { year: self.year + 1, number: 1 },
        }
    }

    /// The term a day belongs to; a break belongs to the term before it.
    pub fn of(day: NaiveDate) -> Term {
        let mut term = Term { year: day.year() - 1, number: 1 };
        while term.next().start() <= day {
            term = term.next();
        }
        term
    }

    /// `2026-2027`
    pub fn academic_year(self) -> String {
        format!("{}-{}", self.year, self.year + 1)
    }

    /// The vendor's term code: 3 autumn, 12 spring (L11).
    pub fn vendor_code(self) -> &'static str {
        if self.number == 1 { "3" } else { "12" }
    }
}

/// Curfew by weekday: 23:00, and 23:30 before a free day (Friday and Saturday nights).
pub fn curfew_minute(day: NaiveDate) -> u32 {
    match day.weekday() {
        Weekday::Fri | Weekday::Sat => 1410,
        _ => 1380,
    }
}

/// Two academic years around `day`: the one before and the present one.
pub fn days_around(day: NaiveDate) -> Vec<CalendarDay> {
    let present = Term::of(day).year;
    let first = Term { year: present - 1, number: 1 }.start();
    let end = Term { year: present + 1, number: 1 }.start();
    first.iter_days().take_while(|date| *date < end).map(calendar_day).collect()
}

fn calendar_day(date: NaiveDate) -> CalendarDay {
    let term = Term::of(date);
    let in_term = date < term.end();
    let holiday = matches!((date.month(), date.day()), (10, 1..=7) | (5, 1..=5) | (1, 1));
    let week = ((date - term.start()).num_days() / 7 + 1) as u32;
    let teaching_week = if in_term && !holiday { week } else { 0 };
    let weekend = matches!(date.weekday(), Weekday::Sat | Weekday::Sun);
    CalendarDay {
        date,
        term,
        teaching_week,
        is_teaching_day: !weekend && (1..=WEEKS_OF_TEACHING).contains(&teaching_week),
        curfew_minute: curfew_minute(date),
    }
}

/// Terms of a study that began in autumn `first_year` and were over before `day`, at most `limit`.
pub fn finished_terms(first_year: i32, day: NaiveDate, limit: usize) -> Vec<Term> {
    let mut terms = Vec::new();
    let mut term = Term { year: first_year, number: 1 };
    // Results come out in the fortnight after a term.
    while term.end() + TimeDelta::days(14) <= day && terms.len() < limit {
        terms.push(term);
        term = term.next();
    }
    terms
}
