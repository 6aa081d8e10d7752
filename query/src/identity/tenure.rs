//! Tenures: uninterrupted uses of student numbers. Records and enrolments of a number enter; its tenures leave, in order of
//! time, each with what is known of who holds it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::facts::{Enrollment, Student};
use super::index::{OPEN, SINCE_EVER};
use super::normal;
use super::review::Use;

/// A number not used for longer than this was given to someone else (学号重用), unless the month of enrolment is the same.
const REUSE_GAP_US: i64 = 3 * 366 * 86_400 * 1_000_000;

/// One uninterrupted use of a student number.
#[derive(Debug)]
pub struct Tenure<'a> {
    pub number: Arc<str>,
    /// Its place among the number's tenures.
    pub ordinal: usize,
    pub from: i64,
    pub to: i64,
    /// The beginning of the first enrolment in it and the end of the latest.
    pub began: Option<i64>,
    pub ends: i64,
    /// Whether it is more than a minor (辅修), a dual degree or an exchange.
    pub is_major: bool,
    pub known: Known<'a>,
    /// R3's condition is broken: its records differ in name and document.
    pub is_contradictory: bool,
    month: Option<&'a str>,
}

/// The newest value of each field: a correction counts, what it corrects does not.
#[derive(Debug, Default)]
pub struct Known<'a> {
    /// In its canonical form, as the exam number.
    pub name: Option<String>,
    pub exam_no: Option<String>,
    pub document: Option<&'a str>,
    pub birth_date: Option<&'a str>,
    /// Only where it says one: unknown (0) and unsaid (9) are nothing.
    pub sex_code: Option<&'a str>,
    pub college_id: Option<&'a str>,
    pub changed_at: i64,
}

impl Tenure<'_> {
    /// As decisions name it.
    pub fn as_use(&self) -> Use {
        Use { number: self.number.clone(), since: self.from }
    }

    /// Whether a record changed at this time is of this tenure; with one tenure, every record is.
    fn contains(&self, at: Option<i64>, tenures: usize) -> bool {
        tenures == 1 || at.map_or(self.to == OPEN, |at| self.from <= at && at < self.to)
    }
}

/// The place of the tenure of `number` at `at`; `tenures` are ordered. A tenure that begins soon after counts as well: the
/// registrar may yet correct when it began, and the one before ended years ago.
pub fn place(tenures: &[Tenure], number: &str, at: i64) -> Option<usize> {
    let at = at.max(SINCE_EVER).saturating_add(REUSE_GAP_US / 2);
    let first = tenures.partition_point(|tenure| &*tenure.number < number);
    let begun = tenures[first..].iter().take_while(|tenure| &*tenure.number == number && tenure.from <= at).count();
    begun.checked_sub(1).map(|last| first + last)
}

/// The tenures of one number; one for ever when nothing is known of its enrolments. The first begins since ever: facts of a
/// new student come before the enrolment that explains them.
pub fn of_number<'a>(number: &str, students: &[&'a Student], enrollments: &[&'a Enrollment]) -> Vec<Tenure<'a>> {
    let mut tenures = periods(number, enrollments);
    let mut sorted = students.to_vec();
    sorted.sort_unstable_by(|left, right| (left.changed_at, left).cmp(&(right.changed_at, right)));
    let count = tenures.len();
    for tenure in &mut tenures {
        let records: Vec<&Student> =
            sorted.iter().copied().filter(|student| tenure.contains(student.changed_at, count)).collect();
        tenure.is_contradictory = is_contradictory(&records);
        tenure.known = known(&records);
    }
    tenures
}

fn periods<'a>(number: &str, enrollments: &[&'a Enrollment]) -> Vec<Tenure<'a>> {
    let number: Arc<str> = number.into();
    let mut sorted: Vec<_> = enrollments.iter().filter_map(|row| Some((row.valid_from?, row.valid_to, *row))).collect();
    sorted.sort_by_key(|(from, to, row)| (*from, *to, row.enrol_month.clone(), row.is_major));
    let mut tenures: Vec<Tenure> = Vec::new();
    for (from, to, row) in sorted {
        let ends = to.unwrap_or(OPEN);
        let month = row.enrol_month.as_deref();
        match tenures.last_mut() {
            Some(last)
                if from <= last.ends.saturating_add(REUSE_GAP_US) || last.month.is_some() && last.month == month =>
            {
                last.ends = last.ends.max(ends);
                last.is_major |= row.is_major;
            }
            last => {
                if let Some(last) = last {
                    last.to = from;
                }
                let begins = if tenures.is_empty() { SINCE_EVER } else { from };
                let (ordinal, is_major) = (tenures.len(), row.is_major);
                tenures.push(Tenure { began: Some(from), ends, is_major, month, ..unknown(&number, ordinal, begins) });
            }
        }
    }
    if tenures.is_empty() {
        tenures.push(unknown(&number, 0, SINCE_EVER));
    }
    tenures
}

/// A tenure that goes on, and of which nothing is known.
fn unknown<'a>(number: &Arc<str>, ordinal: usize, from: i64) -> Tenure<'a> {
    Tenure {
        number: number.clone(),
        ordinal,
        from,
        to: OPEN,
        began: None,
        ends: OPEN,
        is_major: true,
        known: Known::default(),
        is_contradictory: false,
        month: None,
    }
}

fn known<'a>(records: &[&'a Student]) -> Known<'a> {
    let mut known = Known::default();
    for record in records {
        known.name = record.name.as_deref().map(normal::name).filter(|name| !name.is_empty()).or(known.name);
        let exam_no = record.exam_no.as_deref().and_then(normal::identifier).map(|number| number.into_owned());
        known.exam_no = exam_no.or(known.exam_no);
        known.document = record.document.as_deref().or(known.document);
        known.birth_date = record.birth_date.as_deref().or(known.birth_date);
        known.sex_code = record.sex_code.as_deref().filter(|code| matches!(*code, "1" | "2")).or(known.sex_code);
        known.college_id = record.college_id.as_deref().or(known.college_id);
        known.changed_at = record.changed_at.unwrap_or(SINCE_EVER).max(known.changed_at);
    }
    known
}

/// R3's condition: of two records of a number, the document or the name must agree, as far as both are known.
fn is_contradictory(records: &[&Student]) -> bool {
    let known: BTreeSet<(String, &str)> = records
        .iter()
        .filter_map(|record| Some((normal::name(record.name.as_deref()?), record.document.as_deref()?)))
        .collect();
    let known: Vec<_> = known.into_iter().collect();
    known.iter().enumerate().any(|(index, (name, document))| {
        known[..index].iter().any(|(other_name, other_document)| other_name != name && other_document != document)
    })
}
