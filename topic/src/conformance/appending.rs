//! What `ensure_topic` and `append` promise.

use crate::{
    conformance::{message, new_topic, position, read_all},
    error::ErrorKind,
    log::{Extent, Log, Message, Subscription},
    partition::partition,
    watermark::Watermark,
};

pub(super) fn a_topic_is_made_once(log: &dyn Log) {
    let topic = new_topic(log, 3);
    assert_eq!(log.ensure_topic(&topic, 3).unwrap(), 3);
    assert_eq!(log.ensure_topic(&topic, 5).unwrap(), 3, "a topic keeps its partitions");
    assert!(log.topics().unwrap().contains(&topic));
    let empty = |partition| Extent { partition, low: 0, high: 0 };
    assert_eq!(log.extents(&topic).unwrap(), [empty(0), empty(1), empty(2)]);
    for (name, partitions) in [("", 1), ("a/b", 1), ("学", 1), (".", 1), ("quad.test", 0), ("quad.test", 5000)] {
        assert_eq!(log.ensure_topic(name, partitions).unwrap_err().kind, ErrorKind::Settings, "{name:?}");
    }
}

pub(super) fn unknown_topics_are_told(log: &dyn Log) {
    let kind = |result: Result<(), crate::Error>| result.unwrap_err().kind;
    assert_eq!(kind(log.append("quad.test.none", vec![message("k", "v")]).map(|_| ())), ErrorKind::UnknownTopic);
    assert_eq!(kind(log.extents("quad.test.none").map(|_| ())), ErrorKind::UnknownTopic);
    let unknown = Subscription::Assign(vec![position("quad.test.none", 0, 0)]);
    assert_eq!(kind(log.consumer(unknown).map(|_| ())), ErrorKind::UnknownTopic);
    let topic = new_topic(log, 2);
    for partition in [2, -1] {
        let unknown = Subscription::Assign(vec![position(&topic, partition, 0)]);
        assert_eq!(kind(log.consumer(unknown).map(|_| ())), ErrorKind::UnknownTopic);
    }
}

pub(super) fn offsets_are_contiguous(log: &dyn Log) {
    let topic = new_topic(log, 4);
    assert!(log.append(&topic, Vec::new()).unwrap().is_empty());
    let mut appended = Watermark::default();
    for batch in 0..20 {
        let messages = (0..batch * 7).map(|at| message(&format!("k{at}"), format!("{batch}"))).collect();
        appended.extend(&log.append(&topic, messages).unwrap());
    }
    let ends = log.extents(&topic).unwrap().into_iter().map(|extent| (extent.partition, extent.high));
    assert_eq!(appended, Watermark::of(&topic, ends), "an append says where it ends");
    let partitions = read_all(log, &topic, 1000);
    assert_eq!(partitions.values().map(Vec::len).sum::<usize>(), (0..20).map(|batch| batch * 7).sum::<usize>());
    assert_eq!(partitions.len(), 4, "every partition got something");
}

pub(super) fn a_key_keeps_its_partition_and_order(log: &dyn Log) {
    let topic = new_topic(log, 5);
    for batch in 0..10 {
        let messages =
            (0..200).map(|at| message(&format!("key-{}", at % 23), format!("{}", batch * 200 + at))).collect();
        log.append(&topic, messages).unwrap();
    }
    for (number, records) in read_all(log, &topic, 1000) {
        let mut last = std::collections::HashMap::new();
        for record in records {
            assert_eq!(number, partition(&record.key, 5));
            assert_eq!(record.timestamp_ms, 1_795_000_000_000);
            let value: u32 = String::from_utf8(record.value).unwrap().parse().unwrap();
            let before = last.insert(record.key, value);
            assert!(before.is_none_or(|before| before < value));
        }
    }
}

pub(super) fn concurrent_appends(log: &dyn Log) {
    const THREADS: usize = 8;
    const BATCHES: usize = 25;
    let topic = new_topic(log, 3);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let topic = &topic;
            scope.spawn(move || {
                for batch in 0..BATCHES {
                    let each = |at: usize| message(&format!("t{thread}"), format!("{}", batch * 10 + at));
                    log.append(topic, (0..10).map(each).collect()).unwrap();
                }
            });
        }
    });
    let mut records: Vec<_> = read_all(log, &topic, 1000).into_values().flatten().collect();
    assert_eq!(records.len(), THREADS * BATCHES * 10);
    records.sort_by_key(|record| (record.key.clone(), record.offset));
    for own in records.chunk_by(|one, other| one.key == other.key) {
        let values: Vec<usize> =
            own.iter().map(|record| std::str::from_utf8(&record.value).unwrap().parse().unwrap()).collect();
        assert_eq!(values, (0..BATCHES * 10).collect::<Vec<_>>(), "a thread's appends are in order");
    }
}

pub(super) fn large_messages(log: &dyn Log) {
    let topic = new_topic(log, 2);
    // Not compressible, so that no limit is met only after compression.
    let mut state = 7_u64;
    let mut noise = |bytes: usize| -> Vec<u8> {
        let step = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(step).take(bytes).collect()
    };
    let large = Message { key: "large".into(), value: noise(1_000_000 - 5).into(), timestamp_ms: 1_795_000_000_000 };
    let small = message("small", "s");
    log.append(&topic, vec![small.clone(), large.clone(), small.clone()]).unwrap();
    let mut larger = large.clone();
    larger.value = noise(1_000_000).into();
    let error = log.append(&topic, vec![small, larger]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge);
    let records: Vec<_> = read_all(log, &topic, 10).into_values().flatten().collect();
    assert_eq!(records.len(), 3, "nothing of the refused append was written");
    assert!(records.iter().any(|record| record.value == large.value));
}

pub(super) fn any_bytes(log: &dyn Log) {
    let topic = new_topic(log, 1);
    let bytes: Vec<u8> = (0..=255).collect();
    let pairs: [(&[u8], &[u8]); 4] = [(b"", b""), (b"", b"v"), (b"k", b""), (&bytes, &bytes)];
    let each = |(key, value): (&[u8], &[u8])| Message {
        key: key.to_vec().into(),
        value: value.to_vec().into(),
        timestamp_ms: 1,
    };
    log.append(&topic, pairs.map(each).into()).unwrap();
    let records = read_all(log, &topic, 10).remove(&0).unwrap();
    assert_eq!(records.len(), 4);
    for (record, (key, value)) in records.iter().zip(pairs) {
        assert_eq!((&record.key[..], &record.value[..], record.timestamp_ms), (key, value, 1));
    }
}
