//! One question: what may be asked, what comes back, and what stops it.

use std::time::Duration;

use datafusion::scalar::ScalarValue;
use expect_test::expect;
use futures::{StreamExt as _, TryStreamExt as _};

use super::Terms;
use crate::access::{Principal, Role};
use crate::error::ErrorKind;
use crate::fixture::{self, analyst, ask, campus, engine, engine_with};
use crate::policy::Door;
use crate::settings::Settings;

#[tokio::test]
async fn mistakes_are_named_with_a_hint() {
    let engine = engine(&campus()).await;
    let mut out = String::new();
    for sql in [
        "SELECT * FROM academic.grades",
        "SELECT * FROM grade",
        "SELECT scor FROM academic.grade",
        "SELEC 1",
        "SELECT nofunction(1)",
        "SELECT 1; SELECT 2",
        "",
        "INSERT INTO academic.grade (student_no) VALUES ('1')",
        "SET datafusion.execution.batch_size = 1",
        "SELECT 1/0",
        "SELECT CAST('x' AS INT)",
        "SELECT * FROM platform.dead_letter",
        "SELECT * FROM academic.grade_rows",
    ] {
        let error = ask(&engine, sql).await.unwrap_err();
        out += &format!("{sql}\n  {:?}: {}\n", error.kind, error.text().replace('\n', " "));
    }
    expect![[r#"
        SELECT * FROM academic.grades
          UndefinedTable: table 'quad.academic.grades' not found; did you mean academic.grade? `quad tables` lists all
        SELECT * FROM grade
          UndefinedTable: table 'quad.public.grade' not found; did you mean academic.grade? `quad tables` lists all
        SELECT scor FROM academic.grade
          UndefinedColumn: no field named scor. Did you mean 'academic.grade.score'? Valid fields are academic.grade.student_no, academic.grade.course_no, academic.grade.academic_year, academic.grade.term_no, academic.grade.exam_nature, academic.grade.attempt_no, academic.grade.score, academic.grade.score_text, academic.grade.passed, academic.grade.credits, academic.grade.credits_earned, academic.grade.grade_point, academic.grade.exam_on, academic.grade.posted_at, academic.grade.is_valid, academic.grade.event_time, academic.grade.local_ts, academic.grade.biz_date, academic.grade.person_id, academic.grade.link_status, academic.grade.src, academic.grade.src_key, academic.grade.op, academic.grade.src_updated_at, academic.grade.ingested_at, academic.grade.raw_hash, academic.grade.schema_version, academic.grade.kafka_partition, academic.grade.kafka_offset
        SELEC 1
          InvalidSql: syntax error: Expected: an SQL statement, found: SELEC
        SELECT nofunction(1)
          UndefinedFunction: invalid function 'nofunction'. Did you mean 'position'?
        SELECT 1; SELECT 2
          InvalidSql: more than one statement; send them one by one

          InvalidSql: the statement is empty
        INSERT INTO academic.grade (student_no) VALUES ('1')
          ReadOnly: cannot execute INSERT: quad is read-only here; data enters through connectors; see `quad sources`
        SET datafusion.execution.batch_size = 1
          Unsupported: SET is not supported; ask with SELECT, EXPLAIN or SHOW
        SELECT 1/0
          Data: divide by zero error
        SELECT CAST('x' AS INT)
          Data: cast error: Cannot cast string 'x' to value of Int32 type
        SELECT * FROM platform.dead_letter
          Denied: permission denied for table platform.dead_letter; tables of schema platform need role admin
        SELECT * FROM academic.grade_rows
          UndefinedTable: table 'quad.academic.grade_rows' not found; did you mean academic.grade? `quad tables` lists all
    "#]].assert_eq(&out);
}

#[tokio::test]
async fn parameters_are_bound_by_place() {
    let engine = engine(&campus()).await;
    let sql = "SELECT count(*) FROM academic.grade WHERE student_no = $1 AND score >= $2";
    let prepared = engine.prepare_text(&analyst(), Door::FlightSql, sql).await.unwrap();
    expect!["[Some(Utf8), Some(Decimal128(5, 1))]"].assert_eq(&format!("{:?}", prepared.parameters));
    let parameters = vec![ScalarValue::from("20240001"), ScalarValue::from("60")];
    let answer = engine.run(&analyst(), &prepared, parameters, Terms::default()).await.unwrap();
    let batches: Vec<_> = answer.try_collect().await.unwrap();
    assert_eq!(ScalarValue::try_from_array(batches[0].column(0), 0).unwrap(), ScalarValue::from(2_i64));
    let error = engine.run(&analyst(), &prepared, vec![], Terms::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument);
    let wrong = vec![ScalarValue::from("20240001"), ScalarValue::from("many")];
    let error = engine.run(&analyst(), &prepared, wrong, Terms::default()).await.unwrap_err();
    assert_eq!((error.kind, error.message.contains("$2")), (ErrorKind::InvalidArgument, true));
}

#[tokio::test]
async fn a_role_without_sql_is_refused() {
    let engine = engine(&campus()).await;
    let counselor = Principal { name: "carl".into(), role: Role::Counselor };
    let error = engine.prepare_text(&counselor, Door::FlightSql, "SELECT 1").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
}

#[tokio::test]
async fn a_prepared_question_answers_from_the_newest_snapshot() {
    let engine = engine(&[]).await;
    let prepared = engine
        .prepare_text(&analyst(), Door::FlightSql, "SELECT count(*), quad_snapshot() FROM academic.course")
        .await
        .unwrap();
    let count = async || {
        let answer = engine.run(&analyst(), &prepared, vec![], Terms::default()).await.unwrap();
        let batches: Vec<_> = answer.try_collect().await.unwrap();
        let cell = |column: usize| ScalarValue::try_from_array(batches[0].column(column), 0).unwrap();
        (cell(0), cell(1))
    };
    let by_name = engine
        .prepare_text(&analyst(), Door::FlightSql, "SELECT course_no FROM academic.course WHERE course_name = $1")
        .await
        .unwrap();
    let rows = async || {
        let answer = engine.run(&analyst(), &by_name, vec![ScalarValue::from("体育")], Terms::default()).await.unwrap();
        let batches: Vec<_> = answer.try_collect().await.unwrap();
        batches.iter().map(|batch| batch.num_rows()).sum::<usize>()
    };
    assert_eq!((count().await, rows().await), ((ScalarValue::from(0_i64), ScalarValue::from(0_i64)), 0));
    let source = fixture::source(&campus()).await;
    assert!(engine.refresh(&source, fixture::KEY).await.unwrap());
    assert!(!engine.refresh(&source, fixture::KEY).await.unwrap());
    let snapshot = i64::try_from(engine.pin().snapshot.id).unwrap();
    assert!(snapshot > 0);
    assert_eq!((count().await, rows().await), ((ScalarValue::from(3_i64), ScalarValue::from(snapshot)), 1));
}

#[tokio::test]
async fn a_question_that_takes_too_long_is_stopped() {
    let engine = engine(&[]).await;
    let sql =
        "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 10000000) b WHERE a.value <> b.value";
    let prepared = engine.prepare_text(&analyst(), Door::FlightSql, sql).await.unwrap();
    let mut answer = engine
        .run(&analyst(), &prepared, vec![], Terms { timeout: Some(Duration::from_millis(50)), ..Terms::default() })
        .await
        .unwrap();
    let error = answer.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert!(answer.next().await.is_none());
}

#[tokio::test]
async fn places_are_limited_and_given_back() {
    let settings = Settings { queries_concurrent_max: 1, queue_timeout_ms: 20, ..Settings::default() };
    let engine = engine_with(&settings, &[]).await;
    let endless = "SELECT count(*) FROM generate_series(1, 100000000000)";
    let prepared = engine.prepare_text(&analyst(), Door::FlightSql, endless).await.unwrap();
    let first = engine.run(&analyst(), &prepared, vec![], Terms::default()).await.unwrap();
    let error = engine.run(&analyst(), &prepared, vec![], Terms::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Busy);
    drop(first);
    let give_up = std::time::Instant::now() + Duration::from_secs(30);
    while engine.run(&analyst(), &prepared, vec![], Terms::default()).await.is_err() {
        assert!(std::time::Instant::now() < give_up, "a dropped question keeps its place");
    }
}

#[tokio::test]
async fn memory_is_limited() {
    let settings = Settings { query_memory_bytes_max: 16 << 20, query_spill_bytes_max: 0, ..Settings::default() };
    let engine = engine_with(&settings, &[]).await;
    let sql = "SELECT array_agg(value), count(DISTINCT value) FROM generate_series(1, 20000000)";
    let error = ask(&engine, sql).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::OutOfMemory, "{error}");
}

#[tokio::test]
async fn the_catalog_is_what_tools_expect() {
    let engine = engine(&[]).await;
    let sql = "SELECT table_schema, table_name, table_type FROM information_schema.tables \
               WHERE table_schema IN ('academic', 'identity') ORDER BY 1, 2";
    expect![[r#"
        +--------------+---------------------------+------------+
        | table_schema | table_name                | table_type |
        +--------------+---------------------------+------------+
        | academic     | attendance                | BASE TABLE |
        | academic     | attendance_history        | BASE TABLE |
        | academic     | course                    | BASE TABLE |
        | academic     | course_history            | BASE TABLE |
        | academic     | course_selection          | BASE TABLE |
        | academic     | course_selection_history  | BASE TABLE |
        | academic     | enrollment                | BASE TABLE |
        | academic     | enrollment_history        | BASE TABLE |
        | academic     | grade                     | BASE TABLE |
        | academic     | grade_history             | BASE TABLE |
        | academic     | status_change             | BASE TABLE |
        | academic     | status_change_history     | BASE TABLE |
        | academic     | teaching_class            | BASE TABLE |
        | academic     | teaching_class_history    | BASE TABLE |
        | academic     | term_registration         | BASE TABLE |
        | academic     | term_registration_history | BASE TABLE |
        | identity     | account                   | BASE TABLE |
        | identity     | account_history           | BASE TABLE |
        | identity     | card                      | BASE TABLE |
        | identity     | card_history              | BASE TABLE |
        | identity     | identifier_link           | BASE TABLE |
        | identity     | match_review              | BASE TABLE |
        | identity     | match_review_history      | BASE TABLE |
        | identity     | org_unit                  | BASE TABLE |
        | identity     | org_unit_history          | BASE TABLE |
        | identity     | person                    | BASE TABLE |
        | identity     | staff                     | BASE TABLE |
        | identity     | staff_history             | BASE TABLE |
        | identity     | staff_role                | BASE TABLE |
        | identity     | staff_role_history        | BASE TABLE |
        +--------------+---------------------------+------------+"#]]
    .assert_eq(&ask(&engine, sql).await.unwrap());
    let sql = "SELECT c.relname, c.relkind FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = 'academic' ORDER BY 1";
    expect![[r#"
        +---------------------------+---------+
        | relname                   | relkind |
        +---------------------------+---------+
        | attendance                | r       |
        | attendance_history        | r       |
        | course                    | r       |
        | course_history            | r       |
        | course_selection          | r       |
        | course_selection_history  | r       |
        | enrollment                | r       |
        | enrollment_history        | r       |
        | grade                     | r       |
        | grade_history             | r       |
        | status_change             | r       |
        | status_change_history     | r       |
        | teaching_class            | r       |
        | teaching_class_history    | r       |
        | term_registration         | r       |
        | term_registration_history | r       |
        +---------------------------+---------+"#]]
    .assert_eq(&ask(&engine, sql).await.unwrap());
}
