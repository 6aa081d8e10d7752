//! The command line: exit codes, messages, and what a person sees.

use std::process::Output;

use campus::settings::sha256;
use expect_test::{Expect, expect};

use crate::school::{School, TOKEN};

fn check(output: &Output, code: i32, expected: Expect) {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    expected.assert_eq(&text);
}

/// A school whose settings are `quad.toml` with `from` replaced by `to`.
fn mistaken(from: &str, to: &str) -> School {
    let school = School::new(1, 50, None);
    let text = std::fs::read_to_string(school.settings()).expect("settings");
    assert!(text.contains(from), "{from} is not in the settings");
    std::fs::write(school.settings(), text.replace(from, to)).expect("writes");
    school
}

#[test]
fn wrong_settings_exit_64_and_name_the_key() {
    let cases = [
        ("batch_age_ms_max = 200", "batch_age_ms_max = -1"),
        ("land.batch_age", "land.no_such_key = 1\nland.batch_age"),
        ("kind = \"embedded\"", "kind = \"carrier pigeon\""),
        ("role = \"admin\"", "role = \"king\""),
    ];
    let mut said = String::new();
    for (from, to) in cases {
        let output = mistaken(from, to).output(&["up"]);
        assert_eq!(output.status.code(), Some(64));
        said.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    expect![[r#"
        quad: the settings cannot be used: invalid type: 64-bit integer `-1`, expected an unsigned 64 bit or less integer for key `land.batch_age_ms_max`
        quad: the settings cannot be used: unknown field `no_such_key`, expected one of `id`, `assignment`, `instance`, `batch_rows_max`, `batch_bytes_max`, `batch_age_ms_max`, `retry_ms_min`, `retry_ms_max` for key `land`
        quad: the settings cannot be used: enum Kind does not have variant constructor carrier pigeon for key `topic.kind`
        quad: the settings cannot be used: enum Role does not have variant constructor king for key `access.tokens.e2e.role`
    "#]].assert_eq(&said);
}

#[test]
fn a_wrong_connector_or_mapping_exits_64_before_anything_is_bound() {
    let school = mistaken("connector = \"academic_zf\"", "connector = \"academic_xy\"");
    let output = school.output(&["up"]);
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("academic_xy/connector.toml"), "{said}");
}

#[test]
fn a_service_alone_on_the_embedded_log_says_what_to_do() {
    let school = School::new(1, 50, None);
    check(
        &school.output(&["land"]),
        64,
        expect![[r#"
            quad: the embedded log serves one process: use `quad up`, or set topic.kind = "kafka"
        "#]],
    );
}

#[test]
fn a_token_is_printed_once_with_the_settings_that_accept_it() {
    let school = School::new(1, 50, None);
    let output = school.output(&["token", "grafana", "--role", "analyst", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let token = said["token"].as_str().expect("a token");
    assert!(token.len() >= 32);
    assert_eq!(said["sha256"], sha256(token));
    assert_eq!((said["name"].as_str(), said["role"].as_str()), (Some("grafana"), Some("analyst")));
}

#[test]
fn doctor_finds_what_is_wrong_and_says_what_to_do() {
    let school = School::new(1, 50, None);
    assert_eq!(school.output(&["doctor"]).status.code(), Some(0));
    let broken = mistaken("Driver=SQLite3", "Driver=Oracle 23");
    let output = broken.output(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let wrong = findings.iter().filter(|finding| finding["ok"] == false).map(|finding| finding["message"].to_string());
    let wrong: Vec<_> = wrong.collect();
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(wrong[0].contains("install Oracle Instant Client"), "{wrong:?}");
}

#[test]
fn a_table_is_described_for_people_and_for_scripts() {
    let school = School::new(1, 50, None);
    let mut output = school.output(&["tables", "--describe", "academic.term_registration"]);
    let text = String::from_utf8_lossy(&output.stdout).replace(&school.topic_prefix(), "<prefix>");
    output.stdout = text.into_bytes();
    check(
        &output,
        0,
        expect![[r#"
        academic.term_registration  学期注册

        学期注册: whether a student has registered for a term, and what is owed.
        One row a student and term with the present state. From 教务 or 学工, FDM_XS_ZCXX or the like.
        The amount owed is class 3, and for finance only.

        kind        entity
        class       3 highly sensitive
        key         student_no, academic_year, term_no
        event time  registered_at
        latest by   src_updated_at, then the offset
        kept        for ever
        fresh       within 3600 s
        topic       <prefix>.academic.term_registration
        owner       教务处 registrar
        version     1.0.0

        field           title       type       null  class  code   rules                                         meaning
        student_no      学号        string     no    1      XH     4 to 20 characters; matches `^[0-9A-Za-z]+$`  Student number.
        academic_year   学年        string     no    1      XN     matches `^[0-9]{4}-[0-9]{4}$`                 Academic year, YYYY-YYYY.
        term_no         学期        int        no    1      XQM    1 to 3                                        Term: 1, 2, or 3 for a short one; 正方 codes 3 and 12 are mapped to 1 and 2.
        reg_status      注册状况码  string     yes   1      ZCZKM  code set ZCZKM                                State of the registration.
        registered_at   注册日期    timestamp  no    1      ZCRQ                                                 When the student registered; for one who has not, when that was established.
        fee_owed_fen    欠费(分)    bigint     yes   3      SFQJ   0 or more                                     Fees owed, in 分; null where the source has only the flag SFQJ.
        absence_reason  未注册原因  string     yes   2      WZCYY  1 to 100 characters                           Why the student has not registered, as the source gives it.

        rule academic_year_spans_two: The second year of YYYY-YYYY is the first plus one.
          TRY_CAST(substr(academic_year, 6, 4) AS INT) = TRY_CAST(substr(academic_year, 1, 4) AS INT) + 1

        code set ZCZKM
          1  注册    registered       JY/T 1001
          2  报到    reported in      JY/T 1001
          3  未报到  not reported in  JY/T 1001
    "#]],
    );
    let output = school.output(&["tables", "--describe", "logistics.space", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&said["kind"], &said["key"]), (&"entity".into(), &serde_json::json!(["space_id"])), "{said}");
    let of =
        |name: &str| said["fields"].as_array().expect("fields").iter().find(|field| field["name"] == name).cloned();
    let floor = of("floor_no").expect("a field");
    assert_eq!((&floor["type"], floor["minimum"].as_f64()), (&"int".into(), Some(-3.0)), "{floor}");
    check(
        &school.output(&["tables", "--describe", "academic.grades"]),
        64,
        expect![[r#"
        quad: no table is named academic.grades; near it: academic.grade; `quad tables` lists all
    "#]],
    );
}

#[test]
fn the_profile_is_described_as_tables() {
    let school = School::new(1, 50, None);
    check(
        &school.output(&["tables", "--describe", "profile.item"]),
        0,
        expect![[r#"
        profile.item  学生画像(数据项)

        What is known of each student, as the profile service tells it.
        One row a student and item: the value with its time, state and sources.
        Derived from the tables by query/profile/*.toml: no topic, no history. A question that reads it is answered from the snapshot that the profiles were computed from. Items of class 3 are null over SQL. The lake has a copy, as old as query.profile_table_every_s lets it be.

        kind   derived
        class  3
        key    person_id, item_id

        field      title         type          null  class  meaning
        person_id  平台人员编号  string        no    1      Number of the person, as in every table.
        item_id    数据项编号    string        no    0      The item's id in the catalogue, for example A02.
        name       名称          string        no    0      Its name, for example gpa.
        section    分区          string        no    0      The section's letter.
        value      值            string        yes   3      The value as JSON; null when the state is missing or withheld. Of the item's class.
        as_of      数据时间      timestamp     yes   3      The newest moment the value rests on. Of the item's class.
        state      状态          string        no    1      ok, stale, missing, conflict or withheld.
        sources    来源表        list<string>  no    0      The tables it is computed from.
        class      敏感级别      int           no    0      Sensitivity of the item, 0 public to 3 highly sensitive.
    "#]],
    );
    let output = school.output(&["tables", "--describe", "profile.student", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let fields = said["fields"].as_array().expect("fields");
    // The head, and the items that are on but for what the answer says of itself.
    assert_eq!(fields.len(), 4 + 98);
    let of = |name: &str| fields.iter().find(|field| field["name"] == name).expect("a column");
    let gpa = serde_json::json!({
        "name": "gpa", "title": "平均绩点", "type": "double", "required": false, "class": 2,
        "description": "B09, window study, from academic.grade, academic.enrollment.",
    });
    assert_eq!(
        (of("gpa"), &of("level_mode")["type"]),
        (&gpa, &"struct<level_code string, training_mode string>".into())
    );
    let output = school.output(&["tables", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let listed = |name: &str| said.as_array().expect("tables").iter().any(|table| table["table"] == name);
    assert!(listed("profile.student") && listed("profile.item"), "{said}");
}

#[test]
fn help_names_every_command() {
    let school = School::new(1, 50, None);
    let help = String::from_utf8_lossy(&school.output(&["--help"]).stdout).into_owned();
    for command in [
        "up",
        "extract",
        "land",
        "query",
        "sql",
        "profile",
        "sources",
        "backfill",
        "reconcile",
        "tables",
        "lake",
        "doctor",
        "token",
        "connector",
        "contracts",
        "dead-letters",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in the help");
    }
    assert!(!help.contains(TOKEN), "the help shows a token");
}
