//! What the offices keep about each number: student affairs' view, the registrar's enrolment, the sign-on account.

use chrono::{Days, NaiveDate, NaiveDateTime, TimeDelta};

use crate::calendar::Term;
use crate::cast::Role;
use crate::clock::{at, date, days_before};
use crate::people::{Staff, Student, Study};
use crate::plan::Plan;
use crate::random::Random;
use crate::record::{Change, Defect, Fate, Record};

/// A row of student affairs' view of a student.
#[derive(Clone, Debug)]
pub struct Base {
    /// Index of the person; broken rows borrow somebody's particulars.
    pub student: usize,
    pub student_no: String,
    pub study: Study,
    /// Whether student affairs has the number as one that is used.
    pub current: bool,
    pub changed_at: NaiveDateTime,
}

/// A period of a number's enrolment.
#[derive(Clone, Debug)]
pub struct Enrollment {
    pub student: usize,
    pub student_no: String,
    pub study: Study,
    /// National state code (XSDQZTM) that the vendor's code must become.
    pub status: &'static str,
    pub valid_from: NaiveDate,
    pub valid_to: Option<NaiveDate>,
    pub changed_at: NaiveDateTime,
}

/// An account of the single sign-on.
#[derive(Clone, Debug)]
pub struct Account {
    pub uid: String,
    pub person_no: String,
    pub name: String,
    /// As the directory writes it.
    pub status: &'static str,
    pub container: &'static str,
    pub opened_at: NaiveDateTime,
    pub closed_at: Option<NaiveDateTime>,
    pub changed_at: NaiveDateTime,
}

/// How the directory writes one state.
const ACTIVE: &[&str] = &["Active", "active", "ACTIVE"];

/// The study after ChangedMajor's move: the next major of the same college, another class and counselor.
pub fn study_after_change(student: &Student, staff: &[Staff]) -> Study {
    let before = &student.study;
    let of_college: Vec<usize> = (0..staff.len()).filter(|index| staff[*index].college == before.college).collect();
    let place = of_college.iter().position(|index| *index == before.counselor).unwrap_or(0);
    Study {
        major: (before.major + 1) % 3,
        class_no: before.class_no + 1,
        counselor: of_college[(place + 1) % of_college.len()],
        ..before.clone()
    }
}

/// When a quiet row was last touched: some evening of the past months.
fn touched(plan: &Plan, random: &mut Random, not_before: NaiveDate) -> NaiveDateTime {
    let earliest = not_before.max(days_before(plan.day, 300));
    let days = (plan.day - earliest).num_days().max(2);
    days_before(plan.day, random.between(1, days - 1) as u64).and_time(chrono::NaiveTime::MIN)
        + TimeDelta::seconds(random.between(8 * 3600, 18 * 3600))
}

pub fn bases(plan: &Plan, students: &[Student], staff: &[Staff]) -> Vec<Record<Base>> {
    let mut records = Vec::new();
    for (index, student) in students.iter().enumerate() {
        let mut random = Random::new(plan.seed, "base", index as u64);
        let began = date(student.study.grade_year, 9, 1);
        let changed_at = touched(plan, &mut random, began);
        let base = Base {
            student: index,
            student_no: student.student_no.clone(),
            study: student.study.clone(),
            // Student affairs may say that she is gone while the registrar has her (L15).
            current: !(Role::at(index).is_none() && student.former.is_none() && plan.befalls(15, index as u64)),
            changed_at,
        };
        if Role::at(index) == Some(Role::ChangedMajor) {
            let changed_at = at(plan.day, 9, 0, 0);
            let after = Base { study: study_after_change(student, staff), changed_at, ..base.clone() };
            records.push(Record::update(changed_at, after));
        }
        records.push(Record::insert(changed_at, base));
        if let Some((former_no, study)) = &student.former {
            let changed_at = touched(plan, &mut random, date(student.study.grade_year, 6, 30));
            let student_no = former_no.clone();
            let base = Base { student: index, student_no, study: study.clone(), current: false, changed_at };
            records.push(Record::insert(changed_at, base));
        }
    }
    for index in 0..plan.dead_of_each_kind() {
        let mut random = Random::new(plan.seed, "base dead", index as u64);
        for defect in [Defect::StudentBirthDate, Defect::StudentNoMissing] {
            let student = random.index(students.len());
            let changed_at = touched(plan, &mut random, days_before(plan.day, 60));
            let student_no = match defect {
                Defect::StudentNoMissing => String::new(),
                _ => format!("2099{index:06}"),
            };
            let study = students[student].study.clone();
            let base = Base { student, student_no, study, current: true, changed_at };
            records.push(Record::dead(changed_at, defect, base));
        }
    }
    records
}

