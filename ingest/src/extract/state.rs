//! What extract remembers: cursors, and what each table has already sent.
//!
//! Durable on disk. It is written only after the log has acknowledged, so a cursor never runs ahead of the log; a crash
//! in between makes rows come twice, which their keys and hashes reveal. A disk without room refuses, and what it has
//! refused is opened again at the next use.

use std::borrow::Borrow;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, RwLock};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use super::backfill::Backfill;
use crate::error::{Error, ErrorKind};

/// With less free space than this many bytes nothing is sent that would have to be remembered: what is in memory may
/// have to go to disk at once.
const FREE_BYTES_MIN: u64 = 64 << 20;

/// The memory of all sources of one process.
pub struct State {
    path: PathBuf,
    /// `None` after a write that the disk refused: the database takes no other until it is opened again.
    opened: RwLock<Option<Opened>>,
    /// Held while a backfill is read and changed.
    changing: Mutex<()>,
}

struct Opened {
    database: Database,
    cursors: Keyspace,
    seen: Keyspace,
    backfills: Keyspace,
}

/// What is known of one row: its content hash, the pull that last saw it, and the newest change time that it bore, in
/// microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub hash: String,
    pub pull: u64,
    pub updated_us: Option<i64>,
}

/// A row that a pull did not see any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vanished {
    pub key: String,
    /// See [`Seen::updated_us`].
    pub updated_us: Option<i64>,
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
        let opened = RwLock::new(Some(Opened::open(path)?));
        Ok(Self { path: path.to_path_buf(), opened, changing: Mutex::default() })
    }

    /// That there is room to remember what is about to be sent.
    ///
    /// # Errors
    /// `Internal` when there is not.
    pub fn check_room(&self) -> Result<(), Error> {
        let look = |error| Error::internal(format!("look at the volume of {}", self.path.display()), error);
        let volume = rustix::fs::statvfs(&self.path).map_err(look)?;
        let free_bytes = volume.f_bavail * volume.f_frsize;
        if free_bytes >= FREE_BYTES_MIN {
            return Ok(());
        }
        let message = format!(
            "{free_bytes} bytes are free on the volume of extract.state_path {}: nothing is sent until there are \
             {FREE_BYTES_MIN}; make room",
            self.path.display()
        );
        Err(Error::new(ErrorKind::Internal, message))
    }

    /// Reads, from a database that is opened again if need be.
    fn read<T>(&self, what: &str, look: impl FnOnce(&Opened) -> Result<T, fjall::Error>) -> Result<T, Error> {
        self.reopen()?;
        match &*self.opened.read().expect("no holder of this lock panics") {
            Some(opened) => look(opened).map_err(|error| Error::internal(what, error)),
            None => {
                Err(Error::new(ErrorKind::Internal, format!("could not {what}: the disk has just refused a write")))
            }
        }
    }

    /// Writes what `fill` puts together, whole and durably, or not at all.
    fn write(&self, what: &str, fill: impl FnOnce(&Opened, &mut OwnedWriteBatch)) -> Result<(), Error> {
        let written = self.read(what, |opened| {
            let mut batch = opened.database.batch().durability(Some(PersistMode::SyncAll));
            fill(opened, &mut batch);
            batch.commit()
        });
        if written.is_err() {
            *self.opened.write().expect("no holder of this lock panics") = None;
        }
        written
    }

    fn reopen(&self) -> Result<(), Error> {
        if self.opened.read().expect("no holder of this lock panics").is_some() {
            return Ok(());
        }
        let mut opened = self.opened.write().expect("no holder of this lock panics");
        if opened.is_none() {
            *opened = Some(Opened::open(&self.path)?);
        }
        Ok(())
    }

    /// The memory of `table` of `source`.
    pub fn table(&self, source: &str, table: &str) -> TableState<'_> {
        TableState { state: self, prefix: format!("{source}/{table}/") }
    }
}

impl Opened {
    fn open(path: &Path) -> Result<Self, Error> {
        let wrong = |error: fjall::Error| {
            let holder = if matches!(error, fjall::Error::Locked) { " (is another extract running?)" } else { "" };
            let message = format!("could not open extract.state_path {}{holder}", path.display());
            Error { kind: ErrorKind::Settings, message, source: Some(Box::new(error)) }
        };
        let database = Database::builder(path).open().map_err(wrong)?;
        let keyspace = |name| database.keyspace(name, KeyspaceCreateOptions::default).map_err(wrong);
        let (cursors, seen, backfills) = (keyspace("cursors")?, keyspace("seen")?, keyspace("backfills")?);
        Ok(Self { database, cursors, seen, backfills })
    }
}

