//! Profiles that follow one another are those of their snapshot: whatever arrives in whatever order, late links, corrections,
//! deletes and decisions among it, and however the clock moves, they equal profiles computed from nothing; and whoever asks later
//! for one of these moments is told the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use proptest::prelude::*;

use super::{computer, new_computer};
use crate::engine::Engine;
use crate::fixture::{KEY, campus, contracts, engine, table};
use crate::profile::kept::Persons;
use crate::profile::moments::as_of;
use crate::profile::views::{Pass, Views};
use crate::profile::{Profiles, Store};
use crate::settings::Settings;
use crate::source::Source;

/// 2026-09-03 23:58 in Shanghai: two minutes before a day ends.
const NOW: i64 = 1_788_451_080_000_000;
const MINUTE_US: i64 = 60_000_000;

/// What may arrive: a table, its columns, and rows, of which each is one arrival.
const ARRIVALS: [(&str, &str, &[&str]); 12] = [
    (
        "student_affairs.student_base",
        "student_no, name, college_id, class_id, grade_year, counselor_staff_no, in_school, src_updated_at, op",
        &[
            "('20240001', '张三', 'C01', 'K2401', 2024, 'T001', true, '2026-09-01T00:00:00Z', 'I')",
            "('20240001', '张三', 'C09', 'K2409', 2024, 'T009', true, '2026-09-02T00:00:00Z', 'U')",
            "('20240002', '李四', 'C02', 'K2402', 2024, 'T002', true, '2026-09-01T00:00:00Z', 'I')",
            "('20240003', '王五', 'C02', 'K2402', 2024, 'T002', true, '2026-09-01T00:00:00Z', 'I')",
            "('20240003', '王五', 'C02', 'K2402', 2024, 'T002', true, '2026-09-03T00:00:00Z', 'D')",
        ],
    ),
    (
        "academic.enrollment",
        "student_no, study_kind, college_id, class_id, grade_year, enrol_month, status_code, valid_from",
        &[
            "('20240001', 'major', 'C01', 'K2401', 2024, '202409', '01', '2024-09-01')",
            "('20240001', 'major', 'C09', 'K2409', 2024, '202409', '01', '2026-09-04')",
            "('20240002', 'major', 'C02', 'K2402', 2024, '202409', '01', '2024-09-01')",
        ],
    ),
    (
        "academic.grade",
        "student_no, course_no, academic_year, term_no, exam_nature, attempt_no, score, passed, credits, credits_earned, \
         grade_point, posted_at, is_valid, src_updated_at, op",
        &[
            "('20240001', 'MA1', '2025-2026', 1, '01', 1, 55, false, 5, 0, 0, '2026-01-20T01:00:00Z', true, '2026-01-20T01:00:00Z', 'I')",
            "('20240001', 'MA1', '2025-2026', 1, '01', 1, 60, true, 5, 5, 1, '2026-01-20T01:00:00Z', true, '2026-01-25T01:00:00Z', 'U')",
            "('20240001', 'PE1', '2025-2026', 2, '01', 1, 90, true, 1, 1, 4, '2026-06-20T01:00:00Z', true, '2026-06-20T01:00:00Z', 'I')",
            "('20240001', 'PE1', '2025-2026', 2, '01', 1, 90, true, 1, 1, 4, '2026-06-20T01:00:00Z', true, '2026-06-21T01:00:00Z', 'D')",
            "('20240002', 'MA1', '2025-2026', 1, '01', 1, 40, false, 5, 0, 0, '2026-01-20T01:00:00Z', true, '2026-01-20T01:00:00Z', 'I')",
        ],
    ),
    (
        "academic.course",
        "course_no, course_name, credits, course_attr",
        &["('MA1', '高等数学', 5, '1')", "('PE1', '体育', 1, '1')"],
    ),
    (
        "identity.card",
        "card_no, card_seq, prev_card_seq, card_physical_no, person_no, card_kind, card_status, opened_at, src_updated_at",
        &[
            "('900001', '1', NULL, '0A0B0C01', '20240001', 'formal', 'lost', '2024-09-01T00:00:00Z', '2026-03-01T00:00:00Z')",
            "('900001', '2', '1', '0A0B0C02', '20240001', 'formal', 'normal', '2026-03-02T00:00:00Z', '2026-03-02T00:00:00Z')",
            "('900002', '1', NULL, '0A0B0C03', '20240002', 'formal', 'normal', '2024-09-01T00:00:00Z', '2024-09-01T00:00:00Z')",
        ],
    ),
    (
        "logistics.bed_assignment",
        "student_no, space_id, building_id, floor_no, room_no, assigned_from, assigned_to, change_type, audit_status",
        &[
            "('20240001', 'B1-301-1', 'B1', 3, '301', '2024-09-01T00:00:00Z', NULL, '03', '1')",
            "('20240002', 'B1-301-2', 'B1', 3, '301', '2024-09-01T00:00:00Z', '2026-09-03T16:00:00Z', '03', '1')",
            "('20240002', 'B2-101-1', 'B2', 1, '101', '2026-09-03T16:00:00Z', NULL, '01', '1')",
        ],
    ),
    (
        "logistics.card_txn",
        "terminal_no, txn_serial, txn_at, card_no, card_seq, txn_type, amount_fen, merchant_kind, card_use_count",
        &[
            "('P1', '1', '2026-09-01T04:00:00Z', '900001', '2', 'purchase', 1200, 'canteen', 1)",
            "('P1', '1', '2026-09-01T04:00:00Z', '900001', '2', 'purchase', 1300, 'canteen', 1)",
            "('P1', '2', '2026-09-01T10:00:00Z', '900001', '2', 'purchase', 800, 'canteen', 2)",
            "('P2', '7', '2026-09-02T00:30:00Z', '900002', '1', 'purchase', 500, 'canteen', 1)",
            "('P2', '8', '2026-09-03T00:30:00Z', '900001', '2', 'purchase', 700, 'canteen', 3)",
            "('P2', '9', '2026-09-04T04:00:00Z', '900001', '2', 'purchase', 900, 'canteen', 4)",
        ],
    ),
    (
        "access_control.access_event",
        "device_id, door_no, event_serial, event_time, access_person_no, card_physical_no, direction, direction_source, \
         result, place_kind, building_id",
        &[
            "('D1', 1, 1, '2026-09-01T12:00:00Z', '20240001', '0A0B0C02', 'in', 'device', 'granted', 'dorm_gate', 'B1')",
            "('D1', 1, 2, '2026-09-02T15:30:00Z', '0', '0A0B0C03', 'in', 'device', 'granted', 'dorm_gate', 'B1')",
            "('D1', 1, 3, '2026-09-02T14:00:00Z', '20240001', '0A0B0C03', 'out', 'device', 'granted', 'dorm_gate', 'B1')",
            "('D9', 1, 4, '2026-09-02T02:00:00Z', '20240002', NULL, 'in', 'device', 'granted', 'library', 'L1')",
            "('D1', 1, 5, '2026-09-01T15:50:00Z', '0', '0A0B0C02', 'out', 'device', 'granted', 'dorm_gate', 'B1')",
            "('D1', 1, 6, '2026-09-03T15:30:00Z', '20240001', '0A0B0C02', 'in', 'device', 'granted', 'dorm_gate', 'B1')",
            "('D1', 1, 7, '2026-09-04T15:40:00Z', '20240001', '0A0B0C02', 'in', 'device', 'granted', 'dorm_gate', 'B1')",
        ],
    ),
    (
        "identity.match_review",
        "review_id, raised_at, kind, id_type, id_value, other_value, decision, revokes, decision_id, decided_by, decided_at",
        &[
            "('r1', '2026-09-01T00:00:00Z', 'by_hand', 'student_no', '20240001', '20240002', 'linked', NULL, 'd1', 'root', '2026-09-01T00:00:00Z')",
            "('r1', '2026-09-01T00:00:00Z', 'by_hand', 'student_no', '20240001', '20240002', 'open', 'd1', 'd2', 'root', '2026-09-02T00:00:00Z')",
        ],
    ),
    (
        "student_affairs.leave_request",
        "leave_id, student_no, leave_type, start_at, end_at, approval_status, src_updated_at",
        &[
            "('1', '20240001', '1', '2026-09-03T15:00:00Z', '2026-09-04T15:00:00Z', 'approved', '2026-09-01T00:00:00Z')",
            "('1', '20240001', '1', '2026-09-03T15:00:00Z', '2026-09-04T15:00:00Z', 'rejected', '2026-09-02T00:00:00Z')",
        ],
    ),
    (
        // Whose it is says a function in the question, not a column of the table.
        "student_affairs.community_org",
        "org_code, org_type, org_name, building_id, floor_no, leader_no, valid_from",
        &["('O1', 'floor_committee', '三层自管会', 'B1', 3, '20240001', '2024-09-01')"],
    ),
    (
        "extension.calendar_day",
        "biz_date, academic_year, term_no, teaching_week, is_teaching_day, curfew_minute",
        &[
            "('2026-09-01', '2026-2027', 1, 1, true, 1380)",
            "('2026-09-02', '2026-2027', 1, 1, true, 1380)",
            "('2026-09-03', '2026-2027', 1, 1, true, 1380)",
            "('2026-09-04', '2026-2027', 1, 1, true, 1410)",
        ],
    ),
];

