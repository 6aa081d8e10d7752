//! What the embedded log keeps: blocks and marks on disk, the extents of every partition in memory.
//!
//! Enters: a folder. Leaves: the topics in it, with the extents they had when the last acknowledged append was
//! written. Two keyspaces of one fjall database: `blocks` (see [`super::block`]) and `meta`:
//! ```text
//! topic/NAME                                → number u32 | partitions u32                       little-endian
//! mark/ number u32 | partition u32 (BE)     → low u64 | bytes before low u64 | appended_ms u64   little-endian
//! ```
//! A mark is where retention got to; without one a partition begins at 0. Blocks of 1 KiB and more are kept apart from
//! their keys (fjall's blob files), so that compaction moves keys only and removed blocks free whole files.

use std::{
    collections::BTreeMap,
    ops::Bound,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, config};

use crate::{
    embedded::block::BlockKey,
    error::{Error, ErrorKind, Result},
    log::{Extent, check_topic},
    settings::EmbeddedSettings,
};

pub(crate) use fjall::Slice;

/// Bounds the block cache; a landing reads mostly what was just written, which is still in memory.
const CACHE_BYTES: u64 = 16 << 20;
/// Bounds what has to be read again when the log is opened after a crash.
const JOURNAL_BYTES_MAX: u64 = 128 << 20;

/// A topic and what its partitions hold.
#[derive(Debug)]
pub(crate) struct Topic {
    pub number: u32,
    pub name: String,
    pub partitions: Vec<Partition>,
}

/// The published extent of a partition. Only the writer moves it, `high` after the records are durable and `low`
/// before they are removed, so whoever reads between the two always finds what it looks for.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    pub low: AtomicI64,
    pub high: AtomicI64,
}

impl Partition {
    pub fn low(&self) -> i64 {
        self.low.load(Ordering::Acquire)
    }

    pub fn high(&self) -> i64 {
        self.high.load(Ordering::Acquire)
    }
}

impl Topic {
    pub fn extents(&self) -> Vec<Extent> {
        let extent = |(number, partition): (usize, &Partition)| {
            // `low` first: it may move between the two reads, and then only towards `high`.
            let low = partition.low();
            Extent { partition: number as i32, low, high: partition.high() }
        };
        self.partitions.iter().enumerate().map(extent).collect()
    }
}

/// The end of a partition, as the writer needs it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tail {
    /// Offset of the next record.
    pub offset: u64,
    /// Stored bytes of all blocks that were ever appended.
    pub bytes: u64,
    /// Time of the last append; the next one is never earlier, whatever the clock does.
    pub appended_ms: u64,
}

/// Where retention got to in a partition.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    pub low: u64,
    pub bytes_before: u64,
    pub appended_ms: u64,
}

/// The open folder.
pub(crate) struct Store {
    database: Database,
    blocks: Keyspace,
    meta: Keyspace,
    topics: RwLock<BTreeMap<String, Arc<Topic>>>,
    /// Counts appends, under the lock that a waiting consumer holds while it looks.
    arrivals: (Mutex<u64>, Condvar),
}

impl Store {
    pub fn open(settings: &EmbeddedSettings) -> Result<Self> {
        let path = &settings.path;
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            // Blocks arrive compressed.
            .journal_compression(fjall::CompressionType::None)
            .open()
            .map_err(|error| open_error(path, error))?;
        let blocks = database
            .keyspace("blocks", || block_options(settings.memtable_bytes))
            .and_then(|blocks| Ok((blocks, database.keyspace("meta", KeyspaceCreateOptions::default)?)));
        let (blocks, meta) = blocks.map_err(|error| open_error(path, error))?;
        let store = Self { database, blocks, meta, topics: RwLock::default(), arrivals: Default::default() };
        store.load()?;
        Ok(store)
    }

