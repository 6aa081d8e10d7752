//! Two tables of each contract: what is true now, what was received, and which predicates reach the files.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use expect_test::{Expect, expect};
use schemas::Kind;

use crate::fixture::{ask, campus, contracts, engine, table};
use crate::snapshot::Snapshot;
use crate::source::TableVersion;
use crate::{catalog, settings::Settings};

async fn check(sql: &str, expected: Expect) {
    let engine = engine(&campus()).await;
    let answer = match ask(&engine, sql).await {
        Ok(answer) => answer,
        Err(error) => format!("{:?}: {}", error.kind, error.text()),
    };
    expected.assert_eq(&answer);
}

#[tokio::test]
async fn a_correction_replaces_and_the_history_keeps_both() {
    check(
        "SELECT score, kafka_offset FROM academic.grade WHERE student_no = '20240001' AND course_no = 'MA1'",
        expect![[r#"
        +-------+--------------+
        | score | kafka_offset |
        +-------+--------------+
        | 60.0  | 1            |
        +-------+--------------+"#]],
    )
    .await;
    check(
        "SELECT score, kafka_offset FROM academic.grade_history WHERE student_no = '20240001' AND course_no = 'MA1' ORDER BY 2",
        expect![[r#"
            +-------+--------------+
            | score | kafka_offset |
            +-------+--------------+
            | 55.0  | 0            |
            | 60.0  | 1            |
            +-------+--------------+"#]],
    )
    .await;
}

#[tokio::test]
async fn duplicates_are_gone() {
    check(
        "SELECT count(*) AS now FROM logistics.card_txn",
        expect![[r#"
        +-----+
        | now |
        +-----+
        | 3   |
        +-----+"#]],
    )
    .await;
    check(
        "SELECT count(*) AS received FROM logistics.card_txn_history",
        expect![[r#"
        +----------+
        | received |
        +----------+
        | 4        |
        +----------+"#]],
    )
    .await;
}

#[tokio::test]
async fn a_delete_removes_and_a_later_version_brings_back() {
    let engine = engine(&[(
        "academic.course",
        "course_no, course_name, op, src_updated_at",
        "('A', 'first', 'I', '2026-01-01T00:00:00Z'), ('A', NULL, 'D', '2026-01-02T00:00:00Z'),
         ('B', 'first', 'I', '2026-01-01T00:00:00Z'), ('B', NULL, 'D', '2026-01-02T00:00:00Z'), ('B', 'again', 'I', '2026-01-03T00:00:00Z'),
         ('C', 'late', 'U', '2026-01-05T00:00:00Z'), ('C', 'early', 'I', '2026-01-01T00:00:00Z'),
         ('D', 'same time, first', 'I', '2026-01-01T00:00:00Z'), ('D', 'same time, last', 'I', '2026-01-01T00:00:00Z')",
    )])
    .await;
    let answer = ask(&engine, "SELECT course_no, course_name FROM academic.course ORDER BY 1").await.unwrap();
    expect![[r#"
        +-----------+-----------------+
        | course_no | course_name     |
        +-----------+-----------------+
        | B         | again           |
        | C         | late            |
        | D         | same time, last |
        +-----------+-----------------+"#]]
    .assert_eq(&answer);
}

#[tokio::test]
async fn of_a_past_moment_lake_and_tail_have_what_was_received_by_then() {
    let (contracts, name) = (contracts(), "academic.course");
    let columns = "course_no, course_name, op, src_updated_at, ingested_at";
    let rows = async |values: &str| table(contracts.get(name).unwrap(), columns, values).await;
    let lake = rows(
        "('A', 'first', 'I', '2026-01-01T00:00:00Z', '2026-01-01T01:00:00Z'), ('A', 'mended', 'U', '2026-01-02T00:00:00Z', '2026-01-02T01:00:00Z'),
         ('B', 'late', 'I', '2026-01-01T00:00:00Z', '2026-01-03T01:00:00Z')",
    );
    let later = rows(
        "('A', NULL, 'D', '2026-01-03T00:00:00Z', '2026-01-03T01:00:00Z'), ('C', 'new', 'I', '2026-01-04T00:00:00Z', '2026-01-04T01:00:00Z')",
    );
    let tail = SessionContext::new().read_table(later.await.rows).unwrap().collect().await.unwrap();
    let version = TableVersion { tail: Arc::new(tail), ..lake.await };
    let snapshot = Snapshot::new(HashMap::from([(name.to_string(), version)]), Arc::default());
    let engine = engine(&[]).await;
    let mut out = String::new();
    for at in [
        "2026-01-01T00:59:59Z",
        "2026-01-01T01:00:00Z",
        "2026-01-02T01:00:00Z",
        "2026-01-03T01:00:00Z",
        "2026-01-05T00:00:00Z",
    ] {
        let moment = chrono::DateTime::parse_from_rfc3339(at).unwrap().timestamp_micros();
        engine.set_snapshot(Arc::new(snapshot.with_tables(snapshot.received_by(moment))));
        let sql = "SELECT (SELECT count(*) FROM academic.course_history) AS received, \
            string_agg(course_no || ' ' || course_name, ', ' ORDER BY course_no) AS current, \
            (SELECT count(*) FROM academic.course_history WHERE course_no = 'A') AS of_a FROM academic.course";
        let answer = ask(&engine, sql).await.unwrap();
        let cells: Vec<_> = answer.lines().nth(3).unwrap().split('|').map(str::trim).collect();
        out += &format!("{at}: {}\n", cells[1..4].join(" / "));
    }
    expect![[r#"
        2026-01-01T00:59:59Z: 0 /  / 0
        2026-01-01T01:00:00Z: 1 / A first / 1
        2026-01-02T01:00:00Z: 2 / A mended / 2
        2026-01-03T01:00:00Z: 4 / B late / 3
        2026-01-05T00:00:00Z: 5 / B late, C new / 3
    "#]]
    .assert_eq(&out);
}

#[tokio::test]
async fn derived_columns() {
    check(
        "SELECT event_serial, event_time, local_ts, biz_date, person_id IS NOT NULL AS known, link_status \
         FROM access_control.access_event ORDER BY event_serial",
        expect![[r#"
            +--------------+----------------------+---------------------+------------+-------+-------------+
            | event_serial | event_time           | local_ts            | biz_date   | known | link_status |
            +--------------+----------------------+---------------------+------------+-------+-------------+
            | 1            | 2026-09-01T12:00:00Z | 2026-09-01T20:00:00 | 2026-09-01 | true  | confirmed   |
            | 2            | 2026-09-01T13:00:00Z | 2026-09-01T21:00:00 | 2026-09-01 | true  | confirmed   |
            | 3            | 2026-09-01T14:00:00Z | 2026-09-01T22:00:00 | 2026-09-01 | false | disputed    |
            | 4            | 2026-09-02T02:00:00Z | 2026-09-02T10:00:00 | 2026-09-02 | true  | confirmed   |
            +--------------+----------------------+---------------------+------------+-------+-------------+"#]],
    )
    .await;
    check(
        "SELECT valid_from, event_time, local_ts, biz_date FROM academic.enrollment ORDER BY student_no LIMIT 1",
        expect![[r#"
            +------------+----------------------+---------------------+------------+
            | valid_from | event_time           | local_ts            | biz_date   |
            +------------+----------------------+---------------------+------------+
            | 2024-09-01 | 2024-08-31T16:00:00Z | 2024-09-01T00:00:00 | 2024-09-01 |
            +------------+----------------------+---------------------+------------+"#]],
    )
    .await;
}

#[tokio::test]
async fn a_table_without_rows_is_empty() {
    check(
        "SELECT count(*) AS n, max(person_id) AS p FROM student_affairs.leave_request",
        expect![[r#"
        +---+---+
        | n | p |
        +---+---+
        | 0 |   |
        +---+---+"#]],
    )
    .await;
}

#[tokio::test]
async fn identity_is_a_table_too() {
    check(
        "SELECT p.name, p.person_kind, l.id_type, l.id_value, l.valid_from, l.valid_to, l.rule_id, l.link_status \
         FROM identity.identifier_link l JOIN identity.person p USING (person_id) WHERE p.student_no = '20240001' \
         ORDER BY id_type, id_value",
        expect![[r#"
            +------+-------------+------------------+----------+----------------------+----------------------+---------+-------------+
            | name | person_kind | id_type          | id_value | valid_from           | valid_to             | rule_id | link_status |
            +------+-------------+------------------+----------+----------------------+----------------------+---------+-------------+
            | 张三 | student     | card_no          | 900001   | 2024-09-01T00:00:00Z |                      | R7      | confirmed   |
            | 张三 | student     | card_physical_no | 0A0B0C01 | 2024-09-01T00:00:00Z | 2026-03-02T00:00:00Z | R7      | confirmed   |
            | 张三 | student     | card_physical_no | 0A0B0C02 | 2026-03-02T00:00:00Z |                      | R7      | confirmed   |
            | 张三 | student     | card_seq         | 900001|1 | 2024-09-01T00:00:00Z |                      | R7      | confirmed   |
            | 张三 | student     | card_seq         | 900001|2 | 2026-03-02T00:00:00Z |                      | R7      | confirmed   |
            | 张三 | student     | cas_uid          | 20240001 | 2024-08-20T00:00:00Z |                      | R6      | confirmed   |
            | 张三 | student     | student_no       | 20240001 | 1970-01-01T00:00:00Z |                      | R3      | confirmed   |
            +------+-------------+------------------+----------+----------------------+----------------------+---------+-------------+"#]],
    )
    .await;
}

#[tokio::test]
async fn keys_and_days_reach_the_files() {
    let engine = engine(&campus()).await;
    let mut out = String::new();
    for condition in [
        "academic.grade WHERE student_no = '20240001' AND score > 50",
        "academic.grade WHERE biz_date = DATE '2026-01-20'",
        "logistics.card_txn WHERE biz_date = DATE '2026-09-01' AND terminal_no = 'P1' AND amount_fen > 0",
        "access_control.access_event WHERE device_id = 'D1' AND event_time > TIMESTAMP '2026-09-01 12:30:00'",
        "academic.grade_history WHERE biz_date = DATE '2026-01-20' AND score > 50",
    ] {
        let plan = ask(&engine, &format!("EXPLAIN SELECT 1 FROM {condition}")).await.unwrap();
        let scan = plan.lines().find(|line| line.contains("TableScan")).unwrap_or(&plan);
        let filters =
            scan.split_once("partial_filters=").map_or("none", |(_, filters)| filters.trim_matches([' ', '|']));
        out += &format!("{condition}\n  {filters}\n");
    }
    expect![[r#"
        academic.grade WHERE student_no = '20240001' AND score > 50
          [grade_rows.student_no = Utf8("20240001")]
        academic.grade WHERE biz_date = DATE '2026-01-20'
          none
        logistics.card_txn WHERE biz_date = DATE '2026-09-01' AND terminal_no = 'P1' AND amount_fen > 0
          [card_txn_rows.biz_date = Date32("2026-09-01"), card_txn_rows.terminal_no = Utf8("P1")]
        access_control.access_event WHERE device_id = 'D1' AND event_time > TIMESTAMP '2026-09-01 12:30:00'
          [access_event_rows.device_id = Utf8("D1"), access_event_rows.event_time > TimestampMicrosecond(1788265800000000, Some("UTC"))]
        academic.grade_history WHERE biz_date = DATE '2026-01-20' AND score > 50
          [grade_rows.biz_date = Date32("2026-01-20"), grade_rows.score > Decimal128(50.0,5,1)]
    "#]].assert_eq(&out);
}

#[tokio::test]
async fn a_table_that_nothing_has_landed_in_is_empty() {
    let engine = engine(&[]).await;
    // Tables of the platform are not for the analyst who asks here.
    for contract in contracts().all().filter(|contract| contract.domain != "platform") {
        let name = contract.name();
        let history = (contract.kind != Kind::Derived).then(|| format!("{name}{}", catalog::HISTORY));
        for table in [Some(name), history].into_iter().flatten() {
            let answer = ask(&engine, &format!("SELECT * FROM {table}")).await.expect("a table of a contract answers");
            let is_row = |line: &str| line.starts_with('|');
            assert!(!answer.lines().skip(3).any(is_row), "{table}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_derived_table_is_what_its_contract_says() {
    let ctx = catalog::session(&Settings::default(), &contracts()).await.expect("a session");
    for contract in contracts().all().filter(|contract| contract.kind == Kind::Derived) {
        let table = ctx.table(contract.name()).await.expect("the table is there");
        let columns = table.schema().fields().iter().map(|field| (field.name().clone(), field.data_type().clone()));
        let fields = contract.fields.iter().map(|field| (field.name.clone(), field.field_type.arrow()));
        assert_eq!(columns.collect::<Vec<_>>(), fields.collect::<Vec<_>>(), "{}", contract.name());
    }
}
