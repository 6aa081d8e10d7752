//! Whose a number is: what the rules make of a whole campus, and what an administrator decides by hand and takes back.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Output;

use campus::truth::Stage;
use serde_json::{Value, json};

use crate::school::{ANALYST_TOKEN, School};

/// `quad` with `line`, its exit code and what it printed.
fn quad(school: &School, token: Option<&str>, line: &str) -> (Option<i32>, String) {
    let mut command = school.quad(&[]);
    command.args(line.split_whitespace());
    if let Some(token) = token {
        command.env("QUAD_TOKEN", token);
    }
    let Output { status, stdout, stderr } = command.output().expect("quad runs");
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

/// The document that a command prints.
fn document(school: &School, line: &str) -> Value {
    let (code, said) = quad(school, None, line);
    assert_eq!(code, Some(0), "{line}: {said}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{line}: {error}: {said}"))
}

/// Who a profile says that someone is, once it reaches to `watermark`.
fn profile(school: &School, student_no: &str, watermark: &str) -> Value {
    let profile =
        document(school, &format!("profile {student_no} --items a01,a02,a08,a12 --json --watermark {watermark}"));
    let items = profile["items"].as_array().expect("items").iter();
    let values: BTreeMap<&str, &Value> =
        items.map(|item| (item["name"].as_str().unwrap_or_default(), &item["value"])).collect();
    json!({ "person_id": profile["person_id"], "student_nos": profile["student_nos"], "values": values })
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_merged_and_split_and_it_is_undone() {
    let mut school = School::new(3, 200, None);
    school.start("up");
    let client = school.client().await;
    let truth = school.campus.truth(Stage::Filled);
    for table in ["student_affairs.student_base", "academic.enrollment", "identity.account", "identity.card"] {
        let count = format!("SELECT COUNT(*) FROM {table}");
        school.eventually(&client, &count, truth.tables[table].current).await;
    }

    // Each student is one person, whoever studied here before under another number too (R5).
    let students: BTreeSet<BTreeSet<String>> = truth
        .students
        .iter()
        .map(|student| student.former_student_no.iter().chain([&student.student_no]).cloned().collect())
        .collect();
    assert!(students.iter().any(|numbers| numbers.len() == 2), "some have studied here before");
    let sql = "SELECT string_agg(id_value, ' ') FROM identity.identifier_link WHERE id_type = 'student_no' GROUP BY person_id";
    let found = school.lines(&client, sql).await.expect("the links answer");
    let found: BTreeSet<BTreeSet<String>> =
        found.iter().map(|line| line.split(' ').map(str::to_string).collect()).collect();
    assert_eq!(found, students);
    let later = truth.students.iter().find(|student| student.former_student_no.is_some()).expect("an alumnus");
    let rule =
        format!("SELECT rule_id, link_status FROM identity.identifier_link WHERE id_value = '{}'", later.student_no);
    assert_eq!(school.lines(&client, &rule).await.expect("the link answers")[0], "R5|confirmed");

    let alone: Vec<&str> = truth
        .students
        .iter()
        .filter(|student| student.former_student_no.is_none())
        .map(|student| &*student.student_no)
        .take(2)
        .collect();
    let [first, second] = alone[..] else { panic!("two students") };
    let watermark = document(&school, "watermark --json")["watermark"].as_str().expect("a token").to_string();
    let before = [first, second].map(|number| profile(&school, number, &watermark));
    assert_ne!(before[0]["person_id"], before[1]["person_id"]);

    let merged = document(&school, &format!("identity merge {first} {second} --note by-hand --json"));
    assert_eq!((&merged["verdict"], &merged["decided_by"]), (&json!("linked"), &json!("e2e")));
    let watermark = merged["watermark"].as_str().expect("a token");
    let one = [first, second].map(|number| profile(&school, number, watermark));
    assert_eq!(one[0], one[1], "one profile by either number");
    let numbers: BTreeSet<&str> =
        one[0]["student_nos"].as_array().expect("numbers").iter().filter_map(Value::as_str).collect();
    assert_eq!(numbers, BTreeSet::from([first, second]));
    let persons = format!(
        "SELECT COUNT(DISTINCT person_id) FROM academic.enrollment WHERE student_no IN ('{first}', '{second}')"
    );
    assert_eq!(school.lines(&client, &persons).await.expect("answers"), ["1"]);
    let decided = document(&school, "identity reviews --state decided --json");
    assert_eq!((&decided["kind"], &decided["decision"]["note"]), (&json!("by_hand"), &json!("by-hand")));

    let review = merged["review_id"].as_str().expect("a number");
    let undone = document(&school, &format!("identity undo {review} --json"));
    let watermark = undone["watermark"].as_str().expect("a token");
    let after = [first, second].map(|number| profile(&school, number, watermark));
    assert_eq!(after, before, "as if it had never been");
    refusals(&school, review, (first, second));

    // A rule's link is parted, and the rule holds again when that is undone.
    let former = later.former_student_no.as_deref().expect("an alumnus");
    let of_later = || {
        format!(
            "SELECT COUNT(DISTINCT person_id) FROM identity.identifier_link WHERE id_value IN ('{former}', '{}')",
            later.student_no
        )
    };
    let split = document(&school, &format!("identity split {former} {} --json", later.student_no));
    school.eventually(&client, &of_later(), 2).await;
    let review = split["review_id"].as_str().expect("a number");
    document(
        &school,
        &format!("identity undo {review} --json --watermark {}", split["watermark"].as_str().expect("a token")),
    );
    school.eventually(&client, &of_later(), 1).await;

    let log = school.log("up");
    assert!(log.contains("DecideIdentity"), "decisions are audited: {log}");
    let named = [first, second, former, &later.student_no].into_iter().find(|number| log.contains(*number));
    assert_eq!(named, None, "no number is in the log");
}

/// Nobody but an administrator asks or decides, and what cannot be is said.
fn refusals(school: &School, review: &str, (first, second): (&str, &str)) {
    for line in
        ["reviews".to_string(), "history".to_string(), format!("merge {first} {second}"), format!("undo {review}")]
    {
        let (code, said) = quad(school, Some(ANALYST_TOKEN), &format!("identity {line}"));
        assert!(code == Some(1) && said.contains("role analyst may not"), "{line}: {said}");
    }
    for (line, words) in [
        (format!("merge {first} 19990001"), "no student has one of these numbers"),
        (format!("merge {first} {first}"), "the same use of one number"),
        (format!("undo {review}"), "no decision of this question is in force"),
        ("confirm nothing".to_string(), "there is no such question"),
    ] {
        let (code, said) = quad(school, None, &format!("identity {line}"));
        assert!(code == Some(1) && said.contains(words), "{line}: {said}");
    }
    let (code, said) = quad(school, None, &format!("identity history --number {first} --json"));
    let verdicts: Vec<Value> = said
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|decision| json!([decision["verdict"], decision["is_revoked"]]))
        .collect();
    assert_eq!((code, verdicts), (Some(0), vec![json!(["revoked", false]), json!(["linked", true])]), "{said}");
    let body = "{\"review_id\":\"x\"}";
    for token in [ANALYST_TOKEN, "wrong"] {
        let url = format!("http://127.0.0.1:{}/v1/identity/decisions", school.http);
        let header = format!("Authorization: Bearer {token}");
        let arguments = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &header, "-d", body, &url];
        let output = std::process::Command::new("curl").args(arguments).output().expect("curl runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "401");
    }
}
