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
        "contracts",
        "dead-letters",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in the help");
    }
    assert!(!help.contains(TOKEN), "the help shows a token");
}
