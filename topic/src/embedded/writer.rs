//! The one thread that writes: it gives offsets, makes records durable, and removes old ones.
//!
//! Enters: pieces from any number of appending threads. Leaves: one batch, one fsync, for everything that had gathered
//! while the last one was written (group commit), then the acknowledgements. What never happens: an acknowledgement
//! before the fsync, two blocks with one offset, or a queue without a bound.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    embedded::{
        block::{BlockKey, Piece},
        retention::Retention,
        store::{Store, Tail, Topic},
    },
    error::{Error, ErrorKind, Result},
    settings::EmbeddedSettings,
};

/// One batch takes requests until it holds this much; bounds memory and the time of an fsync.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Pieces of one topic to append, and who waits for it.
pub(crate) struct Request {
    pub topic: Arc<Topic>,
    pub pieces: Vec<Piece>,
    /// Gets the next offset of each of its partitions.
    pub done: SyncSender<Result<Ends>>,
}

/// Partitions and their next offsets.
pub(crate) type Ends = Vec<(i32, i64)>;

pub(crate) struct Writer {
    store: Arc<Store>,
    path: PathBuf,
    free_bytes_min: u64,
    block_bytes_max: usize,
    tails: HashMap<(u32, u32), Tail>,
    retention: Retention,
}

impl Writer {
    pub fn new(store: Arc<Store>, settings: &EmbeddedSettings) -> Self {
        Self {
            retention: Retention::new(store.clone(), settings),
            store,
            path: settings.path.clone(),
            free_bytes_min: settings.free_bytes_min,
            block_bytes_max: settings.block_bytes_max,
            tails: HashMap::new(),
        }
    }

    /// Serves requests until nobody can send any more.
    pub fn run(mut self, requests: &Receiver<Request>, check_interval: Duration) {
        let mut check_at = Instant::now();
        loop {
            let wait = check_at.saturating_duration_since(Instant::now());
            match requests.recv_timeout(wait) {
                Ok(first) => {
                    let mut batch = vec![first];
                    let mut bytes = bytes_of(&batch[0]);
                    while bytes < BATCH_BYTES_MAX {
                        let Ok(next) = requests.try_recv() else { break };
                        bytes += bytes_of(&next);
                        batch.push(next);
                    }
                    self.commit(batch, bytes as u64);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= check_at {
                let more = self.retention.run(now_ms()).unwrap_or_else(|error| {
                    tracing::error!(error = &error as &dyn std::error::Error, "could not remove old records");
                    false
                });
                // A pass is bounded; with more to remove, appends get their turn and then the next pass comes.
                check_at = Instant::now() + if more { Duration::ZERO } else { check_interval };
            }
        }
    }

    fn commit(&mut self, batch: Vec<Request>, bytes: u64) {
        let places = |request: &Request| -> Vec<_> {
            request.pieces.iter().map(|piece| (request.topic.number, piece.partition)).collect()
        };
        let (waiting, pieces): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|request| ((places(&request), request.done), (request.topic, request.pieces)))
            .unzip();
        let result = self.check_space(bytes).and_then(|()| self.write(pieces));
        for (places, done) in waiting {
            let ends =
                places.iter().map(|place| (place.1 as i32, self.tails.get(place).map_or(0, |tail| tail.offset as i64)));
            // Whoever waits may have gone; the records are there all the same.
            let _ = done.send(match &result {
                Ok(()) => Ok(ends.collect()),
                Err(error) => Err(Error::new(error.kind.clone(), chain(error))),
            });
        }
    }

    fn check_space(&self, bytes: u64) -> Result<()> {
        let volume = rustix::fs::statvfs(&self.path).map_err(|error| {
            Error::with_source(
                ErrorKind::Other,
                format!("could not look at the volume of {}", self.path.display()),
                error,
            )
        })?;
        let free_bytes = volume.f_bavail * volume.f_frsize;
        if free_bytes >= self.free_bytes_min.saturating_add(bytes) {
            return Ok(());
        }
        let path = self.path.display();
        let message = format!("could not append: {free_bytes} bytes are free on the volume of {path}");
        Err(Error::new(ErrorKind::Full, message))
    }

    /// Gives the pieces their offsets, writes them, and only then publishes the new ends.
    fn write(&mut self, requests: Vec<(Arc<Topic>, Vec<Piece>)>) -> Result<()> {
        let appended_ms = now_ms();
        let mut ends: HashMap<(u32, u32), (Arc<Topic>, Tail)> = HashMap::new();
        let mut blocks = Vec::new();
        for (topic, piece) in merge(requests, self.block_bytes_max) {
            let place = (topic.number, piece.partition);
            if !self.tails.contains_key(&place) {
                self.tails.insert(place, self.store.tail(place.0, place.1)?);
            }
            let (_, end) = ends.entry(place).or_insert_with(|| (topic, self.tails[&place]));
            end.appended_ms = end.appended_ms.max(appended_ms);
            let key = BlockKey {
                topic: place.0,
                partition: place.1,
                offset: end.offset,
                appended_ms: end.appended_ms,
                bytes_before: end.bytes,
                records: piece.records,
            };
            end.offset = key.end();
            end.bytes += piece.stored_bytes();
            let key = key.encode();
            blocks.push((key, piece.seal(&key)));
        }
        self.store.write(blocks)?;
        for (place, (topic, end)) in ends {
            topic.partitions[place.1 as usize].high.store(end.offset as i64, Ordering::Release);
            self.tails.insert(place, end);
        }
        self.store.announce();
        Ok(())
    }
}

/// Puts small pieces of one partition together, in order, so that many small appends do not make many small blocks.
fn merge(requests: Vec<(Arc<Topic>, Vec<Piece>)>, block_bytes_max: usize) -> Vec<(Arc<Topic>, Piece)> {
    let mut merged: Vec<(Arc<Topic>, Piece)> = Vec::new();
    let mut open: HashMap<(u32, u32), usize> = HashMap::new();
    for (topic, pieces) in requests {
        for piece in pieces {
            let place = (topic.number, piece.partition);
            if let Some(&at) = open.get(&place) {
                let last = &mut merged[at].1;
                if !last.is_compressed() && !piece.is_compressed() && last.bytes() + piece.bytes() <= block_bytes_max {
                    last.extend(piece);
                    continue;
                }
            }
            open.insert(place, merged.len());
            merged.push((topic.clone(), piece));
        }
    }
    merged.iter_mut().for_each(|(_, piece)| piece.compress());
    merged
}

fn bytes_of(request: &Request) -> usize {
    request.pieces.iter().map(Piece::bytes).sum()
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}
