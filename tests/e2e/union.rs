//! Lake and log as one: what was taken in is in answers at once, and each record once whatever moves underneath.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use campus::push::Pusher;
use campus::source::gates::Push;
use campus::truth::Stage;
use serde_json::Value;

use crate::school::{School, wait_until_later};

/// Landing that waits for an hour.
const NOTHING_LANDS: [(&str, &str); 1] = [("QUAD_LAND__BATCH_AGE_MS_MAX", "3600000")];

/// How many records were acknowledged as rows, and the token for them.
#[derive(Default)]
struct Acknowledged(Mutex<(i64, String)>);

/// Pushes the passes of the gates, noting what is acknowledged.
fn push_all(mut pusher: Pusher, pushes: Vec<Push>, acknowledged: &Acknowledged) {
    for push in pushes {
        pusher.push(&push).expect("the push is taken");
        let is_event = push.table == "access_event";
        let accepted = pusher.answer()["accepted"].as_i64().filter(|_| is_event).unwrap_or(0);
        let token = pusher.answer()["watermark"].as_str().expect("a token").to_string();
        let mut known = acknowledged.0.lock().expect("no thread panics with it");
        *known = (known.0 + accepted, if is_event { token } else { std::mem::take(&mut known.1) });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_in_is_in_answers_before_it_lands() {
    let mut school = School::new(11, 60, None);
    school.start_with("up", &NOTHING_LANDS);
    let acknowledged = Acknowledged::default();
    let (pusher, pushes) = (school.pusher(), school.campus.history_pushes().collect());
    std::thread::scope(|scope| scope.spawn(|| push_all(pusher, pushes, &acknowledged)).join().expect("pushes"));
    let truth = school.campus.truth(Stage::Filled);
    let client = school.client().await;
    let table = "access_control.access_event";
    let token = acknowledged.0.lock().expect("no thread panics with it").1.clone();
    // Nothing has landed, and whoever waits for the last push sees all of it.
    client.batch_execute(&format!("SET quad.watermark = '{token}'")).await.expect("a setting");
    let count = format!("SELECT count(*) FROM {table}");
    let found = school.lines(&client, &count).await.expect("the table answers");
    assert_eq!(found, [truth.tables[table].current.to_string()], "{}", school.log("up"));
    let stats = school.output(&["lake", "stats", "--json"]).stdout;
    let stats: Vec<Value> = serde_json::from_slice(&stats).expect("JSON");
    assert!(stats.iter().all(|table| table["rows"] == 0), "something has landed: {stats:?}");
    // The sources too, and the profile that follows from them.
    school.eventually_agrees(&client, &truth).await;
    let all = school.output(&["watermark"]);
    let all = String::from_utf8(all.stdout).expect("a token").trim().to_string();
    let student = &truth.students[3];
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let profile = school.output(&["profile", &student.student_no, "--items", "a02", "--json", "--watermark", &all]);
        let said = String::from_utf8_lossy(&profile.stdout).into_owned();
        if said.contains(student.name.as_str()) {
            break;
        }
        // Computing profiles may take longer than a call waits.
        assert!(Instant::now() < deadline, "{said}{}", String::from_utf8_lossy(&profile.stderr));
        wait_until_later().await;
    }
    // A token of what is still to come is waited for, and given up with a hint.
    let (topic, _) = token.split_once(':').expect("a token has a topic");
    let later = format!("{topic}:0.999999999");
    client
        .batch_execute(&format!("SET quad.watermark = '{later}'; SET statement_timeout = 300"))
        .await
        .expect("settings");
    let error = client.simple_query(&count).await.expect_err("it does not come");
    assert!(
        error.as_db_error().is_some_and(|error| error.message().contains("watermark was not reached")),
        "{error:?}"
    );
    let refused = client.batch_execute("SET quad.watermark = 'x'").await.expect_err("no token");
    assert!(refused.as_db_error().is_some_and(|error| error.message().contains("not a watermark")), "{refused:?}");
    client.batch_execute("RESET quad.watermark").await.expect("a setting");
    school.lines(&client, "SELECT quad_watermark(), quad_snapshot()").await.expect("functions");
    // After a power cut the log still has everything, and the lake nothing: so does the first answer, without a token.
    school.kill("up");
    school.start_with("up", &NOTHING_LANDS);
    let client = school.client().await;
    let found = school.lines(&client, &count).await.expect("the table answers");
    assert_eq!(found, [truth.tables[table].current.to_string()], "{}", school.log("up"));
}

/// Counts again and again until told to stop: never a record twice, never one fewer than before, and never fewer than were
/// acknowledged before the question.
async fn count_all_the_while(address: &str, acknowledged: &Acknowledged, looks: &AtomicUsize, is_over: &AtomicBool) {
    const SQL: &str = "SELECT count(*), count(DISTINCT CAST(kafka_partition AS VARCHAR) || '/' || CAST(kafka_offset AS VARCHAR)) \
        FROM access_control.access_event_history \
        UNION ALL SELECT count(*), count(DISTINCT device_id || '/' || CAST(door_no AS VARCHAR) || '/' || \
        CAST(event_serial AS VARCHAR) || '/' || CAST(event_time AS VARCHAR)) FROM access_control.access_event";
    let mut before = 0;
    let mut client = connect(address).await;
    while !is_over.load(Ordering::Relaxed) {
        let (pushed, token) = acknowledged.0.lock().expect("no thread panics with it").clone();
        let set = client.batch_execute(&format!("SET quad.watermark = '{token}'")).await;
        let Ok(answer) = (match set {
            Ok(()) => client.query(SQL, &[]).await,
            Err(error) => Err(error),
        }) else {
            // The query service was killed; the next one must know as much.
            client = connect(address).await;
            continue;
        };
        let counts: Vec<(i64, i64)> = answer.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert!(counts.iter().all(|(rows, places)| rows == places), "something came twice: {counts:?}");
        let seen = counts.iter().map(|(rows, _)| *rows).max().unwrap_or_default();
        assert!(seen >= before, "{seen} rows after {before}: records have gone");
        assert!(seen >= pushed, "{pushed} records were acknowledged and {seen} are seen");
        before = seen;
        looks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Lets the reader look a few times between two blows.
fn wait_until_seen(looks: &AtomicUsize, reader: &ScopedJoinHandle<'_, ()>) {
    let (enough, deadline) = (looks.load(Ordering::Relaxed) + 5, Instant::now() + Duration::from_secs(120));
    while looks.load(Ordering::Relaxed) < enough && !reader.is_finished() {
        assert!(Instant::now() < deadline, "the reader gets no answers");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until pushes are taken: topics are made at the first start.
async fn wait_until_open(school: &School) {
    let deadline = Instant::now() + Duration::from_secs(240);
    while !school.output(&["watermark"]).status.success() {
        assert!(Instant::now() < deadline, "not in time: {}", school.log("extract"));
        wait_until_later().await;
    }
}

async fn connect(address: &str) -> tokio_postgres::Client {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        match tokio_postgres::connect(address, tokio_postgres::NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return client;
            }
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        wait_until_later().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_every_record_once_while_everything_moves() {
    let Ok(kafka) = std::env::var("QUAD_KAFKA") else { return };
    let mut school = School::new(12, 150, Some(kafka));
    let landing = [("QUAD_LAND__BATCH_AGE_MS_MAX", "50")];
    school.start("extract");
    school.start_with("land", &landing);
    school.start("query");
    let (acknowledged, looks, is_over) = (Acknowledged::default(), AtomicUsize::new(0), AtomicBool::new(false));
    wait_until_open(&school).await;
    let (address, pusher, pushes) = (school.address(), school.pusher(), school.campus.history_pushes().collect());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(count_all_the_while(&address, &acknowledged, &looks, &is_over))
        });
        let writer = scope.spawn(|| push_all(pusher, pushes, &acknowledged));
        let mut blows = 0;
        while !writer.is_finished() || blows < 6 {
            wait_until_seen(&looks, &reader);
            match blows % 3 {
                0 => {
                    let optimized = school.output(&["lake", "optimize"]);
                    assert_eq!(optimized.status.code(), Some(0), "{}", String::from_utf8_lossy(&optimized.stderr));
                }
                1 => {
                    school.kill("land");
                    school.start_with("land", &landing);
                }
                _ => {
                    school.kill("query");
                    school.start("query");
                }
            }
            blows += 1;
        }
        let written = writer.join();
        is_over.store(true, Ordering::Relaxed);
        assert!(written.is_ok(), "{}", school.log("extract"));
        reader.join().expect("every look is right");
    });
    let (client, truth) = (school.client().await, school.campus.truth(Stage::Filled));
    school.eventually_agrees(&client, &truth).await;
}
