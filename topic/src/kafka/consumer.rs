//! Reads from Kafka: exactly given positions, or a group's share of the partitions from where the caller says.
//!
//! Enters: a subscription. Leaves: records, borrowed from librdkafka's buffers. A partition always begins at an
//! explicit offset; the broker's stored offsets are written as a hint and never read. What never happens: a silent jump
//! to another offset, or a record of a partition that was taken away, delivered after its revocation.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::BorrowedMessage,
    types::RDKafkaRespErr,
};

use crate::{
    error::{Error, ErrorKind, Result},
    kafka::client,
    log::{Consumer, Position, Record, Start, start_positions},
};

type Partition = (String, i32);

pub(crate) struct KafkaConsumer {
    consumer: BaseConsumer<Member>,
    is_group: bool,
    request_timeout: Duration,
    /// An error met after records had been delivered; the next poll returns it.
    failed: Option<Error>,
    /// Partitions that were reported as out of range.
    stopped: BTreeSet<Partition>,
}

impl KafkaConsumer {
    /// A consumer of exactly these positions.
    pub fn assign(config: &ClientConfig, request_timeout: Duration, positions: &[Position]) -> Result<Self> {
        let this = Self::new(config, request_timeout, None)?;
        this.consumer
            .assign(&offsets(positions)?)
            .map_err(|error| client::error("could not assign partitions", error))?;
        this.member().add(positions);
        Ok(this)
    }

    /// A member of the group in the configuration.
    pub fn group(config: &ClientConfig, request_timeout: Duration, topics: &[String], start: Start) -> Result<Self> {
        let this = Self::new(config, request_timeout, Some(start))?;
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        this.consumer.subscribe(&topics).map_err(|error| client::error("could not subscribe to topics", error))?;
        Ok(this)
    }

    fn new(config: &ClientConfig, request_timeout: Duration, start: Option<Start>) -> Result<Self> {
        let is_group = start.is_some();
        let member = Member { start, state: Mutex::default(), is_revoking: AtomicBool::new(false) };
        let consumer = BaseConsumer::from_config_and_context(config, member)
            .map_err(|error| client::error("could not make a consumer", error))?;
        Ok(Self { consumer, is_group, request_timeout, failed: None, stopped: BTreeSet::new() })
    }

    fn member(&self) -> MutexGuard<'_, State> {
        self.consumer.context().state()
    }

    /// What a poll's error means: `None` when it passes by itself and polling simply goes on.
    fn judge(&mut self, error: KafkaError) -> Option<Error> {
        if let KafkaError::MessageConsumptionFatal(_) = error {
            return Some(client::error("could not stay in the group: this member has been replaced", error));
        }
        let code = error.rdkafka_error_code()?;
        match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => Some(self.out_of_range(error)),
            RDKafkaErrorCode::AllBrokersDown => Some(client::error("could not reach any Kafka broker", error)),
            // librdkafka reconnects, and reports AllBrokersDown when there is nobody left.
            _ if client::kind(code) == ErrorKind::Unreachable => None,
            _ => Some(client::error("could not read from Kafka", error)),
        }
    }

    /// librdkafka does not say which partition it means: it is the one whose position lies outside its extent.
    fn out_of_range(&mut self, error: KafkaError) -> Error {
        let positions: Vec<(Partition, i64)> =
            self.member().positions.iter().map(|(partition, offset)| (partition.clone(), *offset)).collect();
        for ((topic, partition), offset) in positions {
            if self.stopped.contains(&(topic.clone(), partition)) {
                continue;
            }
            match self.consumer.fetch_watermarks(&topic, partition, self.request_timeout) {
                Ok((low, high)) if !(low..=high).contains(&offset) => {
                    self.stopped.insert((topic.clone(), partition));
                    return Error::out_of_range(&topic, partition, offset, low, high);
                }
                Ok(_) => {}
                Err(error) => {
                    return client::error(format!("could not ask for the extent of {topic}/{partition}"), error);
                }
            }
        }
        client::error("could not read from Kafka: a partition has stopped; open a new consumer", error)
    }
}

impl Consumer for KafkaConsumer {
    fn poll(&mut self, records_max: usize, timeout: Duration, each: &mut dyn FnMut(Record<'_>)) -> Result<usize> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let deadline = Instant::now() + timeout;
        let mut ends = Ends::default();
        let mut wait = timeout;
        while ends.count < records_max && !self.consumer.context().is_revoking.load(Ordering::Relaxed) {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    ends.note(&message);
                    each(record(&message));
                    wait = Duration::ZERO;
                    continue;
                }
                Some(Err(error)) => {
                    // Judging needs the positions as they are now.
                    ends.publish(&mut self.member());
                    self.failed = self.judge(error);
                }
                None if ends.count > 0 => break,
                None => {}
            }
            // A failed start has to end this consumer: it must not read from anywhere else.
            let start_failed = self.member().failed.take();
            self.failed = start_failed.or(self.failed.take());
            wait = deadline.saturating_duration_since(Instant::now());
            if self.failed.is_some() || ends.count > 0 || wait.is_zero() {
                break;
            }
        }
        ends.publish(&mut self.member());
        match self.failed.take() {
            Some(error) if ends.count == 0 => Err(error),
            failed => {
                self.failed = failed;
                Ok(ends.count)
            }
        }
    }

    fn hint(&mut self, positions: &[Position]) -> Result<()> {
        if !self.is_group || positions.is_empty() {
            return Ok(());
        }
        self.consumer
            .commit(&offsets(positions)?, CommitMode::Async)
            .map_err(|error| client::error("could not hint at the group's offsets", error))
    }

    fn assignment(&self) -> Vec<Partition> {
        self.member().positions.keys().cloned().collect()
    }

    fn revoked(&self) -> Vec<Partition> {
        self.member().revoked.clone()
    }

    fn release(&mut self) -> Result<()> {
        let revoked = std::mem::take(&mut self.member().revoked);
        if revoked.is_empty() {
            return Ok(());
        }
        self.consumer.context().is_revoking.store(false, Ordering::Relaxed);
        self.consumer.context().unassign(&self.consumer, &revoked)
    }
}

