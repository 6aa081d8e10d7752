//! What extract remembers: cursors, and what each table has already sent.
//!
//! Durable on disk. It is written only after the log has acknowledged, so a cursor never runs ahead of the log; a crash
//! in between makes rows come twice, which their keys and hashes reveal.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::backfill::Backfill;
use crate::error::Error;

/// The memory of all sources of one process.
pub struct State {
    database: Database,
    cursors: Keyspace,
    seen: Keyspace,
    backfills: Keyspace,
    /// Held while a backfill is read and changed.
    changing: std::sync::Mutex<()>,
}

/// What is known of one row: its content hash, and the pull that last saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub hash: String,
    pub pull: u64,
}

/// The part of the memory that belongs to one table of one source.
pub struct TableState<'a> {
    state: &'a State,
    prefix: String,
}

/// The cursor of a table: its columns' values as text, and the number of the pull under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cursor {
    pub values: Vec<String>,
    pub pull: u64,
}

impl State {
    /// Opens the folder, creating it.
    ///
    /// # Errors
    /// `Settings` when another process holds it or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let wrong = |error: fjall::Error| Error {
            kind: crate::ErrorKind::Settings,
            message: format!("could not open extract.state_path {} (is another extract running?)", path.display()),
            source: Some(Box::new(error)),
        };
        let database = Database::builder(path).open().map_err(wrong)?;
        let cursors = database.keyspace("cursors", KeyspaceCreateOptions::default).map_err(wrong)?;
        let seen = database.keyspace("seen", KeyspaceCreateOptions::default).map_err(wrong)?;
        let backfills = database.keyspace("backfills", KeyspaceCreateOptions::default).map_err(wrong)?;
        Ok(Self { database, cursors, seen, backfills, changing: std::sync::Mutex::default() })
    }

    /// The memory of `table` of `source`.
    pub fn table(&self, source: &str, table: &str) -> TableState<'_> {
        TableState { state: self, prefix: format!("{source}/{table}/") }
    }
}

impl State {
    /// All backfills, the oldest first.
    ///
    /// # Errors
    /// `Internal` when the disk does not answer.
    pub fn backfills(&self) -> Result<Vec<Backfill>, Error> {
        let failed = |error: fjall::Error| Error::internal("read the backfills", error);
        let read = |entry: fjall::Guard| {
            let value = entry.value().map_err(failed)?;
            serde_json::from_slice(&value).map_err(|error| Error::internal("read a backfill", error))
        };
        self.backfills.iter().map(read).collect()
    }

    /// # Errors
    /// As [`State::backfills`].
    pub fn backfill(&self, id: u64) -> Result<Option<Backfill>, Error> {
        let found = self.backfills.get(id.to_be_bytes()).map_err(|error| Error::internal("read a backfill", error))?;
        let read = |bytes: fjall::UserValue| serde_json::from_slice(&bytes);
        found.map(read).transpose().map_err(|error| Error::internal("read a backfill", error))
    }

    /// Keeps what `make` gives for the next free number.
    ///
    /// # Errors
    /// `Internal` when the disk refuses.
    pub fn add_backfill(&self, make: impl FnOnce(u64) -> Backfill) -> Result<Backfill, Error> {
        let _alone = self.changing.lock().expect("no holder of this lock panics");
        let last = self.backfills()?.last().map_or(0, |backfill| backfill.id);
        let backfill = make(last + 1);
        self.keep_backfill(&backfill)?;
        Ok(backfill)
    }

    /// Changes one, durably; `None` when there is none of that number.
    ///
    /// # Errors
    /// `Internal` when the disk refuses.
    pub fn change_backfill(&self, id: u64, change: impl FnOnce(&mut Backfill)) -> Result<Option<Backfill>, Error> {
        let _alone = self.changing.lock().expect("no holder of this lock panics");
        let Some(mut backfill) = self.backfill(id)? else { return Ok(None) };
        change(&mut backfill);
        self.keep_backfill(&backfill)?;
        Ok(Some(backfill))
    }

    fn keep_backfill(&self, backfill: &Backfill) -> Result<(), Error> {
        let value = serde_json::to_vec(backfill).map_err(|error| Error::internal("keep a backfill", error))?;
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&self.backfills, backfill.id.to_be_bytes(), value);
        batch.commit().map_err(|error| Error::internal("keep a backfill", error))
    }
}

