//! What only Kafka can be asked: groups that share and hand over partitions, removed records, absent brokers.
//!
//! All but the last tests need a broker: see [`kafka_settings`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use expect_test::expect;
use futures::executor::block_on;
use rdkafka::{
    Offset, TopicPartitionList,
    admin::AdminOptions,
    config::FromClientConfig,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    types::RDKafkaErrorCode,
};

use crate::{
    conformance::{PATIENCE, assign, kafka_settings, message, new_topic, position, read},
    error::ErrorKind,
    kafka::{Kafka, client},
    log::{Consumer, Log, Subscription, open},
    settings::{Kind, Settings},
};

const POLL: Duration = Duration::from_millis(50);

/// What a landing keeps: where each partition goes on, and what was read.
#[derive(Clone, Default)]
struct Landed(Arc<Mutex<BTreeMap<i32, Vec<i64>>>>);

impl Landed {
    fn join(&self, log: &dyn Log, topic: &str, instance: Option<&str>) -> Box<dyn Consumer> {
        let landed = self.clone();
        log.consumer(Subscription::Group {
            group: format!("{topic}.group"),
            instance: instance.map(str::to_owned),
            topics: vec![topic.to_owned()],
            start: Box::new(move |partitions| {
                let landed = landed.0.lock().unwrap();
                let next =
                    |partition| landed.get(partition).and_then(|offsets| offsets.last()).map_or(0, |last| last + 1);
                Ok(partitions.iter().map(|(topic, partition)| position(topic, *partition, next(partition))).collect())
            }),
        })
        .unwrap()
    }

    fn poll(&self, consumer: &mut dyn Consumer) {
        let each = &mut |record: crate::Record<'_>| {
            self.0.lock().unwrap().entry(record.partition).or_default().push(record.offset);
        };
        consumer.poll(10, POLL, each).unwrap();
        let revoked = consumer.revoked();
        assert!(revoked.iter().all(|partition| consumer.assignment().contains(partition)), "not before the release");
        consumer.release().unwrap();
        assert!(!revoked.iter().any(|partition| consumer.assignment().contains(partition)), "given up");
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().values().map(Vec::len).sum()
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
    }
}

#[test]
fn a_group_hands_partitions_over_exactly() {
    let Some(settings) = kafka_settings() else { return };
    let log = open(&settings).unwrap();
    let topic = new_topic(&*log, 4);
    let mut sent = 0;
    let mut send = || {
        log.append(&topic, (sent..sent + 100).map(|at| message(&format!("{at}"), "v")).collect()).unwrap();
        sent += 100;
        sent
    };
    let landed = Landed::default();
    send();
    let mut one = landed.join(&*log, &topic, None);
    until("one member gets all partitions", || {
        landed.poll(&mut *one);
        one.assignment().len() == 4
    });
    send();
    let mut two = landed.join(&*log, &topic, None);
    until("two members share the partitions", || {
        landed.poll(&mut *one);
        landed.poll(&mut *two);
        (one.assignment().len(), two.assignment().len()) == (2, 2)
    });
    send();
    drop(one);
    let sent = send();
    until("the one that stays gets and reads everything", || {
        landed.poll(&mut *two);
        two.assignment().len() == 4 && landed.count() >= sent
    });
    landed.poll(&mut *two);
    for extent in log.extents(&topic).unwrap() {
        assert_eq!(landed.0.lock().unwrap()[&extent.partition], (0..extent.high).collect::<Vec<_>>());
    }
}

#[test]
fn a_group_waits_until_partitions_are_released() {
    let Some(settings) = kafka_settings() else { return };
    let log = open(&settings).unwrap();
    let topic = new_topic(&*log, 4);
    let landed = Landed::default();
    let mut one = landed.join(&*log, &topic, None);
    until("one member gets all partitions", || {
        landed.poll(&mut *one);
        one.assignment().len() == 4
    });
    let mut two = landed.join(&*log, &topic, None);
    until("partitions are wanted back", || {
        landed.poll(&mut *two);
        one.poll(10, POLL, &mut |_| ()).unwrap();
        !one.revoked().is_empty()
    });
    log.append(&topic, (0..100).map(|at| message(&format!("{at}"), "v")).collect()).unwrap();
    for _ in 0..20 {
        landed.poll(&mut *two);
        assert_eq!(one.poll(10, POLL, &mut |_| panic!("nothing before the release")).unwrap(), 0);
        assert_eq!((two.assignment().len(), one.assignment().len()), (0, 4));
    }
    // A member that leaves without an answer gives up everything, and closing does not hang.
    drop(one);
    until("the other has all", || {
        landed.poll(&mut *two);
        two.assignment().len() == 4 && landed.count() == 100
    });
}