impl Drop for KafkaConsumer {
    /// Closing waits until the group's partitions are given up: those that are still asked for, and the others as the
    /// group asks for them.
    fn drop(&mut self) {
        self.member().is_closing = true;
        if let Err(error) = self.release() {
            tracing::debug!(%error, "could not give up partitions while closing");
        }
    }
}

/// The ends of the partitions that one poll reads, gathered without a lock or an allocation for each record.
#[derive(Default)]
struct Ends {
    count: usize,
    /// Topic handle (for a cheap comparison), its name, partition, next offset.
    last: Option<(usize, String, i32, i64)>,
    earlier: BTreeMap<Partition, i64>,
}

impl Ends {
    fn note(&mut self, message: &BorrowedMessage<'_>) {
        self.count += 1;
        let (topic, partition, next) = (message.topic_ptr() as usize, message.partition(), message.offset() + 1);
        match &mut self.last {
            Some((last_topic, _, last_partition, end)) if *last_topic == topic && *last_partition == partition => {
                *end = next;
            }
            last => {
                if let Some((_, name, partition, end)) =
                    last.replace((topic, message.topic().to_owned(), partition, next))
                {
                    self.earlier.insert((name, partition), end);
                }
            }
        }
    }

    fn publish(&mut self, state: &mut State) {
        if let Some((_, name, partition, end)) = self.last.take() {
            self.earlier.insert((name, partition), end);
        }
        for (partition, end) in std::mem::take(&mut self.earlier) {
            if let Some(position) = state.positions.get_mut(&partition) {
                *position = end;
            }
        }
    }
}

fn record<'a>(message: &'a BorrowedMessage<'_>) -> Record<'a> {
    Record {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().unwrap_or_default(),
        value: message.payload().unwrap_or_default(),
    }
}

fn offsets(positions: &[Position]) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for Position { topic, partition, offset } in positions {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
            .map_err(|error| client::error(format!("could not start {topic}/{partition} at {offset}"), error))?;
    }
    Ok(list)
}

/// Answers the group's rebalances, which run inside the poll.
struct Member {
    start: Option<Start>,
    state: Mutex<State>,
    /// Whether `State::revoked` waits for a release: looked at for every record, hence not behind the lock.
    is_revoking: AtomicBool,
}

#[derive(Default)]
struct State {
    /// What the group wants back and has not got.
    revoked: Vec<Partition>,
    is_closing: bool,
    /// The assigned partitions and their next offsets.
    positions: BTreeMap<Partition, i64>,
    failed: Option<Error>,
}

impl State {
    fn add(&mut self, positions: &[Position]) {
        let position = |position: &Position| ((position.topic.clone(), position.partition), position.offset);
        self.positions.extend(positions.iter().map(position));
    }
}

impl Member {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the state")
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, partitions: &[Partition]) -> Result<()> {
        let start = self.start.as_ref().expect("only a group rebalances");
        let positions = start_positions(start, partitions)?;
        consumer
            .incremental_assign(&offsets(&positions)?)
            .map_err(|error| client::error("could not take over partitions", error))?;
        self.state().add(&positions);
        tracing::info!(partitions = positions.len(), "the group gave partitions");
        Ok(())
    }

    /// The group waits for the unassignment, which may come later: records on their way are finished first.
    fn revoked(&self, consumer: &BaseConsumer<Self>, mut partitions: Vec<Partition>) -> Result<()> {
        partitions.sort();
        tracing::info!(partitions = partitions.len(), lost = consumer.assignment_lost(), "the group takes partitions");
        let mut state = self.state();
        if state.is_closing {
            drop(state);
            return self.unassign(consumer, &partitions);
        }
        state.revoked = partitions;
        self.is_revoking.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn unassign(&self, consumer: &BaseConsumer<Self>, partitions: &[Partition]) -> Result<()> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            self.state().positions.remove(partition);
            list.add_partition(&partition.0, partition.1);
        }
        consumer.incremental_unassign(&list).map_err(|error| client::error("could not give up partitions", error))
    }
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::log_error(&error, reason);
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<Partition> =
            list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect();
        let outcome = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assigned(consumer, &partitions),
            _ => self.revoked(consumer, partitions),
        };
        if let Err(error) = outcome {
            self.state().failed = Some(error);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "could not hint at the group's offsets");
        }
    }
}
