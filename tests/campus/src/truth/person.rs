//! The truth about each student: who she is in which system, and what a profile should say of her.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{Datelike, NaiveDate, NaiveDateTime};
use serde::{Deserialize, Serialize};

use crate::academics::{Grade, Nature};
use crate::campus::Campus;
use crate::clock::{dashed, dashed_date};
use crate::gates::{Event, PersonField};
use crate::record::{Fate, Record};
use crate::spending::TxnKind;

/// One person. Money in 分, times local, means rounded to hundredths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudentTruth {
    /// The generator's name of the person; no system knows it.
    pub person: String,
    pub student_no: String,
    pub former_student_no: Option<String>,
    pub identifiers: Vec<Identifier>,
    pub name: String,
    pub sex_code: String,
    /// `YYYY-MM`
    pub birth_month: String,
    pub college_id: String,
    pub major_code: String,
    pub class_id: String,
    pub grade_year: i32,
    pub counselor_staff_no: String,
    /// None when the enrolment was deleted.
    pub status_code: Option<String>,
    pub study: StudyTruth,
    pub residence: ResidenceTruth,
    pub spending: SpendingTruth,
}

/// A value by which a system knows her, from and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identifier {
    pub id_type: String,
    pub value: String,
    pub valid_from: String,
    pub valid_to: Option<String>,
}

/// From the results of the present number, valid ones only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StudyTruth {
    /// Valid rows.
    pub grades: u64,
    /// Sum over courses of the most credits earned.
    pub credits_earned: f64,
    /// SUM(score × credits) / SUM(credits) over each course's first sitting that took place, if it has a score.
    pub weighted_mean: Option<f64>,
    /// SUM(point × credits) / SUM(credits) over rows with a point.
    pub gpa: Option<f64>,
    /// Courses sat and never passed; who deferred an examination has not failed it.
    pub failed_courses: u64,
    pub resits: u64,
    pub retakes: u64,
    pub deferred: u64,
    pub missed: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResidenceTruth {
    /// Place of the open, approved assignment.
    pub bed: Option<String>,
    /// People with an open approved assignment in the room, herself included.
    pub in_room: u64,
    /// Moves between rooms.
    pub room_moves: u64,
    /// Local day of the last granted pass that is hers by number or card.
    pub last_pass_day: Option<String>,
    /// All such passes.
    pub passes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpendingTruth {
    /// State of the newest card.
    pub card_status: String,
    /// Purchases of all her cards.
    pub purchases: u64,
    pub spent_fen: i64,
    /// Purchases in canteens.
    pub canteen_purchases: u64,
    pub canteen_fen: i64,
    /// Different day and meal (before 10, before 16, after) with a canteen purchase.
    pub meals: u64,
    pub topped_up_fen: i64,
}

/// Tells whose an event is, by the number in it or by the card valid at that moment (rule R8).
pub struct Owners<'a> {
    campus: &'a Campus,
    by_physical: HashMap<u32, Vec<usize>>,
}

impl<'a> Owners<'a> {
    pub fn new(campus: &'a Campus) -> Self {
        let mut by_physical: HashMap<u32, Vec<usize>> = HashMap::new();
        for (index, record) in campus.cards.records.iter().enumerate().filter(|(_, record)| record.fate == Fate::Lands)
        {
            by_physical.entry(record.value.physical).or_default().push(index);
        }
        Self { campus, by_physical }
    }

    pub fn of(&self, event: &Event) -> Option<usize> {
        if let PersonField::Student(index) = event.person {
            return Some(index as usize);
        }
        let cards = self.by_physical.get(&event.card?)?;
        let valid = |index: &&usize| {
            let card = self.campus.cards.card(**index);
            let replaced = self.campus.cards.successor(**index).map(|next| next.opened_at);
            card.opened_at <= event.at && replaced.is_none_or(|end| event.at < end)
        };
        cards.iter().find(valid).map(|index| self.campus.cards.card(*index).student)
    }
}

