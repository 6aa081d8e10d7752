//! What is done to landing by hand, on a real Kafka beside a running `quad land`: `land --rebuild` and `land reset`.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use campus::database::Database;
use campus::source::System;
use campus::truth::{Stage, Truth};
use expect_test::expect;
use tokio_postgres::Client;
use topic::{Log, Settings, settings::Kind};

use crate::school::{School, wait_until_later};

const TABLE: &str = "academic.course";

/// A school on Kafka whose sources are pulled, and whose landing refuses courses of more than 60 hours; `None` without Kafka.
async fn strict() -> Option<(School, Client, Truth)> {
    let Ok(kafka) = std::env::var("QUAD_KAFKA") else {
        println!("skipped: QUAD_KAFKA is not set");
        return None;
    };
    let mut school = School::new(13, 60, Some(kafka));
    let (root, schemas) = (Path::new(env!("CARGO_MANIFEST_DIR")), school.folder.path().join("schemas"));
    let copied = Command::new("cp").arg("-r").arg(root.join("schemas")).arg(&schemas).status();
    assert!(copied.expect("cp runs").success());
    let file = schemas.join("contracts/academic/course.odcs.yaml");
    let text = std::fs::read_to_string(&file).expect("the contract");
    assert!(text.contains("maximum: 1000"));
    std::fs::write(&file, text.replace("maximum: 1000", "maximum: 60")).expect("writes");
    let (settings, strict) = (school.settings(), school.folder.path().join("strict.toml"));
    let text = std::fs::read_to_string(settings).expect("settings");
    let ours = format!("schemas_path = \"{}/schemas\"", root.display());
    assert!(text.contains(&ours));
    let theirs = format!("schemas_path = \"{}\"", schemas.display());
    std::fs::write(&strict, text.replace(&ours, &theirs)).expect("writes");
    school.start("extract");
    school.start_with("land", &[("QUAD_CONFIG", &strict.to_string_lossy())]);
    school.start("query");
    let (client, truth) = (school.client().await, school.campus.truth(Stage::Filled));
    let courses = &truth.tables[TABLE];
    let all = format!(
        "SELECT (SELECT COUNT(*) FROM {TABLE}) + (SELECT COUNT(*) FROM platform.dead_letter WHERE target = '{TABLE}')"
    );
    school.eventually(&client, &all, (courses.current + courses.dead_letters) as i64).await;
    // Answers have what is on its way to the lake, by the contract of the query service: what landing refuses, it has to refuse first.
    let topic = format!("{}.{TABLE}", school.topic_prefix());
    let landed: i64 = log().extents(&topic).expect("extents").iter().map(|extent| extent.high).sum();
    school.eventually(&client, &in_lake(&topic), landed).await;
    Some((school, client, truth))
}

/// How many records of a topic have landed.
fn in_lake(topic: &str) -> String {
    format!("SELECT SUM(next_offset - first_offset) FROM platform.ledger WHERE topic = '{topic}'")
}

async fn number(school: &School, client: &Client, sql: &str) -> Option<i64> {
    school.lines(client, sql).await.ok()?.first()?.parse().ok()
}

/// What a command said, with numbers that differ from run to run left out.
fn said(school: &School, output: &Output, code: i32) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    text.replace(&school.topic_prefix(), "PREFIX")
}

/// Every version of a table with its place, and everything else that it says.
async fn versions(school: &School, client: &Client, table: &str) -> Vec<String> {
    let mut lines = school.lines(client, &format!("SELECT * FROM {table}_history")).await.expect("answers");
    lines.sort();
    lines
}

