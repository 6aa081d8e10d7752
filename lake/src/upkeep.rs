//! Upkeep: small files become large ones, logs stay short, old days and unneeded files go.
//!
//! Tables enter and leave with the same rows, but for days past their retention. `compact` rewrites, `expire` drops days,
//! `clean` writes checkpoints and removes log entries and files, `stats` tells how a table is.
//!
//! Landing is never held up and never loses a position: upkeep's commits touch no `txn` of a landing, and every commit
//! that removes files carries one id of its own, so that of two upkeeps at one table only the first commits. (Without it
//! deltalake lets two compactions of the same files both commit, and every row stands twice.)

mod clean;
mod compact;
mod expire;
mod stats;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Transaction};
use deltalake::protocol::DeltaOperation;
use schemas::{Contract, Contracts};
use tokio::sync::watch;

use crate::error::{Error, ErrorKind};
use crate::settings::UpkeepSettings;
use crate::table::{Lake, Table};

pub use clean::{Checkpointed, Vacuumed};
pub use compact::{Compacted, Scope};
pub use expire::Expired;
pub use stats::Stats;

/// The `txn` id of upkeep's own commits. A landing's ids have slashes.
const FENCE: &str = "upkeep";

/// Looking for unneeded files lists a whole table, so it is done less often than the rest.
const VACUUM_EVERY_MS: i64 = 6 * 3_600_000;

const HOUR_MS: i64 = 3_600_000;

/// A landing that commits without pause is quicker at the next version than an upkeep, which then tries again.
const COMMIT_RETRIES_MAX: usize = 200;

/// What one round did to a table.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub expired: Expired,
    pub compacted: Compacted,
    pub checkpointed: Checkpointed,
    /// `None` when it was not due.
    pub vacuumed: Option<Vacuumed>,
}

impl Report {
    fn is_empty(&self) -> bool {
        let removed = self.vacuumed.as_ref().map_or(0, |vacuumed| vacuumed.files.len());
        self.expired.files + self.compacted.files_before + removed + self.checkpointed.log_files_removed == 0
            && self.checkpointed.version.is_none()
    }
}

/// Keeps all tables of a lake in order, one at a time.
pub struct Upkeep {
    lake: Lake,
    contracts: Vec<Arc<Contract>>,
    settings: UpkeepSettings,
    vacuumed_at_ms: BTreeMap<String, i64>,
    failing: BTreeSet<String>,
}

impl Upkeep {
    pub fn new(lake: Lake, contracts: &Contracts, settings: UpkeepSettings) -> Self {
        let contracts = contracts.iter().cloned().collect();
        Self { lake, contracts, settings, vacuumed_at_ms: BTreeMap::new(), failing: BTreeSet::new() }
    }

    /// A round over all tables every `interval_s`, until `shutdown`. A table that fails is told once and tried again in
    /// the next round; what a stopped round has written and not committed is an unneeded file.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let every = Duration::from_secs(self.settings.interval_s);
        let rounds = async {
            loop {
                tokio::time::sleep(every).await;
                for contract in self.contracts.clone() {
                    let outcome = self.run_once(&contract, now_ms()).await;
                    self.tell(&contract.name(), outcome);
                }
            }
        };
        tokio::select! {
            () = rounds => {}
            _ = shutdown.wait_for(|stop| *stop) => {}
        }
    }

    /// Does to the table of `contract` what is due at `now_ms`; nothing when nothing has landed.
    ///
    /// # Errors
    /// `Fenced` when another process keeps this table at the same time, `Store` when the store fails. Either way rows
    /// and positions are as they were, and the next round goes on.
    pub async fn run_once(&mut self, contract: &Contract, now_ms: i64) -> Result<Report, Error> {
        let Some(mut table) = self.lake.find(contract).await? else { return Ok(Report::default()) };
        let settings = &self.settings;
        let expired = table.expire(contract, settings, now_ms, false).await?;
        let compacted = table.compact(contract, settings, Scope::Due, now_ms, |_| ()).await?;
        let checkpointed = table.checkpoint(settings, now_ms).await?;
        let name = contract.name();
        let is_due = self.vacuumed_at_ms.get(&name).is_none_or(|at| now_ms - at >= VACUUM_EVERY_MS);
        let vacuumed = if is_due { Some(table.vacuum(settings, now_ms, false).await?) } else { None };
        if is_due {
            self.vacuumed_at_ms.insert(name, now_ms);
        }
        Ok(Report { expired, compacted, checkpointed, vacuumed })
    }

    fn tell(&mut self, table: &str, outcome: Result<Report, Error>) {
        match outcome {
            Ok(report) => {
                self.failing.remove(table);
                if !report.is_empty() {
                    let removed = report.vacuumed.as_ref().map_or(0, |vacuumed| vacuumed.files.len());
                    tracing::info!(
                        table,
                        files_compacted = report.compacted.files_before,
                        files_written = report.compacted.files_after,
                        files_expired = report.expired.files,
                        files_removed = removed,
                        log_files_removed = report.checkpointed.log_files_removed,
                        checkpoint = report.checkpointed.version,
                        "upkeep"
                    );
                }
            }
            Err(error) if error.kind == ErrorKind::Fenced => {
                tracing::debug!(table, "another process keeps this table");
            }
            Err(error) => {
                if self.failing.insert(table.to_string()) {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(table, %error, cause, "upkeep failed; it is tried again in the next round");
                }
            }
        }
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Commits of upkeep leave checkpoints and the log to `clean`.
fn properties() -> CommitProperties {
    CommitProperties::default()
        .with_create_checkpoint(false)
        .with_cleanup_expired_logs(Some(false))
        .with_max_retries(COMMIT_RETRIES_MAX)
}

impl Table {
    /// Commits `actions` against the loaded version, behind upkeep's own fence, and loads the newest version.
    async fn commit_upkeep(
        &mut self,
        actions: Vec<Action>,
        operation: DeltaOperation,
        now_ms: i64,
    ) -> Result<(), Error> {
        let failed = |error| Error::delta("commit upkeep of", &self.name, error);
        let properties = properties().with_application_transaction(Transaction::new(FENCE, now_ms));
        let state = self.delta.snapshot().map_err(failed)?;
        let commit = CommitBuilder::from(properties).with_actions(actions);
        commit.build(Some(state), self.delta.log_store(), operation).await.map_err(failed)?;
        self.refresh().await
    }
}
