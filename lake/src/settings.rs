//! Where the lake is, and how it is kept in order.
//!
//! Sections of the settings enter as plain data; credentials of a store never do.

/// `[lake]` in the settings.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// A folder, or `s3://<bucket>/<prefix>`.
    pub path: String,
    pub s3: S3Settings,
    pub upkeep: UpkeepSettings,
}

impl Settings {
    /// The default settings of a lake at `path`.
    pub fn at(path: impl Into<String>) -> Self {
        Self { path: path.into(), s3: S3Settings::default(), upkeep: UpkeepSettings::default() }
    }

    /// # Errors
    /// A value that cannot be used, with its key.
    pub fn check(&self) -> Result<(), String> {
        let upkeep = &self.upkeep;
        let positive = [
            ("lake.s3.request_timeout_s", self.s3.request_timeout_s),
            ("lake.upkeep.interval_s", upkeep.interval_s),
            ("lake.upkeep.target_file_bytes", upkeep.target_file_bytes),
            ("lake.upkeep.checkpoint_commits", upkeep.checkpoint_commits),
            ("lake.upkeep.log_retention_h", upkeep.log_retention_h),
            ("lake.upkeep.class3_retention_days", u64::from(upkeep.class3_retention_days)),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{key} must be at least 1"));
        }
        if upkeep.compact_files_min < 2 {
            return Err("lake.upkeep.compact_files_min must be at least 2".into());
        }
        if upkeep.compact_memory_bytes < COMPACT_MEMORY_BYTES_MIN {
            return Err(format!("lake.upkeep.compact_memory_bytes must be at least {COMPACT_MEMORY_BYTES_MIN}"));
        }
        // Under an hour a commit in flight could lose its files; after a week a checkpoint forgets when a file was removed.
        if !(1..=168).contains(&upkeep.file_retention_h) {
            return Err("lake.upkeep.file_retention_h must be from 1 to 168".into());
        }
        Ok(())
    }
}

/// A sort needs this much to make progress beside its spill files.
const COMPACT_MEMORY_BYTES_MIN: usize = 32 * 1024 * 1024;

/// `[lake.s3]` in the settings.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Settings {
    /// The longest one request may take.
    pub request_timeout_s: u64,
    /// No request is tried again after this time.
    pub retry_s_max: u64,
}

impl Default for S3Settings {
    fn default() -> Self {
        Self { request_timeout_s: 30, retry_s_max: 60 }
    }
}

/// `[lake.upkeep]` in the settings.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpkeepSettings {
    /// Whether a process that lands also does upkeep.
    pub enabled: bool,
    /// Between two rounds over all tables.
    pub interval_s: u64,
    /// Small files become files of up to about this size.
    pub target_file_bytes: u64,
    /// Fewer small files in a partition are left alone.
    pub compact_files_min: usize,
    /// Memory that the sort of one compaction may use; the rest goes to temporary files.
    pub compact_memory_bytes: usize,
    /// Commits after which a checkpoint is due.
    pub checkpoint_commits: u64,
    /// How long log entries are kept that a checkpoint covers.
    pub log_retention_h: u64,
    /// How long a file that no version needs is kept: for readers of older versions and commits in flight.
    pub file_retention_h: u64,
    /// Days of events kept where a contract of class 3 names none.
    pub class3_retention_days: u32,
}

impl Default for UpkeepSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            interval_s: 600,
            target_file_bytes: 128 * 1024 * 1024,
            compact_files_min: 8,
            compact_memory_bytes: 64 * 1024 * 1024,
            checkpoint_commits: 100,
            log_retention_h: 24,
            file_retention_h: 24,
            class3_retention_days: 180,
        }
    }
}