impl State {
    /// All backfills, the oldest first.
    ///
    /// # Errors
    /// `Internal` when the disk does not answer.
    pub fn backfills(&self) -> Result<Vec<Backfill>, Error> {
        let values = self.read("read the backfills", |opened| {
            opened.backfills.iter().map(fjall::Guard::value).collect::<Result<Vec<_>, _>>()
        })?;
        let read = |value: fjall::UserValue| serde_json::from_slice(&value);
        values
            .into_iter()
            .map(read)
            .collect::<Result<_, _>>()
            .map_err(|error| Error::internal("read a backfill", error))
    }

    /// # Errors
    /// As [`State::backfills`].
    pub fn backfill(&self, id: u64) -> Result<Option<Backfill>, Error> {
        let found = self.read("read a backfill", |opened| opened.backfills.get(id.to_be_bytes()))?;
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
        self.write("keep a backfill", |opened, batch| {
            batch.insert(&opened.backfills, backfill.id.to_be_bytes(), value);
        })
    }
}

impl TableState<'_> {
    /// As [`State::check_room`].
    ///
    /// # Errors
    /// As [`State::check_room`].
    pub fn check_room(&self) -> Result<(), Error> {
        self.state.check_room()
    }

    /// The last cursor that was saved.
    ///
    /// # Errors
    /// `Internal` when the disk does not answer.
    pub fn cursor(&self) -> Result<Cursor, Error> {
        match self.state.read("read a cursor", |opened| opened.cursors.get(&self.prefix))? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::internal("read a cursor", error)),
            None => Ok(Cursor::default()),
        }
    }

    /// Whether no row is known.
    ///
    /// # Errors
    /// As [`TableState::cursor`].
    pub fn is_empty(&self) -> Result<bool, Error> {
        self.state.read("look for rows that were seen", |opened| Ok(opened.seen.prefix(&self.prefix).next().is_none()))
    }

    /// What is known of the row `key`.
    ///
    /// # Errors
    /// As [`TableState::cursor`].
    pub fn seen(&self, key: &str) -> Result<Option<Seen>, Error> {
        let key = format!("{}{key}", self.prefix);
        let found = self.state.read("read what was seen", |opened| opened.seen.get(key))?;
        Ok(found.and_then(|bytes| decode(&bytes)))
    }

    /// Saves rows and the cursor together, durably; a row with nothing to remember is forgotten.
    ///
    /// # Errors
    /// `Internal` when the disk refuses.
    pub fn save<'k, S: Borrow<Seen>>(
        &self,
        rows: impl Iterator<Item = (&'k str, Option<S>)>,
        cursor: &Cursor,
    ) -> Result<(), Error> {
        let cursor = serde_json::to_vec(cursor).map_err(|error| Error::internal("write a cursor", error))?;
        self.state.write("save a cursor", |opened, batch| {
            for (key, seen) in rows {
                let key = format!("{}{key}", self.prefix);
                match seen {
                    Some(seen) => batch.insert(&opened.seen, key, encode(seen.borrow())),
                    None => batch.remove(&opened.seen, key),
                }
            }
            batch.insert(&opened.cursors, &self.prefix, cursor);
        })
    }

    /// Remembers one row that was sent beside the pulls, durably; the cursor stays where it is.
    ///
    /// # Errors
    /// `Internal` when the disk refuses.
    pub fn remember(&self, key: &str, seen: &Seen) -> Result<(), Error> {
        self.state.write("remember a row", |opened, batch| {
            batch.insert(&opened.seen, format!("{}{key}", self.prefix), encode(seen));
        })
    }

    /// How many rows a pull before `pull` saw last, and how many are known in all; those whose key begins with `left_out` are
    /// only known.
    ///
    /// # Errors
    /// `Internal` when the disk does not answer.
    pub fn count_unseen(&self, pull: u64, left_out: &str) -> Result<(usize, usize), Error> {
        self.state.read("count rows that vanished", |opened| {
            let (mut unseen, mut known) = (0, 0);
            for entry in opened.seen.prefix(&self.prefix) {
                let (key, value) = entry.into_inner()?;
                known += 1;
                let is_unseen = decode(&value).is_none_or(|seen| seen.pull < pull);
                unseen += usize::from(is_unseen && !key[self.prefix.len()..].starts_with(left_out.as_bytes()));
            }
            Ok((unseen, known))
        })
    }

    /// The keys behind `after` that a pull before `pull` saw last, each with its newest change time: the first `rows_max`.
    ///
    /// # Errors
    /// `Internal` when the disk does not answer.
    pub fn unseen_since(&self, pull: u64, after: &str, rows_max: usize) -> Result<Vec<Vanished>, Error> {
        self.state.read("look for rows that vanished", |opened| {
            let from = format!("{}{after}", self.prefix);
            let mut vanished = Vec::new();
            for entry in opened.seen.range((Bound::Excluded(from), Bound::Unbounded)) {
                let (key, value) = entry.into_inner()?;
                let Some(key) = key.strip_prefix(self.prefix.as_bytes()).filter(|_| vanished.len() < rows_max) else {
                    break;
                };
                let seen = decode(&value);
                if seen.as_ref().is_none_or(|seen| seen.pull < pull) {
                    let key = String::from_utf8_lossy(key).into_owned();
                    vanished.push(Vanished { key, updated_us: seen.and_then(|seen| seen.updated_us) });
                }
            }
            Ok(vanished)
        })
    }

    /// Forgets `keys`, and saves the cursor with it if there is one.
    ///
    /// # Errors
    /// `Internal` when the disk refuses.
    pub fn forget(&self, rows: &[Vanished], cursor: Option<&Cursor>) -> Result<(), Error> {
        let cursor = cursor.map(serde_json::to_vec).transpose();
        let cursor = cursor.map_err(|error| Error::internal("write a cursor", error))?;
        self.state.write("save a cursor", |opened, batch| {
            for row in rows {
                batch.remove(&opened.seen, format!("{}{}", self.prefix, row.key));
            }
            if let Some(cursor) = cursor {
                batch.insert(&opened.cursors, &self.prefix, cursor);
            }
        })
    }
}

