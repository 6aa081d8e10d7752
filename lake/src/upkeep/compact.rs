//! Compaction: many small files of a partition become one, sorted by the contract's key.
//!
//! A table enters with its rows, and leaves with the same rows in fewer files; `dataChange` is false. One bin is read,
//! sorted and written at a time, with bounded memory, so neither the table nor a partition is ever held in memory. A
//! bin that loses or gains a row is never committed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{SortExpr, ident};
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake::kernel::{Action, Add, Remove};
use deltalake::protocol::DeltaOperation;
use futures::StreamExt;
use schemas::Contract;

use crate::append::writer;
use crate::error::{Error, ErrorKind};
use crate::settings::UpkeepSettings;
use crate::table::Table;

/// More files than this wait for the next bin.
const FILES_IN_BIN_MAX: usize = 1_000;

/// Rows in a batch on their way through the sort.
const BATCH_ROWS: usize = 4_096;

/// What a compaction did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Compacted {
    pub bins: usize,
    pub files_before: usize,
    pub files_after: usize,
    pub bytes_before: u64,
    pub bytes_after: u64,
}

/// Which files are worth rewriting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// At least `compact_files_min` of about one size, so that a byte is rewritten a few times only: for the background.
    Due,
    /// Any two that fit together: by hand, now and then.
    All,
}

impl Scope {
    /// The least files that become one, and how many times what joined before a file may weigh.
    fn limits(self, settings: &UpkeepSettings) -> (usize, u64) {
        match self {
            Self::Due => (settings.compact_files_min, 2),
            Self::All => (2, u64::MAX),
        }
    }
}

/// A file that may join others.
struct Small {
    bytes: u64,
    rows: Option<u64>,
    remove: Remove,
}

/// Files of one partition that become one.
pub(super) struct Bin {
    files: Vec<Remove>,
    bytes: u64,
    /// `None` when a file's count is not in the log.
    rows: Option<u64>,
}

impl Table {
    /// Compacts every partition as far as `scope` says; `progress` is called after each bin with what has been done so far.
    ///
    /// # Errors
    /// `Fenced` when another upkeep has rewritten this table meanwhile, `Store` when a file cannot be read or written.
    pub async fn compact(
        &mut self,
        contract: &Contract,
        settings: &UpkeepSettings,
        scope: Scope,
        now_ms: i64,
        mut progress: impl FnMut(Compacted),
    ) -> Result<Compacted, Error> {
        let mut done = Compacted::default();
        // Planned anew for each bin: the version that is read is the one that is committed against.
        loop {
            self.refresh().await?;
            let Some(bin) = self.bins(settings, scope)?.into_iter().next() else {
                return Ok(done);
            };
            let added = self.rewrite(contract, settings, &bin).await?;
            done.bins += 1;
            done.files_before += bin.files.len();
            done.bytes_before += bin.bytes;
            done.files_after += added.len();
            done.bytes_after += added.iter().map(|add| add.size.max(0) as u64).sum::<u64>();
            self.replace(bin, added, settings.target_file_bytes, now_ms).await?;
            progress(done);
        }
    }

    /// What [`Table::compact`] would begin with; further bins may follow from its results.
    ///
    /// # Errors
    /// `Store` when the log cannot be read.
    pub fn compactable(&self, settings: &UpkeepSettings, scope: Scope) -> Result<Compacted, Error> {
        let bins = self.bins(settings, scope)?;
        let (files, bytes) =
            bins.iter().fold((0, 0), |(files, bytes), bin| (files + bin.files.len(), bytes + bin.bytes));
        Ok(Compacted {
            bins: bins.len(),
            files_before: files,
            files_after: bins.len(),
            bytes_before: bytes,
            bytes_after: 0,
        })
    }

    pub(super) async fn replace(
        &mut self,
        bin: Bin,
        added: Vec<Add>,
        target_bytes: u64,
        now_ms: i64,
    ) -> Result<(), Error> {
        let actions = bin.files.into_iter().map(Action::Remove).chain(added.into_iter().map(Action::Add));
        let target_size = i64::try_from(target_bytes).unwrap_or(i64::MAX);
        let operation = DeltaOperation::Optimize { predicate: None, target_size };
        self.commit_upkeep(actions.collect(), operation, now_ms).await
    }

    pub(super) fn bins(&self, settings: &UpkeepSettings, scope: Scope) -> Result<Vec<Bin>, Error> {
        let failed = |error| Error::delta("list the files of", &self.name, error);
        let (target_bytes, (files_min, weight_max)) = (settings.target_file_bytes, scope.limits(settings));
        let mut partitions: BTreeMap<Vec<Option<String>>, Vec<Small>> = BTreeMap::new();
        for file in self.delta.snapshot().map_err(failed)?.log_data().iter() {
            let bytes = file.size().max(0) as u64;
            if bytes < target_bytes {
                let partition = file.partition_values_map().into_values().collect();
                let rows = file.num_records().map(|rows| rows as u64);
                let small = Small { bytes, rows, remove: file.remove_action(false) };
                partitions.entry(partition).or_default().push(small);
            }
        }
        let mut bins = Vec::new();
        for mut files in partitions.into_values() {
            files.sort_by(|one, other| (one.bytes, &one.remove.path).cmp(&(other.bytes, &other.remove.path)));
            let sizes: Vec<u64> = files.iter().map(|file| file.bytes).collect();
            for range in ranges(&sizes, target_bytes, files_min, weight_max) {
                let files = &files[range];
                bins.push(Bin {
                    bytes: files.iter().map(|file| file.bytes).sum(),
                    rows: files.iter().map(|file| file.rows).sum(),
                    files: files.iter().map(|file| file.remove.clone()).collect(),
                });
            }
        }
        Ok(bins)
    }

