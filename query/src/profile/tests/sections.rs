//! Items over small hand-made histories of two students: what counts, and what stands near it and must not.
//!
//! It is Thursday 2026-10-15, 09:00 in Shanghai: week 7 of a term that began on 2026-08-31; 1 to 7 October were a holiday.

use chrono::{Datelike as _, NaiveDate, Weekday};
use expect_test::{Expect, expect};

mod community;

use super::{computer, new_computer, text};
use crate::fixture::{campus, engine};
use crate::profile::{Profiles, State};

const NOW: i64 = 1_792_026_000_000_000;
const STUDENTS: [&str; 2] = ["20240001", "20240002"];

type Table<'a> = (&'a str, &'a str, &'a str);

/// A day of the term that began on `first`, as a row of the calendar; `term` is its year and number. Curfew is 23:00, before
/// free days 23:30.
pub(super) fn calendar_day(day: NaiveDate, first: NaiveDate, term: &str, is_holiday: bool, makes_up: bool) -> String {
    let week = if is_holiday { 0 } else { (day - first).num_days() / 7 + 1 };
    let is_workday = !matches!(day.weekday(), Weekday::Sat | Weekday::Sun) || makes_up;
    let curfew = if matches!(day.weekday(), Weekday::Fri | Weekday::Sat) { 1410 } else { 1380 };
    format!("('{day}', {term}, {week}, {}, {curfew})", is_workday && !is_holiday)
}

const CALENDAR: &str = "biz_date, academic_year, term_no, teaching_week, is_teaching_day, curfew_minute";

/// The days of two terms, with the holiday and a Saturday that makes up for it.
fn calendar() -> String {
    let day = |year, month, day| NaiveDate::from_ymd_opt(year, month, day).unwrap();
    let terms = [
        (day(2026, 2, 23), day(2026, 6, 28), "'2025-2026', 2"),
        (day(2026, 8, 31), day(2027, 1, 15), "'2026-2027', 1"),
    ];
    let mut rows = Vec::new();
    for (first, last, term) in terms {
        for day in first.iter_days().take_while(|day| *day <= last) {
            let (is_holiday, makes_up) = (day.month() == 10 && day.day() <= 7, (day.month(), day.day()) == (10, 10));
            rows.push(calendar_day(day, first, term, is_holiday, makes_up));
        }
    }
    rows.join(", ")
}

