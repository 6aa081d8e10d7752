//! Old and new producers in one topic: each record is read by the schema it was written with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Decimal128Type, Int64Type};
use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::Encoder;
use crate::coerce::coerce;
use crate::evolution::tests::changed;
use crate::tests::mapped;

/// Courses as they are, and as a later version has them: a field more, one renamed, two widened.
fn versions() -> [Contract; 2] {
    let later = [
        ("version: 1.0.0", "version: 1.1.0"),
        ("- name: course_name", "- name: course_title"),
        (
            "fieldCode, value: KCMC }",
            "fieldCode, value: KCMC }\n          - { property: aliases, value: [course_name] }",
        ),
        ("decimal(4,1)", "decimal(6,1)"),
        ("physicalType: int\n", "physicalType: bigint\n"),
        (
            "      - name: credits",
            "      - { name: language, physicalType: string, classification: public }\n      - name: credits",
        ),
    ];
    [changed(&[]), changed(&later)]
}

/// One record of `contract` with these fields, as it stands on a topic.
fn value(contract: &Contract, fields: &[(&str, &str)]) -> Vec<u8> {
    let (names, values): (Vec<_>, Vec<_>) = fields.iter().copied().unzip();
    let (mut columns, violations) = coerce(contract, &mapped(&names, &[&values])).expect("text can become any type");
    assert_eq!(violations, []);
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let time =
        || Arc::new(TimestampMicrosecondArray::from(vec![1_795_500_000_000_000]).with_timezone("UTC")) as ArrayRef;
    columns.extend([text("test"), text("key"), text("I"), time(), time(), text("00")]);
    let batch = RecordBatch::try_new(contract.record_schema(), columns).expect("the record's shape");
    Encoder::new(Arc::new(contract.clone())).values(&batch).expect("encodes").iter().next().expect("one").to_vec()
}

fn old_value(contract: &Contract, row: usize) -> Vec<u8> {
    let fields = [
        ("course_no", format!("C{row}")),
        ("course_name", format!("name {row}")),
        ("credits", "4.5".into()),
        ("hours_total", row.to_string()),
    ];
    value(contract, &fields.each_ref().map(|(name, value)| (*name, value.as_str())))
}

fn new_value(contract: &Contract, row: usize) -> Vec<u8> {
    let fields = [
        ("course_no", format!("C{row}")),
        ("course_title", format!("name {row}")),
        ("language", "zh".into()),
        ("credits", "12345.5".into()),
        ("hours_total", (row + 5_000_000_000).to_string()),
    ];
    value(contract, &fields.each_ref().map(|(name, value)| (*name, value.as_str())))
}

/// (title, language, credits in tenths, hours) of a row of the later version.
fn cells(part: &Decoded, at: usize) -> (String, Option<String>, i128, i64) {
    let text = |name: &str| {
        let column = part.batch.column_by_name(name).expect("a field").as_string::<i32>();
        column.is_valid(at).then(|| column.value(at).to_string())
    };
    let credits = part.batch.column_by_name("credits").expect("a field").as_primitive::<Decimal128Type>().value(at);
    let hours = part.batch.column_by_name("hours_total").expect("a field").as_primitive::<Int64Type>().value(at);
    (text("course_title").expect("always given"), text("language"), credits, hours)
}

