//! Topics of others on their way to the log, from a real Kafka: `QUAD_KAFKA` names it (`HOST:PORT`); skipped aloud otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use expect_test::expect;
use topic::settings::{Kind, Settings};
use topic::{Log, Message};

use super::{Shop, settings};
use crate::connector::Connector;
use crate::error::Error;
use crate::extract::source::{self, Worker};

const TABLE: &str = r#"
title = "leave requests on a topic"
kind = "kafka"
sensitive = ["BZ"]
[tables.leave_request]
contract = "student_affairs.leave_request"
pull = "cursor"
topic = "TOPIC"
format = "FORMAT"
[tables.leave_request.input]
WID = "/id"
XH = "/who/no"
QJJSSJ = "/to"
"#;

const MAPPING: &str = r#"
SELECT coalesce(clean_id("WID"), clean_id("_key")) AS leave_id, clean_id("XH") AS student_no,
       cn_timestamp('2026-11-01 08:00') AS applied_at, cn_timestamp('2026-11-02') AS start_at,
       cn_timestamp_end("QJJSSJ") AS end_at, 'approved' AS approval_status,
       "_timestamp" AS src_updated_at, "_op" AS op
FROM input
"#;

/// A workshop that reads a new topic of `partitions`, and the cluster.
fn shop(format: &str, partitions: i32) -> Option<(Shop, Arc<dyn Log>, String)> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let Ok(brokers) = std::env::var("QUAD_KAFKA") else {
        println!("skipped: QUAD_KAFKA is not set");
        return None;
    };
    let mut cluster = Settings { kind: Kind::Kafka, ..Settings::default() };
    cluster.kafka.brokers = brokers.clone();
    let cluster = topic::open(&cluster).expect("opens");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let topic = format!("oa.qj.{now}.{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    cluster.ensure_topic(&topic, partitions).expect("makes a topic");
    let mut shop = Shop::of(&TABLE.replace("TOPIC", &topic).replace("FORMAT", format));
    std::fs::write(shop.path("connectors/leaves/leave_request.sql"), MAPPING).expect("writes");
    shop.source.connection = Some(brokers);
    Some((shop, cluster, topic))
}

fn put(cluster: &dyn Log, topic: &str, records: &[(&str, &str)]) {
    let message = |(at, (key, value)): (usize, &(&str, &str))| Message {
        key: key.to_string().into(),
        value: value.to_string().into(),
        timestamp_ms: 1_795_000_000_000 + at as i64,
    };
    cluster.append(topic, records.iter().enumerate().map(message).collect()).expect("appends");
}

