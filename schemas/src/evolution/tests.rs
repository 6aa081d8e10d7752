//! What changes mean, on the contract of courses; and today's contracts against the last release.

use std::path::Path;

use expect_test::{Expect, expect};

use super::*;
use crate::tests::contracts;
use crate::{WriterSchema, codes};

/// The contract of courses with texts of its file replaced.
pub(crate) fn changed(changes: &[(&str, &str)]) -> Contract {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join("contracts/academic/course.odcs.yaml");
    let mut text = std::fs::read_to_string(&file).expect("the file is there");
    for (from, to) in changes {
        assert!(text.contains(from), "{from} is not in the file");
        text = text.replace(from, to);
    }
    Contract::parse(&text, &file, &codes::load(&root.join("codes")).expect("code sets load")).expect("a contract")
}

fn check(old: &[(&str, &str)], new: &[(&str, &str)], expected: Expect) {
    let line = |change: &Change| format!("{:?} {}: {} | {}\n", change.level, change.field, change.what, change.forward);
    expected.assert_eq(&compare(&changed(old), &changed(new)).iter().map(line).collect::<String>());
}

const NEW_FIELD: (&str, &str) = (
    "      - name: college_id",
    "      - { name: language, physicalType: string, classification: public }\n      - name: college_id",
);
const MINOR: (&str, &str) = ("version: 1.0.0", "version: 1.1.0");
const RENAME: (&str, &str) = ("- name: course_name", "- name: course_title");
const ALIAS: (&str, &str) =
    ("fieldCode, value: KCMC }", "fieldCode, value: KCMC }\n          - { property: aliases, value: [course_name] }");

