//! The generator itself: equal plans are equal campuses, the truth says what the cast's stories say, the day plays.

use std::collections::BTreeSet;

use anyhow::Result;
use arrow_odbc::odbc_api::{ConnectionOptions, Cursor, environment};
use campus::campus::Campus;
use campus::cast::{ROLES, Role};
use campus::database::{self, Database, Databases};
use campus::people::check_character;
use campus::plan::Plan;
use campus::record::{Change, Fate};
use campus::source::SYSTEMS;
use campus::truth::person::StudentTruth;
use campus::truth::{Stage, Truth};
use chrono::NaiveDate;
use expect_test::{Expect, expect};

fn campus(seed: u64, students: usize) -> Campus {
    Campus::generate(Plan::new(seed, students, "2026-11-23".parse().expect("a date")))
}

fn of<'a>(truth: &'a Truth, campus: &Campus, role: Role) -> &'a StudentTruth {
    let number = campus.student_of(role);
    truth.students.iter().find(|student| student.student_no == number).expect("the cast is in the truth")
}

#[test]
fn equal_plans_are_equal_campuses() -> Result<()> {
    let everything = |campus: &Campus| -> Result<String> {
        let mut text = serde_json::to_string(&campus.truth(Stage::DayOver))?;
        for step in campus.live() {
            text += &format!("{step:?}");
        }
        for push in campus.history_pushes() {
            text += &push.body;
        }
        Ok(text)
    };
    let first = everything(&campus(5, 60))?;
    assert!(first == everything(&campus(5, 60))?, "one seed, one campus");
    assert!(first != everything(&campus(6, 60))?, "another seed, another campus");
    Ok(())
}

/// Of each table, list and stream: versions, repeats, dead letters, and current rows.
fn check_counts(stage: Stage, expected: Expect) {
    let truth = campus(1, 120).truth(stage);
    let line = |(name, table): (&String, &campus::truth::TableTruth)| {
        let sum = table.versions + table.repeats + table.dead_letters;
        assert_eq!(table.generated, sum, "{name}: what is generated is a version, a repeat or a letter");
        assert_eq!(table.letters.iter().map(|of| of.count).sum::<u64>(), table.dead_letters, "{name}");
        let (versions, repeats, current) = (table.versions, table.repeats, table.current);
        format!("{name} {versions}+{repeats}+{} {current}\n", table.dead_letters)
    };
    expected.assert_eq(&truth.tables.iter().chain(&truth.served).chain(&truth.published).map(line).collect::<String>());
}