/// Everybody's truth, of what was written before `until`.
pub fn students(campus: &Campus, until: NaiveDateTime) -> Vec<StudentTruth> {
    let mut studies = studies(campus, until);
    let mut residences = residences(campus, until);
    let mut spendings = spendings(campus, until);
    let day_over = until > campus.plan.day_start();
    let enrollments = last_of(&campus.enrollments, until, |row| row.student_no.clone());
    let bases = last_of(&campus.bases, until, |row| row.student_no.clone());
    let mut truths = Vec::with_capacity(campus.students.len());
    for (index, student) in campus.students.iter().enumerate() {
        let base = bases[&student.student_no];
        let enrolled = enrollments.get(&student.student_no).filter(|row| row.valid_to.is_none());
        let left = day_over && crate::cast::Role::at(index) == Some(crate::cast::Role::Withdrawn);
        truths.push(StudentTruth {
            person: format!("P{:06}", index + 1),
            student_no: student.student_no.clone(),
            former_student_no: student.former.as_ref().map(|(number, _)| number.clone()),
            identifiers: identifiers(campus, index, until),
            name: student.name.clone(),
            sex_code: student.sex.to_string(),
            birth_month: student.birth.format("%Y-%m").to_string(),
            college_id: base.study.college_code().to_string(),
            major_code: base.study.major_code().to_string(),
            class_id: base.study.class_id(),
            grade_year: base.study.grade_year,
            counselor_staff_no: campus.staff[base.study.counselor].staff_no.clone(),
            status_code: enrolled.filter(|_| !left).map(|row| row.status.to_string()),
            study: studies.remove(&index).unwrap_or_default(),
            residence: residences.remove(&index).unwrap_or_default(),
            spending: spendings.remove(&index).unwrap_or_default(),
        });
    }
    truths
}

/// The last version of each row that lands: later times win, and the later period.
fn last_of<T>(records: &[Record<T>], until: NaiveDateTime, key: impl Fn(&T) -> String) -> HashMap<String, &T> {
    let mut heard: Vec<&Record<T>> =
        records.iter().filter(|record| record.at < until && record.defect().is_none()).collect();
    heard.sort_by_key(|record| (record.at, record.change == crate::record::Change::Insert));
    heard.into_iter().map(|record| (key(&record.value), &record.value)).collect()
}

/// As [`Truth::staff`](super::Truth::staff), of what was written before `until`.
pub fn staff(campus: &Campus, until: NaiveDateTime) -> BTreeMap<String, Vec<Identifier>> {
    let mut staff = BTreeMap::new();
    for (index, person) in campus.staff.iter().enumerate() {
        let accounts = campus.accounts.iter().filter(|record| record.at < until && record.fate == Fate::Lands);
        let accounts = accounts.map(|record| &record.value).filter(|account| account.person_no == person.staff_no);
        let identifiers = accounts.flat_map(|account| {
            [("staff_no", &account.person_no), ("cas_uid", &account.uid)].map(|(id_type, value)| Identifier {
                id_type: id_type.to_string(),
                value: value.clone(),
                valid_from: dashed(account.opened_at),
                valid_to: None,
            })
        });
        staff.insert(format!("S{:06}", index + 1), identifiers.collect());
    }
    staff
}