async fn compute(tables: &[Table<'_>], sections_on: &[&str]) -> Profiles {
    compute_at(tables, sections_on, NOW).await
}

/// Profiles of the campus with `tables` in the place of its own.
async fn compute_at(tables: &[Table<'_>], sections_on: &[&str], now: i64) -> Profiles {
    let days = calendar();
    let mut all: Vec<Table<'_>> = campus();
    all.retain(|(name, ..)| *name != "extension.calendar_day");
    all.push(("extension.calendar_day", CALENDAR, &days));
    all.retain(|(name, ..)| !tables.iter().any(|(other, ..)| other == name));
    all.extend(tables);
    let engine = engine(&all).await;
    let snapshot = engine.pin().snapshot.clone();
    let profiles = match sections_on {
        [] => computer().await.compute(snapshot, now).await,
        _ => new_computer(sections_on).await.compute(snapshot, now).await,
    };
    profiles.unwrap()
}

/// The items named by an id or the beginning of one, a line each with the values of both students.
fn show(profiles: &Profiles, ids: &str) -> String {
    let mut out = String::new();
    for (place, item) in profiles.items.iter().enumerate() {
        if !ids.split(' ').any(|id| item.id.starts_with(id)) {
            continue;
        }
        let value = |student_no: &str| {
            let given = profiles.by_student_no(student_no).unwrap().items.get(place).unpack();
            let conflict = if given.state == State::Conflict { " (conflict)" } else { "" };
            given.value.as_ref().map_or("–".to_string(), text) + conflict
        };
        out += &format!("{} {} = {}\n", item.id, item.name, STUDENTS.map(value).join(" | "));
    }
    out
}

async fn check(ids: &str, tables: &[Table<'_>], expected: Expect) {
    expected.assert_eq(&show(&compute(tables, &[]).await, ids));
}

#[tokio::test]
async fn contacts_are_those_of_the_student_then_of_the_class() {
    let tables = [(
        "identity.staff_role",
        "staff_no, role_code, scope_type, scope_id, valid_from, valid_to",
        "('T001', 'counselor', 'class', 'K2401', '2024-09-01', NULL),
         ('T009', 'counselor', 'class', 'K2402', '2026-09-01', NULL),
         ('T008', 'counselor', 'class', 'K2402', '2024-09-01', '2026-09-01'),
         ('T003', 'academic_mentor', 'class', 'K2401', '2025-09-01', NULL),
         ('T004', 'academic_mentor', 'student', '20240001', '2024-09-01', NULL),
         ('T005', 'class_teacher', 'class', 'K2401', '2027-01-01', NULL),
         ('T006', 'college_leader', 'class', 'K2401', '2024-09-01', NULL)",
    )];
    check("A11 L03", &tables, expect![[r#"
        A11 contacts = {counselor_staff_no: T001, academic_mentor_staff_no: T004} | {counselor_staff_no: T009} (conflict)
        L03 conflicts = {count: 0} | {count: 1, fields: [{field: counselor_staff_no, classes: [1, 1]}]}
    "#]]).await;
}

/// 转专业 in mid-term: class and counselor change in the same moment, whatever 学工 still says.
#[tokio::test]
async fn a_transfer_changes_class_and_counselor_together() {
    let roles =
        "('T001', 'counselor', 'class', 'K2401', '2024-09-01'), ('T009', 'counselor', 'class', 'K2402', '2026-09-01')";
    let studies = |moved_on: &str| {
        format!(
            "('20240001', 'major', 'K2401', 2024, '2024-09-01', '{moved_on}'), ('20240001', 'major', 'K2402', 2024, '{moved_on}', NULL)"
        )
    };
    let (today, tomorrow) = (studies("2026-10-15"), studies("2026-10-16"));
    let with = |rows| {
        [
            ("identity.staff_role", "staff_no, role_code, scope_type, scope_id, valid_from", roles),
            ("academic.enrollment", "student_no, study_kind, class_id, grade_year, valid_from, valid_to", rows),
        ]
    };
    check(
        "A09 A11",
        &with(&tomorrow),
        expect![[r#"
        A09 major_class_grade = {major_code: M01, class_id: K2401, grade_year: 2024} | –
        A11 contacts = {counselor_staff_no: T001} | {counselor_staff_no: T009} (conflict)
    "#]],
    )
    .await;
    check(
        "A09 A11",
        &with(&today),
        expect![[r#"
        A09 major_class_grade = {major_code: M01, class_id: K2402, grade_year: 2024} (conflict) | –
        A11 contacts = {counselor_staff_no: T009} (conflict) | {counselor_staff_no: T009} (conflict)
    "#]],
    )
    .await;
}

#[tokio::test]
async fn study_of_this_term() {
    let tables = [
        (
            "academic.status_change",
            "change_id, student_no, change_code, reason_code, changed_on",
            "('C1', '20240001', '11', '21', '2025-03-01'), ('C2', '20240001', '12', '21', '2025-09-01'),
             ('C3', '20240001', '31', '21', '2026-12-01'), ('C4', '20249999', '23', '21', '2025-09-01')",
        ),
        (
            "academic.term_registration",
            "student_no, academic_year, term_no, reg_status, registered_at, fee_owed_fen",
            "('20240001', '2025-2026', 2, '3', '2026-02-23T01:00:00Z', 500000),
             ('20240001', '2026-2027', 1, '1', '2026-08-31T01:00:00Z', NULL),
             ('20240002', '2025-2026', 2, '1', '2026-02-23T01:00:00Z', 0),
             ('20240002', '2026-2027', 1, '3', '2026-08-31T01:00:00Z', 0)",
        ),
        CLASSES,
        SELECTIONS,
    ];
    check(
        "B03 B04 B05 E12",
        &tables,
        expect![[r#"
        B03 changes_last_change = {changes: 2, last_code: 12, last_on: 2025-09-01} | {changes: 0}
        B04 registered_this_term = true | false
        B05 courses_credits_taken = {courses: 2, credits: 7.0} | {courses: 1, credits: 2.0}
        E12 fee_owed = true | false
    "#]],
    )
    .await;
}

/// MA-1 meets on Mondays and, but for week 6, on Thursdays; AR-1 on the Friday of week 6 only; OLD-1 met last term.
const CLASSES: Table<'_> = (
    "academic.teaching_class",
    "class_no, meeting_no, course_no, academic_year, term_no, weekday, section_from, section_to, weeks, start_on",
    "('MA-1', 1, 'MA1', '2026-2027', 1, 1, 1, 2, '1-16', '2026-08-31'),
     ('MA-1', 2, 'MA1', '2026-2027', 1, 4, 3, 4, '1-5,7-16', '2026-09-03'),
     ('MA-2', 1, 'MA1', '2026-2027', 1, 7, 1, 2, '1-16', '2026-09-06'),
     ('AR-1', 1, 'AR1', '2026-2027', 1, 5, 5, 6, '6', '2026-10-09'),
     ('OLD-1', 1, 'PE1', '2025-2026', 2, 4, 1, 2, '1-16', '2026-02-26')",
);

const SELECTIONS: Table<'_> = (
    "academic.course_selection",
    "student_no, class_no, course_no, selected_at, select_status, src_updated_at",
    "('20240001', 'MA-1', 'MA1', '2026-08-20T01:00:00Z', 'selected', '2026-08-20T01:00:00Z'),
     ('20240001', 'MA-2', NULL, '2026-08-20T01:00:00Z', 'selected', '2026-08-20T01:00:00Z'),
     ('20240001', 'AR-1', 'AR1', '2026-08-20T01:00:00Z', 'selected', '2026-08-20T01:00:00Z'),
     ('20240001', 'OLD-1', 'PE1', '2026-01-10T01:00:00Z', 'selected', '2026-01-10T01:00:00Z'),
     ('20240002', 'AR-1', 'AR1', '2026-08-20T01:00:00Z', 'selected', '2026-08-20T01:00:00Z'),
     ('20240002', 'MA-1', 'MA1', '2026-08-20T01:00:00Z', 'selected', '2026-08-20T01:00:00Z'),
     ('20240002', 'MA-1', 'MA1', '2026-08-20T01:00:00Z', 'dropped', '2026-09-05T01:00:00Z')",
);

#[tokio::test]
async fn attendance() {
    let tables = [
        CLASSES,
        SELECTIONS,
        (
            "academic.attendance",
            "student_no, class_no, session_on, section_from, attend_status, src_updated_at",
            "('20240001', 'MA-1', '2026-10-15', 3, '3', '2026-10-15T00:30:00Z'),
             ('20240001', 'MA-1', '2026-10-12', 1, '1', '2026-10-12T00:30:00Z'),
             ('20240001', 'AR-1', '2026-10-09', 5, '4', '2026-10-09T08:00:00Z'),
             ('20240001', 'MA-1', '2026-10-08', 3, '4', '2026-10-08T03:00:00Z'),
             ('20240001', 'MA-1', '2026-10-08', 3, '2', '2026-10-09T03:00:00Z'),
             ('20240001', 'MA-1', '2026-10-01', 3, '4', '2026-10-01T03:00:00Z'),
             ('20240001', 'MA-1', '2026-08-31', 1, '3', '2026-08-31T03:00:00Z'),
             ('20240001', 'OLD-1', '2026-06-25', 1, '3', '2026-06-25T03:00:00Z'),
             ('20240002', 'AR-1', '2026-09-10', 5, '1', '2026-09-10T08:00:00Z')",
        ),
        (
            "student_affairs.leave_request",
            "leave_id, student_no, applied_at, start_at, end_at, approval_status, actual_end_at",
            "('L1', '20240001', '2026-10-13T01:00:00Z', '2026-10-14T16:00:00Z', '2026-10-15T15:59:59Z', 'approved', NULL),
             ('L2', '20240002', '2026-10-13T01:00:00Z', '2026-10-14T16:00:00Z', '2026-10-15T15:59:59Z', 'approved',
              '2026-10-14T23:00:00Z'),
             ('L3', '20240002', '2026-10-13T01:00:00Z', '2026-10-14T16:00:00Z', '2026-10-15T15:59:59Z', 'pending', NULL)",
        ),
    ];
    check(
        "C",
        &tables,
        expect![[r#"
        C01 sessions_due_14d = 3 | 1
        C02 attend_rate_14d = 0.5 | –
        C03 absences_14d = 1 | –
        C04 late_term = 2 | 0
        C05 on_leave_today = true | false
    "#]],
    )
    .await;
}

const SPACES: Table<'_> = (
    "logistics.space",
    "space_id, space_type, parent_space_id, campus_code, building_id",
    "('B1-301', 'room', 'B1', 'X1', 'B1'), ('B1-301-1', 'bed', 'B1-301', 'X1', 'B1'), ('B1-301-2', 'bed', 'B1-301', 'X1', 'B1')",
);

#[tokio::test]
async fn rooms_are_inspected_and_metered() {
    let tables = [
        SPACES,
        (
            "logistics.dorm_inspection",
            "inspection_id, room_id, student_no, inspect_kind, inspected_at, score, item_code",
            "('I1', 'B1-301', '*', 'hygiene', '2026-10-10T02:00:00Z', 90, NULL),
             ('I1', 'B1-302', '*', 'hygiene', '2026-10-10T02:00:00Z', 20, NULL),
             ('I2', 'B1-301', '20240001', 'hygiene', '2026-10-11T02:00:00Z', 80, NULL),
             ('I3', 'B1-301', '*', 'safety', '2026-10-11T02:00:00Z', 10, NULL),
             ('I0', 'B1-301', '*', 'hygiene', '2026-06-01T02:00:00Z', 30, NULL),
             ('I4', 'B1-301', '20240001', 'appliance', '2026-10-12T02:00:00Z', NULL, 'illegal_appliance'),
             ('I4', 'B1-301', '20240002', 'appliance', '2026-10-12T02:00:00Z', NULL, 'illegal_appliance'),
             ('I5', 'B1-301', '*', 'safety', '2026-10-12T02:00:00Z', NULL, 'smoking')",
        ),
        (
            "logistics.utility_reading",
            "room_id, meter_no, read_at, event_code",
            "('B1-301', 'M1', '2026-10-12T12:00:00Z', 'malicious_load'), ('B1-301', 'M1', '2026-10-12T12:00:00Z', 'cut_off'),
             ('B1-301', 'M1', '2026-10-13T12:00:00Z', 'overload'), ('B1-301', 'M1', '2026-05-13T12:00:00Z', 'malicious_load'),
             ('B1-302', 'M2', '2026-10-12T12:00:00Z', 'malicious_load')",
        ),
    ];
    check(
        "D11 D12",
        &tables,
        expect![[r#"
        D11 hygiene_mean = 85.0 | 90.0
        D12 room_power_violations = 2 | 2
    "#]],
    )
    .await;
}

/// Night of 8 October, a Thursday: in at 23:20. Of the 9th, when curfew is 23:30: the same. Of the 12th: out and not back. Of
/// the 13th: the other one is out, and the gate was offline.
const NIGHTS: &str = "\
    ('D1', 1, 1, '2026-10-08T15:20:00Z', '20240001', 'in', 'device', 'granted', 'dorm_gate', 'B1'),
    ('D1', 1, 2, '2026-10-09T15:20:00Z', '20240001', 'in', 'device', 'granted', 'dorm_gate', 'B1'),
    ('D1', 1, 3, '2026-10-12T14:00:00Z', '20240001', 'out', 'device', 'granted', 'dorm_gate', 'B1'),
    ('D1', 1, 5, '2026-10-13T00:30:00Z', '20240001', 'in', 'device', 'granted', 'dorm_gate', 'B1'),
    ('D1', 1, 6, '2026-10-13T14:00:00Z', '20240002', 'out', 'device', 'granted', 'dorm_gate', 'B1')";

#[tokio::test]
async fn a_night_is_judged_by_what_is_known_of_it() {
    let columns = "device_id, door_no, event_serial, event_time, access_person_no, direction, direction_source, result, place_kind, \
                   building_id";
    // A passage that a gate sent 40 hours late: she was back before midnight.
    let late = format!(
        "{NIGHTS}, ('D1', 1, 4, '2026-10-12T15:50:00Z', '20240001', 'in', 'device', 'granted', 'dorm_gate', 'B1')"
    );
    let gate = [
        ("access_control.device", "device_id, door_no, place_kind, building_id", "('D1', 1, 'dorm_gate', 'B1')"),
        (
            "access_control.device_status",
            "device_id, status_at, online, stored_events",
            "('D1', '2026-10-12T18:00:00Z', true, 0), ('D1', '2026-10-13T18:00:00Z', false, 0)",
        ),
    ];
    let with = |events| [("access_control.access_event", columns, events), gate[0], gate[1]];
    check(
        "D05 D07 D08",
        &with(NIGHTS),
        expect![[r#"
        D05 last_pass_day = 2026-10-13 | 2026-10-13
        D07 late_30d = 1 | 0
        D08 away_30d = 1 | 0
    "#]],
    )
    .await;
    check(
        "D05 D07 D08",
        &with(&late),
        expect![[r#"
        D05 last_pass_day = 2026-10-13 | 2026-10-13
        D07 late_30d = 2 | 0
        D08 away_30d = 0 | 0
    "#]],
    )
    .await;
}

/// Who came in before `curfew_minute_min` is not known: nobody is said to have been in time.
#[tokio::test]
async fn a_curfew_earlier_than_the_entries_that_are_looked_at_leaves_lateness_open() {
    let days = "('2026-10-08', '2026-2027', 1, 6, true, 1140), ('2026-10-09', '2026-2027', 1, 6, true, 1410)";
    check(
        "D07",
        &[("extension.calendar_day", CALENDAR, days)],
        expect![[r#"
        D07 late_30d = – | –
    "#]],
    )
    .await;
}

#[tokio::test]
async fn aid_of_this_year() {
    let tables = [(
        "student_affairs.aid_record",
        "aid_id, student_no, aid_type, hardship_level, academic_year, amount_fen, decided_at, paid_at, aid_status",
        "('H1', '20240001', 'hardship_determination', '1', '2025-2026', NULL, '2025-10-01T01:00:00Z', NULL, 'approved'),
         ('H2', '20240001', 'hardship_determination', '2', '2026-2027', NULL, '2026-10-01T01:00:00Z', NULL, 'approved'),
         ('H3', '20240001', 'hardship_determination', '1', '2026-2027', NULL, '2026-10-10T01:00:00Z', NULL, 'pending'),
         ('G1', '20240001', 'grant', NULL, '2026-2027', 150000, '2026-09-20T01:00:00Z', '2026-10-01T01:00:00Z', 'paid'),
         ('G2', '20240001', 'temporary', NULL, NULL, 20000, '2026-10-01T01:00:00Z', '2026-10-02T01:00:00Z', 'paid'),
         ('G3', '20240001', 'grant', NULL, '2026-2027', 99999, '2026-10-02T01:00:00Z', NULL, 'approved'),
         ('G4', '20240001', 'grant', NULL, '2025-2026', 100000, '2025-12-01T01:00:00Z', '2026-10-02T01:00:00Z', 'paid'),
         ('L1', '20240001', 'loan', NULL, '2025-2026', 800000, '2025-09-01T01:00:00Z', '2025-10-02T01:00:00Z', 'paid'),
         ('W0', '20240001', 'work_study', NULL, '2025-2026', 30000, '2025-09-10T01:00:00Z', NULL, 'cancelled'),
         ('W1', '20240001', 'work_study', NULL, '2026-2027', 50000, '2026-09-10T01:00:00Z', NULL, 'approved'),
         ('X1', '20240002', 'hardship_determination', '21', '2026-2027', NULL, '2026-10-01T01:00:00Z', NULL, 'approved'),
         ('X2', '20240002', 'loan', NULL, '2026-2027', 800000, '2026-09-01T01:00:00Z', NULL, 'rejected')",
    )];
    check(
        "E08 E09 E10 E11",
        &tables,
        expect![[r#"
        E08 hardship_level = 2 | 21
        E09 aid_year_fen = 170000 | 0
        E10 has_loan = true | false
        E11 work_study = {academic_year: 2026-2027, amount_fen: 50000, status: approved} | –
    "#]],
    )
    .await;
}

#[tokio::test]
async fn between_terms_nothing_is_of_this_term() {
    let tables = [
        (
            "student_affairs.contact_record",
            "contact_id, student_no, contact_type, occurred_at",
            "('G1', '20240001', 'talk', '2026-06-01T06:00:00Z')",
        ),
        (
            "student_affairs.activity_participation",
            "activity_id, student_no, part_role, checked_in_at, part_status",
            "('A1', '20240001', 'participant', '2026-06-01T06:00:00Z', 'success')",
        ),
        (
            "logistics.appeal_case",
            "case_id, channel, person_no, received_at",
            "('Q1', 'online_portal', '20240001', '2026-06-01T06:00:00Z')",
        ),
        ("logistics.repair_order", "order_id, reporter_no, reported_at", "('R1', '20240001', '2026-06-01T06:00:00Z')"),
        (
            "academic.term_registration",
            "student_no, academic_year, term_no, reg_status, registered_at",
            "('20240001', '2025-2026', 2, '1', '2026-02-23T01:00:00Z')",
        ),
        CLASSES,
        SELECTIONS,
    ];
    let july_15 = NOW - 92 * 86_400_000_000;
    let profiles = compute_at(&tables, &[], july_15).await;
    let person = profiles.by_student_no(STUDENTS[0]).unwrap();
    let of_term = profiles.items.iter().zip(person.items.iter()).filter(|(item, _)| item.window == "term");
    let filled: Vec<_> = of_term.filter(|(_, given)| given.value.is_some()).map(|(item, _)| &*item.id).collect();
    assert_eq!(filled, [""; 0]);
    expect![[r#"
        F02 in_community_share = 0.0 | –
        G02 last_talk_at = 2026-06-01 | –
        H02 cases_open = 1 | 0
    "#]]
    .assert_eq(&show(&profiles, "F02 G02 H02"));
}
