//! Checkpoints, log entries and files: what is written so that the rest can go.
//!
//! A table enters and leaves with the same rows, versions within the retention and positions. A file younger than the
//! retention is never removed, whether a commit knows it or not: it may belong to a commit in flight, or to a reader of
//! an older version.

use std::sync::Arc;

use chrono::Duration;
use deltalake::checkpoints::{cleanup_expired_logs_for, create_checkpoint};
use deltalake::operations::vacuum::{Clock, VacuumMode};
use futures::TryStreamExt;

use super::HOUR_MS;
use crate::error::Error;
use crate::settings::UpkeepSettings;
use crate::table::Table;

/// What happened to the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Checkpointed {
    /// The version of a new checkpoint.
    pub version: Option<u64>,
    pub log_files_removed: usize,
}

/// Files that no version within the retention needs: removed, or found by a dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Vacuumed {
    /// Paths within the table.
    pub files: Vec<String>,
}

/// What is in a table's log.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Log {
    pub files: usize,
    pub bytes: u64,
    /// The newest checkpoint.
    pub checkpoint: Option<u64>,
}

/// A clock that stands: time is an argument here.
#[derive(Debug)]
struct At(i64);

impl Clock for At {
    fn current_timestamp_millis(&self) -> i64 {
        self.0
    }
}

impl Table {
    /// Writes a checkpoint when enough commits have passed, and removes the log entries that one covers and that are past
    /// their retention.
    ///
    /// # Errors
    /// `Store` when the log cannot be read or written.
    pub async fn checkpoint(&mut self, settings: &UpkeepSettings, now_ms: i64) -> Result<Checkpointed, Error> {
        self.refresh().await?;
        let failed = |error| Error::delta("write a checkpoint of", &self.name, error);
        let version = self.version();
        let log = self.log().await?;
        let passed = log.checkpoint.map_or(version + 1, |checkpoint| version.saturating_sub(checkpoint));
        let mut done = Checkpointed::default();
        if passed >= settings.checkpoint_commits {
            create_checkpoint(&self.delta, None).await.map_err(failed)?;
            done.version = Some(version);
        }
        let failed = |error| Error::delta("clean the log of", &self.name, error);
        let kept_from_ms = now_ms - settings.log_retention_h as i64 * HOUR_MS;
        let log_store = self.delta.log_store();
        done.log_files_removed =
            cleanup_expired_logs_for(version, log_store.as_ref(), kept_from_ms, None).await.map_err(failed)?;
        Ok(done)
    }

    /// Removes files that compaction or retention took out of the table, and those that no commit ever knew; with
    /// `dry_run`, only finds them.
    ///
    /// # Errors
    /// `Store` when the files cannot be listed or removed.
    pub async fn vacuum(&mut self, settings: &UpkeepSettings, now_ms: i64, dry_run: bool) -> Result<Vacuumed, Error> {
        self.refresh().await?;
        let failed = |error| Error::delta("remove unneeded files of", &self.name, error);
        let vacuum = self.delta.clone().vacuum();
        let vacuum = vacuum
            .with_mode(VacuumMode::Full)
            .with_retention_period(Duration::hours(settings.file_retention_h as i64))
            .with_enforce_retention_duration(false)
            .with_commit_properties(super::properties())
            .with_clock(Arc::new(At(now_ms)))
            .with_dry_run(dry_run);
        let (delta, metrics) = vacuum.await.map_err(failed)?;
        self.delta = delta;
        Ok(Vacuumed { files: metrics.files_deleted })
    }

    pub(super) async fn log(&self) -> Result<Log, Error> {
        let failed = |error| Error::delta("list the log of", &self.name, error);
        let log_store = self.delta.log_store();
        let store = self.delta.object_store();
        let mut entries = store.list(Some(log_store.log_path()));
        let mut log = Log::default();
        while let Some(entry) = entries.try_next().await.map_err(|source| failed(source.into()))? {
            log.files += 1;
            log.bytes += entry.size;
            log.checkpoint = log.checkpoint.max(entry.location.filename().and_then(checkpoint_version));
        }
        Ok(log)
    }
}

/// `00000000000000000100.checkpoint.parquet` is that of version 100. Specification:
/// <https://github.com/delta-io/delta/blob/master/PROTOCOL.md#checkpoints>
fn checkpoint_version(name: &str) -> Option<u64> {
    let (version, rest) = name.split_once('.')?;
    (rest.starts_with("checkpoint.") && rest.ends_with("parquet")).then(|| version.parse().ok())?
}