impl TableState<'_> {
    /// The last cursor that was saved.
    ///
    /// # Errors
    /// `Internal` when the disk does not answer.
    pub fn cursor(&self) -> Result<Cursor, Error> {
        let failed = |error: fjall::Error| Error::internal("read a cursor", error);
        match self.state.cursors.get(&self.prefix).map_err(failed)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::internal("read a cursor", error)),
            None => Ok(Cursor::default()),
        }
    }

    /// What is known of the row `key`.
    ///
    /// # Errors
    /// As [`TableState::cursor`].
    pub fn seen(&self, key: &str) -> Result<Option<Seen>, Error> {
        let found = self.state.seen.get(format!("{}{key}", self.prefix));
        let found = found.map_err(|error| Error::internal("read what was seen", error))?;
        Ok(found.and_then(|bytes| decode(&bytes)))
    }

    /// Saves rows and the cursor together, durably.
    ///
    /// # Errors
    /// `Internal` when the disk refuses.
    pub fn save<'k>(&self, rows: impl Iterator<Item = (&'k str, &'k Seen)>, cursor: &Cursor) -> Result<(), Error> {
        let mut batch = self.state.database.batch().durability(Some(PersistMode::SyncAll));
        for (key, seen) in rows {
            batch.insert(&self.state.seen, format!("{}{key}", self.prefix), encode(seen));
        }
        let cursor = serde_json::to_vec(cursor).map_err(|error| Error::internal("write a cursor", error))?;
        batch.insert(&self.state.cursors, &self.prefix, cursor);
        batch.commit().map_err(|error| Error::internal("save a cursor", error))
    }

    /// Remembers one row that was sent beside the pulls, durably; the cursor stays where it is.
    ///
    /// # Errors
    /// `Internal` when the disk refuses.
    pub fn remember(&self, key: &str, seen: &Seen) -> Result<(), Error> {
        let mut batch = self.state.database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&self.state.seen, format!("{}{key}", self.prefix), encode(seen));
        batch.commit().map_err(|error| Error::internal("remember a row", error))
    }

    /// The keys that a pull before `pull` saw last, and how many rows are known in all.
    ///
    /// # Errors
    /// `Internal` when the disk does not answer.
    pub fn unseen_since(&self, pull: u64) -> Result<(Vec<String>, usize), Error> {
        let failed = |error: fjall::Error| Error::internal("look for rows that vanished", error);
        let (mut vanished, mut known) = (Vec::new(), 0);
        for entry in self.state.seen.prefix(&self.prefix) {
            let (key, value) = entry.into_inner().map_err(failed)?;
            known += 1;
            if decode(&value).is_none_or(|seen| seen.pull < pull) {
                vanished.push(String::from_utf8_lossy(&key[self.prefix.len()..]).into_owned());
            }
        }
        Ok((vanished, known))
    }

    /// Forgets `keys`, and saves the cursor with it.
    ///
    /// # Errors
    /// `Internal` when the disk refuses.
    pub fn forget(&self, keys: &[String], cursor: &Cursor) -> Result<(), Error> {
        let mut batch = self.state.database.batch().durability(Some(PersistMode::SyncAll));
        for key in keys {
            batch.remove(&self.state.seen, format!("{}{key}", self.prefix));
        }
        let cursor = serde_json::to_vec(cursor).map_err(|error| Error::internal("write a cursor", error))?;
        batch.insert(&self.state.cursors, &self.prefix, cursor);
        batch.commit().map_err(|error| Error::internal("save a cursor", error))
    }
}

/// 8 bytes of the pull's number, then the hash.
fn encode(seen: &Seen) -> Vec<u8> {
    [seen.pull.to_be_bytes().as_slice(), seen.hash.as_bytes()].concat()
}

fn decode(bytes: &[u8]) -> Option<Seen> {
    let (pull, hash) = bytes.split_first_chunk::<8>()?;
    Some(Seen { pull: u64::from_be_bytes(*pull), hash: String::from_utf8(hash.to_vec()).ok()? })
}
