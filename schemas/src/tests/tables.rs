//! What holds of every contract and code set of this repository, and the rules of tables that say more than their fields.

use std::collections::BTreeSet;
use std::path::Path;

use expect_test::{expect, expect_file};
use serde_json::Value;

use super::{check, contracts};
use crate::contract::{Contract, Contracts, Kind};
use crate::{codes, describe};

/// What is wrong with a contract that loads all the same.
fn problems(contract: &Contract) -> Vec<String> {
    let mut problems = Vec::new();
    let mut wrong = |is_wrong: bool, what: String| {
        if is_wrong {
            problems.push(format!("{}: {what}", contract.name()));
        }
    };
    let is_chinese = |text: &str| text.chars().any(|letter| ('\u{4e00}'..='\u{9fff}').contains(&letter));
    let is_english = |text: &str| text.chars().filter(char::is_ascii_alphabetic).count() >= 3;
    let said = [&contract.purpose, &contract.limitations, &contract.description, &contract.owner];
    wrong(said.iter().any(|text| text.is_empty()), "purpose, limitations, description or team is missing".into());
    wrong(!is_chinese(&contract.title), "the table has no Chinese name".into());
    wrong(!contract.purpose.starts_with(&contract.title), "purpose does not begin with the Chinese name".into());
    wrong(contract.kind != Kind::Derived && contract.freshness_s.is_none(), "no latency is promised".into());
    let moments = contract.ordering.iter().chain([&contract.event_time]);
    for field in moments.filter_map(|name| contract.field(name)) {
        wrong(!field.required, format!("{} is an event time or ordering column and may be absent", field.name));
    }
    for field in &contract.fields {
        wrong(!is_chinese(&field.title), format!("{} has no Chinese name", field.name));
        let is_told = field.description.ends_with('.') && is_english(&field.description);
        wrong(!is_told, format!("{} has no description in English that ends with a full stop", field.name));
    }
    for rule in &contract.row_rules {
        wrong(rule.description.is_empty(), format!("rule {} has no description", rule.name));
    }
    problems
}

#[test]
fn every_contract_tells_all_of_itself() {
    let found: Vec<String> = contracts().all().flat_map(|contract| problems(contract)).collect();
    assert_eq!(found, [""; 0]);
}

/// What the file says for other readers of the standard is not read by this crate: so a copied line could lie.
#[test]
fn every_file_says_the_same_name_everywhere() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("contracts");
    for contract in contracts().all() {
        let Contract { domain, table, .. } = contract.as_ref();
        let path = folder.join(domain).join(format!("{table}.odcs.yaml"));
        let text = std::fs::read_to_string(&path).expect("a contract is where its name says");
        let file: Value = serde_saphyr::from_str(&text).expect("YAML");
        let object = &file["schema"][0];
        let names = [&file["id"], &file["name"], &object["name"], &object["physicalName"]].map(Value::as_str);
        let (id, physical) = (format!("quad-{domain}-{table}"), format!("quad.{domain}.{table}"));
        assert_eq!(names, [&id, table, table, &physical].map(|name| Some(name.as_str())), "{}", path.display());
        let latency = file["slaProperties"].as_array().map_or(&Value::Null, |all| &all[0]["element"]);
        assert!(latency.is_null() || latency == table, "{}: latency of {latency}", path.display());
        for (property, field) in object["properties"].as_array().expect("a list").iter().zip(&contract.fields) {
            let logical = match field.field_type.to_string().as_str() {
                "int" | "bigint" => "integer",
                "bool" => "boolean",
                "string" => "string",
                "date" => "date",
                "timestamp" => "timestamp",
                _ => "number",
            };
            assert_eq!(property["logicalType"], logical, "{}: {}", path.display(), field.name);
        }
    }
}

#[test]
fn every_code_set_has_a_user_and_every_set_named_is_there() {
    let contracts = contracts();
    let mut named = BTreeSet::new();
    for field in contracts.all().flat_map(|contract| &contract.fields) {
        named.extend(field.values.iter().map(|(set, _)| set.clone()).filter(|set| set != "values"));
        let files = field.description.split("codes/").skip(1).filter_map(|rest| rest.split(".csv").next());
        named.extend(files.map(String::from));
        named.extend(field.code.iter().filter(|code| contracts.codes().contains_key(*code)).cloned());
    }
    let sets: BTreeSet<String> = contracts.codes().keys().cloned().collect();
    assert_eq!(named, sets);
    for (set, codes) in contracts.codes() {
        let is_told = |meaning: &codes::Meaning| {
            !meaning.name.is_empty() && !meaning.name_en.is_empty() && !meaning.standard.is_empty()
        };
        assert!(!codes.is_empty() && codes.values().all(is_told), "{set}: a code without name, name_en or standard");
    }
}

