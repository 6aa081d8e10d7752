//! The `postgres_cdc` source: each change of a table of PostgreSQL, by logical replication.
//!
//! A table enters; batches of text columns leave: first every row that is there, then a row for each that was inserted,
//! updated or deleted, in the order of the commits. Each table has a replication slot of its own at the server, which keeps what
//! was not taken, and a publication that its owner makes; both are named `quad_<source>_<table>`. So tables fail and wait alone.
//!
//! There is no gap between rows and changes: the slot is made first, then the transactions that ran meanwhile are waited for,
//! then the table is read, and then everything that was committed since the slot was made is applied once more, so that it
//! does not matter which of it the rows had seen. The cursor is where the last whole transaction ended, and the slot is
//! moved to it once it is saved. A slot that lost changes is told and never made anew by itself.
//!
//! All goes by SQL functions over the ODBC connection that the rows come by: one connection, TLS and password. A client of
//! the streaming protocol (pgwire-replication, pg_walstream) would bring changes milliseconds earlier and read the log once, where
//! a pull reads it again from the oldest transaction that still runs; but the first leaves pgoutput to its user and reads
//! no table, the second knows no driver's settings, and both are a second way to connect, with a TLS of its own.

mod changes;
mod pgoutput;
mod place;
mod server;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::DataType;
use serde::Deserialize;

use self::changes::Changes;
use self::pgoutput::Lsn;
use self::place::{Phase, Place, name};
use self::server::{Relation, Server, Slot};
use self::session::Session;
use super::records;
use super::source::{Coverage, Each, Source, Worker};
use crate::connector::{Spec, TableMapping};
use crate::error::Error;
use crate::settings::SourceSettings;

/// How much of the log one peek looks through, so that it ends in time however long nobody has pulled.
const LOG_BYTES_MAX: u64 = 1 << 30;
/// Without a change the cursor moves only after so much of the log: it is written durably.
const IDLE_BYTES: u64 = 16 << 20;

/// The keys of a table whose changes are taken.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// As in a statement, with its schema unless it is on the search path.
    pub table: String,
    /// The input columns that the contract's key is made of.
    pub key: Vec<String>,
    /// Each input column's column of the table.
    pub input: BTreeMap<String, String>,
    /// What to do when changes were lost.
    #[serde(default)]
    pub slot_lost: SlotLost,
}

/// What to do about changes that are gone before they were taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotLost {
    /// The pull fails until a person has decided.
    #[default]
    Stop,
    /// The slot is made anew and the table is read anew, and that is said.
    Snapshot,
}

impl Table {
    /// The table, or what is wrong with it.
    pub(crate) fn checked(self) -> Result<Self, String> {
        if self.table.is_empty() || self.key.is_empty() || self.input.is_empty() {
            return Err("needs `table`, `key` (the input columns that the contract's key is made of) and `[input]`: \
                        column = column of the table"
                .into());
        }
        if let Some(name) = self.input.keys().find(|name| changes::META.contains(&name.as_str())) {
            return Err(format!("the input column `{name}` is always there: name yours otherwise"));
        }
        match self.key.iter().find(|name| !self.input.contains_key(*name)) {
            Some(name) => Err(format!("`key` names `{name}`, which is no column of `[input]`")),
            None => Ok(self),
        }
    }

    /// That a mapping tells deletes, and what came last: without either, deleted rows stay.
    pub(crate) fn check_mapping(sql: &str) -> Result<(), String> {
        match ["\"_op\"", "\"_timestamp\""].iter().find(|name| !sql.contains(**name)) {
            Some(name) => Err(format!(
                "its mapping does not read {name}, so that deletes would be lost: \"_op\" AS op, \"_timestamp\" AS src_updated_at"
            )),
            None => Ok(()),
        }
    }

    /// The columns of its batches.
    pub(crate) fn columns(&self) -> Vec<String> {
        self.input.keys().cloned().chain(changes::META.map(str::to_string)).collect()
    }

    fn of(table: &TableMapping) -> Result<&Self, Error> {
        match &table.spec {
            Spec::PostgresCdc(declared) => Ok(declared),
            _ => Err(Error::settings(format!("table `{}` names no table of PostgreSQL", table.name))),
        }
    }

    /// Where each column of `[input]` stands among the table's columns.
    fn places(&self, names: &[&str]) -> Result<Vec<usize>, Error> {
        let place = |column: &String| {
            let missing = || {
                Error::source(format!(
                    "`{}` has no column `{column}`: was it renamed or dropped? Mend `[input]` of this table. It has {}",
                    self.table,
                    names.join(", ")
                ))
            };
            names.iter().position(|name| name == column).ok_or_else(missing)
        };
        self.input.values().map(place).collect()
    }
}

