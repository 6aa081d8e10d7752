//! The boundary: what every log can do, and nothing about how.
//!
//! Enters: messages to append, positions to read from. Leaves: records in offset order per partition. Calls block; an
//! async caller runs them on a thread of its own. What never happens: a call that waits without a limit, an `append`
//! that returns before its messages are durable, a copy of a payload while reading.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    embedded::Embedded,
    error::{Error, ErrorKind, Result},
    kafka::Kafka,
    settings::{Kind, Settings},
    watermark::Watermark,
};

/// A message to append. Its key decides its partition, see [`crate::partition`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub key: Bytes,
    pub value: Bytes,
    /// Milliseconds since 1970-01-01 UTC. Kafka's retention by age goes by it, so it should be the time of appending.
    pub timestamp_ms: i64,
}

/// A message at its place in the log, borrowed from the consumer for the length of one callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// The offset to read next in one partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// What a partition holds: the records at `low..high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub partition: i32,
    /// Offset of the oldest record still there; equal to `high` when there is none.
    pub low: i64,
    /// Offset that the next record will get.
    pub high: i64,
}

/// Says where newly assigned partitions start: one position for each, in any order.
///
/// Runs inside [`Consumer::poll`], on the polling thread, before any record of those partitions is delivered.
pub type Start = Box<dyn Fn(&[(String, i32)]) -> Result<Vec<Position>> + Send + Sync>;

/// What a consumer reads.
pub enum Subscription {
    /// Exactly these partitions, from exactly these offsets.
    Assign(Vec<Position>),
    /// This member's share of the topics' partitions, moved between the members of the group as they come and go. An
    /// embedded log has one member: it gets every partition.
    Group {
        group: String,
        /// Static membership: a restart under the same id within the session timeout moves no partition.
        instance: Option<String>,
        topics: Vec<String>,
        start: Start,
    },
}

/// A durable, partitioned, append-only log of topics.
pub trait Log: Send + Sync {
    /// Makes sure that the topic exists and answers how many partitions it really has, which is `partitions` only if
    /// this call created it. The count never changes afterwards: a key would move.
    ///
    /// # Errors
    /// `Settings` for an illegal name or count; `Unreachable`, `Denied`.
    fn ensure_topic(&self, topic: &str, partitions: i32) -> Result<i32>;

    /// Appends the messages, in their order within each key, and returns once every one of them is durable: the offsets
    /// behind them, or behind what others appended right after.
    ///
    /// # Errors
    /// `TooLarge` and `UnknownTopic`: nothing was appended. Any other: some messages may have been; appending all of
    /// them again leaves each key's last message the right one.
    fn append(&self, topic: &str, messages: Vec<Message>) -> Result<Watermark>;

    /// What each partition of the topic holds, ordered by partition.
    ///
    /// # Errors
    /// `UnknownTopic`, `Unreachable`.
    fn extents(&self, topic: &str) -> Result<Vec<Extent>>;

    /// The names of all topics, sorted, without the broker's own.
    ///
    /// # Errors
    /// `Unreachable`: the cheapest question to find that out.
    fn topics(&self) -> Result<Vec<String>>;

    /// A consumer of the subscription. It reads nothing before its first poll.
    ///
    /// # Errors
    /// `UnknownTopic` for a topic or partition that does not exist; `Settings` for a partition named twice.
    fn consumer(&self, subscription: Subscription) -> Result<Box<dyn Consumer>>;
}