    /// Writes the rows of `bin` in order; nothing of it is visible yet.
    pub(super) async fn rewrite(
        &self,
        contract: &Contract,
        settings: &UpkeepSettings,
        bin: &Bin,
    ) -> Result<Vec<Add>, Error> {
        let failed = |error| Error::delta("compact", &self.name, error);
        let scan_failed = |error| Error::scan(&self.name, error);
        let pool = Arc::new(FairSpillPool::new(settings.compact_memory_bytes));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().map_err(scan_failed)?;
        let mut config = SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH_ROWS);
        // The types of the table, as its writer takes them.
        config.options_mut().execution.parquet.schema_force_view_types = false;
        let context = SessionContext::new_with_config_rt(config, runtime);
        let files = bin.files.iter().map(|file| file.path.clone());
        let provider = self.delta.table_provider().with_session(Arc::new(context.state())).with_file_paths(files);
        let provider = provider.build().await.map_err(scan_failed)?;
        let rows = context.read_table(Arc::new(provider)).map_err(scan_failed)?;
        let rows = rows.sort(order(contract)).map_err(scan_failed)?;
        let mut rows = rows.execute_stream().await.map_err(scan_failed)?;

        let mut writer = writer(self, &self.schema(), None)?;
        let mut written = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(scan_failed)?;
            written += batch.num_rows() as u64;
            writer.write(&batch).await.map_err(failed)?;
        }
        let mut added = writer.close().await.map_err(failed)?;
        if bin.rows.is_some_and(|rows| rows != written) {
            let message =
                format!("compaction of {} read {written} rows of {:?}; nothing was changed", self.name, bin.rows);
            return Err(Error::new(ErrorKind::Store, message));
        }
        added.iter_mut().for_each(|add| add.data_change = false);
        Ok(added)
    }
}

/// By key, and versions of one key as they came.
fn order(contract: &Contract) -> Vec<SortExpr> {
    let [_, partition, offset] = schemas::record::POSITION;
    let columns = contract.key.iter().map(String::as_str).chain([partition, offset]);
    columns.map(|column| ident(column).sort(true, true)).collect()
}

/// Which of `sizes`, in ascending order, become one file each: runs of at least `files_min` that fit into `target`.
///
/// A file of more than `weight_max` times what joined before it does not join: so a byte is rewritten a logarithmic number
/// of times on its way into a large file, however small the commits are.
fn ranges(sizes: &[u64], target: u64, files_min: usize, weight_max: u64) -> Vec<Range<usize>> {
    let (mut found, mut start) = (Vec::new(), 0);
    while start < sizes.len() {
        let (mut end, mut total) = (start, 0_u64);
        while end < sizes.len() && end - start < FILES_IN_BIN_MAX {
            let joins = end == start || sizes[end] <= total.saturating_mul(weight_max);
            if !joins || total + sizes[end] > target {
                break;
            }
            total += sizes[end];
            end += 1;
        }
        if end - start >= files_min {
            found.push(start..end);
            start = end;
        } else {
            start += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn files_join_what_is_about_their_size() {
        // Eight of a size become one; seven wait.
        assert_eq!(ranges(&[10; 8], 100, 8, 2), vec![0..8]);
        assert!(ranges(&[10; 7], 100, 8, 2).is_empty());
        // More than fit become several.
        assert_eq!(ranges(&[10; 25], 100, 8, 2), vec![0..10, 10..20]);
        // A large file is not rewritten for the sake of a few small ones, and does not keep them from each other.
        assert_eq!(ranges(&[1, 1, 1, 1, 50], 100, 4, 2), vec![0..4]);
        assert_eq!(ranges(&[1, 40, 40], 100, 2, 2), vec![1..3]);
        assert!(ranges(&[], 100, 2, 2).is_empty());
        // By hand, whatever fits.
        assert_eq!(ranges(&[1, 40, 41, 90], 100, 2, u64::MAX), vec![0..3]);
    }

    #[test]
    fn a_byte_is_rewritten_a_few_times_only() {
        // A commit of 1 every second for a day; compaction whenever something is due.
        let (mut files, mut rewritten, commits) = (Vec::<u64>::new(), 0, 86_400);
        for _ in 0..commits {
            files.push(1);
            files.sort_unstable();
            while let Some(range) = ranges(&files, 20_000, 8, 2).into_iter().next() {
                let total: u64 = files.drain(range).sum();
                rewritten += total;
                files.push(total);
                files.sort_unstable();
            }
        }
        assert_eq!(files.iter().sum::<u64>(), commits);
        assert!(files.len() < 60, "{} files are left", files.len());
        assert!(rewritten < 10 * commits, "a byte was rewritten {} times", rewritten / commits);
    }
}
