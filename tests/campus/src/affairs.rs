//! Student affairs' daily work: leave requests and the talks of counselors.

use chrono::{Days, NaiveDate, NaiveDateTime, TimeDelta};

use crate::calendar::Term;
use crate::cast::Role;
use crate::clock::{at, days_before};
use crate::people::{Staff, Student};
use crate::plan::Plan;
use crate::random::Random;
use crate::record::{Defect, Record};

/// A leave request. Codes are the vendor's.
#[derive(Clone, Debug)]
pub struct Leave {
    pub id: String,
    pub student: usize,
    /// 01 personal, 02 sick, 03 official, 04 holiday.
    pub kind: &'static str,
    pub applied_at: NaiveDateTime,
    pub start_at: NaiveDateTime,
    /// Last second of the leave; `ends_with_day` writes it as a bare date.
    pub end_at: NaiveDateTime,
    pub ends_with_day: bool,
    pub off_campus: bool,
    /// SHZT: 0 draft, 1 approved, 2 rejected, 3 returned, 5 in audit.
    pub state: &'static str,
    pub approved_at: Option<NaiveDateTime>,
    /// XJZT, here the cancellation: 0 none, 1 asked, 2 done (L14).
    pub cancel_state: &'static str,
    pub cancelled_at: Option<NaiveDateTime>,
    pub changed_at: NaiveDateTime,
}

/// A contact of a member of staff with a student, or with a group.
#[derive(Clone, Debug)]
pub struct Contact {
    pub id: String,
    /// None for a group without a roster.
    pub student: Option<usize>,
    pub staff: usize,
    /// 1 talk, 2 face to face, 3 dormitory visit, 4 academic help, 5 lecture.
    pub kind: &'static str,
    pub at: NaiveDateTime,
    pub duration_min: u32,
    pub in_community: bool,
    pub group_size: Option<u32>,
    pub follow_up_due: Option<NaiveDate>,
    pub follow_up_done_at: Option<NaiveDateTime>,
    pub changed_at: NaiveDateTime,
}

const LEAVE_KINDS: &[&str] = &["01", "01", "02", "03", "04"];
const CONTACT_KINDS: &[&str] = &["1", "1", "2", "3", "4"];

pub fn leaves(plan: &Plan, students: &[Student]) -> Vec<Record<Leave>> {
    let mut records = Vec::new();
    let mut next_id = 0;
    let mut id = || {
        next_id += 1;
        format!("QJ{next_id:08}")
    };
    for index in 0..students.len() {
        let mut random = Random::new(plan.seed, "leave", index as u64);
        match Role::at(index) {
            Some(role) => records.extend(cast_leaves(plan, role, index, &mut id)),
            None if random.chance(250) => records.push(ordinary(plan, index, id(), &mut random)),
            None => {}
        }
    }
    for index in 0..plan.dead_of_each_kind() {
        let mut random = Random::new(plan.seed, "leave dead", index as u64);
        for defect in [Defect::LeaveBackwards, Defect::LeaveStatusUnknown] {
            let student = random.index(students.len());
            let mut leave = ordinary(plan, student, id(), &mut random).value;
            match defect {
                Defect::LeaveBackwards => {
                    leave.end_at = leave.start_at - TimeDelta::days(2);
                    leave.ends_with_day = false;
                }
                _ => leave.state = "97",
            }
            records.push(Record::dead(leave.changed_at, defect, leave));
        }
    }
    records
}

/// A leave of the past weeks, decided and closed.
fn ordinary(plan: &Plan, student: usize, id: String, random: &mut Random) -> Record<Leave> {
    let first_day = days_before(plan.day, random.between(12, 70) as u64);
    let start_at = at(first_day, random.between(8, 18) as u32, 0, 0);
    let nights = random.below(4);
    let ends_with_day = random.chance(500);
    let last_day = first_day + Days::new(nights);
    let end_at =
        if ends_with_day { at(last_day, 23, 59, 59) } else { start_at + TimeDelta::hours(6 + 24 * nights as i64) };
    let applied_at = start_at - TimeDelta::minutes(random.between(120, 3000));
    let state = *random.pick(&["1", "1", "1", "1", "2", "3"]);
    let approved = state == "1";
    let cancelled_at = approved.then(|| end_at + TimeDelta::minutes(random.between(10, 600)));
    let approved_at = approved.then(|| applied_at + TimeDelta::minutes(45));
    Record::insert(
        cancelled_at.unwrap_or(applied_at + TimeDelta::minutes(60)),
        Leave {
            id,
            student,
            kind: random.word(LEAVE_KINDS),
            applied_at,
            start_at,
            end_at,
            ends_with_day,
            off_campus: random.chance(700),
            state,
            approved_at,
            cancel_state: if approved { "2" } else { "0" },
            cancelled_at,
            changed_at: cancelled_at.unwrap_or(applied_at + TimeDelta::minutes(60)),
        },
    )
}

