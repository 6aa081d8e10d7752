//! A small campus in memory, for tests. SQL `VALUES` enter, tables in the lake's schema leave.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::MemTable;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt as _;
use schemas::{Contract, Contracts};

use crate::access::{Principal, Role};
use crate::engine::{Engine, Terms};
use crate::error::Error;
use crate::policy::Door;
use crate::settings::Settings;
use crate::source::{Source, TableVersion};

pub const KEY: &[u8] = b"the key of every test";

pub fn contracts() -> Arc<Contracts> {
    static CONTRACTS: LazyLock<Arc<Contracts>> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas");
        Arc::new(Contracts::load(&folder).unwrap())
    });
    CONTRACTS.clone()
}

pub fn analyst() -> Principal {
    Principal { name: "ann".into(), role: Role::Analyst }
}

/// What rows say that does not stand in them.
pub struct Arrival<'a> {
    /// The offset of the first row; they count up.
    pub offset: usize,
    /// When they were changed at their source, and when they were received.
    pub changed_at: &'a str,
    pub received_at: &'a str,
}

/// One table of rows that came together.
pub async fn table(contract: &Contract, columns: &str, values: &str) -> TableVersion {
    let arrival = Arrival { offset: 0, changed_at: "2026-09-01T00:00:00Z", received_at: "2026-09-03T00:30:00Z" };
    version(contract, 0, rows(contract, columns, values, &arrival).await)
}

/// A version of a table that has all of `batches`.
pub fn version(contract: &Contract, version: u64, batches: Vec<RecordBatch>) -> TableVersion {
    let rows = MemTable::try_new(contract.lake_schema(), vec![batches]).unwrap();
    TableVersion::new(Some(version), Arc::new(rows))
}

/// Rows as the lake has them: `columns` names what `values` give; everything else is null or, in the envelope, that of the arrival.
pub async fn rows(contract: &Contract, columns: &str, values: &str, arrival: &Arrival<'_>) -> Vec<RecordBatch> {
    let ctx = SessionContext::new();
    for function in crate::table::time::all("Asia/Shanghai") {
        ctx.register_udf(function);
    }
    let given: Vec<&str> = columns.split(',').map(str::trim).collect();
    let schema = contract.lake_schema();
    let select: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| {
            let name = field.name().as_str();
            let value = match name {
                _ if given.contains(&name) => format!("\"{name}\""),
                "src" => "'test'".to_string(),
                "src_key" | "raw_hash" => "''".to_string(),
                "op" => "'I'".to_string(),
                "src_updated_at" => format!("'{}'", arrival.changed_at),
                "ingested_at" => format!("'{}'", arrival.received_at),
                "schema_version" => "1".to_string(),
                "kafka_partition" => "0".to_string(),
                "kafka_offset" => format!("row_number() OVER () - 1 + {}", arrival.offset),
                "biz_date" => {
                    format!("local_time(arrow_cast({}, 'Timestamp(Microsecond, Some(\"UTC\"))'))", contract.event_time)
                }
                _ => "NULL".to_string(),
            };
            format!("arrow_cast({value}, '{}') AS \"{name}\"", field.data_type())
        })
        .collect();
    let sql = format!("SELECT {} FROM (VALUES {values}) AS given({columns})", select.join(", "));
    let batches = ctx.sql(&sql).await.unwrap().collect().await.unwrap();
    batches.into_iter().map(|batch| RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).unwrap()).collect()
}

/// A source of the given tables: name, columns, values.
pub async fn source(tables: &[(&str, &str, &str)]) -> Source {
    let contracts = contracts();
    let mut versions = Vec::new();
    for (name, columns, values) in tables {
        versions.push((name.to_string(), table(contracts.get(name).unwrap(), columns, values).await));
    }
    Source::memory(versions)
}

/// An engine that answers from the given tables.
pub async fn engine(tables: &[(&str, &str, &str)]) -> Arc<Engine> {
    engine_with(&Settings::default(), tables).await
}

pub async fn engine_with(settings: &Settings, tables: &[(&str, &str, &str)]) -> Arc<Engine> {
    let engine = Engine::new(settings, contracts()).await.unwrap();
    engine.refresh(&source(tables).await, KEY).await.unwrap();
    Arc::new(engine)
}

/// The answer to a question, as a table of text.
pub async fn ask(engine: &Engine, sql: &str) -> Result<String, Error> {
    let prepared = engine.prepare_text(&analyst(), Door::FlightSql, sql).await?;
    let answer = engine.run(&analyst(), &prepared, Vec::new(), Terms::default()).await?;
    let batches: Vec<RecordBatch> = answer.try_collect().await?;
    Ok(pretty_format_batches(&batches).unwrap().to_string())
}

