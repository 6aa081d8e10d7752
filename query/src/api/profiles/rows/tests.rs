//! Pages of rows: whole, in order, and in step while rows come and go.

use expect_test::expect;

use super::*;
use crate::fixture::{campus, contracts, engine};
use crate::identity::IdType;

/// What is true of one student; sessions of one day share their moment, which is also that of the first bed.
const SESSIONS: &str = "('20240001', 'K1', '2026-09-01', 1, '1'), ('20240001', 'K1', '2026-09-01', 3, '1'),
    ('20240001', 'K2', '2026-09-01', 5, '4'), ('20240001', 'K1', '2026-09-02', 1, '1'), ('20240002', 'K1', '2026-09-01', 1, '1')";
const BEDS: &str = "('20240001', '2026-08-31T16:00:00Z', 'B1'), ('20240001', '2026-09-01T16:00:00Z', 'B2'),
    ('20240002', '2026-08-31T16:00:00Z', 'B1')";

async fn school(sessions: &str, beds: &str) -> Arc<Engine> {
    let mut tables = campus();
    tables.retain(|(name, ..)| name.starts_with("student_affairs"));
    tables.push(("academic.attendance", "student_no, class_no, session_on, section_from, attend_status", sessions));
    tables.push(("logistics.bed_assignment", "student_no, assigned_from, building_id", beds));
    engine(&tables).await
}

/// A page of the first student's rows, a line each, and the token of the next.
async fn page(engine: &Engine, size: i32, token: &str) -> (Vec<String>, String) {
    let (contracts, snapshot) = (contracts(), engine.pin().snapshot.clone());
    let person = snapshot.identity.resolve(IdType::StudentNo, "20240001", None).person().unwrap();
    let tables = ["academic.attendance", "logistics.bed_assignment", "student_affairs.student_base"];
    let wanted = Wanted {
        person_id: &snapshot.identity.person(person).id,
        numbers: snapshot.identity.numbers(&snapshot.identity.person(person).id),
        tables: tables.map(|table| (&**contracts.get(table).unwrap(), vec!["id_doc_hash"])).to_vec(),
        from: None,
        to: None,
    };
    let asked = Page::new(size, token, "a test").unwrap();
    let (rows, token) = read(engine, snapshot.clone(), &wanted, &asked).await.unwrap();
    let line = |row: &PersonRow| {
        let fields = ["class_no", "section_from", "building_id"]
            .map(|name| row.fields.get(name).map(|value| format!("{:?}", value.kind.as_ref().unwrap())));
        let at = chrono::DateTime::from_timestamp(row.event_time.unwrap().seconds, 0).unwrap();
        format!(
            "{} {} {}",
            at.format("%m-%d %H:%M"),
            row.table,
            fields.into_iter().flatten().collect::<Vec<_>>().join(" ")
        )
    };
    (rows.iter().map(line).collect(), token)
}

async fn all(engine: &Engine, size: i32) -> Vec<String> {
    let (mut rows, mut token) = page(engine, size, "").await;
    while !token.is_empty() {
        let (more, next) = page(engine, size, &token).await;
        assert!(!more.is_empty() && more.len() <= usize::try_from(size).unwrap());
        rows.extend(more);
        token = next;
    }
    rows
}

#[tokio::test]
async fn pages_of_any_size_hold_each_row_once() {
    let engine = school(SESSIONS, BEDS).await;
    let whole = all(&engine, 500).await;
    expect![[r#"
        08-31 16:00 academic.attendance StringValue("K1") Int64Value(1)
        08-31 16:00 academic.attendance StringValue("K1") Int64Value(3)
        08-31 16:00 academic.attendance StringValue("K2") Int64Value(5)
        08-31 16:00 logistics.bed_assignment StringValue("B1")
        09-01 00:00 student_affairs.student_base 
        09-01 16:00 academic.attendance StringValue("K1") Int64Value(1)
        09-01 16:00 logistics.bed_assignment StringValue("B2")"#]]
    .assert_eq(&whole.join("\n"));
    for size in 1..8 {
        assert_eq!(all(&engine, size).await, whole, "pages of {size}");
    }
}

#[tokio::test]
async fn pages_stay_in_step_while_rows_come_and_go() {
    let before = school(SESSIONS, BEDS).await;
    let (first, token) = page(&before, 2, "").await;
    assert_eq!(first.len(), 2);
    // The last row that was given is gone, one came before its place, one at its moment behind it.
    let sessions = "('20240001', 'K1', '2026-09-01', 1, '1'), ('20240001', 'K0', '2026-09-01', 7, '1'),
        ('20240001', 'K2', '2026-09-01', 5, '4'), ('20240001', 'K3', '2026-09-01', 8, '4')";
    let after = school(sessions, BEDS).await;
    let (second, _) = page(&after, 10, &token).await;
    expect![[r#"
        08-31 16:00 academic.attendance StringValue("K2") Int64Value(5)
        08-31 16:00 academic.attendance StringValue("K3") Int64Value(8)
        08-31 16:00 logistics.bed_assignment StringValue("B1")
        09-01 00:00 student_affairs.student_base 
        09-01 16:00 logistics.bed_assignment StringValue("B2")"#]]
    .assert_eq(&second.join("\n"));
}

#[test]
fn a_place_is_read_as_it_was_written() {
    for (at, key) in [(0, ""), (-1, "a|.b"), (i64::MAX, "学号|1")] {
        let place = Place { at, table: "academic.grade".into(), key: key.into() };
        assert_eq!(Place::read(&place.token("0a1b2c3d"), "0a1b2c3d"), Some(place.clone()));
        assert_eq!(Place::read(&place.token("0a1b2c3d"), "another"), None);
    }
    for token in ["", "a", "a.b.c", "f.zz.00.t", "f.1.0g.t", "f.1.ff.t"] {
        assert_eq!(Place::read(token, "f"), None, "{token}");
    }
}

#[test]
fn a_number_reaches_the_files_only_where_it_has_one_spelling() {
    let contracts = contracts();
    let column = |table: &str, numbers: &[&str]| number_in_key(contracts.get(table).unwrap(), numbers);
    assert_eq!(column("academic.grade", &["20240001", "20280001"]), Some("student_no"));
    assert_eq!(column("academic.grade", &["20240001", "2024000A"]), None, "a source may write it 2024000a");
    assert_eq!(column("academic.grade", &[]), None);
    assert_eq!(column("student_affairs.leave_request", &["20240001"]), None, "not in the key");
    assert_eq!(column("logistics.card_txn", &["20240001"]), None, "a card's");
}