fn leave(id: &str, to: &str) -> String {
    format!(r#"{{"id":"{id}","who":{{"no":"0026"}},"to":"{to}"}}"#)
}

/// Pulls after `after`; the batches that `batches_max` lets through, the last cursor, the error.
async fn read(shop: &Shop, after: Vec<String>, batches_max: usize) -> (usize, Vec<String>, Option<String>) {
    let connector = Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect("a right connector");
    let worker = Worker::alone(&settings(shop.folder.path()), tokio::runtime::Handle::current());
    let of_source = shop.source.clone();
    let told = tokio::task::spawn_blocking(move || {
        let (mut rows, mut batches, mut cursor) = (0, 0, after.clone());
        let mut source = source::connect(&connector, &of_source, &worker).expect("right settings");
        let outcome = source.pull(&connector.tables[0], &after, &mut |batch, values| {
            batches += 1;
            if batches > batches_max {
                return Err(Error::source("killed"));
            }
            rows += batch.num_rows();
            cursor = values.unwrap_or_default();
            Ok(())
        });
        (rows, cursor, outcome.err().map(|error| error.to_string()))
    });
    told.await.expect("reads")
}

#[tokio::test(flavor = "multi_thread")]
async fn json_records_and_tombstones_are_taken_and_others_are_letters() {
    let Some((shop, cluster, topic)) = shop("json", 1) else { return };
    let (first, second) = (leave("L1", "2026-11-03"), leave("L2", "2026-11-04"));
    let long = leave("L3", &"9".repeat(300));
    let records = [("L1", first.as_str()), ("L2", &second), ("L1", ""), ("x", "{\"id\":"), ("y", "7"), ("z", &long)];
    put(&*cluster, &topic, &records);
    assert_eq!(shop.pull().await, (3, 3, 0, None));
    put(&*cluster, &topic, &[("L4", &leave("L4", "2026-11-05"))]);
    assert_eq!(shop.pull().await, (1, 0, 0, None), "it goes on from its cursor");
    shop.land().await;
    shop.check(
        "SELECT leave_id, end_at, op, src_updated_at FROM leave ORDER BY leave_id, kafka_offset",
        expect![[r#"
            L1 2026-11-03T15:59:59Z I 2026-11-18T11:06:40Z
            L1  D 2026-11-18T11:06:40.002Z
            L2 2026-11-04T15:59:59Z I 2026-11-18T11:06:40.001Z
            L4 2026-11-05T15:59:59Z I 2026-11-18T11:06:40Z
        "#]],
    )
    .await;
    shop.check(
        "SELECT rule, message, bytes LIKE '%_value\":\"***%' FROM letter ORDER BY message",
        expect![[r#"
        format JSON, but no object true
        format `QJJSSJ` has 300 bytes, more than extract.text_bytes_max (256) true
        format not JSON, at line 1 column 6 true
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_debezium_are_rows_and_deletes() {
    let Some((shop, cluster, topic)) = shop("debezium", 2) else { return };
    let change = |op: &str, before: &str, after: &str, at: u64| {
        format!(r#"{{"before":{before},"after":{after},"source":{{"snapshot":"true"}},"op":"{op}","ts_ms":{at}}}"#)
    };
    let (one, two) = (leave("L1", "2026-11-03"), leave("L1", "2026-11-04"));
    let key_only = r#"{"id":"L1"}"#;
    let wrapped = |payload: &str| format!(r#"{{"schema":{{"type":"struct"}},"payload":{payload}}}"#);
    let records = [
        change("r", "null", &one, 1_795_000_000_000),
        change("u", &one, &two, 1_795_000_001_000),
        wrapped(&change("d", key_only, "null", 1_795_000_002_000)),
        String::new(),
        wrapped(&change("c", "null", &one, 1_795_000_003_000)),
        change("d", "null", "null", 1_795_000_004_000),
        change("t", "null", "null", 1_795_000_004_000),
        change("d", "{}", "null", 1_795_000_005_000),
        one.clone(),
    ];
    put(&*cluster, &topic, &records.iter().map(|record| ("", record.as_str())).collect::<Vec<_>>());
    assert_eq!(shop.pull().await, (4, 4, 0, None));
    shop.land().await;
    let query = "SELECT leave_id, end_at, op, src_updated_at FROM leave ORDER BY src_updated_at";
    shop.check(
        query,
        expect![[r#"
        L1 2026-11-03T15:59:59Z I 2026-11-18T11:06:40Z
        L1 2026-11-04T15:59:59Z U 2026-11-18T11:06:41Z
        L1  D 2026-11-18T11:06:42Z
        L1 2026-11-03T15:59:59Z I 2026-11-18T11:06:43Z
    "#]],
    )
    .await;
    shop.check(
        "SELECT rule, field, message FROM letter ORDER BY message",
        expect![[r#"
        format  a TRUNCATE, which names no row: load the table anew
        format  a delete without `before`: give the table a primary key or a replica identity
        format  no `op`: not an envelope of Debezium; is the format "json"?
        required leave_id no value
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_killed_goes_on_from_its_cursor() {
    let Some((shop, cluster, topic)) = shop("json", 3) else { return };
    let records: Vec<_> = (0..1000).map(|at| (format!("L{at}"), leave(&format!("L{at}"), "2026-11-03"))).collect();
    put(&*cluster, &topic, &records.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>());
    let (some, cursor, error) = read(&shop, Vec::new(), 3).await;
    assert_eq!(error.as_deref(), Some("killed"));
    assert!(some > 0 && some < 1000, "{some}");
    let (rest, cursor, error) = read(&shop, cursor, usize::MAX).await;
    assert_eq!((some + rest, error), (1000, None));
    assert_eq!(read(&shop, cursor.clone(), usize::MAX).await, (0, cursor, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_or_topic_that_is_not_as_said_is_told() {
    let Some((mut shop, cluster, topic)) = shop("json", 1) else { return };
    put(&*cluster, &topic, &[("L1", &leave("L1", "2026-11-03"))]);
    let (_, _, error) = read(&shop, vec![format!("{topic}\t0\t5")], 9).await;
    let told = error.unwrap_or_default().replace(&topic, "TOPIC") + "\n";
    let connector = TABLE.replace("TOPIC", "no.such.topic").replace("FORMAT", "json");
    std::fs::write(shop.path("connectors/leaves/connector.toml"), connector).expect("writes");
    let told = told + &read(&shop, Vec::new(), 9).await.2.unwrap_or_default() + "\n";
    shop.source.properties = [("acks".to_string(), schemas::Sensitive::new("1".to_string()))].into();
    let connector = Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect("a right connector");
    let worker = Worker::alone(&settings(shop.folder.path()), tokio::runtime::Handle::current());
    let told =
        told + &source::connect(&connector, &shop.source, &worker).err().map(|error| error.chain()).unwrap_or_default();
    expect![[r#"
        TOPIC/0 holds the offsets 0 to 1, not 5, the next: records were removed unread, or the topic was made anew. Set `out_of_range = "earliest"` of this table to go on with what is there
        topic no.such.topic does not exist
        properties."acks" is set by Quad: its guarantees rest on it"#]].assert_eq(&told);
}
