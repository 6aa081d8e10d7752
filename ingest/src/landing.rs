//! How the landing of this process goes: what it has committed when, and how far it is behind.
//!
//! Landing tells its positions and commits; the metrics page and the health checks ask. Only [`Landing::watch_lag`] does I/O, and
//! only asks the log how far it reaches. Nothing here moves a record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use schemas::Contracts;
use topic::Log;

use crate::error::ErrorKind;
use crate::letter::Letter;
use crate::metrics;

/// How often the log is asked how far it reaches.
const LAG_EVERY: Duration = Duration::from_secs(5);

/// The state of landing; shared by whoever lands and whoever asks.
#[derive(Debug)]
pub struct Landing {
    started: Instant,
    /// What has been landed of the topics since the process started.
    pub rows: AtomicU64,
    pub letters: AtomicU64,
    pub commits: AtomicU64,
    /// Attempts that have failed.
    pub restarts: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_reading: bool,
    /// By table; `None` before its first commit.
    committed: BTreeMap<String, Option<Instant>>,
    /// The first offset that is not in the lake, by table and partition: those that this process reads.
    next_offsets: BTreeMap<(String, i32), i64>,
    /// Records behind, by table and partition, when the log was last asked.
    lag: BTreeMap<(String, i32), u64>,
    /// Partitions whose next record is gone from the log.
    stopped: BTreeSet<(String, i32)>,
}

/// What one commit took to the lake.
#[derive(Debug, Clone, Copy)]
pub struct Landed {
    pub rows: usize,
    /// Of the files that it added.
    pub bytes: usize,
    pub took: Duration,
}

/// What a health check says of landing.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LandingHealth {
    /// The consumer reads from the lake's positions.
    pub ready: bool,
    /// Over all partitions of this process, when the log was last asked.
    pub lag_records: u64,
    /// Partitions that wait for `quad land reset`.
    pub stopped: Vec<(String, i32)>,
    /// Since the newest commit of any table.
    pub last_commit_age_s: Option<f64>,
}