/// A database, and what was said of it.
pub struct PostgresCdcSource {
    session: Session,
    worker: Worker,
    /// The tables that a warning was given of.
    warned: BTreeSet<String>,
}

impl Source for PostgresCdcSource {
    fn probe(&mut self, table: &TableMapping) -> Result<(), Error> {
        let declared = Table::of(table)?;
        let name = name(self.worker.id.as_deref().unwrap_or_default(), &table.name)?;
        let server = self.session.server(declared, &name)?;
        let sql = format!("{} LIMIT 0", server.table(declared)?.select(declared));
        self.session.rows(&sql, &mut |_| Ok(()))?;
        // A slot and a publication belong to a source.
        if self.worker.id.is_none() {
            return Ok(());
        }
        server.check(declared, &name)?;
        let invalid = server.slot.as_ref().and_then(Slot::invalid);
        let problem = invalid.map(|why| format!("its slot `{name}` is lost: {why}")).or(server.held_back(&name));
        problem.map_or(Ok(()), |problem| Err(Error::source(problem)))
    }

    fn pull(&mut self, table: &TableMapping, after: &[String], each: Each<'_>) -> Result<Coverage, Error> {
        let declared = Table::of(table)?;
        let Some(source) = self.worker.source.clone() else {
            // Who only looks sees the rows, and leaves no slot behind.
            let server = self.session.server(declared, "")?;
            self.read(declared, server.table(declared)?, None, each)?;
            return Ok(Coverage::Whole);
        };
        let name = name(&source, &table.name)?;
        let mut server = self.session.server(declared, &name)?;
        server.check(declared, &name)?;
        self.warn(&table.name, server.held_back(&name));
        let place = match place(declared, &name, &server, after)? {
            Found::Place(place) => place,
            found => {
                let before = Place::of(after).map_or(0, |place| place.time_us);
                let place = Place::first(server.relation(declared)?.oid, server.now_us.max(before));
                // Before the slot is there: so it is known as ours, whatever happens.
                each(Changes::new(declared, place, self.worker.limits).take()?, Some(place.cursor()))?;
                if let Found::Lost(why) = found {
                    tracing::warn!(source, table = table.name, "{why}; the table is read anew");
                    if server.slot.take().is_some() {
                        self.session.drop_slot(&name)?;
                    }
                }
                place
            }
        };
        if place.lsn == Lsn::default() {
            if server.slot.is_none() {
                self.session.make_slot(&name)?;
            }
            self.session.catch_up()?;
            server = self.session.server(declared, &name)?;
        }
        let Some(confirmed) = server.slot.as_ref().and_then(Slot::confirmed) else {
            return Err(Error::source(format!(
                "its slot `{name}` is still being made: it waits for the transactions that are under way, see pg_stat_activity"
            )));
        };
        if place.lsn > confirmed {
            self.session.advance_slot(&name, place.lsn)?;
        }
        let place = Place { lsn: place.lsn.max(confirmed), ..place };
        match place.phase {
            Phase::Snapshot => {
                self.read(declared, server.table(declared)?, changes::timestamp(place.time_us), each)?;
                Ok(Coverage::Anew(Place { phase: Phase::Stream, ..place }.cursor()))
            }
            Phase::Stream => self.stream(declared, &name, &server, place, each),
        }
    }
}

impl PostgresCdcSource {
    /// Connects.
    ///
    /// # Errors
    /// `Settings` when the driver is not installed, naming the package; `Source` when the database does not answer.
    pub fn connect(settings: &SourceSettings, worker: &Worker) -> Result<Self, Error> {
        let session = Session::open(settings, worker)?;
        Ok(Self { session, worker: worker.clone(), warned: BTreeSet::new() })
    }

    /// Says what is wrong once, until it is well again.
    fn warn(&mut self, table: &str, problem: Option<String>) {
        match problem {
            Some(problem) if self.warned.insert(table.to_string()) => {
                tracing::warn!(source = self.worker.source, table, "{problem}");
            }
            Some(_) => {}
            None => _ = self.warned.remove(table),
        }
    }