#[test]
fn a_code_set_that_cannot_be_read_is_refused_with_its_place() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let refusal = |text: &str| {
        std::fs::write(folder.path().join("XBM.csv"), text).expect("writes");
        let error = codes::load(folder.path()).expect_err("a mistake").to_string();
        error.rsplit('/').next().unwrap_or_default().to_string()
    };
    let errors = [
        refusal("code,name\n1,男\n"),
        refusal("code,name,name_en,standard\n1,男,male, adult,GB/T 2261.1\n"),
        refusal("code,name,name_en,standard\n1,男,male,GB/T 2261.1\n1,女,female,GB/T 2261.1\n"),
    ];
    expect![[r#"
        XBM.csv: the header is not `code,name,name_en,standard`
        T 2261.1` has 5 cells, not four; quote a cell that holds a comma
        XBM.csv: code `1` stands twice"#]]
    .assert_eq(&errors.join("\n"));
}

/// Kept true by `UPDATE_EXPECT=1 cargo test -p schemas the_tables_document`.
#[test]
fn the_tables_document_is_what_the_contracts_say() {
    expect_file!["../../../docs/tables.md"].assert_eq(&describe::document(&contracts()));
}

#[test]
fn derived_tables_are_described_and_never_filled() {
    let contracts = contracts();
    let derived: Vec<String> =
        contracts.all().filter(|contract| contract.kind == Kind::Derived).map(|contract| contract.name()).collect();
    assert_eq!(derived, ["identity.identifier_link", "identity.person"]);
    for name in derived {
        assert!(contracts.get(&name).is_none() && contracts.iter().all(|contract| contract.name() != name));
    }
    let size = |contracts: &Contracts| (contracts.all().count(), contracts.codes().len());
    assert_eq!(size(&contracts.clone().with_topic_prefix("north")), size(&contracts));
}

#[test]
fn a_derived_table_promises_nothing_that_only_records_can_keep() {
    let file = Path::new("contracts/identity/person.odcs.yaml");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("the file is there");
    let with = |line: &str| {
        let kind = "      - { property: kind, value: derived }\n";
        let text = text.replace(kind, &format!("{kind}      - {line}\n"));
        Contract::parse(&text, file, contracts().codes()).expect_err("a mistake").to_string()
    };
    let errors = [
        with("{ property: ordering, value: person_id }"),
        with("{ property: retentionDays, value: 180 }"),
        with("{ property: eventTime, value: src_updated_at }"),
    ];
    expect![[r#"
        contracts/identity/person.odcs.yaml: a derived table has neither `ordering` nor `retentionDays` nor latency; drop them
        contracts/identity/person.odcs.yaml: a derived table has neither `ordering` nor `retentionDays` nor latency; drop them
        contracts/identity/person.odcs.yaml: `src_updated_at` is not a field; mend `eventTime` or `ordering`"#]].assert_eq(&errors.join("\n"));
}

#[test]
fn a_case_goes_its_way_and_the_hotline_names_nobody() {
    let columns = ["case_id", "channel", "person_no", "received_at", "assigned_at", "due_at", "replied_at"];
    let [nine, ten, noon] = ["2026-11-02T09:00:00Z", "2026-11-02T10:00:00Z", "2026-11-02T12:00:00Z"];
    check(
        "logistics.appeal_case",
        &columns,
        &[
            &["A1", "online_portal", "20260101", nine, ten, noon, noon],
            &["A2", "psych_hotline", "-", nine, "-", "-", "-"],
            &["A3", "psych_hotline", "20260101", nine, "-", "-", "-"],
            &["A4", "online_portal", "-", ten, nine, noon, noon],
            &["A5", "online_portal", "-", nine, ten, ten, noon],
            &["A6", "online_portal", "-", nine, noon, "-", ten],
            &["A7", "letter", "-", nine, "-", "-", "-"],
        ],
        expect![[r#"
            2  hotline_names_nobody
            3  assigned_after_received
            4  due_after_assigned
            5  replied_after_assigned
            6 channel values
        "#]],
    );
}

#[test]
fn times_of_activities_visits_orders_and_decisions_follow_each_other() {
    let [first, second, spring] = ["2026-11-02T09:00:00Z", "2026-11-02T10:00:00Z", "2027-03-02T09:00:00Z"];
    check(
        "student_affairs.activity",
        &["activity_id", "start_at", "end_at", "credits"],
        &[
            &["1", first, second, "0.25"],
            &["2", second, first, "1"],
            &["3", first, spring, "1"],
            &["4", first, "-", "21"],
        ],
        expect![[r#"
            1  ends_after_start
            2  at_most_60_days
            3 credits range
        "#]],
    );
    check(
        "access_control.visitor_pass",
        &["visit_id", "visit_from", "visit_to", "entered_at", "left_at", "building_id"],
        &[
            &["1", first, second, first, second, "12"],
            &["2", second, first, "-", "-", "12"],
            &["3", first, second, second, first, "12"],
            &["4", first, second, "-", "-", "12.0"],
        ],
        expect![[r#"
            1  visit_ends_after_start
            2  left_after_entered
            3  building_not_float
        "#]],
    );
    check(
        "logistics.repair_order",
        &["order_id", "reported_at", "accepted_at", "finished_at"],
        &[&["1", first, second, second], &["2", second, first, second], &["3", first, second, first]],
        expect![[r#"
            1  accepted_after_reported
            2  finished_after_accepted
        "#]],
    );
    check(
        "student_affairs.award_punishment",
        &["record_id", "student_no", "record_kind", "decided_on", "revoked_on", "grade_code"],
        &[
            &["1", "20260101", "punishment", "2026-05-01", "2026-05-01", "-"],
            &["2", "20260101", "punishment", "2026-05-01", "2026-04-30", "-"],
            &["3", "20260101", "award", "2026-05-01", "-", "8"],
        ],
        expect![[r#"
            1  revoked_after_decided
            2 grade_code JLDJM
        "#]],
    );
    check(
        "academic.status_change",
        &["change_id", "student_no", "change_code", "changed_on", "approved_on"],
        &[
            &["1", "20260101", "23", "2026-10-01", "2026-11-24"],
            &["2", "20260101", "23", "2026-10-01", "2026-11-26"],
            &["3", "20260101", "10", "2026-10-01", "-"],
        ],
        expect![[r#"
            1  approved_not_ahead
            2 change_code XJYDLBM
        "#]],
    );
}

#[test]
fn placeholders_and_texts_have_a_form() {
    let from = "2026-09-01T00:00:00Z";
    check(
        "access_control.access_permission",
        &["access_person_no", "device_group", "valid_from", "valid_to"],
        &[
            &["00120", "东区", from, "-"],
            &["0", "东区", from, "-"],
            &["000", "东区", from, "-"],
            &["7", "东区", from, "2025-01-01T00:00:00Z"],
        ],
        expect![[r#"
            1 access_person_no pattern
            2 access_person_no pattern
            3  valid_from_before_valid_to
        "#]],
    );
    check(
        "academic.teaching_class",
        &["class_no", "meeting_no", "start_on", "academic_year", "section_from", "section_to", "weeks"],
        &[
            &["C1", "1", "2026-09-07", "2026-2027", "3", "4", "1-8,10-16"],
            &["C1", "2", "2026-09-07", "2026-2027", "3", "2", "1-8"],
            &["C1", "3", "2026-09-07", "2026-2028", "3", "4", "1-8"],
            &["C1", "4", "2026-09-07", "2026-2027", "3", "4", "odd"],
        ],
        expect![[r#"
            1  section_to_not_before_from
            2  academic_year_spans_two
            3 weeks pattern
        "#]],
    );
    check(
        "extension.evidence_document",
        &["doc_id", "indicator", "effective_on"],
        &[&["1", "6.10", "2026-09-07"], &["2", "7.1", "2026-09-07"], &["3", "1.1", "-"]],
        expect![[r#"
            1 indicator pattern
            2 effective_on required
        "#]],
    );
    check(
        "logistics.dorm_inspection",
        &["inspection_id", "room_id", "student_no", "inspect_kind", "inspected_at", "score"],
        &[
            &["1", "7-东-101", "*", "hygiene", from, "95.5"],
            &["1", "7-101", "**", "hygiene", from, "95"],
            &["1", "7-102", "*", "hygiene", from, "101"],
        ],
        expect![[r#"
            1 student_no pattern
            2 score range
        "#]],
    );
}
