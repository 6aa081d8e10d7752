//! Upkeep by hand: beside a running Quad it changes how tables are stored, and no answer.

use std::collections::BTreeMap;

use campus::live::Stage;
use campus::truth;
use serde_json::Value;

use crate::doors::filled;
use crate::school::School;

/// What a command of `quad lake` prints, by table.
fn lake(school: &School, arguments: &[&str]) -> BTreeMap<String, Value> {
    let output = school.output(&[&["lake"], arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let documents: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    documents.into_iter().map(|document| (document["table"].as_str().expect("a name").to_string(), document)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_by_hand_changes_no_answer_of_a_running_quad() {
    let (mut school, _, client) = filled().await;
    std::thread::scope(|scope| {
        let play = || {
            let mut stage = Stage::open(&school.databases, school.pusher()).expect("the sources answer");
            school.campus.live().for_each(|step| stage.play(&step).expect("the step is taken"));
        };
        scope.spawn(play).join().expect("the day is played");
    });
    let truth = school.campus.truth(truth::Stage::DayOver);
    school.eventually_agrees(&client, &truth).await;
    let before = lake(&school, &["stats"]);
    assert!(truth.tables.keys().all(|table| before.contains_key(table)), "{:?}", before.keys());
    let planned = lake(&school, &["optimize", "--dry-run"]);
    assert_eq!(lake(&school, &["stats"]), before, "a dry run changes nothing");

    let done = lake(&school, &["optimize"]);
    let after = lake(&school, &["stats"]);
    for (table, done) in &done {
        let number =
            |document: &Value, name: &str| document[name].as_i64().unwrap_or_else(|| panic!("{table}: {name}"));
        let (before, after) = (&before[table], &after[table]);
        let gone = number(done, "files_before") - number(done, "files_after");
        assert_eq!(number(after, "files"), number(before, "files") - gone, "{table}");
        assert_eq!(number(after, "rows"), number(before, "rows"), "{table}");
        assert_eq!(number(&planned[table], "files_before"), number(done, "files_before"), "{table}");
    }
    assert!(done.values().any(|done| done["files_before"].as_i64() > Some(1)), "nothing was compacted: {done:?}");
    let vacuumed = lake(&school, &["vacuum"]);
    assert!(vacuumed.values().all(|table| table["files_removed"] == 0), "young files stay: {vacuumed:?}");
    school.eventually_agrees(&client, &truth).await;
    assert_eq!(school.stop("up"), Some(0));
}

#[test]
fn what_cannot_be_kept_in_order_is_said() {
    let school = School::new(1, 50, None);
    let output = school.output(&["lake", "stats"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("nothing has landed in "));
    for (table, expected) in
        [("academic.nothing", "`quad tables` lists them"), ("academic.grade", "nothing has landed in")]
    {
        let output = school.output(&["lake", "optimize", table]);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(expected), "{said}");
    }
    let mut command = school.quad(&["lake", "stats"]);
    command
        .env("QUAD_LAKE__PATH", "s3://lake")
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .env_remove("AWS_ACCESS_KEY_ID");
    let output = command.output().expect("quad starts");
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"), "{said}");
}