#[test]
fn a_static_member_keeps_its_partitions_and_its_name() {
    let Some(settings) = kafka_settings() else { return };
    let log = open(&settings).unwrap();
    let topic = new_topic(&*log, 4);
    let landed = Landed::default();
    let mut one = landed.join(&*log, &topic, Some("one"));
    let mut two = landed.join(&*log, &topic, Some("two"));
    until("two members share the partitions", || {
        landed.poll(&mut *one);
        landed.poll(&mut *two);
        (one.assignment().len(), two.assignment().len()) == (2, 2)
    });
    let (first, second) = (one.assignment(), two.assignment());
    drop(one);
    let mut one = landed.join(&*log, &topic, Some("one"));
    until("a restart gets its partitions back", || {
        landed.poll(&mut *two);
        landed.poll(&mut *one);
        assert_eq!(two.assignment(), second, "nobody else's partitions move");
        one.assignment() == first
    });
    let mut usurper = landed.join(&*log, &topic, Some("one"));
    let mut error = None;
    until("the member whose name was taken is told", || {
        landed.poll(&mut *usurper);
        error = one.poll(10, POLL, &mut |_| ()).err();
        error.is_some()
    });
    assert_eq!(error.unwrap().kind, ErrorKind::Fenced);
}

#[test]
fn a_hint_is_the_groups_committed_offset() {
    let Some(settings) = kafka_settings() else { return };
    let log = open(&settings).unwrap();
    let topic = new_topic(&*log, 1);
    log.append(&topic, vec![message("k", "v"), message("k", "v")]).unwrap();
    let landed = Landed::default();
    let mut consumer = landed.join(&*log, &topic, None);
    until("the records are read", || {
        landed.poll(&mut *consumer);
        landed.count() == 2
    });
    consumer.hint(&[position(&topic, 0, 2)]).unwrap();
    let config = client::consumer_config(&settings, &format!("{topic}.group"), None);
    let monitor = BaseConsumer::from_config(&config).unwrap();
    until("the hint is stored", || {
        landed.poll(&mut *consumer);
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic, 0);
        let committed = monitor.committed_offsets(list, PATIENCE).unwrap();
        committed.find_partition(&topic, 0).unwrap().offset() == Offset::Offset(2)
    });
    // And nobody starts from it.
    drop(consumer);
    landed.0.lock().unwrap().clear();
    let mut consumer = landed.join(&*log, &topic, None);
    until("the start decides", || {
        landed.poll(&mut *consumer);
        landed.count() == 2
    });
}

#[test]
fn removed_records_are_out_of_range() {
    let Some(settings) = kafka_settings() else { return };
    let log = Kafka::open(&settings).unwrap();
    let topic = new_topic(&log, 1);
    log.append(&topic, (0..10).map(|_| message("k", "v")).collect()).unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 0, Offset::Offset(4)).unwrap();
    block_on(log.admin().unwrap().delete_records(&list, &AdminOptions::new())).unwrap();
    assert_eq!(log.extents(&topic).unwrap()[0].low, 4);
    let mut consumer = assign(&log, vec![position(&topic, 0, 3)]);
    let mut error = None;
    until("the removal is told", || {
        error = consumer.poll(10, POLL, &mut |_| panic!("nothing may be read")).err();
        error.is_some()
    });
    let kind = ErrorKind::OffsetOutOfRange { topic: topic.clone(), partition: 0, offset: 3, low: 4, high: 10 };
    assert_eq!(error.unwrap().kind, kind);
    assert_eq!(read(&mut *assign(&log, vec![position(&topic, 0, 4)]), 6, 10)[0].offset, 4);
}

#[test]
fn an_absent_broker_is_unreachable() {
    let mut settings = Settings { kind: Kind::Kafka, ..Settings::default() };
    settings.kafka.brokers = "127.0.0.1:1".to_owned();
    settings.kafka.request_timeout_ms = 300;
    let log = open(&settings).unwrap();
    for error in [
        log.topics().unwrap_err(),
        log.ensure_topic("t", 1).unwrap_err(),
        log.append("t", vec![message("k", "v")]).unwrap_err(),
        log.consumer(Subscription::Assign(vec![position("t", 0, 0)])).map(|_| ()).unwrap_err(),
    ] {
        assert!(error.kind == ErrorKind::Unreachable && error.is_retryable(), "{error:?}");
    }
}

/// A broker that dies between two questions of `ensure_topic`.
#[test]
fn a_broker_lost_while_a_topic_is_made_is_unreachable() {
    let lost = KafkaError::AdminOp(RDKafkaErrorCode::BrokerTransportFailure);
    assert!(client::error("could not create topic t", lost).is_retryable());
}

#[test]
fn a_bad_property_is_told_without_its_value() {
    let mut settings = Settings { kind: Kind::Kafka, ..Settings::default() };
    settings.kafka.properties =
        [("sasl_mechanisms", "hush".to_owned()), ("no.such.key", "hush".to_owned())].into_iter().collect();
    let error = open(&settings).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Settings);
    expect![[r#"topic.kafka.properties."no.such.key" is not accepted by librdkafka: No such configuration property: "no.such.key""#]]
        .assert_eq(&error.to_string());
    assert!(!format!("{error:?}").contains("hush"));
}