/// All arrivals by table and row, in any order, some of them twice.
fn histories() -> impl Strategy<Value = Vec<(usize, usize)>> {
    let all: Vec<_> =
        (0..ARRIVALS.len()).flat_map(|table| (0..ARRIVALS[table].2.len()).map(move |row| (table, row))).collect();
    let again = proptest::sample::subsequence(all.clone(), 0..4);
    again.prop_map(move |again| [all.clone(), again].concat()).prop_shuffle()
}

/// How many arrive before the next computation, and how many minutes pass.
fn steps() -> impl Strategy<Value = Vec<(usize, i64)>> {
    proptest::collection::vec((0..9_usize, prop_oneof![Just(0), 0..3_i64, Just(1440)]), 6)
}

/// Makes known to the engine all that has arrived, with the time it did; only tables that something came to have a new version.
async fn arrive(engine: &Engine, arrived: &[((usize, usize), i64)]) {
    let mut rows: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for ((table, row), at) in arrived {
        let at = DateTime::from_timestamp_micros(*at).unwrap().to_rfc3339_opts(SecondsFormat::Micros, true);
        let row = ARRIVALS[*table].2[*row].strip_suffix(')').unwrap();
        rows.entry(*table).or_default().push(format!("{row}, '{at}')"));
    }
    let mut versions = Vec::new();
    for (place, rows) in rows {
        let (name, columns, _) = ARRIVALS[place];
        let columns = format!("{columns}, ingested_at");
        let mut version = table(contracts().get(name).unwrap(), &columns, &rows.join(", ")).await;
        version.version = Some(rows.len() as u64);
        version.next = Arc::new([(0, rows.len() as i64)].into());
        versions.push((name.to_string(), version));
    }
    engine.refresh(&Source::memory(versions), KEY).await.unwrap();
}

