//! What the Delta log says of single commits.
//!
//! A version enters; which positions its commit moved leaves, as long as the log still has its entry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, ErrorKind};
use crate::table::{Table, transaction_prefix};

/// The key of a landing's commit in Delta's `commitInfo`.
pub(crate) const COMMIT_INFO: &str = "quad";

/// What a commit says of one partition: its offsets `first_offset..next_offset` are in the lake since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub topic: String,
    pub partition: i32,
    pub first_offset: i64,
    pub next_offset: i64,
    /// Rows and dead letters of these offsets.
    pub rows: u64,
    pub letters: u64,
}

/// What a landing says of its commit, in the commit itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landing {
    pub landing: String,
    /// Bytes of the files that the commit added.
    pub bytes: u64,
    pub moves: Vec<Move>,
    /// Anything out of the ordinary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One commit of a landing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub version: u64,
    pub committed_ms: i64,
    pub landing: Landing,
}

/// What commits did to the records of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    /// The next offset of each partition that was moved.
    pub next: BTreeMap<i32, i64>,
    /// Rows were taken away, by retention for example, or replaced, or came from elsewhere.
    pub has_other_changes: bool,
}

impl Table {
    /// The commits under `landing` that moved a partition from `offset` on, oldest first; those whose log entries are gone
    /// are left out.
    ///
    /// # Errors
    /// `Store` when the log cannot be read.
    pub async fn commits_since(
        &self,
        landing: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for version in (0..=self.version()).rev() {
            let Some(actions) = self.actions(version).await? else { break };
            let Some(entry) = entry(version, &actions).filter(|entry| entry.landing.landing == landing) else {
                continue;
            };
            let is_ours = |moved: &&Move| moved.topic == topic && moved.partition == partition;
            let Some(first_offset) = entry.landing.moves.iter().find(is_ours).map(|moved| moved.first_offset) else {
                continue;
            };
            if first_offset < offset {
                break;
            }
            entries.push(entry);
            if first_offset == offset {
                break;
            }
        }
        entries.reverse();
        Ok(entries)
    }

    /// The application ids that the commit of `version` moved; `None` when its log entry is gone.
    pub(crate) async fn moved_in(&self, version: u64) -> Result<Option<Vec<String>>, Error> {
        let Some(actions) = self.actions(version).await? else { return Ok(None) };
        let id = |action: &Value| Some(action.get("txn")?.get("appId")?.as_str()?.to_string());
        Ok(Some(actions.iter().filter_map(id).collect()))
    }

    /// What the commits behind version `since` did to the records of `topic` that `landing` lands; `None` when an entry of the
    /// log is gone.
    ///
    /// # Errors
    /// `Store` when the log cannot be read.
    pub async fn moved_since(&self, landing: &str, topic: &str, since: u64) -> Result<Option<Moved>, Error> {
        let prefix = transaction_prefix(landing, topic);
        let mut moved = Moved::default();
        for version in since + 1..=self.version() {
            let Some(actions) = self.actions(version).await? else { return Ok(None) };
            let moves_of = |transaction: &Value| {
                let partition = transaction.get("appId")?.as_str()?.strip_prefix(&prefix)?.parse().ok()?;
                Some((partition, transaction.get("version")?.as_i64()?))
            };
            let next: BTreeMap<i32, i64> =
                actions.iter().filter_map(|action| action.get("txn")).filter_map(moves_of).collect();
            // Who only writes rows anew, as compaction does, says that the data are the same.
            let changes = |what: &str| {
                let mut files = actions.iter().filter_map(|action| action.get(what));
                files.any(|file| file.get("dataChange") != Some(&Value::Bool(false)))
            };
            moved.has_other_changes |= changes("remove") || (changes("add") && next.is_empty());
            moved.next.extend(next);
        }
        Ok(Some(moved))
    }

    /// The actions of one commit, as JSON.
    async fn actions(&self, version: u64) -> Result<Option<Vec<Value>>, Error> {
        let failed = |error| Error::delta("read the log of", &self.name, error);
        let Some(bytes) = self.delta.log_store().read_commit_entry(version).await.map_err(failed)? else {
            return Ok(None);
        };
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let actions = lines.map(serde_json::from_slice).collect::<Result<_, _>>();
        actions.map(Some).map_err(|error| Error {
            kind: ErrorKind::Store,
            message: format!("could not read version {version} in the log of {}", self.name),
            source: Some(Box::new(error)),
        })
    }
}

fn entry(version: u64, actions: &[Value]) -> Option<Entry> {
    let info = actions.iter().find_map(|action| action.get("commitInfo"))?;
    let landing = serde_json::from_value(info.get(COMMIT_INFO)?.clone()).ok()?;
    Some(Entry { version, committed_ms: info.get("timestamp")?.as_i64()?, landing })
}