    /// Reads the topics, and each partition's extent from its mark and its last block.
    fn load(&self) -> Result<()> {
        let mut topics = BTreeMap::new();
        for entry in self.meta.prefix("topic/") {
            let (key, value) = entry.into_inner().map_err(read_error)?;
            let name = String::from_utf8_lossy(&key["topic/".len()..]).into_owned();
            let [number, count] = le32s(&value).ok_or_else(|| corrupt_meta(&name))?;
            let topic = Topic { number, name, partitions: (0..count).map(|_| Partition::default()).collect() };
            for (partition, extent) in (0..).zip(&topic.partitions) {
                extent.low.store(self.mark(number, partition)?.low as i64, Ordering::Release);
                extent.high.store(self.tail(number, partition)?.offset as i64, Ordering::Release);
            }
            topics.insert(topic.name.clone(), Arc::new(topic));
        }
        *self.topics.write().expect("no thread panics with the topics") = topics;
        Ok(())
    }

    pub fn topic(&self, name: &str) -> Result<Arc<Topic>> {
        let topics = self.topics.read().expect("no thread panics with the topics");
        topics.get(name).cloned().ok_or_else(|| Error::unknown_topic(name))
    }

    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.topics.read().expect("no thread panics with the topics").values().cloned().collect()
    }

    pub fn ensure_topic(&self, name: &str, partitions: i32) -> Result<Arc<Topic>> {
        check_topic(name, partitions)?;
        let mut topics = self.topics.write().expect("no thread panics with the topics");
        if let Some(topic) = topics.get(name) {
            return Ok(topic.clone());
        }
        let number = topics.values().map(|topic| topic.number + 1).max().unwrap_or(0);
        let value = [number.to_le_bytes(), (partitions as u32).to_le_bytes()].concat();
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&self.meta, format!("topic/{name}"), value);
        batch.commit().map_err(write_error)?;
        let partitions = (0..partitions).map(|_| Partition::default()).collect();
        let topic = Arc::new(Topic { number, name: name.to_owned(), partitions });
        topics.insert(name.to_owned(), topic.clone());
        Ok(topic)
    }

    /// The end of a partition on disk.
    pub fn tail(&self, topic: u32, partition: u32) -> Result<Tail> {
        let mark = self.mark(topic, partition)?;
        let Some(last) = self.blocks_from(topic, partition, mark.low).next_back() else {
            return Ok(Tail { offset: mark.low, bytes: mark.bytes_before, appended_ms: mark.appended_ms });
        };
        let stored = last.key().map_err(read_error)?;
        let key = BlockKey::decode(&stored)?;
        let bytes = self.blocks.size_of(stored).map_err(read_error)?.unwrap_or(0);
        Ok(Tail { offset: key.end(), bytes: key.bytes_before + u64::from(bytes), appended_ms: key.appended_ms })
    }

    pub fn mark(&self, topic: u32, partition: u32) -> Result<Mark> {
        let Some(value) = self.meta.get(mark_key(topic, partition)).map_err(read_error)? else {
            return Ok(Mark::default());
        };
        let [low, bytes_before, appended_ms] = le64s(&value).ok_or_else(|| corrupt_meta("a retention mark"))?;
        Ok(Mark { low, bytes_before, appended_ms })
    }

    /// The keys of a partition's blocks, from the one that begins at `offset` on; the blocks themselves are not read.
    pub fn keys_from(&self, topic: u32, partition: u32, offset: u64) -> impl Iterator<Item = Result<BlockKey>> {
        self.blocks_from(topic, partition, offset).map(|entry| BlockKey::decode(&entry.key().map_err(read_error)?))
    }

    /// A partition's blocks, from the one that begins at `offset` on.
    pub fn blocks_from(&self, topic: u32, partition: u32, offset: u64) -> fjall::Iter {
        let start = BlockKey::at(topic, partition, offset);
        self.blocks.range((Bound::Included(start), Bound::Excluded(after(topic, partition))))
    }

    /// The block that holds `offset`, if any block begins at or before it.
    pub fn block_with(&self, topic: u32, partition: u32, offset: u64) -> Result<Option<(Slice, Slice)>> {
        let range = BlockKey::at(topic, partition, 0)..BlockKey::at(topic, partition, offset + 1);
        self.blocks.range(range).next_back().map(|entry| entry.into_inner().map_err(read_error)).transpose()
    }

    /// Writes blocks; when this returns they are on disk.
    pub fn write(&self, blocks: Vec<([u8; super::block::KEY_BYTES], Vec<u8>)>) -> Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in blocks {
            batch.insert(&self.blocks, key, value);
        }
        batch.commit().map_err(write_error)
    }

    /// Removes blocks and keeps how far that went, in one step.
    pub fn remove(&self, topic: u32, partition: u32, keys: &[BlockKey], mark: Mark) -> Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for key in keys {
            batch.remove(&self.blocks, key.encode());
        }
        let value = [mark.low.to_le_bytes(), mark.bytes_before.to_le_bytes(), mark.appended_ms.to_le_bytes()].concat();
        batch.insert(&self.meta, mark_key(topic, partition), value);
        batch.commit().map_err(write_error)
    }

    /// Wakes the consumers that wait for records.
    pub fn announce(&self) {
        *self.arrivals.0.lock().expect("no thread panics while it counts") += 1;
        self.arrivals.1.notify_all();
    }

    /// Waits until `is_there` or the deadline, looking once for each append.
    pub fn wait_until(&self, deadline: Instant, mut is_there: impl FnMut() -> bool) -> bool {
        let mut arrivals = self.arrivals.0.lock().expect("no thread panics while it counts");
        loop {
            if is_there() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            arrivals = self.arrivals.1.wait_timeout(arrivals, left).expect("no thread panics while it counts").0;
        }
    }
}

