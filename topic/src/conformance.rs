//! The suite that every log must pass: what [`crate::log`] promises, tried out.
//!
//! Enters: a log. Leaves: a panic with the broken promise. The embedded log always runs; Kafka runs when `QUAD_KAFKA`
//! names a broker (`HOST:PORT`), and is skipped aloud otherwise. Topics are new ones each time, so nothing needs a
//! clean broker.

mod appending;
mod batching;
mod reading;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    log::{Consumer, Log, Message, Position, Subscription, open},
    settings::{Kind, Settings},
};

/// Nothing in these tests takes this long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

type Case = fn(&dyn Log);

const CASES: [(&str, Case); 17] = [
    ("a topic is made once", appending::a_topic_is_made_once),
    ("unknown topics are told", appending::unknown_topics_are_told),
    ("offsets are contiguous", appending::offsets_are_contiguous),
    ("a key keeps its partition and order", appending::a_key_keeps_its_partition_and_order),
    ("concurrent appends", appending::concurrent_appends),
    ("large messages", appending::large_messages),
    ("any bytes", appending::any_bytes),
    ("read from anywhere", reading::from_anywhere),
    ("out of range", reading::out_of_range),
    ("an empty poll times out", reading::an_empty_poll_times_out),
    ("records_max holds", reading::records_max_holds),
    ("an append wakes the tail", reading::an_append_wakes_the_tail),
    ("consumers are independent", reading::consumers_are_independent),
    ("bad assignments are refused", reading::bad_assignments_are_refused),
    ("a group starts where it is told", reading::a_group_starts_where_it_is_told),
    ("a group without a start reads nothing", reading::a_group_without_a_start_reads_nothing),
    ("batches do not matter", batching::batches_do_not_matter),
];

fn check(log: &dyn Log) {
    for (name, case) in CASES {
        let begun = Instant::now();
        println!("{name}");
        case(log);
        println!("    {:?}", begun.elapsed());
    }
}

#[test]
fn embedded_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.embedded.path = folder.path().join("topic");
    // Small, so that records pass through memory, tables and compaction in a short test.
    settings.embedded.memtable_bytes = 1 << 20;
    check(&*open(&settings).unwrap());
}

#[test]
fn kafka_conforms() {
    let Some(settings) = kafka_settings() else { return };
    check(&*open(&settings).unwrap());
}

/// Settings for the broker in `QUAD_KAFKA`; says so when there is none.
pub(crate) fn kafka_settings() -> Option<Settings> {
    let Ok(brokers) = std::env::var("QUAD_KAFKA") else {
        println!("skipped: QUAD_KAFKA is not set");
        return None;
    };
    let mut settings = Settings { kind: Kind::Kafka, ..Settings::default() };
    settings.kafka.brokers = brokers;
    Some(settings)
}

/// A topic that nobody has used before.
pub(crate) fn new_topic(log: &dyn Log, partitions: i32) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let topic = format!("quad.test.{now}.{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    assert_eq!(log.ensure_topic(&topic, partitions).unwrap(), partitions);
    topic
}

pub(crate) fn message(key: &str, value: impl Into<String>) -> Message {
    Message { key: key.to_owned().into(), value: value.into().into(), timestamp_ms: 1_795_000_000_000 }
}

/// A record that outlives its poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

pub(crate) fn position(topic: &str, partition: i32, offset: i64) -> Position {
    Position { topic: topic.to_owned(), partition, offset }
}

pub(crate) fn assign(log: &dyn Log, positions: Vec<Position>) -> Box<dyn Consumer> {
    log.consumer(Subscription::Assign(positions)).unwrap()
}

/// Polls until `count` records have come, and makes sure that no more follow.
pub(crate) fn read(consumer: &mut dyn Consumer, count: usize, records_max: usize) -> Vec<Read> {
    let mut records = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while records.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} records came", records.len());
        poll(consumer, records_max, Duration::from_secs(1), &mut records);
    }
    poll(consumer, records_max, Duration::from_millis(20), &mut records);
    assert_eq!(records.len(), count, "more records came than were appended");
    records
}

pub(crate) fn poll(consumer: &mut dyn Consumer, records_max: usize, timeout: Duration, into: &mut Vec<Read>) {
    let before = into.len();
    let count = consumer
        .poll(records_max, timeout, &mut |record| {
            into.push(Read {
                partition: record.partition,
                offset: record.offset,
                timestamp_ms: record.timestamp_ms,
                key: record.key.to_vec(),
                value: record.value.to_vec(),
            });
        })
        .unwrap();
    assert_eq!(into.len() - before, count);
    assert!(count <= records_max);
}

/// Everything in the topic, by partition.
pub(crate) fn read_all(log: &dyn Log, topic: &str, records_max: usize) -> BTreeMap<i32, Vec<Read>> {
    let extents = log.extents(topic).unwrap();
    let count = extents.iter().map(|extent| extent.high - extent.low).sum::<i64>() as usize;
    let positions = extents.iter().map(|extent| position(topic, extent.partition, extent.low)).collect();
    let mut partitions: BTreeMap<i32, Vec<Read>> = BTreeMap::new();
    for record in read(&mut *assign(log, positions), count, records_max) {
        partitions.entry(record.partition).or_default().push(record);
    }
    for extent in extents {
        let offsets: Vec<i64> =
            partitions.get(&extent.partition).into_iter().flatten().map(|record| record.offset).collect();
        assert_eq!(offsets, (extent.low..extent.high).collect::<Vec<_>>(), "partition {}", extent.partition);
    }
    partitions
}

/// A log on a folder of its own, for tests of the embedded log.
pub(crate) fn embedded(path: &std::path::Path, change: impl FnOnce(&mut Settings)) -> Arc<dyn Log> {
    let mut settings = Settings::default();
    settings.embedded.path = path.to_owned();
    change(&mut settings);
    open(&settings).unwrap()
}