    /// Gives every row that is there, all with one time, so that they are the same when they are given again.
    fn read(&self, declared: &Table, relation: &Relation, time: Option<String>, each: Each<'_>) -> Result<(), Error> {
        let schema = records::schema(declared.columns().iter());
        self.session.rows(&relation.select(declared), &mut |rows| {
            let none = new_null_array(&DataType::Utf8, rows.num_rows());
            let times: ArrayRef = Arc::new(StringArray::from(vec![time.as_deref(); rows.num_rows()]));
            let columns = rows.columns().iter().cloned().chain([none.clone(), none.clone(), none, times]);
            let batch = RecordBatch::try_new(schema.clone(), columns.collect());
            each(batch.map_err(|error| Error::internal("put rows together", error))?, None)
        })
    }

    /// Gives the changes up to where the server's log was at the beginning, one part of it after the other.
    fn stream(
        &mut self,
        declared: &Table,
        name: &str,
        server: &Server,
        place: Place,
        each: Each<'_>,
    ) -> Result<Coverage, Error> {
        let relation = server.relation(declared)?;
        let mut changes = Changes::new(declared, place, self.worker.limits);
        let mut saved = place;
        while changes.place.phase == Phase::Stream && changes.place.lsn < server.flushed {
            // Before the slot may move, the cursor is saved.
            if saved.lsn > place.lsn {
                self.session.advance_slot(name, saved.lsn)?;
            }
            let until = Lsn(server.flushed.0.min(changes.place.lsn.0 + LOG_BYTES_MAX));
            let mut given = Ok(());
            let peeked = self.session.peek(name, relation, until, &mut |lsn, message, fetch| {
                changes.push(lsn, message, fetch)?;
                if changes.is_full() {
                    given = give(&mut changes, &mut saved, each);
                }
                let goes_on = given.is_ok() && changes.place.phase == Phase::Stream;
                Ok(if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            });
            given?;
            if matches!(peeked, Ok(true)) {
                changes.place.lsn = changes.place.lsn.max(until);
            }
            // What came whole before an error is taken: the next pull goes on behind it.
            let is_idle = !changes.is_due() && changes.place.lsn.0 - saved.lsn.0 < IDLE_BYTES;
            let is_last = peeked.is_err() || changes.place.lsn >= server.flushed;
            if changes.place.phase != saved.phase || !(is_idle && is_last) {
                give(&mut changes, &mut saved, each)?;
            }
            peeked?;
        }
        Ok(Coverage::Part)
    }
}

/// Gives what was collected, with the place after its last whole transaction.
fn give(changes: &mut Changes<'_>, saved: &mut Place, each: Each<'_>) -> Result<(), Error> {
    let cursor = (changes.place != *saved).then(|| changes.place.cursor());
    each(changes.take()?, cursor)?;
    *saved = changes.place;
    Ok(())
}

/// Where a table goes on.
enum Found {
    Place(Place),
    /// Nothing was taken yet.
    Nowhere,
    /// It is to be read anew, and why.
    Lost(String),
}

/// # Errors
/// `Source` when changes were lost, or the slot is somebody else's.
fn place(declared: &Table, name: &str, server: &Server, after: &[String]) -> Result<Found, Error> {
    let Some(place) = Place::of(after) else {
        return match server.slot {
            None => Ok(Found::Nowhere),
            Some(_) => Err(Error::source(format!(
                "the slot `{name}` is there, and this Quad has not made it or has lost its state: does another Quad take these \
                 changes? Name the source otherwise here; or, if nobody needs it, SELECT pg_drop_replication_slot('{name}')"
            ))),
        };
    };
    let is_begun = place.lsn > Lsn::default();
    let lost = match &server.slot {
        _ if place.oid != server.relation(declared)?.oid => Some("the table was dropped and made anew".to_string()),
        None => is_begun.then(|| "it is gone: it was dropped, or this is another server".to_string()),
        Some(slot) => slot.invalid().or_else(|| {
            let (confirmed, flushed) = (slot.confirmed().unwrap_or_default(), server.flushed);
            if is_begun && confirmed > place.lsn {
                return Some(format!("somebody has moved it to {confirmed}, beyond {}, the next", place.lsn));
            }
            (flushed < place.lsn)
                .then(|| format!("the server has gone back to {flushed}, before {}, the next", place.lsn))
        }),
    };
    match (lost, declared.slot_lost) {
        (None, _) => Ok(Found::Place(place)),
        (Some(why), SlotLost::Snapshot) => Ok(Found::Lost(format!("changes were lost with the slot `{name}`: {why}"))),
        (Some(why), SlotLost::Stop) => Err(Error::source(format!(
            "changes were lost with the slot `{name}`: {why}. Set `slot_lost = \"snapshot\"` of this table to read it anew, which \
             also deletes what is gone"
        ))),
    }
}
