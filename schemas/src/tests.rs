//! The crate against the real contracts: loading, coercion, checks, and the way through Avro and back.

mod tables;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use expect_test::{Expect, expect};
use proptest::prelude::*;

use crate::{Checker, Contract, Contracts, Decoder, Encoder, check::Violation, coerce::coerce};

pub(crate) fn contracts() -> Contracts {
    static CONTRACTS: LazyLock<Contracts> = LazyLock::new(|| {
        Contracts::load(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the contracts of this repository load")
    });
    CONTRACTS.clone()
}

fn contract(name: &str) -> Arc<Contract> {
    contracts().get(name).expect("a table of the model").clone()
}

/// Rows of text, as a mapping would give them: `columns` are names, `rows` their values, `-` is NULL.
pub(crate) fn mapped(columns: &[&str], rows: &[&[&str]]) -> RecordBatch {
    let fields: Vec<_> = columns.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
    let value = |row: &&[&str], column: usize| Some(row[column]).filter(|text| *text != "-").map(String::from);
    let arrays = (0..columns.len())
        .map(|column| Arc::new(rows.iter().map(|row| value(row, column)).collect::<StringArray>()) as ArrayRef)
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns of one length")
}

/// Mapped text → typed record with a plain envelope, and the violations of coercion.
fn record(contract: &Contract, mapped: &RecordBatch) -> (RecordBatch, Vec<Violation>) {
    let (mut columns, violations) = coerce(contract, mapped).expect("text can become any type");
    let rows = mapped.num_rows();
    let text = |value: &str| Arc::new(StringArray::from(vec![value; rows])) as ArrayRef;
    let time = |micros| Arc::new(TimestampMicrosecondArray::from(vec![micros; rows]).with_timezone("UTC")) as ArrayRef;
    let op = mapped.column_by_name("op").cloned().unwrap_or_else(|| text("I"));
    let now = 1_795_500_000_000_000;
    columns.extend([text("test"), text("key"), op, time(now), time(now), text("00")]);
    let schema = contract.record_schema();
    let nullable: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    (RecordBatch::try_new(Arc::new(Schema::new(nullable)), columns).expect("the record's shape"), violations)
}

fn check(name: &str, columns: &[&str], rows: &[&[&str]], expected: Expect) {
    let contract = contract(name);
    let (batch, mut violations) = record(&contract, &mapped(columns, rows));
    violations.extend(Checker::new(&contract).expect("rules compile").check(&batch).expect("rules run"));
    let lines = violations.iter().map(|found| format!("{} {} {}\n", found.row, found.field, found.rule));
    expected.assert_eq(&lines.collect::<String>());
}

#[test]
fn every_contract_loads_and_its_rules_compile() {
    let contracts = contracts();
    let names: Vec<_> = contracts.all().map(|contract| contract.name()).collect();
    for contract in contracts.iter() {
        Checker::new(contract).expect("the rules of a contract are predicates over its record");
        Decoder::new(contract).expect("the Avro schema of a contract decodes");
    }
    expect![[r#"
        [
            "academic.attendance",
            "academic.course",
            "academic.course_selection",
            "academic.enrollment",
            "academic.grade",
            "academic.status_change",
            "academic.teaching_class",
            "academic.term_registration",
            "access_control.access_alarm",
            "access_control.access_event",
            "access_control.access_permission",
            "access_control.device",
            "access_control.device_status",
            "access_control.visitor_pass",
            "extension.calendar_day",
            "extension.evidence_document",
            "extension.fitness_test",
            "extension.service_transaction",
            "extension.survey_response",
            "identity.account",
            "identity.card",
            "identity.identifier_link",
            "identity.match_review",
            "identity.org_unit",
            "identity.person",
            "identity.staff",
            "identity.staff_role",
            "logistics.appeal_case",
            "logistics.appeal_step",
            "logistics.bed_assignment",
            "logistics.card_txn",
            "logistics.dorm_inspection",
            "logistics.repair_order",
            "logistics.space",
            "logistics.utility_reading",
            "platform.dead_letter",
            "platform.ledger",
            "student_affairs.activity",
            "student_affairs.activity_participation",
            "student_affairs.aid_record",
            "student_affairs.award_punishment",
            "student_affairs.community_org",
            "student_affairs.contact_record",
            "student_affairs.leave_request",
            "student_affairs.student_base",
        ]
    "#]]
    .assert_debug_eq(&names);
}

#[test]
fn text_becomes_types_and_what_cannot_is_named() {
    check(
        "student_affairs.leave_request",
        &["leave_id", "student_no", "applied_at", "start_at", "end_at"],
        &[
            &["L1", "20260101", "2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z", "2026-11-03T00:00:00Z"],
            &["L2", "20260101", "2026-13-45", "2026-11-02T00:00:00Z", "2026-11-03T00:00:00Z"],
            &["L3", "20260101", "2026-11-01T00:00:00Z", "2026-11-04T00:00:00Z", "2026-11-03T00:00:00Z"],
            &["-", "20260101", "2026-11-01T00:00:00Z", "", "2026-11-03T00:00:00Z"],
        ],
        expect![[r#"
            1 applied_at type
            1 applied_at required
            2  ends_after_start
            3 leave_id required
        "#]],
    );
}

#[test]
fn a_delete_needs_only_its_key() {
    check(
        "student_affairs.leave_request",
        &["leave_id", "student_no", "op"],
        &[&["L1", "-", "D"], &["L1", "-", "U"]],
        expect![[r#"
            1 student_no required
        "#]],
    );
}

#[test]
fn values_ranges_and_code_sets_are_closed() {
    let columns =
        ["student_no", "course_no", "academic_year", "term_no", "exam_nature", "attempt_no", "score", "posted_at"];
    let posted = "2026-07-01T00:00:00Z";
    check(
        "academic.grade",
        &columns,
        &[
            &["20260101", "C1", "2025-2026", "1", "01", "1", "85.5", posted],
            &["20260101", "C1", "2025-2026", "1", "77", "1", "85.5", posted],
            &["20260101", "C1", "2025-2026", "1", "01", "1", "185.5", posted],
            &["20260101", "C1", "2025-2027", "1", "01", "1", "85.5", posted],
            &["20260101", "C1", "2025-2026", "12", "01", "1", "85.5", posted],
        ],
        expect![[r#"
            1 exam_nature KSXZM
            2 score range
            3  academic_year_spans_two
            4 term_no range
        "#]],
    );
}

#[test]
fn a_mistake_in_a_contract_is_refused_with_its_place() {
    let codes = crate::codes::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("codes")).expect("code sets load");
    let file = Path::new("contracts/academic/grade.odcs.yaml");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("the file is there");
    let mistake = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} is not in the file");
        Contract::parse(&text.replace(from, to), file, &codes).expect_err("a mistake").to_string()
    };
    let errors = [
        mistake("property: eventTime, value: posted_at", "property: eventTime, value: posted"),
        mistake("property: codeSet, value: KSXZM", "property: codeSet, value: NONE"),
        mistake("property: kind,", "property: kinds,"),
        mistake("decimal(5,1)", "decimal(x)"),
    ];
    expect![[r#"
        contracts/academic/grade.odcs.yaml: `posted` is not a field; mend `eventTime` or `ordering`
        contracts/academic/grade.odcs.yaml: field `exam_nature`: no code set `codes/NONE.csv`
        contracts/academic/grade.odcs.yaml: unknown custom property `kinds` of the table
        contracts/academic/grade.odcs.yaml: field `score`: unknown physicalType `decimal(x)`"#]]
    .assert_eq(&errors.join("\n"));
}

/// Courses with the given names, encoded.
fn courses(names: &[Option<String>]) -> (Arc<Contract>, RecordBatch, Vec<Vec<u8>>) {
    let contract = contract("academic.course");
    let rows: Vec<Vec<String>> = names
        .iter()
        .enumerate()
        .map(|(row, name)| vec![format!("C{row}"), name.clone().unwrap_or("-".into()), format!("{}.5", row % 30)])
        .collect();
    let rows: Vec<Vec<&str>> = rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
    let rows: Vec<&[&str]> = rows.iter().map(Vec::as_slice).collect();
    let (batch, violations) = record(&contract, &mapped(&["course_no", "course_name", "credits"], &rows));
    assert_eq!(violations, []);
    let batch = RecordBatch::try_new(contract.record_schema(), batch.columns().to_vec()).expect("no null key");
    let values = Encoder::new(contract.clone()).values(&batch).expect("encodes");
    (contract, batch, values.iter().map(|value| value.to_vec()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is spoilt, every good record comes back unchanged and in order, and every bad one is told.
    #[test]
    fn good_records_survive_bad_neighbours(
        names in prop::collection::vec(prop::option::of("[a-z微积分 ]{0,20}"), 1..40),
        spoilt in prop::collection::btree_map(0..40usize, 0..4u8, 0..6),
        repeat in 1..40usize,
    ) {
        let (contract, batch, values) = courses(&names);
        let mut decoder = Decoder::new(&contract).expect("decodes");
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for offset in 0..(values.len() * repeat) {
            let row = offset % values.len();
            let mut value = values[row].clone();
            match spoilt.get(&(offset % 41)) {
                Some(0) => value.truncate(value.len() - 1),
                Some(1) => value.push(0),
                Some(2) => value[0] = 0,
                Some(3) => value[5] ^= 0xFF,
                _ => good.push((offset as i64, row)),
            }
            if spoilt.contains_key(&(offset % 41)) {
                bad.push(offset as i64);
            }
            decoder.push(3, offset as i64, &value).expect("no record stops a decoder");
        }
        let (decoded, refused) = decoder.finish().expect("no record stops a decoder");
        prop_assert_eq!(refused.iter().map(|bad| bad.offset).collect::<Vec<_>>(), bad);
        let mut next = good.iter();
        for part in decoded {
            prop_assert_eq!(part.batch.num_rows(), part.offsets.len());
            for at in 0..part.batch.num_rows() {
                let (offset, row) = next.next().expect("no row too many");
                prop_assert_eq!(part.offsets.value(at), *offset);
                prop_assert_eq!(part.batch.slice(at, 1), batch.slice(*row, 1));
            }
        }
        prop_assert!(next.next().is_none());
    }
}

#[test]
fn content_hash_ignores_when_and_from_where() {
    let (contract, batch, _) = courses(&[Some("微积分".into()), Some("线性代数".into()), Some("微积分".into())]);
    let encoder = Encoder::new(contract.clone());
    let hash = |rows: &RecordBatch| {
        let op = rows.column_by_name("op").expect("an envelope");
        encoder.hashes(&rows.columns()[..contract.fields.len()], op).expect("hashes")
    };
    let hashes = hash(&batch);
    assert_ne!(hashes.value(0), hashes.value(1));
    // Installations remember hashes. This is SHA-256 of 02 04 C0, 02 12 微积分, 02 02 05, five nulls, 02 02 I.
    assert_eq!(hashes.value(0), "d47604a2dcbae48a49ece81dff09ca5f");
    assert_eq!(encoder.keys(&batch).expect("keys"), StringArray::from(vec!["C0", "C1", "C2"]));
}
