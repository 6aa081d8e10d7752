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
use crate::extract::source::{self, Span, Worker};

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
async fn a_span_is_that_of_the_records_timestamps() {
    let Some((shop, cluster, topic)) = shop("json", 1) else { return };
    let records = (0..9).map(|at| (format!("L{at}"), leave(&format!("L{at}"), "2026-11-03"))).collect::<Vec<_>>();
    put(&*cluster, &topic, &records.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>());
    let connector = Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect("a right connector");
    let worker = Worker::alone(&settings(shop.folder.path()), tokio::runtime::Handle::current());
    let of_source = shop.source.clone();
    let pulled = tokio::task::spawn_blocking(move || {
        let mut rows = 0;
        // `put` begins at 2026-11-18T11:06:40 and adds a millisecond a record.
        let (from, to) = ("2026-11-18T19:06:40.002+08:00", "2026-11-18T11:06:40.005Z");
        let mut source = source::connect(&connector, &of_source, &worker).expect("right settings");
        let mut pull = |from| {
            let span = Span { from, to, after: &[] };
            source.pull_span(&connector.tables[0], &span, &mut |batch, _| {
                rows += batch.num_rows();
                Ok(())
            })
        };
        let told = [from, "yesterday"].map(|from| pull(from).err().map(|error| error.to_string()));
        (rows, told)
    });
    let (rows, told) = pulled.await.expect("reads");
    let refused = "`yesterday` is no time such as 2026-09-01T00:00:00+08:00".to_string();
    assert_eq!((rows, told), (3, [None, Some(refused)]));
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

/// A registry as tests need it: its schemas by id, and how often it was asked.
async fn registry(schemas: Vec<(u32, String)>) -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let (schemas, count) = (Arc::new(schemas), asked.clone());
    let answer = move |axum::extract::Path(id): axum::extract::Path<u32>| {
        count.fetch_add(1, Ordering::Relaxed);
        let found = schemas.iter().find(|(known, _)| *known == id);
        let body = found.map(|(_, schema)| axum::Json(serde_json::json!({ "schema": schema })));
        async move { body.ok_or(axum::http::StatusCode::NOT_FOUND) }
    };
    let router = axum::Router::new().route("/schemas/ids/{id}", axum::routing::get(answer));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let url = format!("http://{}/", listener.local_addr().expect("is bound"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

/// The zero, the id, and the parts of an Avro body: texts with their length, and bytes as they are.
fn avro(id: u32, parts: &[Result<&str, &[u8]>]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(id.to_be_bytes());
    for part in parts {
        match part {
            Ok(text) => {
                bytes.push(u8::try_from(text.len() * 2).expect("a short text"));
                bytes.extend(text.as_bytes());
            }
            Err(raw) => bytes.extend(*raw),
        }
    }
    bytes
}

/// Debezium's envelope of a leave with a decimal, `new` being more fields.
fn envelope(new: &str) -> String {
    let row = r#"{"type":"record","name":"Value","fields":[{"name":"id","type":"string"},
        {"name":"who","type":{"type":"record","name":"Who","fields":[{"name":"no","type":"string"}]}},
        {"name":"to","type":["null","string"],"default":null},
        {"name":"sum","type":{"type":"bytes","logicalType":"decimal","precision":30,"scale":2}}NEW]}"#;
    let row = row.replace("NEW", new);
    format!(
        r#"{{"type":"record","name":"Envelope","fields":[{{"name":"before","type":["null",{row}],"default":null}},
        {{"name":"after","type":["null","Value"],"default":null}},{{"name":"op","type":"string"}},
        {{"name":"ts_ms","type":["null","long"],"default":null}}]}}"#
    )
}

/// The connector for such a topic; only a leave with all digits of its decimal is approved.
fn in_avro(shop: &Shop) {
    let file = shop.path("connectors/leaves/connector.toml");
    let connector = std::fs::read_to_string(&file).expect("reads");
    let connector = connector.replace("topic =", "encoding = \"avro\"\ntopic =") + "SJJE = \"/sum\"";
    std::fs::write(&file, connector).expect("writes");
    let mapping = MAPPING.replace("'approved'", "CASE WHEN \"SJJE\" = '123456789012345678.90' THEN 'approved' END");
    std::fs::write(shop.path("connectors/leaves/leave_request.sql"), mapping).expect("writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_in_avro_are_read_by_the_schemas_of_a_registry() {
    let Some((mut shop, cluster, topic)) = shop("debezium", 1) else { return };
    let key = r#"{"type":"record","name":"Key","fields":[{"name":"id","type":"string"}]}"#;
    let (url, asked) = registry(vec![
        (1, key.to_string()),
        (2, envelope("")),
        (3, envelope(r#",{"name":"new","type":["null","string"],"default":null}"#)),
    ])
    .await;
    in_avro(&shop);
    let refused = Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect("loads").check_source(
        "oa",
        &shop.source,
        &settings(shop.folder.path()),
        chrono_tz::Tz::UTC,
    );
    assert!(refused.expect_err("has no registry").message.contains("needs `registry`"));
    shop.source.registry = Some(url);

    let number = 12_345_678_901_234_567_890_i128.to_be_bytes();
    let sum: &[u8] = &[&[18], &number[7..]].concat();
    let l1: [Result<&str, &[u8]>; 5] = [Ok("L1"), Ok("0026"), Err(&[2]), Ok("2026-11-03"), Err(sum)];
    let values = [
        avro(2, &[&[Err(&[0, 2][..])], &l1[..], &[Ok("c"), Err(&[0])]].concat()),
        avro(3, &[&[Err(&[0, 2][..])], &l1[..], &[Err(&[2]), Ok("more"), Ok("u"), Err(&[0])]].concat()),
        avro(2, &[&[Err(&[2][..])], &l1[..], &[Err(&[0]), Ok("d"), Err(&[0])]].concat()),
        Vec::new(),
        avro(9, &[Ok("x")]),
        avro(2, &[Err(&[0, 2, 4, b'L'])]),
        b"{}".to_vec(),
    ];
    let message = |(at, value): (usize, Vec<u8>)| Message {
        key: avro(1, &[Ok("L1")]).into(),
        value: value.into(),
        timestamp_ms: 1_795_000_000_000 + at as i64,
    };
    cluster.append(&topic, values.into_iter().enumerate().map(message).collect()).expect("appends");
    assert_eq!(shop.pull().await, (3, 3, 0, None));
    assert_eq!(asked.load(Ordering::Relaxed), 4, "each schema is asked for once");
    shop.land().await;
    shop.check(
        "SELECT leave_id, end_at, op, approval_status FROM leave ORDER BY kafka_offset",
        expect![[r#"
        L1 2026-11-03T15:59:59Z I approved
        L1 2026-11-03T15:59:59Z U approved
        L1 2026-11-03T15:59:59Z D approved
    "#]],
    )
    .await;
    shop.check(
        "SELECT rule, message FROM letter ORDER BY message",
        expect![[r#"
        format no Avro record of a registry: it does not begin with 0 and a schema's id
        format not as schema 2 says: it is longer or shorter
        format schema 9: the registry does not know it
    "#]],
    )
    .await;

    shop.source.registry = Some("http://127.0.0.1:9".into());
    let message = Message { key: "".into(), value: avro(2, &[]).into(), timestamp_ms: 0 };
    cluster.append(&topic, vec![message]).expect("appends");
    let (records, letters, _, error) = shop.pull().await;
    let error = error.expect("nobody is there");
    assert!((records, letters) == (0, 0) && error.starts_with("the schema registry http://127.0.0.1:9: "), "{error}");
}