#[test]
fn the_counts_before_the_day() {
    check_counts(
        Stage::Filled,
        expect![[r#"
        academic.attendance 432+0+1 432
        academic.course 546+0+1 546
        academic.course_selection 240+0+1 240
        academic.enrollment 126+0+1 126
        academic.grade 2193+0+3 2193
        academic.status_change 6+0+1 6
        academic.teaching_class 82+0+1 82
        academic.term_registration 120+0+1 120
        access_control.access_event 2684+12+7 2684
        access_control.device 9+0+1 9
        extension.calendar_day 728+0+0 728
        extension.fitness_test 87+0+1 87
        identity.account 150+0+1 150
        identity.card 133+0+1 133
        identity.org_unit 56+0+1 56
        identity.staff 24+0+1 24
        identity.staff_role 78+0+1 78
        logistics.bed_assignment 116+0+1 116
        logistics.card_txn 2084+19+1 2084
        logistics.dorm_inspection 26+0+1 26
        logistics.repair_order 9+0+1 9
        logistics.space 1210+0+1 1210
        student_affairs.aid_record 78+0+1 78
        student_affairs.award_punishment 15+0+1 15
        student_affairs.community_org 12+0+1 12
        student_affairs.contact_record 147+0+1 147
        student_affairs.leave_request 24+0+2 24
        student_affairs.student_base 126+0+2 126
        access_dahua/access_event 2684+0+7 2684
        access_hikvision_pull/access_event 2684+0+7 2684
        second_classroom/activity 12+0+1 12
        second_classroom/activity_participation 159+0+0 159
        service_desk/appeal_case 10+0+1 10
        service_desk/appeal_step 47+0+1 47
        service_desk/service_transaction 15+0+1 12
        access_mqtt/access_event 2684+12+7 2684
        logistics_meters/utility_reading 180+0+16 180
    "#]],
    );
}

#[test]
fn the_counts_after_the_day() {
    check_counts(
        Stage::DayOver,
        expect![[r#"
        academic.attendance 480+0+1 480
        academic.course 547+0+1 546
        academic.course_selection 246+0+1 240
        academic.enrollment 129+0+1 126
        academic.grade 2198+0+3 2197
        academic.status_change 7+0+1 7
        academic.teaching_class 83+0+1 82
        academic.term_registration 123+0+1 120
        access_control.access_event 3061+16+9 3061
        access_control.device 10+8+1 9
        extension.calendar_day 728+0+0 728
        extension.fitness_test 87+0+1 87
        identity.account 151+0+1 150
        identity.card 133+0+1 133
        identity.org_unit 56+0+1 56
        identity.staff 25+0+1 24
        identity.staff_role 79+0+1 79
        logistics.bed_assignment 118+0+1 117
        logistics.card_txn 2392+20+2 2392
        logistics.dorm_inspection 52+0+1 52
        logistics.repair_order 11+0+1 9
        logistics.space 1212+0+1 1209
        student_affairs.aid_record 79+0+1 78
        student_affairs.award_punishment 16+0+1 15
        student_affairs.community_org 12+0+1 12
        student_affairs.contact_record 148+0+1 148
        student_affairs.leave_request 26+0+2 25
        student_affairs.student_base 127+0+2 126
        access_dahua/access_event 3061+0+9 3061
        access_hikvision_pull/access_event 3061+0+9 3061
        second_classroom/activity 13+0+1 12
        second_classroom/activity_participation 173+0+1 173
        service_desk/appeal_case 11+0+1 10
        service_desk/appeal_step 50+0+1 50
        service_desk/service_transaction 17+0+1 12
        access_mqtt/access_event 3061+16+9 3061
        logistics_meters/utility_reading 209+0+19 209
    "#]],
    );
}

#[test]
fn the_stories_of_the_cast() {
    let campus = campus(3, 80);
    let (before, after) = (campus.truth(Stage::Filled), campus.truth(Stage::DayOver));
    let story = |role| (of(&before, &campus, role), of(&after, &campus, role));

    let (before_it, after_it) = story(Role::CorrectedGrade);
    assert_eq!((before_it.study.failed_courses, after_it.study.failed_courses), (4, 3));
    assert_eq!(after_it.study.credits_earned - before_it.study.credits_earned, 4.0);
    assert_eq!(of(&after, &campus, Role::FailedCredits).study.failed_courses, 5);
    let resit = &of(&after, &campus, Role::ResitPassed).study;
    assert_eq!((resit.failed_courses, resit.resits), (0, 1));
    assert_eq!(of(&after, &campus, Role::MissedExamination).study.missed, 1);

    let (stays, gone) = story(Role::Withdrawn);
    assert_eq!((stays.status_code.as_deref(), gone.status_code.as_deref()), (Some("01"), None));
    let (old, new) = story(Role::ChangedMajor);
    assert_ne!(old.major_code, new.major_code);
    assert_ne!(old.class_id, new.class_id);
    assert_ne!(old.counselor_staff_no, new.counselor_staff_no);
    let (first, second) = story(Role::RoomMove);
    assert_ne!(first.residence.bed, second.residence.bed);
    assert_eq!(second.residence.room_moves, 1);

    let physical = |role| -> Vec<String> {
        let cards = of(&after, &campus, role).identifiers.iter().filter(|of| of.id_type == "card_physical_no");
        cards.map(|of| of.value.clone()).collect()
    };
    assert_eq!(physical(Role::ReissuedCard)[0], physical(Role::ReusedCard)[1], "the card that came back");
    assert_eq!(of(&after, &campus, Role::Silent).residence.passes, 0);
    assert_eq!(of(&after, &campus, Role::Silent).spending.purchases, 0);
    assert!(of(&after, &campus, Role::BachelorToMaster).former_student_no.is_some());
    assert_eq!(of(&before, &campus, Role::LateEvent).residence.last_pass_day.as_deref(), Some("2026-11-22"));
    let names: BTreeSet<_> = ROLES.iter().map(|role| campus.student_of(*role)).collect();
    assert_eq!(names.len(), ROLES.len());
}

#[test]
fn nothing_is_changed_twice_and_everything_changed_was_there_before() {
    let campus = campus(2, 150);
    let day_start = campus.plan.day_start();
    let mut changed = BTreeSet::new();
    for record in campus.grades.iter().filter(|record| record.change != Change::Insert) {
        assert!(changed.insert(record.value.id), "a second change would hide the first from a poll");
        assert!(campus.grades.iter().any(|other| other.value.id == record.value.id && other.at < day_start));
    }
    for record in campus.homes.spaces.iter().filter(|record| record.change == Change::Delete) {
        assert_eq!(record.fate, Fate::Deletes);
    }
}

#[test]
fn identity_numbers_have_their_check_character() {
    // The example of GB 11643-1999.
    assert_eq!(check_character("11010519491231002"), 'X');
    for student in campus(4, 60).students.iter().filter(|student| student.id_doc_type == '1') {
        assert!(student.id_doc_no.ends_with(check_character(&student.id_doc_no[..17])));
    }
}

#[test]
fn any_day_of_the_year_has_a_campus() {
    for day in ["2026-01-01", "2026-02-28", "2026-03-02", "2026-07-31", "2026-09-01", "2026-10-03", "2028-02-29"] {
        let day: NaiveDate = day.parse().expect("a date");
        let campus = Campus::generate(Plan::new(1, 50, day));
        let truth = campus.truth(Stage::DayOver);
        assert!(truth.tables.values().all(|table| table.versions > 0), "{day}");
    }
}

#[test]
fn a_day_played_on_sqlite_leaves_the_tables_as_they_must_be() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str| Databases::sqlite(&folder.path().join(name));
    let databases = Databases { student_affairs: file("xg"), academic: file("jw"), logistics: file("hq") };
    let campus = campus(1, 60);
    database::fill(&campus, &databases)?;
    for system in SYSTEMS {
        let database = Database::open(databases.of(system), system)?;
        assert_eq!(database.progress().as_deref(), Some(""));
        for step in campus.live() {
            for (_, writes) in step.writes.iter().filter(|(of, _)| *of == system) {
                database.apply(step.at, writes)?;
                // A player that was killed and starts over changes nothing twice.
                database.apply(step.at, writes)?;
            }
        }
    }
    let truth = campus.truth(Stage::DayOver);
    let count = |table: &str| {
        let table = &truth.tables[table];
        table.current + table.repeats + table.dead_letters
    };
    // A withdrawn student's row stays, marked; a bed that was taken out is gone.
    assert_eq!(rows(&databases.academic, "JW_XJGL_XSJBXXB")?, count("academic.enrollment") + 1);
    assert_eq!(rows(&databases.academic, "CJ_BKS")?, count("academic.grade"));
    assert_eq!(rows(&databases.student_affairs, "VIEW_XSXXB")?, count("student_affairs.student_base"));
    assert_eq!(rows(&databases.logistics, "YKT_JY_LOG")?, count("logistics.card_txn"));
    assert_eq!(rows(&databases.logistics, "ECARD_CARD")?, count("identity.card"));
    Ok(())
}

fn rows(connection_string: &str, table: &str) -> Result<u64> {
    let connection = environment()?.connect_with_connection_string(connection_string, ConnectionOptions::default())?;
    let cursor = connection.execute(&format!("SELECT COUNT(*) FROM {table}"), (), None)?;
    let mut cursor = cursor.expect("a SELECT has rows");
    let mut text = Vec::new();
    cursor.next_row()?.expect("one row").get_text(1, &mut text)?;
    Ok(String::from_utf8(text)?.trim().parse()?)
}
