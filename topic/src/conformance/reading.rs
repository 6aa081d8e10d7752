//! What consumers promise.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::{
    conformance::{PATIENCE, assign, message, new_topic, poll, position, read},
    error::ErrorKind,
    log::{Consumer, Log, Subscription},
};

/// A topic of one partition that holds the values 0 to `count`.
fn counted(log: &dyn Log, count: usize) -> String {
    let topic = new_topic(log, 1);
    // Two appends, so that an offset may lie within or between blocks.
    let half = count / 2;
    for range in [0..half, half..count] {
        log.append(&topic, range.map(|at| message("k", format!("{at}"))).collect()).unwrap();
    }
    topic
}

fn values(records: &[super::Read]) -> Vec<usize> {
    records.iter().map(|record| std::str::from_utf8(&record.value).unwrap().parse().unwrap()).collect()
}

pub(super) fn from_anywhere(log: &dyn Log) {
    let topic = counted(log, 100);
    for start in [0, 1, 49, 50, 51, 99, 100] {
        let mut consumer = assign(log, vec![position(&topic, 0, start)]);
        let records = read(&mut *consumer, 100 - start as usize, 1000);
        assert_eq!(values(&records), (start as usize..100).collect::<Vec<_>>(), "from {start}");
        assert!(records.iter().all(|record| values(std::slice::from_ref(record))[0] == record.offset as usize));
        assert_eq!(consumer.assignment(), [(topic.clone(), 0)]);
    }
}

pub(super) fn out_of_range(log: &dyn Log) {
    let (good, short) = (counted(log, 10), counted(log, 10));
    let mut consumer = assign(log, vec![position(&good, 0, 0), position(&short, 0, 11)]);
    let (mut records, mut errors) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + PATIENCE;
    while records.len() < 10 || errors.is_empty() {
        assert!(Instant::now() < deadline, "{} records and {errors:?} came", records.len());
        let before = records.len();
        match consumer.poll(100, Duration::from_millis(200), &mut |record| records.push(record.offset)) {
            Ok(count) => assert_eq!(records.len() - before, count),
            Err(error) => {
                assert_eq!(records.len(), before, "an error comes with no records");
                errors.push(error);
            }
        }
    }
    let wanted = ErrorKind::OffsetOutOfRange { topic: short.clone(), partition: 0, offset: 11, low: 0, high: 10 };
    assert_eq!(errors.iter().map(|error| &error.kind).collect::<Vec<_>>(), [&wanted]);
    // The stopped partition stays silent, also when it grows past the offset; the other one goes on.
    for topic in [&short, &good] {
        log.append(topic, (0..5).map(|_| message("k", "1")).collect()).unwrap();
    }
    let mut more = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while more.len() < 5 {
        assert!(Instant::now() < deadline);
        poll(&mut *consumer, 100, Duration::from_millis(200), &mut more);
    }
    poll(&mut *consumer, 100, Duration::from_millis(200), &mut more);
    assert_eq!(more.iter().map(|record| record.offset).collect::<Vec<_>>(), [10, 11, 12, 13, 14]);
}

pub(super) fn an_empty_poll_times_out(log: &dyn Log) {
    let topic = counted(log, 2);
    let mut consumer = assign(log, vec![position(&topic, 0, 2)]);
    for timeout in [Duration::ZERO, Duration::from_millis(150)] {
        let begun = Instant::now();
        assert_eq!(consumer.poll(10, timeout, &mut |_| panic!("there is no record")).unwrap(), 0);
        let waited = begun.elapsed();
        assert!(waited >= timeout && waited < timeout + Duration::from_secs(5), "{timeout:?}: {waited:?}");
    }
    assert_eq!(assign(log, Vec::new()).poll(1, Duration::ZERO, &mut |_| ()).unwrap(), 0);
}

pub(super) fn records_max_holds(log: &dyn Log) {
    let topic = new_topic(log, 3);
    log.append(&topic, (0..300).map(|at| message(&format!("{at}"), "v")).collect()).unwrap();
    let mut consumer = assign(log, (0..3).map(|partition| position(&topic, partition, 0)).collect());
    let records = read(&mut *consumer, 300, 7);
    let mut seen: Vec<_> = records.iter().map(|record| (record.partition, record.offset)).collect();
    for partition in 0..3 {
        let offsets: Vec<i64> = seen.iter().filter(|seen| seen.0 == partition).map(|seen| seen.1).collect();
        assert_eq!(offsets, (0..offsets.len() as i64).collect::<Vec<_>>());
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 300);
}