fn expected(row: usize, is_new: bool) -> (String, Option<String>, i128, i64) {
    match is_new {
        false => (format!("name {row}"), None, 45, row as i64),
        true => (format!("name {row}"), Some("zh".into()), 123_455, row as i64 + 5_000_000_000),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever old and new producers write between each other, and whatever is spoilt: every good record is read by its
    /// own schema, in the order of its writer, and every bad one is told.
    #[test]
    fn old_and_new_producers_share_a_topic(rows in prop::collection::vec((any::<bool>(), 0..8u8), 1..1500)) {
        let [before, now] = versions();
        let mut decoder = Decoder::new(&now).expect("decodes");
        decoder.learn(&WriterSchema::of(&before).expect("a schema")).expect("reads the old one");
        let values = [false, true].map(|is_new| {
            (0..7).map(|row| if is_new { new_value(&now, row) } else { old_value(&before, row) }).collect::<Vec<_>>()
        });
        let (mut good, mut bad) = ([Vec::new(), Vec::new()], Vec::new());
        for (offset, (is_new, spoil)) in rows.iter().enumerate() {
            let mut value = values[usize::from(*is_new)][offset % 7].clone();
            if *spoil == 0 {
                value.truncate(value.len() - 2);
                bad.push(offset as i64);
            } else {
                good[usize::from(*is_new)].push(offset);
            }
            decoder.push(0, offset as i64, &value).expect("no record stops a decoder");
        }
        let (decoded, refused) = decoder.finish().expect("no record stops a decoder");
        prop_assert_eq!(refused.iter().map(|bad| bad.offset).collect::<Vec<_>>(), bad);
        prop_assert!(decoded.len() <= 2 + rows.len() / RUN_ROWS_MAX, "alternation does not shorten runs: {}", decoded.len());
        let mut next = [good[0].iter(), good[1].iter()];
        for part in &decoded {
            for at in 0..part.batch.num_rows() {
                let offset = part.offsets.value(at) as usize;
                let is_new = rows[offset].0;
                prop_assert_eq!(next[usize::from(is_new)].next(), Some(&offset));
                prop_assert_eq!(cells(part, at), expected(offset % 7, is_new));
            }
        }
        prop_assert!(next.iter_mut().all(|rest| rest.next().is_none()), "none is missing");
    }
}

#[test]
fn what_the_contract_does_not_know_is_set_aside_and_never_dropped() {
    let [before, now] = versions();
    let incompatible = changed(&[("decimal(4,1)", "decimal(4,2)")]);
    let stranger = changed(&[("- name: credits", "- name: points")]);
    let mut decoder = Decoder::new(&before).expect("decodes");
    decoder.learn(&WriterSchema::of(&now).expect("a schema")).expect("learns");
    decoder.learn(&WriterSchema::of(&stranger).expect("a schema")).expect("learns");
    let given =
        [new_value(&now, 1), value(&stranger, &[("course_no", "C2"), ("points", "4.5")]), old_value(&before, 3)];
    for (offset, value) in given.iter().enumerate() {
        decoder.push(0, offset as i64, value).expect("no record stops a decoder");
    }
    let (decoded, bad) = decoder.finish().expect("no record stops a decoder");
    assert_eq!(decoded.iter().flat_map(|part| part.offsets.values()).collect::<Vec<_>>(), [&2]);
    assert_eq!(bad[0].bytes, given[0]);
    let mut said: Vec<_> = bad.iter().map(|bad| format!("{} {}", bad.rule, bad.message)).collect();
    // Decimals of one scale and another have one fingerprint: only the start can tell them apart.
    said.push(
        evolution::check_writers(&before, &[WriterSchema::of(&incompatible).expect("a schema")])
            .expect_err("refuses")
            .to_string(),
    );
    expect![[r#"
        newer_schema written under version 1.1.0 with `credits`, `hours_total`, `course_title`, `language`, which academic.course 1.0.0 does not know; upgrade landing, then replay this letter
        incompatible_schema written under version 1.0.0, which academic.course 1.0.0 cannot read: `points` is gone, and records have it; put the field back, or declare its new name with { property: aliases, value: [its old name] }, then replay this letter
        contract academic.course 1.0.0 cannot read records written under 1.0.0 (schema 6c6119c30251b87d): `credits` decimal(4,2) became decimal(4,1); leave the field as it was and give the change to a field of a new name"#]].assert_eq(&said.join("\n"));
}

#[test]
fn a_new_schema_is_looked_up_once_and_an_unknown_one_costs_one_question() {
    let [before, now] = versions();
    let old = WriterSchema::of(&before).expect("a schema");
    let asked = Arc::new(AtomicUsize::new(0));
    let lookup = {
        let (asked, old) = (asked.clone(), old.clone());
        move |fingerprint: [u8; 8]| {
            asked.fetch_add(1, Ordering::Relaxed);
            match fingerprint[0] {
                0xFF => Err(Error::store(std::io::Error::other("away"))),
                _ => Ok((fingerprint == old.fingerprint).then(|| old.clone())),
            }
        }
    };
    let mut decoder = Decoder::new(&now).expect("decodes").with_lookup(Box::new(lookup));
    let garbage = [&SINGLE_OBJECT_MAGIC[..], b"12345678 body"].concat();
    for offset in 0..30 {
        let value = if offset % 3 == 0 { garbage.clone() } else { old_value(&before, 1) };
        decoder.push(0, offset, &value).expect("no record stops a decoder");
    }
    let (decoded, bad) = decoder.finish().expect("no record stops a decoder");
    assert_eq!(decoded.iter().map(|part| part.batch.num_rows()).sum::<usize>(), 20);
    assert!(bad.len() == 10 && bad.iter().all(|bad| bad.rule == "unknown_schema"));
    assert_eq!(asked.load(Ordering::Relaxed), 2, "one question a fingerprint");

    let away = [&SINGLE_OBJECT_MAGIC[..], b"\xFF2345678 body"].concat();
    let error = decoder.push(0, 30, &away).expect_err("a store that is away makes no record bad");
    assert_eq!(error.kind, crate::ErrorKind::Store);

    for fingerprint in 0..100u8 {
        let strange = [&SINGLE_OBJECT_MAGIC[..], &[fingerprint; 8], b"body"].concat();
        decoder.push(0, 31, &strange).expect("no record stops a decoder");
    }
    assert!(asked.load(Ordering::Relaxed) <= 3 + LOOKUPS_MAX, "a flood of unknown schemas is no flood of questions");
}