#[test]
fn what_is_added_widened_or_relaxed_is_compatible() {
    let changes = [
        MINOR,
        NEW_FIELD,
        RENAME,
        ALIAS,
        ("decimal(4,1)", "decimal(6,1)"),
        ("physicalType: int\n", "physicalType: bigint\n"),
        ("maxLength: 200", "maxLength: 400"),
        ("maximum: 1000", "maximum: 2000"),
        ("minimum: 0, maximum: 30", "minimum: 0"),
        ("\"6\", \"9\"", "\"6\", \"7\", \"9\""),
        ("the latest row wins", "the newest row wins"),
    ];
    check(
        &[],
        &changes,
        expect![[r#"
        Patch : title, description, owner or latency | 
        Minor course_title: renamed from `course_name`, which is its alias | 
        Minor course_title: longest length: 200 became 400 | 
        Minor credits: decimal(4,1) became decimal(6,1) | 
        Minor credits: maximum: 30 became none | 
        Minor hours_total: int became bigint | 
        Minor hours_total: maximum: 1000 became 2000 | 
        Minor course_category: values: 1 more | 
        Minor language: a new string | 
    "#]],
    );
    check(
        &[],
        &[("课程名称", "课程名")],
        expect![[r#"
        Patch course_name: title or field code | 
    "#]],
    );
    check(&[], &[], expect![[r#""#]]);
}

#[test]
fn what_removes_narrows_or_tightens_is_not_and_says_the_way_forward() {
    check(
        &[],
        &[RENAME],
        expect![[r#"
            Major course_name: renamed to `course_title` without an alias; records under the old name would lose it | give `course_title` the custom property { property: aliases, value: [course_name] }
            Minor course_title: a new string | 
            Major : version 1.0.0 after 1.0.0 does not tell of these changes | make it version 2.0.0
        "#]],
    );
    check(
        &[RENAME, ALIAS],
        &[RENAME],
        expect![[r#"
            Major course_title: alias `course_name` is gone; records under that name would lose the field | keep the alias for as long as such records are in the log
            Major : version 1.0.0 after 1.0.0 does not tell of these changes | make it version 2.0.0
        "#]],
    );
    check(
        &[NEW_FIELD],
        &[],
        expect![[r#"
            Major language: removed; records that have it would lose it | keep the field, without `required` if nobody gives it any more
            Major : version 1.0.0 after 1.0.0 does not tell of these changes | make it version 2.0.0
        "#]],
    );
    check(
        &[],
        &[
            ("decimal(4,1)", "decimal(4,2)"),
            ("physicalType: int\n", "physicalType: string\n"),
            ("maximum: 1000", "maximum: 100"),
            ("maxLength: 200", "maxLength: 20"),
            ("\"6\", \"9\"", "\"9\""),
        ],
        expect![[r#"
            Major course_name: longest length: 200 became 20 | keep the looser rule; rows that are there, and producers by it, must still pass
            Major credits: decimal(4,1) became decimal(4,2) | give the new type to a field of a new name and keep this one
            Major hours_total: int became string | give the new type to a field of a new name and keep this one
            Major hours_total: maximum: 1000 became 100 | keep the looser rule; rows that are there, and producers by it, must still pass
            Major course_category: values: no 6 any more | keep the codes; what is not used any more does no harm
            Major : version 1.0.0 after 1.0.0 does not tell of these changes | make it version 2.0.0
        "#]],
    );
}

#[test]
fn what_a_table_is_cannot_change() {
    check(
        &[],
        &[
            ("kind, value: entity", "kind, value: event"),
            ("eventTime, value: src_updated_at", "eventTime, value: opened_at"),
            (
                "      - name: college_id",
                "      - { name: opened_at, physicalType: timestamp, classification: public, required: true }\n      - name: college_id",
            ),
            ("version: 1.0.0", "version: 2.0.0"),
        ],
        expect![[r#"
            Major : kind: entity became event; what a later record means would change for rows that are there | leave this table as it was and make a new one, academic.course_v3, at version 3.0.0
            Major : event time: src_updated_at became opened_at; rows would belong to other days | leave this table as it was and make a new one, academic.course_v3, at version 3.0.0
            Major opened_at: a new required field; rows of producers that do not know it would all be refused | leave `required` out, or make it a row rule of a new table
        "#]],
    );
    check(
        &[],
        &[(
            "    properties:\n",
            "    quality:\n      - { name: few_hours, type: custom, implementation: hours_total < 500 }\n    properties:\n",
        )],
        expect![[r#"
            Major : row rule `few_hours` is new; rows that are there may break it | drop the rule, or leave this table as it was and make a new one, academic.course_v2, at version 2.0.0
            Major : version 1.0.0 after 1.0.0 does not tell of these changes | make it version 2.0.0
        "#]],
    );
}

#[test]
fn a_compatible_change_that_the_version_does_not_tell_of_is_refused() {
    check(
        &[],
        &[NEW_FIELD],
        expect![[r#"
            Minor language: a new string | 
            Major : version 1.0.0 after 1.0.0 does not tell of these changes | make it version 1.1.0
        "#]],
    );
}

#[test]
fn an_alias_is_nobody_elses_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = Path::new("course.odcs.yaml");
    let text = std::fs::read_to_string(root.join("contracts/academic/course.odcs.yaml")).expect("the file is there");
    let text = text.replace(ALIAS.0, &ALIAS.1.replace("[course_name]", "[credits]"));
    let error = Contract::parse(&text, file, &codes::load(&root.join("codes")).expect("code sets load"));
    expect!["course.odcs.yaml: alias `credits` of field `course_name` is another column's name"]
        .assert_eq(&error.expect_err("a mistake").to_string());
}

#[test]
fn tables_that_come_are_compatible_and_tables_that_go_are_not() {
    let all = contracts();
    let fewer: Contracts = all.iter().skip(1).map(|contract| contract.as_ref().clone()).collect();
    let say = |tables: Vec<TableChanges>| {
        tables.iter().map(|table| format!("{} {}\n", table.table, table.is_compatible())).collect::<String>()
    };
    expect![[r#"
        academic.attendance false
        academic.attendance true
    "#]]
    .assert_eq(&(say(compare_all(&all, &fewer)) + &say(compare_all(&fewer, &all)) + &say(compare_all(&all, &all))));
}

#[test]
fn a_contract_is_held_against_what_was_written_before() {
    let outcome = |writer: &[(&str, &str)], reader: &[(&str, &str)]| {
        let writer = WriterSchema::of(&changed(writer)).expect("a schema");
        match check_writers(&changed(reader), &[writer]) {
            Ok(()) => "well".to_string(),
            Err(error) => error.to_string(),
        }
    };
    let outcomes = [
        outcome(&[], &[MINOR, NEW_FIELD, RENAME, ALIAS]),
        // Written by a newer version: nothing is wrong with the contract, the decoder sets such records aside.
        outcome(&[MINOR, NEW_FIELD], &[]),
        outcome(&[MINOR, ("physicalType: int\n", "physicalType: bigint\n")], &[]),
        outcome(&[NEW_FIELD], &[MINOR]),
        outcome(&[], &[MINOR, RENAME]),
        outcome(&[], &[MINOR, ("decimal(4,1)", "decimal(4,2)")]),
        outcome(&[("physicalType: int\n", "physicalType: bigint\n")], &[MINOR]),
    ];
    expect![[r#"
        well
        well
        well
        contract academic.course 1.1.0 cannot read records written under 1.0.0 (schema 4d2c4831743017ff): `language` is gone, and records have it; put the field back, or declare its new name with { property: aliases, value: [its old name] }
        contract academic.course 1.1.0 cannot read records written under 1.0.0 (schema 6c6119c30251b87d): `course_name` is gone, and records have it; put the field back, or declare its new name with { property: aliases, value: [its old name] }
        contract academic.course 1.1.0 cannot read records written under 1.0.0 (schema 6c6119c30251b87d): `credits` decimal(4,1) became decimal(4,2); leave the field as it was and give the change to a field of a new name
        contract academic.course 1.1.0 cannot read records written under 1.0.0 (schema a7f5db4da996c4b2): `hours_total` bigint became int; leave the field as it was and give the change to a field of a new name"#]].assert_eq(&outcomes.join("\n"));
}

#[test]
fn the_fingerprint_knows_fields_and_not_versions_or_aliases() {
    let schema = |changes: &[(&str, &str)]| WriterSchema::of(&changed(changes)).expect("a schema");
    assert_eq!(schema(&[]).fingerprint, schema(&[MINOR]).fingerprint);
    assert_eq!(schema(&[RENAME]).fingerprint, schema(&[RENAME, ALIAS]).fingerprint);
    assert_ne!(schema(&[]).fingerprint, schema(&[NEW_FIELD]).fingerprint);
    let before = schema(&[]);
    assert_eq!(WriterSchema::read(&before.file_name(), &before.avsc).expect("reads"), before);
    let error = WriterSchema::read(&before.file_name(), &schema(&[NEW_FIELD]).avsc).expect_err("another content");
    assert!(error.to_string().contains("has the content of"), "{error}");
}

/// `released.jsonl` holds the contracts as they were last released, one a line. What changes them incompatibly fails here;
/// at a release, `UPDATE_RELEASED=1 cargo test -p schemas released` writes the file anew.
#[test]
fn todays_contracts_keep_what_was_released() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("released.jsonl");
    if std::env::var_os("UPDATE_RELEASED").is_some() {
        let line = |contract: &std::sync::Arc<Contract>| {
            serde_json::to_string(contract.as_ref()).expect("plain values") + "\n"
        };
        std::fs::write(&file, contracts().iter().map(line).collect::<String>()).expect("writes");
    }
    let text = std::fs::read_to_string(&file).expect("the last release is there");
    let released: Vec<Contract> =
        text.lines().map(|line| serde_json::from_str(line).expect("a contract a line")).collect();
    assert!(!released.is_empty());
    let tables = compare_all(&released.into_iter().collect(), &contracts());
    let wrong = tables.iter().flat_map(|table| table.changes.iter().map(move |change| (table, change)));
    let wrong: Vec<String> = wrong
        .filter(|(_, change)| !change.is_compatible())
        .map(|(table, change)| format!("{} {}: {}; {}", table.table, change.field, change.what, change.forward))
        .collect();
    assert!(wrong.is_empty(), "incompatible with the last release:\n{}", wrong.join("\n"));
}
