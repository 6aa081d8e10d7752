//! How each source is: kept in memory, and in one JSON file that `quad sources` reads.
//!
//! Counts, times and error texts enter; the file holds no row of any source. It is replaced as a whole, so a reader
//! never sees half of it. What a table is doing is written at once, counts after a moment: pushes come by the hundred.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::pipeline::Sent;
use crate::connector::{Pull, TableMapping};
use crate::metrics;

/// How one table of one source is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TableStatus {
    pub connector: String,
    pub contract: String,
    pub state: State,
    /// The last time everything went well.
    pub succeeded_at: Option<DateTime<Utc>>,
    /// The newest time that a row of the source bears.
    #[serde(default)]
    pub newest_at: Option<DateTime<Utc>>,
    pub records: u64,
    pub dead_letters: u64,
    /// Rows that came again and were recognised.
    pub repeats: u64,
    /// Values that no code map of the connector knew.
    pub codes_unknown: u64,
    /// Failures since the last success.
    pub failures: u64,
    pub error: Option<String>,
}

/// What a table is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Waiting,
    Pulling,
    Ok,
    Retrying,
}

/// All tables, by `<source>/<table>`.
pub type Report = BTreeMap<String, TableStatus>;

/// How far the file may be behind with counts.
pub(super) const WRITE_EVERY: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Kept {
    report: Report,
    /// Whether it says more than the file.
    is_ahead: bool,
}

/// The status of all sources of this process.
pub struct Board {
    file: PathBuf,
    /// What an earlier process had written: a restart makes no source younger.
    earlier: Report,
    kept: Mutex<Kept>,
    started_at: DateTime<Utc>,
}

impl Board {
    pub fn new(state_path: &Path) -> Self {
        let earlier = read(state_path).unwrap_or_default();
        Self { file: file(state_path), earlier, kept: Mutex::default(), started_at: Utc::now() }
    }

    /// Makes the entry of a table before anything is pulled.
    pub fn register(&self, source: &str, connector: &str, table: &TableMapping) {
        let is_pulled = table.pull != Pull::Push;
        metrics::register(source, &table.name, is_pulled, table.contract.freshness_s);
        let earlier = self.earlier.get(&format!("{source}/{}", table.name));
        self.update(source, &table.name, |status| {
            status.connector = connector.to_string();
            status.contract = table.contract.name();
            status.succeeded_at = earlier.and_then(|status| status.succeeded_at);
            status.newest_at = earlier.and_then(|status| status.newest_at);
        });
    }

    /// Sets the gauges that grow by themselves; called when the metrics are asked for.
    pub fn observe(&self, now: DateTime<Utc>) {
        let since = |at: Option<DateTime<Utc>>| (now - at.unwrap_or(self.started_at)).to_std().unwrap_or_default();
        for (name, status) in &self.kept.lock().expect("no holder of this lock panics").report {
            let (source, table) = name.split_once('/').unwrap_or((name, ""));
            metrics::aged(source, table, since(status.succeeded_at), since(status.newest_at));
        }
    }

    /// Changes the status of one table.
    pub fn update(&self, source: &str, table: &str, change: impl FnOnce(&mut TableStatus)) {
        let mut kept = self.kept.lock().expect("no holder of this lock panics");
        let status = kept.report.entry(format!("{source}/{table}")).or_default();
        let before = (status.state, status.failures);
        change(status);
        let is_news = (status.state, status.failures) != before;
        kept.is_ahead = true;
        if is_news {
            self.write(&mut kept);
        }
    }

    /// Writes what the file does not say yet.
    pub fn keep_up(&self) {
        let mut kept = self.kept.lock().expect("no holder of this lock panics");
        if kept.is_ahead {
            self.write(&mut kept);
        }
    }

    fn write(&self, kept: &mut Kept) {
        let text = serde_json::to_vec_pretty(&kept.report).expect("a report has only plain values");
        let fresh = self.file.with_extension("json.new");
        match std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &self.file)) {
            Ok(()) => kept.is_ahead = false,
            Err(error) => {
                tracing::warn!(file = %self.file.display(), %error, "could not write the status of the sources");
            }
        }
    }

    /// A pull or push went well.
    pub fn succeeded(&self, source: &str, table: &str, sent: Sent, codes_unknown: u64, now: DateTime<Utc>) {
        self.update(source, table, |status| {
            status.records += sent.records as u64;
            status.dead_letters += sent.letters as u64;
            status.repeats += sent.repeats as u64;
            status.codes_unknown = codes_unknown;
            status.state = State::Ok;
            status.succeeded_at = Some(now);
            status.newest_at = status.newest_at.max(sent.newest);
            status.failures = 0;
            status.error = None;
        });
    }

    /// A pull failed and will be tried again.
    pub fn failed(&self, source: &str, table: &str, error: &str) {
        self.update(source, table, |status| {
            status.state = State::Retrying;
            status.failures += 1;
            status.error = Some(error.to_string());
        });
    }

    pub fn report(&self) -> Report {
        self.kept.lock().expect("no holder of this lock panics").report.clone()
    }
}

/// The file of a state folder.
pub fn file(state_path: &Path) -> PathBuf {
    let name = state_path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    state_path.with_file_name(format!("{name}.sources.json"))
}

/// Reads what a running or stopped extract last wrote.
///
/// # Errors
/// The file is not there: no extract has run with these settings.
pub fn read(state_path: &Path) -> std::io::Result<Report> {
    let text = std::fs::read(file(state_path))?;
    serde_json::from_slice(&text).map_err(std::io::Error::other)
}