/// 8 bytes of the pull's number, then the hash; a change time follows after a bar.
fn encode(seen: &Seen) -> Vec<u8> {
    let updated = seen.updated_us.map_or(String::new(), |updated_us| format!("|{updated_us}"));
    [seen.pull.to_be_bytes().as_slice(), seen.hash.as_bytes(), updated.as_bytes()].concat()
}

fn decode(bytes: &[u8]) -> Option<Seen> {
    let (pull, text) = bytes.split_first_chunk::<8>()?;
    let text = std::str::from_utf8(text).ok()?;
    let (hash, updated) = text.split_once('|').unwrap_or((text, ""));
    Some(Seen { pull: u64::from_be_bytes(*pull), hash: hash.to_string(), updated_us: updated.parse().ok() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(updated_us: Option<i64>) -> Seen {
        Seen { hash: "00ff".into(), pull: 7, updated_us }
    }

    #[test]
    fn what_was_seen_is_read_as_it_was_written() {
        for seen in [seen(None), seen(Some(-1)), seen(Some(1_795_500_000_000_000))] {
            assert_eq!(decode(&encode(&seen)), Some(seen));
        }
        assert_eq!(decode(b"short"), None);
    }

    #[test]
    fn after_a_refused_write_the_next_one_opens_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::open(folder.path()).expect("opens");
        let table = state.table("oa", "leave");
        let cursor = |pull| Cursor { values: vec![format!("{pull}")], pull };
        table.save([("L1", Some(&seen(None)))].into_iter(), &cursor(1)).expect("saves");
        // As after a write that the disk has refused.
        *state.opened.write().expect("not poisoned") = None;
        table.save([("L2", Some(&seen(Some(5))))].into_iter(), &cursor(2)).expect("opens again and saves");
        assert_eq!((table.seen("L1").expect("reads"), table.cursor().expect("reads")), (Some(seen(None)), cursor(2)));
        assert_eq!(table.count_unseen(8, "L2").expect("reads"), (1, 2));
    }

    #[test]
    fn what_vanished_is_told_part_by_part_and_of_this_table_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::open(folder.path()).expect("opens");
        let (table, cursor) = (state.table("oa", "leave"), Cursor::default());
        let old = Seen { pull: 1, ..seen(Some(5)) };
        let rows = [("A", Some(&old)), ("B", Some(&old)), ("C", Some(&old)), ("D", Some(&old))];
        table.save(rows.into_iter(), &cursor).expect("saves");
        state.table("oa", "other").save([("A", Some(&old))].into_iter(), &cursor).expect("saves");
        table.save([("B", Some(&seen(None))), ("D", None)].into_iter(), &cursor).expect("saves");
        let unseen = |after: &str| {
            let vanished = table.unseen_since(7, after, 1).expect("reads");
            vanished.into_iter().map(|row| (row.key, row.updated_us)).collect::<Vec<_>>()
        };
        assert_eq!(unseen(""), [("A".to_string(), Some(5))]);
        assert_eq!(unseen("A"), [("C".to_string(), Some(5))]);
        assert_eq!(unseen("C"), []);
    }
}
