//! `quad reconcile`: what is equal, what is missing, what is too many, and the exit codes.

use campus::database::Database;
use campus::source::System;
use campus::truth;
use serde_json::Value;

use crate::school::School;

fn reconcile(school: &School, arguments: &[&str]) -> (Option<i32>, Value) {
    let all = [&["reconcile", "--json", "--wait-s", "0"], arguments].concat();
    let output = school.output(&all);
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}{error}")))
}

fn differing(document: &Value) -> Vec<(i64, i64)> {
    let days = document["days"].as_array().expect("days");
    let differs = days.iter().filter(|day| day["equal"] == false);
    differs
        .map(|day| (day["rows_at_source"].as_i64().unwrap_or(-1), day["rows_in_lake"].as_i64().unwrap_or(-1)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_has_and_the_lake_has_not_is_told() {
    let mut school = School::new(5, 60, None);
    school.start("up");
    let client = school.client().await;
    // What is pulled is all there; the gates have pushed nothing.
    let mut truth = school.campus.truth(truth::Stage::Filled);
    truth.tables.retain(|table, _| !table.starts_with("access_control."));
    school.eventually_agrees(&client, &truth).await;
    let (_, document) = reconcile(&school, &["--table", "academic.grade"]);
    assert_eq!(differing(&document), []);
    assert!(document["records_behind"]["error"].as_str().expect("a message").contains("quad up"), "{document}");
    assert_eq!(school.stop("up"), Some(0));

    let (code, document) = reconcile(&school, &[]);
    assert_eq!((code, differing(&document)), (Some(0), vec![]), "{document}");
    let sum: i64 =
        document["days"].as_array().expect("days").iter().filter_map(|day| day["rows_in_lake"].as_i64()).sum();
    assert_eq!(sum as u64, truth.tables.values().map(|table| table.current).sum::<u64>(), "every row is compared");

    let academic = Database::open(&school.databases.academic, System::Academic).expect("opens");
    academic
        .tamper("DELETE FROM CJ_BKS WHERE CJID = (SELECT MIN(CJID) FROM CJ_BKS WHERE FSLKSCJ IS NOT NULL)")
        .expect("deletes");
    let (code, document) = reconcile(&school, &["academic", "--table", "academic.grade"]);
    let days = differing(&document);
    assert_eq!((code, days.len(), days[0].1 - days[0].0), (Some(1), 1, 1), "one too many in the lake: {document}");
    let output = school.output(&["reconcile", "academic", "--table", "academic.grade", "--wait-s", "0"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("1 too many in the lake") && text.contains("THERE ARE GAPS"), "{text}");

    academic.tamper("UPDATE JW_JH_KCDMB SET XF = XF + 1").expect("updates");
    let (code, document) = reconcile(&school, &["academic", "--table", "academic.course"]);
    assert_eq!(code, Some(1));
    assert!(
        differing(&document).iter().all(|(source, lake)| source == lake),
        "the same rows, other content: {document}"
    );
}