/// Two students, one term, two cards and a gate: enough for every item.
pub fn campus() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        (
            "student_affairs.student_base",
            "student_no, name, sex_code, birth_date, id_doc_type, id_doc_hash, college_id, academy_id, major_code, class_id, \
             grade_year, political_code, hardship_level, residence_mode, origin_region_code, counselor_staff_no, in_school",
            "('20240001', '张三', '1', '2006-02-03', '1', 'aa', 'C01', 'Y1', 'M01', 'K2401', 2024, '03', '2', '2', '330106', 'T001', true),
             ('20240002', '李四', '2', '2006-05-06', '1', 'bb', 'C02', 'Y1', 'M02', 'K2402', 2024, '13', NULL, '2', '110101', 'T002', true)",
        ),
        (
            "academic.enrollment",
            "student_no, study_kind, level_code, training_mode, college_id, major_code, class_id, grade_year, enrol_month, \
             status_code, expected_grad_on, valid_from",
            "('20240001', 'major', '2', '10', 'C01', 'M01', 'K2401', 2024, '202409', '01', '2028-06-30', '2024-09-01'),
             ('20240002', 'major', '2', '10', 'C02', 'M02', 'K2402', 2024, '202409', '01', '2028-06-30', '2024-09-01')",
        ),
        (
            "academic.course",
            "course_no, course_name, credits, course_attr",
            "('MA1', '高等数学', 5, '1'), ('PE1', '体育', 1, '1'), ('AR1', '艺术', 2, '2')",
        ),
        (
            "academic.grade",
            "student_no, course_no, academic_year, term_no, exam_nature, attempt_no, score, passed, credits, credits_earned, \
             grade_point, posted_at, is_valid, src_updated_at",
            "('20240001', 'MA1', '2025-2026', 1, '01', 1, 55, false, 5, 0, 0, '2026-01-20T01:00:00Z', true, '2026-01-20T01:00:00Z'),
             ('20240001', 'MA1', '2025-2026', 1, '01', 1, 60, true, 5, 5, 1, '2026-01-20T01:00:00Z', true, '2026-01-25T01:00:00Z'),
             ('20240001', 'PE1', '2025-2026', 2, '01', 1, 90, true, 1, 1, 4, '2026-06-20T01:00:00Z', true, '2026-06-20T01:00:00Z'),
             ('20240002', 'MA1', '2025-2026', 1, '01', 1, 40, false, 5, 0, 0, '2026-01-20T01:00:00Z', true, '2026-01-20T01:00:00Z')",
        ),
    ]
    .into_iter()
    .chain(things())
    .collect()
}

/// Accounts, cards, beds and what the students did with them.
fn things() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        (
            "identity.account",
            "cas_uid, person_no, account_status, user_type, opened_at",
            "('20240001', '20240001', 'active', 'student_ug', '2024-08-20T00:00:00Z'),
             ('t001', 'T001', 'active', 'staff', '2020-08-20T00:00:00Z')",
        ),
        (
            "identity.card",
            "card_no, card_seq, prev_card_seq, card_physical_no, person_no, card_kind, card_status, opened_at, src_updated_at",
            "('900001', '1', NULL, '0A0B0C01', '20240001', 'formal', 'lost', '2024-09-01T00:00:00Z', '2026-03-01T00:00:00Z'),
             ('900001', '2', '1', '0A0B0C02', '20240001', 'formal', 'normal', '2026-03-02T00:00:00Z', '2026-03-02T00:00:00Z'),
             ('900002', '1', NULL, '0A0B0C03', '20240002', 'formal', 'normal', '2024-09-01T00:00:00Z', '2024-09-01T00:00:00Z')",
        ),
        (
            "logistics.bed_assignment",
            "student_no, space_id, building_id, floor_no, room_no, assigned_from, change_type, audit_status",
            "('20240001', 'B1-301-1', 'B1', 3, '301', '2024-09-01T00:00:00Z', '03', '1'),
             ('20240002', 'B1-301-2', 'B1', 3, '301', '2024-09-01T00:00:00Z', '03', '1')",
        ),
        (
            "logistics.card_txn",
            "terminal_no, txn_serial, txn_at, card_no, card_seq, txn_type, amount_fen, merchant_kind, card_use_count",
            "('P1', '1', '2026-09-01T04:00:00Z', '900001', '2', 'purchase', 1200, 'canteen', 1),
             ('P1', '2', '2026-09-01T10:00:00Z', '900001', '2', 'purchase', 800, 'canteen', 2),
             ('P1', '1', '2026-09-01T04:00:00Z', '900001', '2', 'purchase', 1200, 'canteen', 1),
             ('P2', '7', '2026-09-02T00:30:00Z', '900002', '1', 'purchase', 500, 'shop', 1)",
        ),
        (
            "access_control.access_event",
            "device_id, door_no, event_serial, event_time, access_person_no, card_physical_no, direction, direction_source, \
             result, place_kind, building_id",
            "('D1', 1, 1, '2026-09-01T12:00:00Z', '20240001', '0A0B0C02', 'in', 'device', 'granted', 'dorm_gate', 'B1'),
             ('D1', 1, 2, '2026-09-01T13:00:00Z', '0', '0A0B0C03', 'out', 'device', 'granted', 'dorm_gate', 'B1'),
             ('D1', 1, 3, '2026-09-01T14:00:00Z', '20240001', '0A0B0C03', 'in', 'device', 'granted', 'dorm_gate', 'B1'),
             ('D9', 1, 4, '2026-09-02T02:00:00Z', '20240002', NULL, 'in', 'device', 'granted', 'library', 'L1')",
        ),
        (
            "extension.calendar_day",
            "biz_date, academic_year, term_no, teaching_week, is_teaching_day, curfew_minute",
            "('2026-08-31', '2026-2027', 1, 1, true, 1380), ('2026-09-01', '2026-2027', 1, 1, true, 1380),
             ('2026-09-02', '2026-2027', 1, 1, true, 1380), ('2026-09-03', '2026-2027', 1, 1, true, 1380)",
        ),
    ]
}
