//! Traces of a running Quad, as a collector of OpenTelemetry gets them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use campus::truth;
use serde_json::Value;

use crate::school::{School, free_port, wait_until_later};

/// What a collector has received: whole requests, as they came.
type Received = Arc<Mutex<Vec<Value>>>;

/// A collector that takes everything, and where it is.
async fn collector() -> (Received, String) {
    let received = Received::default();
    let take = |State(received): State<Received>, Json(request): Json<Value>| async move {
        received.lock().expect("not poisoned").push(request);
        (StatusCode::OK, Json(serde_json::json!({})))
    };
    let router = axum::Router::new().route("/v1/traces", axum::routing::post(take)).with_state(received.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (received, address)
}

fn spans(received: &Received) -> Vec<Value> {
    let requests = received.lock().expect("not poisoned");
    let spans = requests.iter().flat_map(|request| request["resourceSpans"].as_array().expect("resources"));
    let spans = spans.flat_map(|resource| resource["scopeSpans"].as_array().expect("scopes"));
    spans.flat_map(|scope| scope["spans"].as_array().expect("spans").clone()).collect()
}

fn attribute<'a>(span: &'a Value, key: &str) -> Option<&'a str> {
    let found = span["attributes"].as_array()?.iter().find(|attribute| attribute["key"] == key)?;
    found["value"].as_object()?.values().next()?.as_str()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_spans_and_no_identifier() {
    let (received, endpoint) = collector().await;
    let mut school = School::new(5, 50, None);
    school.start_with("up", &[("QUAD_OBSERVE__OTLP_ENDPOINT", &endpoint)]);
    let client = school.client().await;
    let truth = school.campus.truth(truth::Stage::Filled);
    eventually_has(&school, &received, "pull").await;
    eventually_has(&school, &received, "commit").await;
    let student = &truth.students[0];
    let sql = format!("SELECT '{}', '{}'", student.student_no, student.name);
    let before = Instant::now();
    assert_eq!(school.lines(&client, &sql).await.expect("an answer").len(), 1);
    let _ = school.output(&["profile", &student.student_no]);
    let wrong = format!("SELECT nothing FROM academic.grade WHERE student_no = '{}'", student.student_no);
    assert!(school.lines(&client, &wrong).await.is_err());
    drop(client);
    // The last spans are sent before the process ends.
    assert_eq!(school.stop("up"), Some(0));
    assert!(before.elapsed() < Duration::from_secs(60), "a stop does not wait for long");

    let spans = spans(&received);
    let names: BTreeSet<_> = spans.iter().filter_map(|span| span["name"].as_str()).collect();
    for name in ["pull", "commit", "postgres", "get_profile"] {
        assert!(names.contains(name), "no span {name} among {names:?}");
    }
    for span in &spans {
        let time = |key: &str| span[key].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a time");
        assert!(time("startTimeUnixNano") <= time("endTimeUnixNano"), "{span}");
        assert_eq!(
            (span["traceId"].as_str().map(str::len), span["spanId"].as_str().map(str::len)),
            (Some(32), Some(16))
        );
    }
    let pull = spans.iter().find(|span| attribute(span, "table") == Some("student_base")).expect("a pull of students");
    assert_eq!((attribute(pull, "source"), attribute(pull, "outcome")), (Some("affairs"), Some("ok")));
    let sql = spans.iter().find(|span| span["name"] == "postgres").expect("a question");
    assert_eq!((attribute(sql, "rows"), attribute(sql, "outcome")), (Some("1"), Some("ok")));
    let everything = serde_json::to_string(&spans).expect("JSON") + &school.log("up");
    for student in &truth.students {
        let is_there = everything.contains(&student.student_no) || everything.contains(&student.name);
        assert!(!is_there, "an identifier is in a span or in the log");
    }
    assert!(!everything.contains("SELECT"), "a statement is in a span or in the log");
}

async fn eventually_has(school: &School, received: &Received, name: &str) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !spans(received).iter().any(|span| span["name"] == name) {
        assert!(Instant::now() < deadline, "no span {name}\n{}", school.log("up"));
        wait_until_later().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_gone_disturbs_nothing() {
    let mut school = School::new(5, 50, None);
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    school.start_with("up", &[("QUAD_OBSERVE__OTLP_ENDPOINT", &endpoint)]);
    let client = school.client().await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !school.log("up").contains("could not send traces") {
        assert!(Instant::now() < deadline, "nothing is said of it\n{}", school.log("up"));
        wait_until_later().await;
    }
    assert_eq!(school.lines(&client, "SELECT 1").await.expect("an answer"), ["1"]);
    drop(client);
    let before = Instant::now();
    assert_eq!(school.stop("up"), Some(0));
    assert!(before.elapsed() < Duration::from_secs(30), "a stop does not wait for a collector");
    assert_eq!(school.log("up").matches("could not send traces").count(), 1, "it is said once");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_share_of_traces_is_sent_when_the_share_is_none() {
    let (received, endpoint) = collector().await;
    let mut school = School::new(5, 50, None);
    let settings = [("QUAD_OBSERVE__OTLP_ENDPOINT", endpoint.as_str()), ("QUAD_OBSERVE__TRACE_RATIO", "0")];
    school.start_with("up", &settings);
    let client = school.client().await;
    assert_eq!(school.lines(&client, "SELECT 1").await.expect("an answer"), ["1"]);
    drop(client);
    assert_eq!(school.stop("up"), Some(0));
    assert_eq!(spans(&received), Vec::<Value>::new());
}
