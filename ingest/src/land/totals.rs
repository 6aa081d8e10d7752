//! How landing is: what it has landed since the process started, and how far each partition is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

type Partition = (String, i32);

/// Counts since the process started, and the partitions this process has now.
#[derive(Debug, Default)]
pub struct Totals {
    pub rows: AtomicU64,
    pub letters: AtomicU64,
    pub commits: AtomicU64,
    /// The next offset of each partition that is held.
    positions: Mutex<BTreeMap<Partition, i64>>,
    /// Partitions whose next record is gone from the log.
    stopped: Mutex<BTreeSet<Partition>>,
}

impl Totals {
    /// The lake has these partitions of a topic up to here.
    pub(super) fn landed(&self, topic: &str, positions: impl Iterator<Item = (i32, i64)>) {
        let positions = positions.map(|(partition, offset)| ((topic.to_string(), partition), offset));
        self.positions.lock().expect(LOCK).extend(positions);
    }

    pub(super) fn forget(&self, topic: &str, partitions: &[i32]) {
        let is_other = |partition: &Partition| partition.0 != topic || !partitions.contains(&partition.1);
        self.positions.lock().expect(LOCK).retain(|partition, _| is_other(partition));
        self.stopped.lock().expect(LOCK).retain(is_other);
    }

    pub(super) fn stop(&self, topic: &str, partition: i32) {
        self.stopped.lock().expect(LOCK).insert((topic.to_string(), partition));
    }

    /// Nothing is held any more.
    pub(super) fn clear(&self) {
        self.positions.lock().expect(LOCK).clear();
        self.stopped.lock().expect(LOCK).clear();
    }

    /// The next offset of each partition that this process lands.
    pub fn positions(&self) -> BTreeMap<Partition, i64> {
        self.positions.lock().expect(LOCK).clone()
    }

    /// The partitions that wait for `quad land reset`.
    pub fn stopped(&self) -> Vec<Partition> {
        self.stopped.lock().expect(LOCK).iter().cloned().collect()
    }
}

const LOCK: &str = "no holder of this lock panics";