pub(super) fn an_append_wakes_the_tail(log: &dyn Log) {
    let topic = counted(log, 2);
    let mut consumer = assign(log, vec![position(&topic, 0, 1)]);
    // The first read may have to connect; what counts is the wait at the tail.
    read(&mut *consumer, 1, 10);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let mut records = Vec::new();
            poll(&mut *consumer, 10, PATIENCE, &mut records);
            (records.len(), Instant::now())
        });
        log.append(&topic, vec![message("k", "2")]).unwrap();
        let appended = Instant::now();
        let (count, woken) = waiting.join().unwrap();
        assert_eq!(count, 1);
        assert!(woken.saturating_duration_since(appended) < Duration::from_secs(5), "the poll slept on");
    });
}

pub(super) fn consumers_are_independent(log: &dyn Log) {
    let topic = counted(log, 50);
    let mut ahead = assign(log, vec![position(&topic, 0, 0)]);
    let mut behind = assign(log, vec![position(&topic, 0, 0)]);
    assert_eq!(values(&read(&mut *ahead, 50, 100)), (0..50).collect::<Vec<_>>());
    assert_eq!(values(&read(&mut *behind, 50, 3)), (0..50).collect::<Vec<_>>());
    let mut late = assign(log, vec![position(&topic, 0, 25)]);
    assert_eq!(values(&read(&mut *late, 25, 100)), (25..50).collect::<Vec<_>>());
}

pub(super) fn bad_assignments_are_refused(log: &dyn Log) {
    let topic = counted(log, 2);
    for positions in [vec![position(&topic, 0, 0), position(&topic, 0, 1)], vec![position(&topic, 0, -1)]] {
        let refused = log.consumer(Subscription::Assign(positions)).map(|_| ()).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Settings);
    }
}

pub(super) fn a_group_starts_where_it_is_told(log: &dyn Log) {
    let topic = new_topic(log, 4);
    log.append(&topic, (0..400).map(|at| message(&format!("{at}"), format!("{at}"))).collect()).unwrap();
    let skipped: i64 = 4 * 3;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let remember = asked.clone();
    let mut consumer = log
        .consumer(Subscription::Group {
            group: format!("{topic}.group"),
            instance: None,
            topics: vec![topic.clone()],
            start: Box::new(move |partitions| {
                remember.lock().unwrap().extend(partitions.iter().cloned());
                Ok(partitions.iter().map(|(topic, partition)| position(topic, *partition, 3)).collect())
            }),
        })
        .unwrap();
    let records = read(&mut *consumer, 400 - skipped as usize, 1000);
    assert!(records.iter().all(|record| record.offset >= 3));
    let all: Vec<_> = (0..4).map(|partition| (topic.clone(), partition)).collect();
    assert_eq!(consumer.assignment(), all);
    let mut asked = asked.lock().unwrap().clone();
    asked.sort();
    assert_eq!(asked, all, "each partition is asked about once");
    consumer.hint(&[position(&topic, 0, 5)]).unwrap();
}

pub(super) fn a_group_without_a_start_reads_nothing(log: &dyn Log) {
    let topic = counted(log, 10);
    let subscription = Subscription::Group {
        group: format!("{topic}.group"),
        instance: None,
        topics: vec![topic],
        start: Box::new(|_| Ok(Vec::new())),
    };
    // Whether it is told at once or by a poll depends on when partitions are given.
    let mut consumer = match log.consumer(subscription) {
        Ok(consumer) => consumer,
        Err(error) => return assert_eq!(error.kind, ErrorKind::Settings),
    };
    assert_eq!(first_error(&mut *consumer).kind, ErrorKind::Settings);
}

fn first_error(consumer: &mut dyn Consumer) -> crate::Error {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no error came");
        match consumer.poll(10, Duration::from_millis(200), &mut |_| panic!("nothing may be read")) {
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}
