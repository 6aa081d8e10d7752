//! `quad backfill`: a span comes once more beside the live pulls, can be held, and changes no table.

use campus::truth;
use serde_json::Value;

use crate::school::{School, wait_until_later};

fn backfill(school: &School, arguments: &[&str]) -> Vec<Value> {
    let output = school.output(&[&["backfill"], arguments, &["--json"]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{arguments:?}: {text}{said}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_is_pulled_once_more_and_changes_no_table() {
    let mut school = School::new(9, 60, None);
    school.start("up");
    let client = school.client().await;
    let mut truth = school.campus.truth(truth::Stage::Filled);
    truth.tables.retain(|table, _| !table.starts_with("access_control."));
    school.eventually_agrees(&client, &truth).await;
    let grades = &truth.tables["academic.grade"];

    let whole = ["academic", "--table", "academic.grade", "--from", "0000", "--to", "9999"];
    let done = backfill(&school, &whole);
    assert_eq!(done.len(), 1);
    assert_eq!((&done[0]["state"], &done[0]["by"]), (&"done".into(), &"e2e".into()), "{done:?}");
    let number = |key: &str| done[0][key].as_u64().unwrap_or_default();
    assert!(number("rows") > 0 && number("rows") == number("records") + number("repeats") + number("letters"));
    assert_eq!(number("rows"), grades.generated - grades.repeats, "each row of the span, once");

    backfill(&school, &[&whole[..], &["--detach"]].concat());
    let held = backfill(&school, &["pause", "2"]);
    assert!(["paused", "done"].contains(&held[0]["state"].as_str().unwrap_or_default()), "{held:?}");
    backfill(&school, &["resume", "2"]);
    let list = loop {
        let list = backfill(&school, &["list"]);
        if list[1]["state"] == "done" {
            break list;
        }
        wait_until_later().await;
    };
    assert_eq!((list.len(), list[1]["rows"].as_u64()), (2, Some(number("rows"))), "no row is read twice");
    school.eventually_agrees(&client, &truth).await;

    let refused = school.output(&["backfill", "academic", "--table", "calendar_day", "--from", "0", "--to", "1"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("is not pulled by cursor"), "{said}");
    let stranger = school.quad(&["backfill", "list"]).env("QUAD_TOKEN", "no token of ours").output().expect("starts");
    assert!(String::from_utf8_lossy(&stranger.stderr).contains("401"), "only for an admin");
}
