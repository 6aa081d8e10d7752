//! The doors as their users know them: SQL, profiles, pushes; with rights and without.

use std::collections::BTreeMap;

use campus::truth::{Stage, Truth};
use serde_json::Value;

use crate::school::{ANALYST_TOKEN, School, TOKEN};

/// A school whose sources have been pulled and whose gates have pushed their history.
pub async fn filled() -> (School, Truth, tokio_postgres::Client) {
    let mut school = School::new(3, 120, None);
    school.start("up");
    std::thread::scope(|scope| {
        let push = || {
            let mut pusher = school.pusher();
            school.campus.history_pushes().for_each(|push| pusher.push(&push).expect("the push is taken"));
        };
        scope.spawn(push).join().expect("pushes");
    });
    let truth = school.campus.truth(Stage::Filled);
    let client = school.client().await;
    school.eventually_agrees(&client, &truth).await;
    (school, truth, client)
}

/// The items of a student's profile by id, once they say what `is_there` asks for.
async fn eventually_items(
    school: &School,
    student_no: &str,
    is_there: impl Fn(&BTreeMap<String, Value>) -> bool,
) -> BTreeMap<String, Value> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(300);
    loop {
        let output = school.output(&["profile", student_no, "--purpose", "safety", "--json"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let items = serde_json::from_str::<Value>(&said).ok().and_then(|profile| {
            let items = profile["items"].as_array()?.clone();
            Some(items.into_iter().map(|item| (item["id"].as_str().unwrap_or_default().to_string(), item)).collect())
        });
        let items: BTreeMap<String, Value> = items.unwrap_or_default();
        if is_there(&items) {
            return items;
        }
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(std::time::Instant::now() < deadline, "not in time: {items:#?} {error}");
        crate::school::wait_until_later().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_say_what_is_true_of_each_student() {
    let (school, truth, client) = filled().await;
    for student in truth.students.iter().step_by(17) {
        let items = eventually_items(&school, &student.student_no, |items| {
            items.get("A02").is_some_and(|item| item["value"] == student.name.as_str())
        })
        .await;
        let value = |id: &str| items.get(id).map_or(Value::Null, |item| item["value"].clone());
        assert_eq!(items.len(), 100, "102 items, and the two of health are off");
        assert_eq!(value("A11")["counselor_staff_no"], student.counselor_staff_no.as_str());
        assert_eq!(value("A03"), student.sex_code.as_str());
        assert_eq!(value("A04"), student.birth_month.as_str());
        if let Some(gpa) = student.study.gpa {
            let found = value("B09").as_f64().expect("a GPA");
            assert!((found - gpa).abs() < 0.011, "GPA {found}, expected {gpa}");
        }
        if student.status_code.is_some() {
            let failed = value("B12").as_u64().unwrap_or(0);
            assert_eq!(failed, student.study.failed_courses, "failed courses of {}", student.person);
        }
        if let Some(day) = &student.residence.last_pass_day {
            assert_eq!(value("D05"), day.as_str());
        }
    }
    let verified = school.output(&["profile", "verify", "--json"]);
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    let said: Value = serde_json::from_str(&said).expect("a document");
    assert_eq!((verified.status.code(), &said["items"]), (Some(0), &Value::Array(Vec::new())), "{said}");
    assert!(said["persons"].as_u64().expect("a count") >= 100, "{said}");
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_decide_what_each_door_gives() {
    let (school, truth, _client) = filled().await;
    let sql = |token: &str, sql: &str| {
        let output = school.quad(&["sql", sql]).env("QUAD_TOKEN", token).output().expect("quad runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, _, error) = sql("wrong", "SELECT 1");
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("token"), "{error}");
    let (code, out, error) = sql(ANALYST_TOKEN, "SELECT COUNT(*) AS n FROM academic.course");
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains(&truth.tables["academic.course"].current.to_string()), "{out}");
    let (code, _, error) = sql(ANALYST_TOKEN, "SELECT * FROM platform.dead_letter");
    assert_eq!(code, Some(1));
    assert!(error.contains("platform"), "{error}");
    let (code, _, error) = sql(TOKEN, "DELETE FROM academic.course");
    assert_eq!(code, Some(1));
    assert!(!error.is_empty());
    let (code, _, error) = sql(TOKEN, "SELECT * FROM academic.corse");
    assert_eq!(code, Some(1));
    assert!(error.contains("corse"), "{error}");

    eventually_items(&school, &truth.students[0].student_no, |items| !items.is_empty()).await;
    let profile = |token: &str, student: &str| {
        let output = school.quad(&["profile", student]).env("QUAD_TOKEN", token).output().expect("quad runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, error) = profile(ANALYST_TOKEN, &truth.students[0].student_no);
    assert_eq!(code, Some(1));
    assert!(error.to_lowercase().contains("permission") || error.contains("may not"), "{error}");
    let (code, error) = profile(TOKEN, "99999999");
    assert_eq!(code, Some(1));
    assert!(error.to_lowercase().contains("no ") && !error.contains("99999999"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_identifier_reaches_a_log() {
    let (school, truth, client) = filled().await;
    let student = &truth.students[5];
    let _ = school
        .lines(&client, &format!("SELECT * FROM academic.grade WHERE student_no = '{}'", student.student_no))
        .await;
    let _ = school.output(&["profile", &student.student_no]);
    let _ = school
        .lines(&client, &format!("SELECT nothing FROM academic.grade WHERE student_no = '{}'", student.student_no))
        .await;
    let log = school.log("up");
    for student in &truth.students {
        assert!(!log.contains(&student.student_no) && !log.contains(&student.name), "an identifier is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_refused_for_the_right_reason_and_leaves_nothing() {
    let (school, truth, client) = filled().await;
    let push = |path: &str, token: &str, body: String| {
        let output = std::process::Command::new("curl")
            .args([
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-X",
                "POST",
                "-H",
                &format!("Authorization: Bearer {token}"),
            ])
            .args(["--data-binary", &body, &format!("http://127.0.0.1:{}/v1/push/{path}", school.http)])
            .output();
        String::from_utf8_lossy(&output.expect("curl runs").stdout).into_owned()
    };
    let gate = "e2e-gate-token";
    assert_eq!(push("gates/access_event", "wrong", "{}".into()), "401");
    assert_eq!(push("nobody/access_event", gate, "{}".into()), "401");
    assert_eq!(push("gates/none", gate, "{}".into()), "404");
    assert_eq!(push("gates/access_event", gate, "not json".into()), "400");
    assert_eq!(push("gates/access_event", gate, "{}".into()), "400");
    let many = format!("{{\"params\":{{\"events\":[{}]}}}}", vec!["{}"; 1001].join(","));
    assert_eq!(push("gates/access_event", gate, many), "413");
    assert_eq!(school.differences(&client, &truth).await, [""; 0]);
}