fn cast_leaves(plan: &Plan, role: Role, student: usize, id: &mut impl FnMut() -> String) -> Vec<Record<Leave>> {
    let leave = |id: String, start_at: NaiveDateTime, end_at: NaiveDateTime, applied_at: NaiveDateTime| Leave {
        id,
        student,
        kind: "01",
        applied_at,
        start_at,
        end_at,
        ends_with_day: true,
        off_campus: true,
        state: "1",
        approved_at: Some(applied_at + TimeDelta::minutes(30)),
        cancel_state: "0",
        cancelled_at: None,
        changed_at: applied_at + TimeDelta::minutes(30),
    };
    let day = |back: u64| days_before(plan.day, back);
    match role {
        Role::OnLeave => {
            let row = leave(id(), at(day(2), 16, 0, 0), at(plan.day, 23, 59, 59), at(day(3), 9, 0, 0));
            vec![Record::insert(row.changed_at, row)]
        }
        Role::LeaveOverdue => {
            let row = leave(id(), at(day(4), 8, 0, 0), at(day(3), 23, 59, 59), at(day(5), 9, 0, 0));
            vec![Record::insert(row.changed_at, row)]
        }
        Role::LeaveAsked => {
            let applied_at = at(plan.day, 8, 40, 0);
            let mut row = leave(id(), at(plan.day, 18, 0, 0), at(plan.day + Days::new(2), 23, 59, 59), applied_at);
            row.state = "5";
            row.approved_at = None;
            row.changed_at = applied_at;
            vec![Record::insert(applied_at, row)]
        }
        Role::LeaveApproved => {
            let applied_at = at(day(1), 20, 15, 0);
            let mut asked = leave(id(), at(plan.day, 12, 0, 0), at(plan.day + Days::new(1), 23, 59, 59), applied_at);
            let approved_at = at(plan.day, 10, 10, 0);
            let approved = Leave { approved_at: Some(approved_at), changed_at: approved_at, ..asked.clone() };
            asked.state = "5";
            asked.approved_at = None;
            asked.changed_at = applied_at;
            vec![Record::insert(applied_at, asked), Record::update(approved_at, approved)]
        }
        _ => Vec::new(),
    }
}

pub fn contacts(plan: &Plan, students: &[Student], staff: &[Staff]) -> Vec<Record<Contact>> {
    let mut records = Vec::new();
    let term_start = Term::of(plan.day).start().max(days_before(plan.day, 120));
    let span = (plan.day - term_start).num_days().max(1);
    for (index, student) in students.iter().enumerate() {
        let mut random = Random::new(plan.seed, "contact", index as u64);
        for _ in 0..random.below(3) {
            let day = days_before(plan.day, random.between(0, span) as u64);
            let id = format!("TH{:08}", records.len() + 1);
            records.push(talk(id, Some(index), student.study.counselor, day, &mut random));
        }
    }
    for index in 0..staff.len() {
        let mut random = Random::new(plan.seed, "lecture", index as u64);
        let id = format!("TH{:08}", records.len() + 1);
        let day = days_before(plan.day, random.between(1, span.max(2)) as u64);
        let mut lecture = talk(id, None, index, day, &mut random);
        lecture.value.kind = "5";
        lecture.value.group_size = Some(random.between(20, 120) as u32);
        records.push(lecture);
    }
    for index in 0..plan.dead_of_each_kind() {
        let mut random = Random::new(plan.seed, "contact dead", index as u64);
        let id = format!("TH{:08}", records.len() + 1);
        let student = random.index(students.len());
        let mut broken = talk(id, Some(student), 0, days_before(plan.day, 5), &mut random);
        broken.value.duration_min = 990;
        records.push(Record::dead(broken.at, Defect::ContactDuration, broken.value));
    }
    records
}

fn talk(id: String, student: Option<usize>, staff: usize, day: NaiveDate, random: &mut Random) -> Record<Contact> {
    let begin = at(day, random.between(9, 20) as u32, random.between(0, 59) as u32, 0);
    let changed_at = begin + TimeDelta::minutes(random.between(30, 150));
    let follow_up = random.chance(200);
    let due = day + Days::new(14);
    let done = follow_up && random.chance(400);
    Record::insert(
        changed_at,
        Contact {
            id,
            student,
            staff,
            kind: random.word(CONTACT_KINDS),
            at: begin,
            duration_min: random.between(10, 90) as u32,
            in_community: random.chance(600),
            group_size: None,
            follow_up_due: follow_up.then_some(due),
            follow_up_done_at: done.then(|| begin + TimeDelta::minutes(25)),
            changed_at,
        },
    )
}