fn identifiers(campus: &Campus, index: usize, until: NaiveDateTime) -> Vec<Identifier> {
    let student = &campus.students[index];
    let identifier = |id_type: &str, value: String, from: String, to: Option<String>| Identifier {
        id_type: id_type.to_string(),
        value,
        valid_from: from,
        valid_to: to,
    };
    let mut found = Vec::new();
    if let Some((number, study)) = &student.former {
        let (from, to) = (format!("{}-09-01", study.grade_year), format!("{}-06-30", study.grade_year + 4));
        found.push(identifier("cas_uid", number.clone(), from.clone(), None));
        found.push(identifier("student_no", number.clone(), from, Some(to)));
    }
    let began = format!("{}-09-01", student.study.grade_year);
    found.push(identifier("student_no", student.student_no.clone(), began.clone(), None));
    found.push(identifier("cas_uid", student.student_no.clone(), began, None));
    for card_index in campus.cards.chain(index) {
        let card = campus.cards.card(*card_index);
        if card.opened_at >= until {
            continue;
        }
        let replaced = campus.cards.successor(*card_index).map(|next| dashed(next.opened_at));
        let from = dashed(card.opened_at);
        if card.previous.is_none() {
            found.push(identifier("card_no", card.card_no.clone(), from.clone(), None));
        }
        // A sequence is one of its account; a purchase with it is the account's for ever.
        found.push(identifier("card_seq", format!("{}|{}", card.card_no, card.sequence), from.clone(), None));
        found.push(identifier("card_physical_no", format!("{:X}", card.physical), from, replaced));
    }
    found
}

/// The valid results of each student's present number, the last version of each.
fn studies(campus: &Campus, until: NaiveDateTime) -> HashMap<usize, StudyTruth> {
    let mut last: BTreeMap<(u32, u64), &Grade> = BTreeMap::new();
    for record in campus.grades.iter().filter(|record| record.at < until && record.fate == Fate::Lands) {
        let grade = &record.value;
        let held = last.entry((grade.student, grade.id)).or_insert(grade);
        if held.changed_at < grade.changed_at {
            *held = grade;
        }
    }
    let mut by_student: HashMap<usize, Vec<&Grade>> = HashMap::new();
    for ((student, _), grade) in last {
        if grade.valid && !grade.former {
            by_student.entry(student as usize).or_default().push(grade);
        }
    }
    by_student.into_iter().map(|(student, grades)| (student, study(campus, &grades))).collect()
}

fn study(campus: &Campus, grades: &[&Grade]) -> StudyTruth {
    let credits = |grade: &Grade| campus.courses[grade.course as usize].value.credits_tenths;
    let of_nature = |nature| grades.iter().filter(|grade| grade.nature == nature).count() as u64;
    let mean = |values: Vec<(i64, i64)>| {
        let weight: i64 = values.iter().map(|(_, credits)| credits).sum();
        let sum: i64 = values.iter().map(|(value, credits)| value * credits).sum();
        (weight > 0).then(|| sum as f64 / weight as f64)
    };
    let mut first: HashMap<u32, &Grade> = HashMap::new();
    let order = |grade: &Grade| (grade.term.year, grade.term.number, grade.attempt, grade.nature.code());
    for grade in grades.iter().filter(|grade| !matches!(grade.nature, Nature::Deferred | Nature::Missed)) {
        let held = first.entry(grade.course).or_insert(grade);
        if order(grade) < order(held) {
            *held = grade;
        }
    }
    let scores = first.values().filter_map(|grade| Some((grade.score_tenths?, credits(grade)))).collect();
    let points = grades.iter().filter_map(|grade| Some((grade.point_hundredths?, credits(grade)))).collect();
    let mut most: HashMap<u32, i64> = HashMap::new();
    let mut passed: HashMap<u32, bool> = HashMap::new();
    for grade in grades {
        let held = most.entry(grade.course).or_default();
        *held = (*held).max(grade.earned_tenths);
        if grade.nature != Nature::Deferred {
            *passed.entry(grade.course).or_default() |= grade.passed == Some(true);
        }
    }
    let hundredths = |value: f64| (value * 100.0).round() / 100.0;
    StudyTruth {
        grades: grades.len() as u64,
        credits_earned: most.values().sum::<i64>() as f64 / 10.0,
        weighted_mean: mean(scores).map(|mean| hundredths(mean / 10.0)),
        gpa: mean(points).map(|mean| hundredths(mean / 100.0)),
        failed_courses: passed.values().filter(|passed| !**passed).count() as u64,
        resits: of_nature(Nature::Resit),
        retakes: of_nature(Nature::Retake),
        deferred: of_nature(Nature::Deferred),
        missed: of_nature(Nature::Missed),
    }
}