impl Landing {
    /// Nothing is read yet. The series of all tables are made.
    pub fn new(contracts: &Contracts) -> Self {
        let committed = contracts.iter().map(|contract| (contract.name(), None)).collect::<BTreeMap<_, _>>();
        committed.keys().for_each(|table| metrics::register_landed(table));
        let [rows, letters, commits, restarts] = [0; 4].map(AtomicU64::new);
        metrics::stopped(0);
        let state = Mutex::new(State { committed, ..State::default() });
        Self { started: Instant::now(), rows, letters, commits, restarts, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// The first offset of a partition that is not in the lake. Call it for each partition when reading begins there, and
    /// after each commit.
    pub fn position(&self, table: &str, partition: i32, next_offset: i64) {
        self.state().next_offsets.insert((table.to_string(), partition), next_offset);
    }

    /// A partition has moved to another process: this one is not behind there any more.
    pub fn lost(&self, table: &str, partition: i32) {
        let place = (table.to_string(), partition);
        let mut state = self.state();
        state.next_offsets.remove(&place);
        state.stopped.remove(&place);
        metrics::stopped(state.stopped.len());
        if state.lag.remove(&place).is_some() {
            metrics::lag(table, partition, 0);
        }
    }

    /// The consumer stands at the lake's positions and begins to read: landing is ready.
    pub fn reading(&self) {
        self.state().is_reading = true;
    }

    /// An attempt has failed and another begins after a pause; call it before the pause.
    pub fn restarted(&self, kind: ErrorKind) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        state.is_reading = false;
        state.stopped.clear();
        metrics::stopped(0);
        metrics::restarted(kind);
    }

    /// The next record of a partition is gone from the log: it waits for `quad land reset`.
    pub fn stop(&self, table: &str, partition: i32) {
        let mut state = self.state();
        state.stopped.insert((table.to_string(), partition));
        metrics::stopped(state.stopped.len());
    }

    /// The partitions that wait for `quad land reset`.
    pub fn stopped(&self) -> Vec<(String, i32)> {
        self.state().stopped.iter().cloned().collect()
    }

    /// The next offset of each partition that this process lands, by table.
    pub fn positions(&self) -> BTreeMap<(String, i32), i64> {
        self.state().next_offsets.clone()
    }

    /// A commit to `table` is in the lake. `letters` are those that belong to it; they were committed with it or before it, in
    /// their own table, and are counted by rule here: once, for only one commit of these positions ever succeeds.
    pub fn committed(&self, table: &str, landed: Landed, letters: &[Letter]) {
        self.state().committed.insert(table.to_string(), Some(Instant::now()));
        metrics::landed(table, landed);
        metrics::dead_letters(letters);
    }

    /// Records of a topic are in the lake, as rows and letters, by one commit.
    pub fn landed(&self, rows: usize, letters: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.letters.fetch_add(letters as u64, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets the gauges that grow by themselves; called when the metrics are asked for.
    pub fn observe(&self) {
        for (table, at) in &self.state().committed {
            metrics::commit_age(table, at.unwrap_or(self.started).elapsed());
        }
    }

    /// Whether landing reads, and how it goes.
    pub fn health(&self) -> LandingHealth {
        let state = self.state();
        LandingHealth {
            ready: state.is_reading,
            lag_records: state.lag.values().sum(),
            stopped: state.stopped.iter().cloned().collect(),
            last_commit_age_s: state.committed.values().flatten().max().map(|at| at.elapsed().as_secs_f64()),
        }
    }

    /// Asks the log again and again how far it reaches, until dropped. So lag grows also while landing stands still.
    pub async fn watch_lag(self: Arc<Self>, log: Arc<dyn Log>, contracts: Arc<Contracts>) {
        let mut ticks = tokio::time::interval(LAG_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (landing, log, contracts) = (self.clone(), log.clone(), contracts.clone());
            let asked = tokio::task::spawn_blocking(move || landing.measure_lag(&*log, &contracts)).await;
            if let Ok(Err(error)) = asked {
                // Landing itself reads from the same log and says so when it fails.
                tracing::debug!(%error, "could not ask the log how far it reaches");
            }
        }
    }

    /// Compares how far the log reaches with the positions of the lake.
    ///
    /// # Errors
    /// As [`Log::extents`].
    pub fn measure_lag(&self, log: &dyn Log, contracts: &Contracts) -> Result<(), topic::Error> {
        for contract in contracts.iter() {
            let table = contract.name();
            if !self.state().next_offsets.keys().any(|(known, _)| *known == table) {
                continue;
            }
            let extents = log.extents(&contract.topic())?;
            let mut state = self.state();
            for extent in extents {
                let place = (table.clone(), extent.partition);
                let Some(next_offset) = state.next_offsets.get(&place) else { continue };
                let records = u64::try_from(extent.high - next_offset).unwrap_or(0);
                metrics::lag(&table, extent.partition, records);
                state.lag.insert(place, records);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use topic::Message;

    #[test]
    fn lag_is_what_the_log_has_and_the_lake_has_not() {
        let contracts = Contracts::load(std::path::Path::new("../schemas")).expect("contracts");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut settings = topic::Settings::default();
        settings.embedded.path = folder.path().join("topic");
        let log = topic::open(&settings).expect("opens");
        let topic = contracts.get("academic.grade").expect("grades").topic();
        assert_eq!(log.ensure_topic(&topic, 1).expect("a topic"), 1);
        let message = |key: &'static str| Message { key: key.into(), value: "x".into(), timestamp_ms: 1 };
        log.append(&topic, vec![message("a"), message("b"), message("c")]).expect("appends");

        let landing = Landing::new(&contracts);
        let lag = || {
            landing.measure_lag(&*log, &contracts).expect("the log answers");
            landing.health().lag_records
        };
        assert_eq!((lag(), landing.health().ready, landing.health().last_commit_age_s), (0, false, None));
        landing.position("academic.grade", 0, 0);
        landing.reading();
        assert_eq!((lag(), landing.health().ready), (3, true));
        landing.position("academic.grade", 0, 2);
        landing.committed("academic.grade", Landed { rows: 2, bytes: 9, took: Duration::from_millis(1) }, &[]);
        assert_eq!(lag(), 1);
        assert!(landing.health().last_commit_age_s.is_some());
        landing.restarted(ErrorKind::Lake);
        landing.lost("academic.grade", 0);
        assert_eq!((lag(), landing.health().ready), (0, false));
    }
}
