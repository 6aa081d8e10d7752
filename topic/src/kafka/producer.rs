//! Appends to Kafka with the idempotent producer.
//!
//! Enters: messages with their partitions. Leaves: one answer for all of them, when the broker has acknowledged or
//! refused every one. What never happens: a message still on its way after the answer, or a buffer without a bound.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, RwLock},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Message as _},
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};

use crate::{
    error::{Error, ErrorKind, Result},
    kafka::client,
    log::Message,
    partition::partition,
    watermark::Watermark,
};

/// How long to wait for room in the buffer before looking again; acknowledgements make room.
const FULL_WAIT: Duration = Duration::from_millis(2);

/// The shared producer. A fatal error of librdkafka ends one, and the next append begins with a new one.
pub(crate) struct Producer {
    config: ClientConfig,
    append_timeout: Duration,
    current: RwLock<Option<Arc<Current>>>,
}

type Current = ThreadedProducer<Deliveries>;

impl Producer {
    pub fn new(config: ClientConfig, append_timeout: Duration) -> Self {
        Self { config, append_timeout, current: RwLock::new(None) }
    }

    /// Appends the messages to the topic, which has `partitions` partitions.
    pub fn append(&self, topic: &str, partitions: i32, messages: Vec<Message>) -> Result<Watermark> {
        let producer = self.current()?;
        let append = Arc::new(Append::default());
        let mut handed_over = 0;
        let mut refused = None;
        for message in messages {
            let record = BaseRecord::with_opaque_to(topic, append.clone())
                .partition(partition(&message.key, partitions))
                .key(&message.key[..])
                .payload(&message.value[..])
                .timestamp(message.timestamp_ms);
            if let Err(error) = self.send(&producer, record) {
                refused = Some(error);
                break;
            }
            handed_over += 1;
        }
        // Wait for all of them also after an error: nothing may arrive once the caller has its answer.
        let (next, failed) = append.wait(handed_over);
        match refused.or(failed) {
            None => Ok(Watermark::of(topic, next)),
            Some(error) if self.retire(&producer) => {
                let message = format!("could not append to {topic}: the producer had to be given up");
                Err(Error::with_source(ErrorKind::Unreachable, message, error))
            }
            Some(error) => Err(client::error(format!("could not append to {topic}"), error)),
        }
    }

    fn send<'a>(
        &self,
        producer: &Current,
        mut record: BaseRecord<'a, [u8], [u8], Arc<Append>>,
    ) -> std::result::Result<(), KafkaError> {
        let deadline = Instant::now() + self.append_timeout;
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    std::thread::sleep(FULL_WAIT);
                    record = back;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    fn current(&self) -> Result<Arc<Current>> {
        if let Some(producer) = &*self.current.read().expect("no thread panics with the producer") {
            return Ok(producer.clone());
        }
        let mut current = self.current.write().expect("no thread panics with the producer");
        if let Some(producer) = &*current {
            return Ok(producer.clone());
        }
        let producer = Current::from_config_and_context(&self.config, Deliveries)
            .map_err(|error| client::error("could not make a producer", error))?;
        Ok(current.insert(Arc::new(producer)).clone())
    }

    /// Puts the producer out of use if it has failed for good, and says whether it has.
    fn retire(&self, producer: &Arc<Current>) -> bool {
        let Some((code, reason)) = producer.client().fatal_error() else { return false };
        tracing::warn!(%code, reason, "the Kafka producer has failed; the next append begins with a new one");
        let mut current = self.current.write().expect("no thread panics with the producer");
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, producer)) {
            *current = None;
        }
        true
    }
}

/// Counts the answers to one append.
#[derive(Default)]
struct Append {
    answers: Mutex<Answers>,
    all_there: Condvar,
}

#[derive(Default)]
struct Answers {
    count: usize,
    /// The next offset by partition.
    next: BTreeMap<i32, i64>,
    /// Zero until the appending thread has handed everything over.
    expected: usize,
    error: Option<KafkaError>,
}

impl Append {
    /// Takes the place that a message got, or why it got none.
    fn answer(&self, answer: std::result::Result<(i32, i64), KafkaError>) {
        let mut answers = self.answers.lock().expect("no thread panics while it counts");
        answers.count += 1;
        match answer {
            Ok((partition, offset)) => {
                let next = answers.next.entry(partition).or_default();
                *next = (offset + 1).max(*next);
            }
            Err(error) => _ = answers.error.get_or_insert(error),
        }
        if answers.count == answers.expected {
            self.all_there.notify_all();
        }
    }

    /// Waits for `expected` answers and returns the offsets behind them and the first error. librdkafka answers for every message it took within
    /// the delivery timeout, so this ends.
    fn wait(&self, expected: usize) -> (BTreeMap<i32, i64>, Option<KafkaError>) {
        let mut answers = self.answers.lock().expect("no thread panics while it counts");
        answers.expected = expected;
        while answers.count < expected {
            answers = self.all_there.wait(answers).expect("no thread panics while it counts");
        }
        (std::mem::take(&mut answers.next), answers.error.take())
    }
}

/// Passes each acknowledgement to the append it belongs to.
struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::log_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Append>;

    fn delivery(&self, result: &DeliveryResult<'_>, append: Self::DeliveryOpaque) {
        append.answer(match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        });
    }
}