/// Counts tables over and over until it is done: each has all of its rows, or all but those that the
/// rebuild mends. Returns how often it asked.
async fn answers_until(done: &AtomicBool, school: &School, client: &Client, tables: [(&str, i64, i64); 2]) -> usize {
    let mut asked = 0;
    while !done.load(Ordering::Acquire) {
        for (table, expected, mended) in tables {
            let found = number(school, client, &format!("SELECT COUNT(*) FROM {table}")).await;
            let found = found.expect("answers while it is rebuilt");
            assert!([expected, expected - mended].contains(&found), "{table}: {found}, not {expected}");
        }
        asked += 1;
        wait_until_later().await;
    }
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_rebuilt_beside_the_running_landing_and_answers_all_the_while() {
    let Some((mut school, client, truth)) = strict().await else { return };
    let courses = &truth.tables[TABLE];
    let open = "SELECT COUNT(*) FROM platform.dead_letter WHERE stage = 'land' AND state IS NULL";
    let long = number(&school, &client, open).await.expect("answers");
    assert!(long > 1 && long < courses.current as i64, "some courses are long: {long}");
    school
        .eventually(&client, "SELECT COUNT(*) FROM academic.grade", truth.tables["academic.grade"].current as i64)
        .await;
    let grades = versions(&school, &client, "academic.grade").await;
    assert_eq!(school.stop("land"), Some(0));
    school.start("land");

    let done = AtomicBool::new(false);
    let ([again, mended], asked) = std::thread::scope(|scope| {
        let rebuild = scope.spawn(|| {
            let outputs = ["academic.grade", TABLE].map(|table| school.output(&["land", "--rebuild", table]));
            done.store(true, Ordering::Release);
            outputs
        });
        let asking = answers_until(
            &done,
            &school,
            &client,
            [("academic.grade_history", grades.len() as i64, 0), (TABLE, courses.current as i64, long)],
        );
        let asked = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(asking));
        (rebuild.join().expect("rebuilds"), asked)
    });
    assert!(asked > 3, "asked {asked} times");
    let said = |output: &Output| {
        // Beside it, how far it has come stands on standard error.
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{}", said(&school, output, 0));
        let (begin, end) = text.split_once(" as version ").expect("says the version");
        format!("{begin}:{}", end.split_once(':').expect("says the counts").1)
    };
    let all = courses.current;
    let expected = format!(
        "{TABLE} is rebuilt: {all} rows from the topic, 0 carried over, 0 bad records, 0 of them new dead letters, {long} \
         dead letters resolved\n"
    );
    assert_eq!(said(&mended), expected);
    let again = said(&again);
    assert!(
        again.ends_with("0 carried over, 0 bad records, 0 of them new dead letters, 0 dead letters resolved\n"),
        "{again}"
    );
    assert_eq!(versions(&school, &client, "academic.grade").await, grades, "the rebuilt table is the old one");
    school.eventually(&client, &format!("SELECT COUNT(*) FROM {TABLE}"), all as i64).await;
    school.eventually(&client, open, 0).await;
    let resolved =
        "SELECT COUNT(*) FROM platform.dead_letter WHERE state = 'resolved' AND resolved_by = 'quad land --rebuild'";
    school.eventually(&client, resolved, long).await;

    // Landing goes on where it was.
    let academic = Database::open(&school.databases.academic, System::Academic).expect("opens");
    academic.tamper("UPDATE JW_JH_KCDMB SET ZXS = 33, TSTAMP = '2099-01-01 00:00:00'").expect("updates");
    school.eventually(&client, &format!("SELECT COUNT(*) FROM {TABLE} WHERE hours_total = 33"), all as i64).await;
    let twice = format!(
        "SELECT COUNT(*) FROM (SELECT 1 FROM {TABLE}_history GROUP BY kafka_partition, kafka_offset HAVING COUNT(*) > 1)"
    );
    school.eventually(&client, &twice, 0).await;
    for service in ["extract", "land", "query"] {
        assert_eq!(school.stop(service), Some(0), "{}", school.log(service));
    }
}

