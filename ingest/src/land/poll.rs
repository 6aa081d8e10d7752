//! Reading the log: one thread polls and decodes, and hands chunks to the lanes.
//!
//! Records enter; chunks of decoded rows leave, each with the next offset of every partition it moves. The channels to
//! the lanes are short: a lane that is slow stops the polling, and so the log is the buffer. Partitions that the group
//! wants back are given up only after what was read of them has been committed.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use schemas::{BadRecord, Decoded, Decoder};
use tokio::sync::{mpsc, watch};
use topic::Consumer;

use super::lane::Order;
use super::lanes::Lanes;
use crate::error::Error;

/// Chunks a lane may have waiting.
pub const CHUNKS_WAITING_MAX: usize = 2;

/// Records of one chunk, beyond which it is handed over. With the channels this bounds what is decoded and not written:
/// three chunks a table.
const CHUNK_RECORDS_MAX: usize = 16 * 1024;

/// The age of a chunk at which it is handed over: long enough to make chunks that are worth a lane's turn.
const CHUNK_AGE_MAX: Duration = Duration::from_millis(20);

/// Records in one poll, and the most that a chunk grows beyond its limit.
const POLL_RECORDS_MAX: usize = 4096;

const POLL_TIMEOUT: Duration = CHUNK_AGE_MAX;

/// How often the group is told how far this process is, and stopped partitions are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Decoded rows of one table, in the order of the log.
#[derive(Debug, Default)]
pub struct Chunk {
    pub decoded: Vec<Decoded>,
    pub bad: Vec<BadRecord>,
    /// The next offset of each partition after this chunk.
    pub next_offsets: BTreeMap<i32, i64>,
}

/// The way into one lane: its decoder and its channel.
pub struct Inlet {
    topic: String,
    decoder: Decoder,
    next_offsets: BTreeMap<i32, i64>,
    records: usize,
    since: Instant,
    channel: mpsc::Sender<Order>,
}

impl Inlet {
    pub fn new(topic: String, decoder: Decoder, channel: mpsc::Sender<Order>) -> Self {
        Self { topic, decoder, next_offsets: BTreeMap::new(), records: 0, since: Instant::now(), channel }
    }

    /// Hands over what was decoded. `false` when the lane has ended.
    fn hand_over(&mut self) -> Result<bool, Error> {
        if self.records == 0 {
            return Ok(!self.channel.is_closed());
        }
        let (decoded, bad) = self.decoder.finish()?;
        let chunk = Chunk { decoded, bad, next_offsets: std::mem::take(&mut self.next_offsets) };
        self.records = 0;
        Ok(self.channel.blocking_send(Order::Rows(chunk)).is_ok())
    }
}

/// Polls until shutdown, or until a lane ends. What was read is committed before it returns from a shutdown.
///
/// # Errors
/// `Log` when the log fails; `Internal` when a lane has ended, which says why itself.
pub fn run(
    consumer: &mut dyn Consumer,
    mut inlets: Vec<Inlet>,
    lanes: &Lanes,
    shutdown: &watch::Receiver<bool>,
) -> Result<(), Error> {
    let by_topic: HashMap<String, usize> =
        inlets.iter().enumerate().map(|(at, inlet)| (inlet.topic.clone(), at)).collect();
    let mut current = 0;
    let mut failure: Option<schemas::Error> = None;
    let mut looked = Instant::now();
    while !*shutdown.borrow() {
        let polled = consumer.poll(POLL_RECORDS_MAX, POLL_TIMEOUT, &mut |record| {
            if inlets[current].topic != record.topic {
                match by_topic.get(record.topic) {
                    Some(&at) => current = at,
                    None => return,
                }
            }
            let inlet = &mut inlets[current];
            if inlet.records == 0 {
                inlet.since = Instant::now();
            }
            inlet.records += 1;
            inlet.next_offsets.insert(record.partition, record.offset + 1);
            if let Err(error) = inlet.decoder.push(record.partition, record.offset, record.value) {
                failure = Some(error);
            }
        });
        if let Some(error) = failure.take() {
            return Err(error.into());
        }
        match polled {
            Ok(_) => {}
            Err(error) if matches!(error.kind, topic::ErrorKind::OffsetOutOfRange { .. }) => lanes.stopped(&error),
            Err(error) => return Err(error.into()),
        }
        for inlet in &mut inlets {
            let is_due = inlet.records >= CHUNK_RECORDS_MAX || inlet.since.elapsed() >= CHUNK_AGE_MAX;
            if is_due && !inlet.hand_over()? {
                return Ok(());
            }
        }
        let revoked = consumer.revoked();
        if !revoked.is_empty() {
            hand_over(&mut inlets)?;
            lanes.give_up(&revoked)?;
            consumer.release()?;
        }
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            if let Err(error) = consumer.hint(&lanes.landed()) {
                // Only monitors read it.
                tracing::debug!(%error, "could not tell the group how far landing is");
            }
            lanes.look()?;
        }
    }
    hand_over(&mut inlets)?;
    lanes.give_up(&consumer.assignment())
}

fn hand_over(inlets: &mut [Inlet]) -> Result<(), Error> {
    for inlet in inlets {
        inlet.hand_over()?;
    }
    Ok(())
}
