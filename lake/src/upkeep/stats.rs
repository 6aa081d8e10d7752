//! How a table is: files, rows, log, and what could go.
//!
//! A table enters unchanged; counts leave. Everything comes from the log and from listing; no file is read.

use std::collections::BTreeSet;

use futures::TryStreamExt;

use crate::error::Error;
use crate::table::Table;

/// Counts of one table. Sizes are in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    pub table: String,
    pub version: u64,
    pub files: usize,
    pub bytes: u64,
    pub rows: u64,
    pub partitions: usize,
    pub file_bytes_min: u64,
    pub file_bytes_mean: u64,
    /// The version of the newest checkpoint.
    pub checkpoint: Option<u64>,
    pub log_files: usize,
    pub log_bytes: u64,
    /// Files that this version does not need: of older versions, of commits in flight, and of lost ones.
    pub unreferenced_files: usize,
    pub unreferenced_bytes: u64,
}

impl Table {
    /// Counts the table at its loaded version; lists all its files.
    ///
    /// # Errors
    /// `Store` when log or files cannot be listed.
    pub async fn stats(&self) -> Result<Stats, Error> {
        let failed = |error| Error::delta("list the files of", &self.name, error);
        let log = self.log().await?;
        let mut stats = Stats {
            table: self.name.clone(),
            version: self.version(),
            checkpoint: log.checkpoint,
            log_files: log.files,
            log_bytes: log.bytes,
            file_bytes_min: u64::MAX,
            ..Stats::default()
        };
        let (mut active, mut partitions) = (BTreeSet::new(), BTreeSet::new());
        for file in self.delta.snapshot().map_err(failed)?.log_data().iter() {
            let size = file.size().max(0) as u64;
            stats.files += 1;
            stats.bytes += size;
            stats.rows += file.num_records().unwrap_or_default() as u64;
            stats.file_bytes_min = stats.file_bytes_min.min(size);
            partitions.insert(file.partition_values_map().into_values().collect::<Vec<_>>());
            active.insert(file.object_store_path());
        }
        stats.partitions = partitions.len();
        stats.file_bytes_mean = stats.bytes.checked_div(stats.files as u64).unwrap_or_default();
        if stats.files == 0 {
            stats.file_bytes_min = 0;
        }
        let (store, log_store) = (self.delta.object_store(), self.delta.log_store());
        let mut entries = store.list(None);
        while let Some(entry) = entries.try_next().await.map_err(|source| failed(source.into()))? {
            let is_log = entry.location.prefix_matches(log_store.log_path());
            if !is_log && !active.contains(&entry.location) {
                stats.unreferenced_files += 1;
                stats.unreferenced_bytes += entry.size;
            }
        }
        Ok(stats)
    }
}
