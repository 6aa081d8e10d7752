//! `quad connector`: a connector made from nothing, and previews that write nothing.

use std::io::Read;
use std::process::Stdio;

use serde_json::Value;

use crate::school::School;

/// Exit code and document of a preview.
fn preview(school: &School, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = school.output(&[&["connector", "preview", "--json"], arguments].concat());
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}{error}")))
}

#[test]
fn a_preview_of_a_database_shows_its_first_rows_and_writes_nothing() {
    let school = School::new(6, 60, None);
    let (code, tables) = preview(&school, &["academic", "--rows", "5"]);
    assert_eq!((code, tables.len()), (Some(0), 8));
    for table in &tables {
        assert_eq!((&table["read"], &table["source"]), (&5.into(), &"academic".into()), "{table}");
        let kept = ["accepted", "rejected", "left_out"].map(|key| table[key].as_u64().expect("a count"));
        assert_eq!(kept.iter().sum::<u64>(), 5, "{table}");
    }
    // The connector names its one source; the name of a student is masked.
    let (code, tables) = preview(&school, &["student_affairs_zf", "--table", "student_affairs.student_base"]);
    assert_eq!((code, tables.len()), (Some(0), 1));
    let records = tables[0]["records"].as_array().expect("records");
    assert!(records.iter().all(|record| record["name"] == "***" && record["student_no"] != "***"), "{records:?}");
    for folder in ["topic", "lake", "extract"] {
        assert!(!school.folder.path().join(folder).exists(), "{folder} was written");
    }
}

#[test]
fn a_preview_of_a_push_tells_what_would_be_rejected() {
    let school = School::new(6, 50, None);
    let body = school.folder.path().join("doors.json");
    let doors = r#"{"data": {"list": [
        {"indexCode": "D1", "name": "L1-1[进门]", "doorNo": "1", "channelType": "door", "updateTime": "2026-11-01 08:00:00"},
        {"name": "L1-2[出门]", "doorNo": "2", "channelType": "door", "updateTime": "2026-11-01 08:00:00"}]}}"#;
    std::fs::write(&body, doors).expect("writes");
    let body = body.to_string_lossy();
    let (code, tables) = preview(&school, &["gates", "--table", "device", "--input", &body]);
    assert_eq!(code, Some(0));
    assert_eq!((&tables[0]["accepted"], &tables[0]["rejected"]), (&1.into(), &1.into()), "{tables:?}");
    let letter = &tables[0]["dead_letters"][0];
    assert_eq!((&letter["rule"], &letter["row"]["name"]), (&"required".into(), &"L1-2[出门]".into()), "{letter}");
    assert_eq!(school.output(&["connector", "preview", "gates"]).status.code(), Some(64));
}

#[test]
fn a_new_connector_is_filled_in_previewed_and_found_well() {
    let school = School::new(6, 50, None);
    let at = |name: &str| school.folder.path().join(name);
    let text = std::fs::read_to_string(school.settings()).expect("settings");
    let connectors = text.lines().find(|line| line.starts_with("extract.connectors_path")).expect("a path");
    let sources = text.find("[sources.").expect("sources");
    let text =
        text[..sources].replace(connectors, &format!("extract.connectors_path = '{}'", at("connectors").display()));
    std::fs::write(school.settings(), &text).expect("writes");
    let new = ["connector", "new", "leaves", "--source", "files", "--contract", "student_affairs.leave_request"];
    let output = school.output(&new);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        said.contains("[sources.leaves]\nconnector = \"leaves\"\n") && said.contains("quad connector preview leaves"),
        "{said}"
    );
    assert_eq!(school.output(&new).status.code(), Some(64), "what is there is not overwritten");

    let connector = std::fs::read_to_string(at("connectors/leaves/connector.toml")).expect("a connector");
    let headers: Vec<&str> = connector
        .lines()
        .skip_while(|line| !line.ends_with(".input]"))
        .filter(|line| !line.starts_with('#') && !line.contains("{modified}"))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    std::fs::create_dir_all(at("inbox/leave_request")).expect("creates");
    let file = at("inbox/leave_request/11.csv");
    std::fs::write(&file, format!("{}\n{}\n", headers.join(","), vec!["?"; headers.len()].join(","))).expect("writes");
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    std::fs::File::options().append(true).open(&file).and_then(|file| file.set_modified(before)).expect("a time");
    let source =
        format!("{text}\n[sources.leaves]\nconnector = \"leaves\"\nconnection = '{}'\n", at("inbox").display());
    std::fs::write(school.settings(), source).expect("writes");
    let (code, tables) = preview(&school, &["leaves"]);
    assert_eq!((code, &tables[0]["read"], &tables[0]["rejected"]), (Some(0), &1.into(), &1.into()), "{tables:?}");
    let doctor = school.output(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(0), "{}", String::from_utf8_lossy(&doctor.stdout));
}

#[test]
fn a_reader_that_goes_is_no_error() {
    let school = School::new(6, 50, None);
    for command in [&["tables"][..], &["tables", "--describe", "academic.grade"], &["token", "x", "--role", "admin"]] {
        let mut child =
            school.quad(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("quad starts");
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        assert_eq!((child.wait().expect("it ends").code(), said.as_str()), (Some(0), ""), "{command:?}");
    }
}

#[test]
fn a_connector_is_tried_on_its_source_and_on_a_recording_of_it() {
    let school = School::new(6, 60, None);
    let tried = |arguments: &[&str]| {
        let output = school.output(&[&["connector", "test", "--json"], arguments].concat());
        let tables: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a document");
        (output.status.code(), tables)
    };
    let (code, tables) = tried(&["academic_zf"]);
    assert_eq!((code, tables.len()), (Some(0), 8), "{tables:?}");
    let grade = tables.iter().find(|table| table["table"] == "grade").expect("the table of grades");
    let checks = grade["checks"].as_array().expect("checks");
    let outcome = |name: &str| checks.iter().find(|check| check["check"] == name).map(|check| check["outcome"].clone());
    let outcomes = ["cursor", "resume", "repeats", "keys"].map(outcome);
    assert!(outcomes.iter().all(|outcome| *outcome == Some("ok".into())), "{checks:?}");

    let folder = school.folder.path().join("recording");
    let into = folder.to_string_lossy().into_owned();
    let record = ["connector", "record", "student_affairs_zf", "--table", "student_base", "--into", &into];
    let output = school.output(&record);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(school.output(&record).status.code(), Some(64), "what is there is not overwritten");
    let recorded = std::fs::read_to_string(folder.join("student_base.jsonl")).expect("a recording");
    let campus = &school.campus;
    assert!(recorded.lines().count() >= 60);
    assert!(campus.students.iter().all(|student| !recorded.contains(&student.student_no)), "{recorded}");
    let (code, tables) = tried(&["student_affairs_zf", "--recording", &into]);
    assert_eq!((code, tables.len()), (Some(0), 1), "{tables:?}");
    for folder in ["topic", "lake", "extract"] {
        assert!(!school.folder.path().join(folder).exists(), "{folder} was written");
    }
}