#[test]
fn a_rebuild_of_nothing_is_refused() {
    let Ok(kafka) = std::env::var("QUAD_KAFKA") else {
        println!("skipped: QUAD_KAFKA is not set");
        return;
    };
    let school = School::new(1, 50, Some(kafka));
    expect![[r#"
        quad: no contract `academic.nothing`; see `quad tables`
    "#]]
    .assert_eq(&said(&school, &school.output(&["land", "--rebuild", "academic.nothing"]), 64));
    expect![[r#"
        quad: nothing has landed in academic.course; there is nothing to rebuild
    "#]]
    .assert_eq(&said(&school, &school.output(&["land", "--rebuild", TABLE]), 64));
}

/// The log, asked beside Quad.
fn log() -> Arc<dyn Log> {
    let mut settings = Settings { kind: Kind::Kafka, ..Settings::default() };
    settings.kafka.brokers = std::env::var("QUAD_KAFKA").expect("there is a Kafka");
    topic::open(&settings).expect("the log answers")
}

/// Takes all records of a partition before `offset` out of the log, as a retention does.
fn forget(school: &School, topic: &str, partition: i32, offset: i64) {
    let file = school.folder.path().join("forget.json");
    let what = serde_json::json!({ "topic": topic, "partition": partition, "offset": offset });
    std::fs::write(&file, serde_json::json!({ "version": 1, "partitions": [what] }).to_string()).expect("writes");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("tests/kafka/broker"))
        .args(["tool", "DeleteRecordsCommand", "--bootstrap-server"])
        .arg(std::env::var("QUAD_KAFKA").expect("there is a Kafka"))
        .arg("--offset-json-file")
        .arg(&file)
        .output()
        .expect("the broker's script runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_records_are_gone_says_so_and_goes_on_after_its_reset() {
    let Some((mut school, client, truth)) = strict().await else { return };
    let topic = format!("{}.{TABLE}", school.topic_prefix());
    let log = log();
    let high = || -> Vec<i64> { log.extents(&topic).expect("extents").iter().map(|extent| extent.high).collect() };
    let landed = high();
    assert_eq!(school.stop("land"), Some(0));
    let academic = Database::open(&school.databases.academic, System::Academic).expect("opens");
    academic.tamper("UPDATE JW_JH_KCDMB SET ZXS = 33, TSTAMP = '2099-01-01 00:00:00'").expect("updates");
    let courses = truth.tables[TABLE].current as i64;
    let deadline = Instant::now() + Duration::from_secs(60);
    while high().iter().sum::<i64>() < landed.iter().sum::<i64>() + courses {
        assert!(Instant::now() < deadline, "the changes do not reach the log\n{}", school.log("extract"));
        wait_until_later().await;
    }
    // The retention was shorter than the time that landing stood still: one partition has lost what it had not landed.
    let partition = (0..landed.len()).max_by_key(|at| high()[*at] - landed[*at]).expect("there are partitions");
    let (from, to) = (landed[partition], high()[partition]);
    assert!(to > from + 1);
    forget(&school, &topic, partition as i32, to - 1);

    school.start("land");
    let place = format!("{topic}/{partition}");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !school.log("land").contains(&format!("quad land reset {place} --to ")) {
        assert!(Instant::now() < deadline, "it does not say what to do\n{}", school.log("land"));
        wait_until_later().await;
    }
    let changed = format!("SELECT COUNT(*) FROM {TABLE}_history WHERE hours_total = 33");
    let (of_others, lost) = (courses - (to - from), to - 1 - from);
    school.eventually(&client, &in_lake(&topic), landed.iter().sum::<i64>() + of_others).await;
    // The query service had read them before they were lost, and tells of them until the partition goes on behind them.
    school.eventually(&client, &changed, courses).await;

    refusals(&school, &topic, &place, from);
    let output = school.output(&["land", "reset", &place, "--to", "earliest"]);
    let expected = format!("{place} goes on at offset {}: {lost} records skipped\n", to - 1);
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
    school.eventually(&client, &changed, courses - lost).await;
    let told = format!(
        "SELECT COUNT(*) FROM platform.ledger WHERE topic = '{topic}' AND topic_partition = {partition} \
         AND note = 'reset by hand from offset {from} to {}'",
        to - 1
    );
    school.eventually(&client, &told, 1).await;
    for service in ["extract", "land", "query"] {
        assert_eq!(school.stop(service), Some(0), "{}", school.log(service));
    }
}

/// A reset that is unclear, or would land records twice, changes nothing and exits 64.
fn refusals(school: &School, topic: &str, place: &str, at: i64) {
    let mut heard = String::new();
    for arguments in
        [[topic, "earliest"], ["nowhere.academic.course/0", "earliest"], [place, "yesterday"], [place, "0"]]
    {
        let output = school.output(&["land", "reset", arguments[0], "--to", arguments[1]]);
        heard.push_str(&said(school, &output, 64).replace(&format!("offset {at}:"), "offset N:"));
    }
    let (_, number) = place.rsplit_once('/').expect("a place");
    expect![[r#"
        quad: `PREFIX.academic.course` is no partition: say TOPIC/NUMBER, such as quad.academic.grade/2
        quad: no contract has the topic nowhere.academic.course; see `quad tables`
        quad: `--to yesterday`: an offset, earliest or latest
        quad: PREFIX.academic.course/N is at offset N: going back to 0 would land records twice. If the topic was made anew, land under another land.id
    "#]]
    .assert_eq(&heard.replace(&format!("course/{number}"), "course/N"));
}