/// What `found` has otherwise than it should, an item or a person's field a line.
pub(super) fn differences(found: &Profiles, expected: &Profiles) -> Vec<String> {
    let mut differences = Vec::new();
    let ids = |profiles: &Profiles| profiles.persons.iter().map(|person| person.id.clone()).collect::<Vec<_>>();
    if ids(found) != ids(expected) {
        differences.push("other persons".to_string());
    }
    for (found, right) in found.persons.iter().zip(&expected.persons) {
        for ((item, found), right) in expected.items.iter().zip(found.items.iter()).zip(right.items.iter()) {
            if found != right {
                differences.push(format!("{}: {:?} instead of {:?}", item.id, found.unpack(), right.unpack()));
            }
        }
        if (&found.version, &found.class_id, &found.student_nos)
            != (&right.version, &right.class_id, &right.student_nos)
        {
            differences.push("a person's own fields".to_string());
        }
    }
    differences
}

/// Everything that may arrive.
fn everything() -> Vec<(&'static str, &'static str, String)> {
    ARRIVALS.iter().map(|(name, columns, rows)| (*name, *columns, rows.join(", "))).collect()
}

/// The rows of a person as text, ordered.
fn lines(batches: &[RecordBatch], person: &str) -> Vec<String> {
    let text = pretty_format_batches(batches).unwrap().to_string();
    let mut lines: Vec<_> = text.lines().filter(|line| line.contains(person)).map(ToString::to_string).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn what_is_by_person_is_given_from_that_persons_rows_alone() {
    let computer = computer().await;
    let everything = everything();
    let everything: Vec<_> = everything.iter().map(|(name, columns, rows)| (*name, *columns, rows.as_str())).collect();
    for tables in [campus(), everything] {
        let snapshot = engine(&tables).await.pin().snapshot.clone();
        let (time, mut views) = (computer.time(NOW), Views::new(computer.definitions.views.len()));
        let mut pass = Pass::new(computer, snapshot.clone(), time, &mut views);
        pass.update().await.unwrap();
        for person in snapshot.identity.persons.iter().filter(|person| person.is_student) {
            let number = snapshot.identity.number(&person.id).unwrap();
            let persons = Arc::new(Persons::from_iter([number as usize]));
            for (place, view) in computer.definitions.views.iter().enumerate().filter(|(_, view)| view.by_person) {
                let own = pass.snapshot_of(&computer.view_reads[place], Some(&persons)).unwrap();
                let given = computer.ask_little(&own, &view.name, &view.sql, time).await.unwrap();
                let kept = pass.views.kept(place).of(&persons, &snapshot.identity).unwrap();
                assert_eq!(lines(&given, &person.id), lines(&kept, &person.id), "view {}", view.name);
            }
            for (question, reads) in computer.definitions.questions.iter().zip(&computer.question_reads) {
                if question.by_person {
                    let [of_all, own] = [None, Some(&persons)].map(|of| pass.snapshot_of(reads, of).unwrap());
                    let expected = computer.answers(question, &of_all, time, false).await.unwrap();
                    let given = computer.answers(question, &own, time, true).await.unwrap();
                    let items: Vec<_> = question.items.iter().map(|item| &computer.items()[*item].id).collect();
                    assert_eq!(given.get(&number), expected.get(&number), "{items:?}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, ..ProptestConfig::default() })]

    #[test]
    fn what_is_computed_on_equals_what_is_computed_anew(history in histories(), steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let engine = Engine::new(&Settings::default(), contracts()).await.unwrap();
            let (live, store) = (new_computer(&[]).await, Store::default());
            let (mut coming, mut arrived, mut now) = (history.into_iter(), Vec::new(), NOW);
            let mut told = BTreeMap::new();
            for (count, minutes) in steps {
                now += minutes * MINUTE_US;
                arrived.extend(coming.by_ref().take(count).map(|row| (row, now)));
                arrive(&engine, &arrived).await;
                let snapshot = engine.pin().snapshot.clone();
                let following = live.follow(snapshot.clone(), now, store.get().as_deref()).await.unwrap();
                let anew = computer().await.compute(snapshot, now).await.unwrap();
                let differences = differences(&following, &anew);
                prop_assert!(differences.is_empty(), "{differences:#?}");
                let following = Arc::new(following);
                store.set(following.clone());
                told.insert(now, following);
            }
            let snapshot = engine.pin().snapshot.clone();
            for (at, told) in told {
                match as_of(&engine, computer().await, &snapshot, at, KEY).await {
                    Ok(then) => {
                        let differences = differences(&then, &told);
                        prop_assert!(differences.is_empty(), "at {at}: {differences:#?}");
                    }
                    Err(error) => prop_assert!(!told.have_sources(), "at {at}: {error}"),
                }
            }
            Ok(())
        })?;
    }
}