pub fn enrollments(plan: &Plan, students: &[Student], staff: &[Staff]) -> Vec<Record<Enrollment>> {
    let mut records = Vec::new();
    for (index, student) in students.iter().enumerate() {
        let mut random = Random::new(plan.seed, "enrollment", index as u64);
        if let Some((former_no, study)) = &student.former {
            records.push(graduated(index, former_no, study));
        }
        let row = Enrollment {
            student: index,
            student_no: student.student_no.clone(),
            study: student.study.clone(),
            status: if Role::at(index).is_none() && random.chance(12) { "02" } else { "01" },
            valid_from: date(student.study.grade_year, 9, 1),
            valid_to: None,
            changed_at: touched(plan, &mut random, date(student.study.grade_year, 9, 1)),
        };
        match Role::at(index) {
            Some(Role::ChangedMajor) => {
                records.extend(change_of_major(plan, student, staff, row.clone()));
            }
            Some(Role::Withdrawn) => {
                let changed_at = at(plan.day, 15, 0, 0);
                let gone = Enrollment { changed_at, ..row.clone() };
                records.push(Record { fate: Fate::Deletes, ..Record::update(changed_at, gone) });
            }
            _ => {}
        }
        records.push(Record::insert(row.changed_at, row));
    }
    for index in 0..plan.dead_of_each_kind() {
        let mut random = Random::new(plan.seed, "enrollment dead", index as u64);
        let student = random.index(students.len());
        let changed_at = touched(plan, &mut random, days_before(plan.day, 60));
        let mut study = students[student].study.clone();
        study.grade_year = 1890;
        let row = Enrollment {
            student,
            student_no: format!("2099{index:06}"),
            study,
            status: "01",
            valid_from: days_before(plan.day, 70),
            valid_to: None,
            changed_at,
        };
        records.push(Record::dead(changed_at, Defect::EnrollmentGradeYear, row));
    }
    records
}

fn graduated(student: usize, student_no: &str, study: &Study) -> Record<Enrollment> {
    let last_day = date(study.grade_year + 4, 6, 30);
    let changed_at = at(last_day, 16, 0, (student % 60) as u32);
    Record::insert(
        changed_at,
        Enrollment {
            student,
            student_no: student_no.to_string(),
            study: study.clone(),
            status: "07",
            valid_from: date(study.grade_year, 9, 1),
            valid_to: Some(last_day),
            changed_at,
        },
    )
}

fn change_of_major(plan: &Plan, student: &Student, staff: &[Staff], before: Enrollment) -> [Record<Enrollment>; 2] {
    let changed_at = at(plan.day, 9, 0, 0);
    let after =
        Enrollment { study: study_after_change(student, staff), valid_from: plan.day, changed_at, ..before.clone() };
    let closed = Enrollment { valid_to: Some(plan.day - Days::new(1)), changed_at, ..before };
    [Record::update(changed_at, closed), Record::insert(changed_at, after)]
}

pub fn accounts(plan: &Plan, students: &[Student], staff: &[Staff]) -> Vec<Record<Account>> {
    let mut records = Vec::new();
    for (index, student) in students.iter().enumerate() {
        let mut random = Random::new(plan.seed, "account", index as u64);
        let opened_at = at(date(student.study.grade_year, 8, 25), 9, 0, (index % 60) as u32);
        let account = Account {
            uid: student.student_no.clone(),
            person_no: student.student_no.clone(),
            name: student.name.clone(),
            status: if random.chance(20) { "locked" } else { random.word(ACTIVE) },
            container: if student.study.level == '3' { "ou=bks" } else { "ou=yjs" },
            opened_at,
            closed_at: None,
            changed_at: touched(plan, &mut random, opened_at.date()),
        };
        if Role::at(index) == Some(Role::Withdrawn) {
            let changed_at = at(plan.day, 15, 5, 0);
            let closed = Account { status: "inactive", closed_at: Some(changed_at), changed_at, ..account.clone() };
            records.push(Record::update(changed_at, closed));
        }
        records.push(Record::insert(account.changed_at, account));
        if let Some((former_no, study)) = &student.former {
            let closed_at = at(date(study.grade_year + 4, 7, 15), 0, 0, 0);
            let account = Account {
                uid: former_no.clone(),
                person_no: former_no.clone(),
                name: student.name.clone(),
                status: "deleted",
                container: "ou=xy",
                opened_at: at(date(study.grade_year, 8, 25), 9, 0, 0),
                closed_at: Some(closed_at),
                changed_at: closed_at,
            };
            records.push(Record::insert(closed_at, account));
        }
    }
    for (index, person) in staff.iter().enumerate() {
        let mut random = Random::new(plan.seed, "staff account", index as u64);
        let opened_at = at(date(Term::of(plan.day).year - 6, 7, 1), 9, 0, (index % 60) as u32);
        let account = Account {
            uid: format!("t{}", person.staff_no),
            person_no: person.staff_no.clone(),
            name: person.name.clone(),
            status: "active",
            container: "ou=jzg",
            opened_at,
            closed_at: None,
            changed_at: touched(plan, &mut random, opened_at.date()),
        };
        records.push(Record::insert(account.changed_at, account));
    }
    for index in 0..plan.dead_of_each_kind() {
        let mut random = Random::new(plan.seed, "account dead", index as u64);
        let changed_at = touched(plan, &mut random, days_before(plan.day, 60));
        let account = Account {
            uid: format!("fk{index:05}"),
            person_no: format!("fk{index:05}"),
            name: "访客".to_string(),
            status: "suspended-by-admin",
            container: "ou=fk",
            opened_at: changed_at,
            closed_at: None,
            changed_at,
        };
        records.push(Record::dead(changed_at, Defect::AccountStatusUnknown, account));
    }
    records
}

impl Record<Enrollment> {
    /// The vendor's operation code: 1 inserted, 2 changed, 3 deleted (L13).
    pub fn operation_code(&self) -> &'static str {
        match (self.fate, self.change) {
            (Fate::Deletes, _) => "3",
            (_, Change::Update) => "2",
            _ => "1",
        }
    }
}