fn block_options(memtable_bytes: u64) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(memtable_bytes)
        // Blocks are found by range, never by their whole key.
        .filter_policy(config::FilterPolicy::disabled())
        .data_block_size_policy(config::BlockSizePolicy::all(16 << 10))
        .with_kv_separation(Some(KvSeparationOptions::default().compression(fjall::CompressionType::None)))
}

/// The first key after every block of the partition.
fn after(topic: u32, partition: u32) -> [u8; super::block::KEY_BYTES] {
    // Partitions are few (check_topic), so the next number exists.
    BlockKey::at(topic, partition + 1, 0)
}

fn mark_key(topic: u32, partition: u32) -> Vec<u8> {
    [&b"mark/"[..], &BlockKey::prefix(topic, partition)].concat()
}

fn le32s(value: &[u8]) -> Option<[u32; 2]> {
    let word = |at: usize| Some(u32::from_le_bytes(value.get(at..at + 4)?.try_into().ok()?));
    Some([word(0)?, word(4)?])
}

fn le64s(value: &[u8]) -> Option<[u64; 3]> {
    let word = |at: usize| Some(u64::from_le_bytes(value.get(at..at + 8)?.try_into().ok()?));
    Some([word(0)?, word(8)?, word(16)?])
}

fn corrupt_meta(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the embedded log's entry for {what} is damaged"))
}

fn open_error(path: &Path, error: fjall::Error) -> Error {
    let path = path.display();
    match error {
        fjall::Error::Locked => {
            let message = format!("could not open the log in {path}: another process has it open");
            Error::new(ErrorKind::Locked, message)
        }
        fjall::Error::Io(_) => Error::with_source(ErrorKind::Other, format!("could not use the folder {path}"), error),
        _ => Error::with_source(ErrorKind::Corrupt, format!("could not read the log in {path}"), error),
    }
}

pub(crate) fn read_error(error: fjall::Error) -> Error {
    let kind = match &error {
        fjall::Error::Io(_) | fjall::Error::Storage(fjall::LsmError::Io(_)) | fjall::Error::Poisoned => {
            ErrorKind::Other
        }
        _ => ErrorKind::Corrupt,
    };
    Error::with_source(kind, "could not read the embedded log", error)
}

fn write_error(error: fjall::Error) -> Error {
    Error::with_source(ErrorKind::Other, "could not write the embedded log; restart once the disk works again", error)
}