fn residences(campus: &Campus, until: NaiveDateTime) -> HashMap<usize, ResidenceTruth> {
    let number_to_index: HashMap<&str, usize> =
        campus.students.iter().enumerate().map(|(index, student)| (student.student_no.as_str(), index)).collect();
    let mut truths: HashMap<usize, ResidenceTruth> = HashMap::new();
    let mut open: HashMap<usize, usize> = HashMap::new();
    for record in campus.homes.moves.iter().filter(|record| record.at < until && record.fate == Fate::Lands) {
        let Some(index) = number_to_index.get(record.value.student_no.as_str()) else { continue };
        let (Some(bed), "1") = (record.value.to, record.value.audit) else { continue };
        let truth = truths.entry(*index).or_default();
        truth.room_moves += u64::from(record.value.kind == "01");
        truth.bed = Some(campus.homes.beds[bed].space_id());
        open.insert(*index, bed);
    }
    let mut in_room: HashMap<(&str, &str), u64> = HashMap::new();
    let room = |bed: usize| (campus.homes.beds[bed].building.as_str(), campus.homes.beds[bed].room.as_str());
    for bed in open.values() {
        *in_room.entry(room(*bed)).or_default() += 1;
    }
    for (index, bed) in &open {
        truths.entry(*index).or_default().in_room = in_room[&room(*bed)];
    }
    let owners = Owners::new(campus);
    let mut last: HashMap<usize, (NaiveDate, u64)> = HashMap::new();
    let lands =
        |record: &&Record<Event>| record.at < until && record.fate == Fate::Lands && record.value.kind.granted();
    for record in campus.gates.events.iter().filter(lands) {
        if let Some(owner) = owners.of(&record.value) {
            let (day, count) = last.entry(owner).or_insert((record.value.at.date(), 0));
            *day = (*day).max(record.value.at.date());
            *count += 1;
        }
    }
    for (index, (day, count)) in last {
        let truth = truths.entry(index).or_default();
        truth.last_pass_day = Some(dashed_date(day));
        truth.passes = count;
    }
    truths
}

fn spendings(campus: &Campus, until: NaiveDateTime) -> HashMap<usize, SpendingTruth> {
    let mut truths: HashMap<usize, SpendingTruth> = HashMap::new();
    let mut meals: HashMap<usize, HashSet<(i32, u32)>> = HashMap::new();
    for record in campus.spending.records.iter().filter(|record| record.at < until && record.fate == Fate::Lands) {
        let txn = &record.value;
        let student = campus.cards.card(txn.card as usize).student;
        let truth = truths.entry(student).or_default();
        let canteen = campus.spending.terminals[txn.terminal as usize].kind == "canteen";
        match txn.kind {
            TxnKind::Purchase => {
                truth.purchases += 1;
                truth.spent_fen += txn.amount_fen;
                truth.canteen_purchases += u64::from(canteen);
                truth.canteen_fen += if canteen { txn.amount_fen } else { 0 };
            }
            TxnKind::Topup => truth.topped_up_fen += txn.amount_fen,
            TxnKind::Subsidy | TxnKind::Correction => {}
        }
        if canteen && txn.kind == TxnKind::Purchase {
            let slot = match chrono::Timelike::hour(&txn.at) {
                0..10 => 0,
                10..16 => 1,
                _ => 2,
            };
            meals.entry(student).or_default().insert((txn.at.num_days_from_ce(), slot));
        }
    }
    for (student, meals) in meals {
        truths.entry(student).or_default().meals = meals.len() as u64;
    }
    for index in 0..campus.students.len() {
        let newest = campus.cards.chain(index).last().expect("everybody has a card");
        let word = match campus.cards.card(*newest).state {
            "1" => "normal",
            "2" => "cancelled",
            "3" => "lost",
            _ => "expired",
        };
        truths.entry(index).or_default().card_status = word.to_string();
    }
    truths
}