/// Reads records; one thread at a time.
pub trait Consumer: Send {
    /// Calls `each` for up to `records_max` records and returns how many; waits up to `timeout` for the first and for
    /// none after it. Group consumers must poll at least every few minutes or lose their partitions.
    ///
    /// # Errors
    /// Only when no record was delivered by this call. `OffsetOutOfRange` is reported once for a partition, which then
    /// stays silent; `Unreachable` passes by itself: poll again; after `Fenced`, or an error of the group's
    /// [`Start`], open a new consumer.
    fn poll(&mut self, records_max: usize, timeout: Duration, each: &mut dyn FnMut(Record<'_>)) -> Result<usize>;

    /// Tells the group how far this consumer is, for lag monitors. A hint only: nothing in Quad ever starts from it,
    /// it may come late or be lost, and an assigned or embedded consumer ignores it.
    ///
    /// # Errors
    /// `Fenced`, `Unreachable`.
    fn hint(&mut self, positions: &[Position]) -> Result<()>;

    /// The partitions that this consumer reads now, sorted.
    fn assignment(&self) -> Vec<(String, i32)>;

    /// The partitions that the group wants back, sorted. They are still this consumer's: whoever keeps records of them
    /// finishes with these, then calls [`Consumer::release`]; until then polls deliver nothing.
    fn revoked(&self) -> Vec<(String, i32)> {
        Vec::new()
    }

    /// Gives up the partitions that the group wants back.
    ///
    /// # Errors
    /// `Other`: open a new consumer.
    fn release(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Opens the log that the settings name. The embedded log is opened at once; Kafka is first spoken to by the first call.
///
/// # Errors
/// `Settings`, and for an embedded log `Locked`, `Corrupt`, `Other` (the folder cannot be used).
pub fn open(settings: &Settings) -> Result<Arc<dyn Log>> {
    settings.check()?;
    Ok(match settings.kind {
        Kind::Embedded => Arc::new(Embedded::open(settings)?),
        Kind::Kafka => Arc::new(Kafka::open(settings)?),
    })
}

/// Kafka's rule for topic names, held for both so that a log can move from one to the other.
pub(crate) fn check_topic(topic: &str, partitions: i32) -> Result<()> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if topic.is_empty() || topic.len() > 249 || topic == "." || topic == ".." || !topic.bytes().all(legal) {
        let message = format!("topic name {topic:?} is not legal: 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'");
        return Err(Error::new(ErrorKind::Settings, message));
    }
    if !(1..=PARTITIONS_MAX).contains(&partitions) {
        let message = format!("topic {topic} cannot have {partitions} partitions: 1 to {PARTITIONS_MAX}");
        return Err(Error::new(ErrorKind::Settings, message));
    }
    Ok(())
}

/// Upper bound of a topic's partitions; far above what one university needs, and it bounds what a typo can create.
pub(crate) const PARTITIONS_MAX: i32 = 1024;

/// Refuses a message that no implementation may accept, before anything is appended.
pub(crate) fn check_sizes(topic: &str, messages: &[Message], bytes_max: usize) -> Result<()> {
    let size = |message: &Message| message.key.len() + message.value.len();
    match messages.iter().map(size).find(|&bytes| bytes > bytes_max) {
        Some(bytes) => Err(Error::too_large(topic, bytes, bytes_max)),
        None => Ok(()),
    }
}

/// Refuses a list of positions that names a partition twice or a negative offset.
pub(crate) fn check_positions(positions: &[Position]) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for Position { topic, partition, offset } in positions {
        if !seen.insert((topic.as_str(), *partition)) {
            let message = format!("{topic}/{partition} is assigned twice");
            return Err(Error::new(ErrorKind::Settings, message));
        }
        if *offset < 0 {
            let message = format!("{topic}/{partition} cannot start at offset {offset}");
            return Err(Error::new(ErrorKind::Settings, message));
        }
    }
    Ok(())
}

/// Asks `start` about the partitions and holds it to its contract: one position for each, none besides.
pub(crate) fn start_positions(start: &Start, partitions: &[(String, i32)]) -> Result<Vec<Position>> {
    let mut positions = start(partitions)?;
    check_positions(&positions)?;
    positions.sort();
    let mut wanted = partitions.to_vec();
    wanted.sort();
    let same = positions.len() == wanted.len()
        && positions
            .iter()
            .zip(&wanted)
            .all(|(position, (topic, partition))| position.topic == *topic && position.partition == *partition);
    if same {
        return Ok(positions);
    }
    let message = format!("start gave {} positions, not one for each of {} partitions", positions.len(), wanted.len());
    Err(Error::new(ErrorKind::Settings, message))
}
