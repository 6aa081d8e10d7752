//! The log on this machine's disk, inside this process.
//!
//! Enters: messages. Leaves: records, after any crash every acknowledged one. An appending thread sorts its messages
//! into pieces by partition and compresses them ([`block`]); one writer thread gives them offsets and makes everything
//! that waits durable with one fsync ([`writer`]), and removes what is too old or too much ([`retention`]). Consumers
//! read blocks out of the [`store`], a fjall database, and sleep until an append wakes them ([`consumer`]).
//! What never happens: two processes in one folder, or a consumer in another process (that is what Kafka is for).

mod block;
mod consumer;
mod retention;
mod store;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    embedded::{
        block::Piece,
        consumer::EmbeddedConsumer,
        store::{Store, Topic},
        writer::{Ends, Request, Writer},
    },
    error::{Error, ErrorKind, Result},
    log::{Consumer, Extent, Log, Message, Position, Subscription, check_positions, check_sizes, start_positions},
    partition::partition,
    settings::Settings,
    watermark::Watermark,
};

/// An append is written in parts of this size, so that a huge one needs bounded memory beside its own messages.
const APPEND_BYTES_MAX: usize = 4 << 20;
/// Appends that may wait for the writer; the next ones wait before they hand anything over.
const REQUESTS_MAX: usize = 32;
/// Pieces from this size on are compressed by the appending thread; smaller ones are first put together by the writer.
const PIECE_BYTES_MIN: usize = 32 << 10;

/// An open embedded log. The folder stays locked until the log and all its consumers are dropped.
pub(crate) struct Embedded {
    store: Arc<Store>,
    message_bytes_max: usize,
    block_bytes_max: usize,
    requests: Option<SyncSender<Request>>,
    writer: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Opens the folder that the settings name, and makes it if it is not there.
    ///
    /// # Errors
    /// `Locked`: another process has it open. `Corrupt`, `Other`: it cannot be read or used.
    pub fn open(settings: &Settings) -> Result<Self> {
        let store = Arc::new(Store::open(&settings.embedded)?);
        let (requests, queue) = sync_channel(REQUESTS_MAX);
        let writer = Writer::new(store.clone(), &settings.embedded);
        let interval = Duration::from_secs(settings.embedded.retention_check_s);
        let writer = std::thread::Builder::new()
            .name("topic-writer".to_owned())
            .spawn(move || writer.run(&queue, interval))
            .map_err(|error| Error::with_source(ErrorKind::Other, "could not start the log's writer", error))?;
        Ok(Self {
            store,
            message_bytes_max: settings.message_bytes_max,
            block_bytes_max: settings.embedded.block_bytes_max,
            requests: Some(requests),
            writer: Some(writer),
        })
    }

    /// Hands pieces to the writer and waits until they are durable.
    fn write(&self, topic: &Arc<Topic>, pieces: Vec<Piece>) -> Result<Ends> {
        let stopped = || Error::new(ErrorKind::Other, "the log's writer has stopped; restart");
        let (done, outcome) = sync_channel(1);
        let requests = self.requests.as_ref().expect("the queue is open until the log is dropped");
        requests.send(Request { topic: topic.clone(), pieces, done }).map_err(|_| stopped())?;
        outcome.recv().map_err(|_| stopped())?
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(writer) = self.writer.take() {
            // A panic of the writer has been printed; every append since got an error.
            let _ = writer.join();
        }
    }
}

impl Log for Embedded {
    fn ensure_topic(&self, topic: &str, partitions: i32) -> Result<i32> {
        Ok(self.store.ensure_topic(topic, partitions)?.partitions.len() as i32)
    }

    fn append(&self, topic: &str, messages: Vec<Message>) -> Result<Watermark> {
        let topic = self.store.topic(topic)?;
        check_sizes(&topic.name, &messages, self.message_bytes_max)?;
        let partitions = topic.partitions.len() as i32;
        // Keys are spread evenly, more or less.
        let bytes = messages.iter().map(Piece::bytes_of).sum::<usize>();
        let share = bytes.min(APPEND_BYTES_MAX) / topic.partitions.len();
        let room = (share + share / 8).min(self.block_bytes_max);
        let mut part = Part::new(room);
        let mut ends = Ends::new();
        for message in messages {
            part.push(partition(&message.key, partitions) as u32, &message, self.block_bytes_max);
            if part.bytes >= APPEND_BYTES_MAX {
                ends.extend(self.write(&topic, std::mem::replace(&mut part, Part::new(room)).into_pieces())?);
            }
        }
        if part.bytes > 0 {
            ends.extend(self.write(&topic, part.into_pieces())?);
        }
        Ok(Watermark::of(&topic.name, ends))
    }

    fn extents(&self, topic: &str) -> Result<Vec<Extent>> {
        Ok(self.store.topic(topic)?.extents())
    }

    fn topics(&self) -> Result<Vec<String>> {
        Ok(self.store.topics().iter().map(|topic| topic.name.clone()).collect())
    }

    fn consumer(&self, subscription: Subscription) -> Result<Box<dyn Consumer>> {
        let positions: Vec<Position> = match subscription {
            Subscription::Assign(positions) => {
                check_positions(&positions)?;
                positions
            }
            Subscription::Group { topics, start, .. } => {
                let mut partitions = Vec::new();
                for name in topics {
                    let count = self.store.topic(&name)?.partitions.len() as i32;
                    partitions.extend((0..count).map(|partition| (name.clone(), partition)));
                }
                start_positions(&start, &partitions)?
            }
        };
        Ok(Box::new(EmbeddedConsumer::new(self.store.clone(), positions)?))
    }
}

/// The part of an append that is written at once.
struct Part {
    full: Vec<Piece>,
    open: BTreeMap<u32, Piece>,
    bytes: usize,
    /// Bytes that a piece has room for to begin with.
    room: usize,
}

impl Part {
    fn new(room: usize) -> Self {
        Self { full: Vec::new(), open: BTreeMap::new(), bytes: 0, room }
    }

    fn push(&mut self, partition: u32, message: &Message, block_bytes_max: usize) {
        let piece = self.open.entry(partition).or_insert_with(|| Piece::new(partition, self.room));
        let before = piece.bytes();
        piece.push(message);
        self.bytes += piece.bytes() - before;
        if piece.bytes() >= block_bytes_max
            && let Some(mut piece) = self.open.remove(&partition)
        {
            piece.compress();
            self.full.push(piece);
        }
    }

    /// The pieces, those of one partition in the order of their messages.
    fn into_pieces(self) -> Vec<Piece> {
        let mut pieces = self.full;
        for mut piece in self.open.into_values() {
            if piece.bytes() >= PIECE_BYTES_MIN {
                piece.compress();
            }
            pieces.push(piece);
        }
        pieces
    }
}
