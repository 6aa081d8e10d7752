//! However messages are cut into appends, and records into polls, the partitions hold the same.

use std::collections::BTreeMap;

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::{
    conformance::{new_topic, read_all},
    log::{Log, Message},
};

const CASES: u32 = 12;

pub(super) fn batches_do_not_matter(log: &dyn Log) {
    let messages = prop::collection::vec((0..20u8, prop::collection::vec(any::<u8>(), 0..80)), 1..120);
    let cuts = prop::collection::vec(1..40usize, 1..8);
    // A fixed seed: a run takes as long each time, and a failure comes back.
    let mut runner = TestRunner::new_with_rng(
        Config { cases: CASES, failure_persistence: None, ..Config::default() },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    runner
        .run(&(messages, cuts, 1..50usize), |(messages, cuts, records_max)| {
            let messages: Vec<Message> = messages
                .into_iter()
                .map(|(key, value)| Message { key: vec![key].into(), value: value.into(), timestamp_ms: 1 })
                .collect();
            let (whole, cut) = (new_topic(log, 3), new_topic(log, 3));
            log.append(&whole, messages.clone()).unwrap();
            let mut rest = messages;
            for size in cuts.iter().cycle() {
                let later = rest.split_off(rest.len().min(*size));
                log.append(&cut, rest).unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(contents(log, &whole, 1000), contents(log, &cut, records_max));
            Ok(())
        })
        .unwrap();
}

type Contents = BTreeMap<i32, Vec<(i64, Vec<u8>, Vec<u8>)>>;

fn contents(log: &dyn Log, topic: &str, records_max: usize) -> Contents {
    let records = read_all(log, topic, records_max).into_iter();
    let plain = |record: super::Read| (record.offset, record.key, record.value);
    records.map(|(partition, records)| (partition, records.into_iter().map(plain).collect())).collect()
}
