//! What only the embedded log promises: it survives kill -9, forgets on purpose only, and locks its folder.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use expect_test::expect;

use super::{retention::Retention, store::Store};
use crate::{
    conformance::{assign, embedded, message, new_topic, position, read, read_all},
    error::ErrorKind,
    log::{Consumer, Log, Message, open},
    partition::partition,
    settings::{EmbeddedSettings, Settings},
};

const CHILD_FOLDER: &str = "QUAD_TOPIC_TEST_CHILD";

/// The process that gets killed: appends from three threads and prints what was acknowledged. Does nothing unless
/// [`every_acknowledged_record_survives_kill_9`] starts it.
#[test]
fn child_appends_until_killed() {
    let Ok(folder) = std::env::var(CHILD_FOLDER) else { return };
    let log = child_log(Path::new(&folder));
    log.ensure_topic("t", 4).unwrap();
    let round = std::process::id();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let log = &log;
            scope.spawn(move || {
                for batch in 0.. {
                    let ids: Vec<String> =
                        (0..1 + batch % 40).map(|at| format!("{round}-{thread}-{batch}-{at}")).collect();
                    let padding = "p".repeat(batch * 37 % 900);
                    let messages = ids.iter().map(|id| message(id, format!("{id} {padding}"))).collect();
                    log.append("t", messages).unwrap();
                    // One write for each line: a line is whole or not there.
                    std::io::stdout().write_all(format!("ack {}\n", ids.join(" ")).as_bytes()).unwrap();
                }
            });
        }
    });
}

fn child_log(folder: &Path) -> Arc<dyn Log> {
    // Small, so that a kill also meets flushes and compactions.
    embedded(folder, |settings| settings.embedded.memtable_bytes = 1 << 20)
}

#[test]
fn every_acknowledged_record_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    for kill_after in [1, 300, 37, 1200, 2, 555] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "embedded::tests::child_appends_until_killed", "--nocapture"])
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut count = 0;
        for line in lines.map_while(Result::ok) {
            // The last line may have been cut by the kill: then its newline is missing and its ids are not complete.
            let Some(ids) = line.strip_prefix("ack ") else { continue };
            acknowledged.extend(ids.split(' ').map(str::to_owned));
            count += 1;
            if count == kill_after {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(count >= kill_after, "the child ended by itself");

        let log = child_log(folder.path());
        let mut found: HashMap<String, usize> = HashMap::new();
        for record in read_all(&*log, "t", 5000).into_values().flatten() {
            *found.entry(String::from_utf8(record.key).unwrap()).or_default() += 1;
        }
        assert!(found.values().all(|count| *count == 1), "nothing is there twice");
        let lost: Vec<_> = acknowledged.iter().filter(|id| !found.contains_key(*id)).collect();
        assert!(lost.is_empty(), "{} of {} are lost, e.g. {:?}", lost.len(), acknowledged.len(), lost[0]);
    }
}

#[test]
fn a_log_is_the_same_after_it_was_closed() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = |settings: &mut Settings| {
        settings.embedded.memtable_bytes = 1 << 20;
        settings.embedded.block_bytes_max = 8 << 10;
    };
    let log = embedded(folder.path(), tiny);
    let topic = new_topic(&*log, 3);
    for batch in 0..30 {
        let value = format!("{batch} {}", "v".repeat(batch * 29));
        log.append(&topic, (0..200).map(|at| message(&format!("{at}"), value.clone())).collect()).unwrap();
    }
    let before = read_all(&*log, &topic, 999);
    drop(log);
    let log = embedded(folder.path(), tiny);
    assert_eq!(read_all(&*log, &topic, 1000), before);
    log.append(&topic, vec![message("more", "v")]).unwrap();
    assert_eq!(read_all(&*log, &topic, 1000).values().map(Vec::len).sum::<usize>(), 6001);
}

#[test]
fn a_folder_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.embedded.path = folder.path().join("log");
    let log = open(&settings).unwrap();
    let error = open(&settings).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Locked);
    expect![["could not open the log in FOLDER: another process has it open"]]
        .assert_eq(&error.to_string().replace(settings.embedded.path.to_str().unwrap(), "FOLDER"));
    expect![[r#"only one process can open an embedded log: stop the other one, or use kind = "kafka""#]]
        .assert_eq(error.hint().unwrap());
    drop(log);
    open(&settings).unwrap();
    settings.embedded.path = "/proc/none".into();
    assert_eq!(open(&settings).err().unwrap().kind, ErrorKind::Other);
}

#[test]
fn a_full_volume_refuses_appends_until_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let log = embedded(folder.path(), |settings| settings.embedded.free_bytes_min = u64::MAX / 2);
    let topic = new_topic(&*log, 1);
    let error = log.append(&topic, vec![message("k", "v")]).unwrap_err();
    assert!(error.kind == ErrorKind::Full && error.is_retryable());
    drop(log);
    let log = embedded(folder.path(), |_| ());
    log.append(&topic, vec![message("k", "v")]).unwrap();
    assert_eq!(log.extents(&topic).unwrap()[0].high, 1);
}

/// A message for each of two partitions.
fn one_each(value: &str) -> Vec<Message> {
    let key = |wanted| (0..).map(|at| format!("k{at}")).find(|key| partition(key.as_bytes(), 2) == wanted);
    [0, 1].map(|wanted| message(&key(wanted).expect("some key is there"), value)).into()
}

