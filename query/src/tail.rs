//! The tail: what the log holds and the lake does not yet, as rows.
//!
//! One thread follows every topic from where the lake was and keeps the good rows in memory, checked as landing checks
//! them. A snapshot takes a version of each table and, per partition, exactly the rows behind the offsets that this
//! version has: nothing twice, nothing missing, whatever landing does meanwhile. What has landed is soon forgotten.
//!
//! Memory is bounded: a full tail stops reading until landing has caught up, and the watermark of answers says how far
//! they reach. Bad records are left to landing, which makes letters of them.

mod follow;
mod held;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use chrono_tz::Tz;
use lake::Lake;
use schemas::Contracts;
use tokio::sync::{Notify, watch};
use topic::Log;

use self::held::Held;
pub use self::held::places;
use crate::source::TableVersion;

/// The next offset by partition.
pub type Positions = BTreeMap<i32, i64>;

/// The tail of all topics.
pub struct Tail {
    log: Arc<dyn Log>,
    lake: Lake,
    contracts: Arc<Contracts>,
    landing: String,
    timezone: Tz,
    bytes_max: usize,
    /// By `<domain>.<table>`.
    tables: Mutex<HashMap<String, Held>>,
    arrived: Notify,
    has_caught_up: AtomicBool,
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl Tail {
    /// The tail of `log` beyond what has landed in `lake` under the id `landing`; it holds about `bytes_max` of rows at
    /// the most.
    pub fn new(
        log: Arc<dyn Log>,
        lake: Lake,
        contracts: Arc<Contracts>,
        landing: String,
        timezone: Tz,
        bytes_max: usize,
    ) -> Self {
        let (tables, arrived, has_caught_up) = (Mutex::default(), Notify::new(), AtomicBool::new(false));
        Self { log, lake, contracts, landing, timezone, bytes_max, tables, arrived, has_caught_up }
    }

    /// The id of the landing whose positions count.
    pub fn landing(&self) -> &str {
        &self.landing
    }

    /// Follows the log until `stop` says so; blocks. Call it once the lake has been looked at.
    pub fn run(&self, stop: &watch::Receiver<bool>) {
        follow::run(self, stop);
    }

    /// Returns when something has come since the last call.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Whether it has read what the log held when it began, or cannot for now.
    pub fn has_caught_up(&self) -> bool {
        self.has_caught_up.load(Ordering::Acquire)
    }

    fn catch_up(&self) {
        if !self.has_caught_up.swap(true, Ordering::AcqRel) {
            self.arrived.notify_one();
        }
    }

    /// How many partitions a table's topic has; 0 while that is not known.
    pub fn partitions(&self, table: &str) -> i32 {
        self.tables().get(table).map_or(0, |held| held.partitions)
    }

    /// Gives each version its tail, of one moment for all tables; which tables have changed by that.
    pub fn complete(&self, versions: &mut HashMap<String, TableVersion>) -> HashSet<String> {
        let mut changed = HashSet::new();
        let mut tables = self.tables();
        for contract in self.contracts.iter() {
            let name = contract.name();
            let Some(held) = tables.get_mut(&name) else { continue };
            let Some(version) = versions.get_mut(&name) else { continue };
            let is_known = version.landed.len() >= held.partitions as usize;
            if !is_known || version.stamp == Some(held.stamp) {
                continue;
            }
            version.tail = held.cut(&version.landed);
            version.recent = held.recent(version, Instant::now());
            version.next = Arc::new(held.next());
            version.stamp = Some(held.stamp);
            changed.insert(name);
        }
        changed
    }

    /// Memory of the rows that are held.
    pub fn bytes(&self) -> usize {
        self.tables().values().map(Held::bytes).sum()
    }

    /// Whether it has stopped reading until landing catches up.
    pub fn is_full(&self) -> bool {
        self.bytes() >= self.bytes_max
    }

    fn tables(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.tables.lock().expect("nobody panics while holding the tail")
    }
}