/// Appends ten blocks of one record to each of two partitions and gives the log's parts.
fn ten_blocks(folder: &Path) -> (String, EmbeddedSettings) {
    let log = embedded(folder, |_| ());
    let topic = new_topic(&*log, 2);
    for at in 0..10 {
        log.append(&topic, one_each(&format!("{at}"))).unwrap();
    }
    assert!(log.extents(&topic).unwrap().iter().all(|extent| extent.high == 10));
    let mut settings = Settings::default();
    settings.embedded.path = folder.to_owned();
    (topic, settings.embedded)
}

fn lows(store: &Store, topic: &str) -> Vec<(i64, i64)> {
    store.topic(topic).unwrap().extents().iter().map(|extent| (extent.low, extent.high)).collect()
}

/// Removes all that may go at `now_ms`.
fn retain(store: &Arc<Store>, settings: &EmbeddedSettings, now_ms: u64) {
    let mut retention = Retention::new(store.clone(), settings);
    while retention.run(now_ms).unwrap() {}
}

const YEAR_2100_MS: u64 = 4_102_444_800_000;

#[test]
fn retention_by_age_moves_low_and_keeps_the_next_offset() {
    let folder = tempfile::tempdir().unwrap();
    let (topic, settings) = ten_blocks(folder.path());
    let store = Arc::new(Store::open(&settings).unwrap());
    retain(&store, &settings, 1_000_000_000_000);
    assert_eq!(lows(&store, &topic), [(0, 10); 2], "nothing is old in 2001");
    retain(&store, &settings, YEAR_2100_MS);
    assert_eq!(lows(&store, &topic), [(10, 10); 2]);
    drop(store);

    let log = embedded(folder.path(), |_| ());
    let mut consumer = assign(&*log, vec![position(&topic, 0, 9)]);
    let error = consumer.poll(10, Duration::ZERO, &mut |_| ()).unwrap_err();
    let kind = ErrorKind::OffsetOutOfRange { topic: topic.clone(), partition: 0, offset: 9, low: 10, high: 10 };
    assert_eq!(error.kind, kind);
    log.append(&topic, one_each("x")).unwrap();
    let offsets: Vec<_> = read_all(&*log, &topic, 10).into_values().flatten().map(|record| record.offset).collect();
    assert_eq!(offsets, [10, 10]);
}

#[test]
fn retention_by_size_removes_the_oldest_of_the_whole_log() {
    let folder = tempfile::tempdir().unwrap();
    let (topic, mut settings) = ten_blocks(folder.path());
    let store = Arc::new(Store::open(&settings).unwrap());
    let block_bytes = store.tail(0, 0).unwrap().bytes / 10;
    let times = || {
        let of = |partition| store.keys_from(0, partition, 0).map(|key| key.unwrap().appended_ms);
        let mut times: Vec<u64> = of(0).chain(of(1)).collect();
        times.sort_unstable();
        times
    };
    let before = times();
    settings.retention_bytes = block_bytes * 5;
    retain(&store, &settings, 1);
    assert_eq!(times(), before[15..], "the youngest five stay");
    let left: i64 = lows(&store, &topic).iter().map(|(low, high)| high - low).sum();
    assert_eq!(left, 5);

    settings.retention_bytes = 1;
    retain(&store, &settings, 1);
    assert_eq!(lows(&store, &topic), [(9, 10); 2], "the last block stays");
    drop(store);
    let log = embedded(folder.path(), |_| ());
    assert_eq!(read(&mut *assign(&*log, vec![position(&topic, 0, 9)]), 1, 10)[0].value, b"9");
}

#[test]
fn a_consumer_finishes_the_block_it_has_and_then_tells_of_the_removal() {
    let folder = tempfile::tempdir().unwrap();
    let (topic, settings) = ten_blocks(folder.path());
    let store = Arc::new(Store::open(&settings).unwrap());
    let mut consumer = super::EmbeddedConsumer::new(store.clone(), vec![position(&topic, 0, 0)]).unwrap();
    assert_eq!(consumer.poll(1, Duration::ZERO, &mut |_| ()).unwrap(), 1);
    retain(&store, &settings, YEAR_2100_MS);
    let error = consumer.poll(10, Duration::ZERO, &mut |_| ()).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::OffsetOutOfRange { offset: 1, low: 10, .. }), "{error:?}");
    assert_eq!(consumer.poll(10, Duration::ZERO, &mut |_| ()).unwrap(), 0, "told once");
}

#[test]
fn a_damaged_block_is_told_by_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (topic, settings) = ten_blocks(folder.path());
    let store = Arc::new(Store::open(&settings).unwrap());
    let (key, value) = store.block_with(0, 0, 4).unwrap().unwrap();
    let mut damaged = value.to_vec();
    *damaged.last_mut().unwrap() ^= 0xff;
    store.write(vec![(key[..].try_into().unwrap(), damaged)]).unwrap();
    let mut consumer = super::EmbeddedConsumer::new(store, vec![position(&topic, 0, 0)]).unwrap();
    assert_eq!(consumer.poll(10, Duration::ZERO, &mut |_| ()).unwrap(), 4, "what came before is delivered");
    let error = consumer.poll(10, Duration::ZERO, &mut |_| ()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    expect![["the block at offset 4 of partition 0 (topic no. 0) does not match its checksum"]]
        .assert_eq(&error.to_string());
}
