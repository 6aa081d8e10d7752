//! Messages of one table's stream → batches of text columns.
//!
//! Messages enter in the order of their commits; a row for each change leaves, with what it does, and with the place after the
//! last whole transaction. A change of `key` is a delete and a new row. A value that is stored apart and did not change is not
//! sent: it is taken from the row as it was, or else asked for, and never left out. A text that is too long or no text makes
//! its row a dead letter. TRUNCATE ends the stream: the table has to be read anew.

use std::borrow::Cow;

use arrow::array::RecordBatch;
use chrono::{DateTime, SecondsFormat};

use super::Table;
use super::pgoutput::{Column, Message, Old, Tuple, Value};
use super::place::{Phase, Place};
use crate::error::Error;
use crate::extract::source::Limits;
use crate::extract::{records, rows};

/// The columns that every row has beside those of `[input]`: `_op` is D where the row was deleted, `_timestamp` when its
/// transaction ended, and `_lsn` where its change is in the server's log; a snapshot's rows have none.
pub(super) const META: [&str; 4] = [records::UNREADABLE, "_lsn", "_op", "_timestamp"];

/// A time as `_timestamp` tells it.
pub(super) fn timestamp(time_us: i64) -> Option<String> {
    let time = DateTime::from_timestamp_micros(time_us);
    time.map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// Columns of one row that its change does not tell.
pub(super) struct Missing<'m> {
    pub columns: Vec<&'m String>,
    /// The columns that tell which row, and their values.
    pub identity: Vec<(&'m String, String)>,
    /// The transaction of the change, which the answer must have seen.
    pub xid: u32,
}

/// Asks for what is missing; none when the row is gone, which a later change tells.
pub(super) type Fetch<'f> = &'f mut dyn FnMut(&Missing<'_>) -> Result<Option<Vec<Option<String>>>, Error>;

/// Collects the rows of a batch.
pub(super) struct Changes<'a> {
    declared: &'a Table,
    oid: u32,
    text_bytes_max: usize,
    rows: rows::Rows,
    /// How the table was when the next change was made.
    relation: Option<Relation>,
    xid: u32,
    time_us: i64,
    is_truncated: bool,
    /// The transaction under way has given rows; and no cursor that was given covers all rows.
    is_open: bool,
    is_due: bool,
    /// After the last whole transaction.
    pub place: Place,
}

struct Relation {
    columns: Vec<Column>,
    /// The place of each column of `[input]` among them.
    places: Vec<usize>,
}

impl<'a> Changes<'a> {
    /// Of the table with this oid, from `place` on.
    pub(super) fn new(declared: &'a Table, place: Place, limits: Limits) -> Self {
        let rows = rows::Rows::new(declared.columns(), limits);
        let (oid, text_bytes_max) = (place.oid, limits.text_bytes_max);
        Self {
            declared,
            oid,
            text_bytes_max,
            rows,
            relation: None,
            xid: 0,
            time_us: place.time_us,
            is_truncated: false,
            is_open: false,
            is_due: false,
            place,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.is_full()
    }

    /// Whether rows came that no place taken covers.
    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }

    /// What was collected, which may be nothing, and goes with [`Changes::place`].
    ///
    /// # Errors
    /// `Internal`, which no change can cause.
    pub(super) fn take(&mut self) -> Result<RecordBatch, Error> {
        self.is_due = self.is_open;
        self.rows.take()
    }

    /// Takes the message that stands at `lsn`.
    ///
    /// # Errors
    /// `Source` when a column of `[input]` is not there any more; whatever `fetch` returns.
    pub(super) fn push(&mut self, lsn: &str, message: Message<'_>, fetch: Fetch<'_>) -> Result<(), Error> {
        match message {
            Message::Begin { time_us, xid } => {
                // Clocks may go back, and places in the log do not: so times do not either.
                self.time_us = time_us.max(self.place.time_us);
                self.xid = xid;
            }
            Message::Commit { end } => {
                let phase = if self.is_truncated { Phase::Snapshot } else { Phase::Stream };
                self.is_open = false;
                self.place = Place { phase, lsn: end, time_us: self.time_us, oid: self.oid };
            }
            Message::Relation { oid, columns, .. } if oid == self.oid => {
                let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
                let places = self.declared.places(&names)?;
                self.relation = Some(Relation { columns, places });
            }
            Message::Truncate { oids } => self.is_truncated |= oids.contains(&self.oid),
            // The table is read anew behind them.
            _ if self.is_truncated => {}
            Message::Insert { oid, new } if oid == self.oid => self.update(lsn, None, &new, fetch)?,
            Message::Update { oid, old, new } if oid == self.oid => self.update(lsn, old.as_ref(), &new, fetch)?,
            Message::Delete { oid, old } if oid == self.oid => {
                let cells = self.known()?.cells(&old.row)?;
                self.row(lsn, Some("D"), cells);
            }
            _ => {}
        }
        Ok(())
    }

    fn known(&self) -> Result<&Relation, Error> {
        self.relation.as_ref().ok_or_else(|| Error::source("a change came before the columns of its table"))
    }

    /// The row is there now, and was `old` before if that is told.
    fn update(&mut self, lsn: &str, old: Option<&Old<'_>>, new: &Tuple<'_>, fetch: Fetch<'_>) -> Result<(), Error> {
        let (declared, relation) = (self.declared, self.known()?);
        let new = &relation.completed(new, old);
        let mut cells = relation.cells(new)?;
        let before = old.map(|old| relation.cells(&old.row)).transpose()?;
        let is_key = |(at, name): (usize, &String)| declared.key.contains(name).then_some(at);
        let mut key = declared.input.keys().enumerate().filter_map(is_key);
        let gone = before.filter(|before| key.any(|at| before[at] != cells[at]));
        let inputs: Vec<&String> = declared.input.values().collect();
        let is_missing = |at: &usize| new[relation.places[*at]] == Value::Unchanged;
        let missing: Vec<usize> = (0..inputs.len()).filter(is_missing).collect();
        let mut is_there = true;
        if !missing.is_empty() {
            let columns = missing.iter().map(|at| inputs[*at]).collect();
            match fetch(&Missing { columns, identity: relation.identity(new)?, xid: self.xid })? {
                Some(values) => {
                    for (at, value) in missing.into_iter().zip(values) {
                        cells[at] = value.map(|text| Cow::Owned(text.into_bytes()));
                    }
                }
                None => is_there = false,
            }
        }
        if let Some(gone) = gone {
            self.row(lsn, Some("D"), gone);
        }
        if is_there {
            self.row(lsn, None, cells);
        }
        Ok(())
    }

    /// Adds a row, or what cannot be read of it.
    fn row(&mut self, lsn: &str, op: Option<&str>, cells: Vec<Cell<'_>>) {
        let mut unreadable = None;
        let mut texts = Vec::with_capacity(cells.len());
        for (name, cell) in self.declared.input.keys().zip(cells) {
            let text = cell.map(|bytes| self.text(name, bytes)).transpose();
            texts.push(text.unwrap_or_else(|error| {
                unreadable.get_or_insert(error);
                None
            }));
        }
        let meta = [unreadable, Some(lsn.to_string()), op.map(str::to_string), timestamp(self.time_us)];
        self.rows.push(texts.into_iter().chain(meta));
        (self.is_open, self.is_due) = (true, true);
    }

    fn text(&self, name: &str, bytes: Cow<'_, [u8]>) -> Result<String, String> {
        if bytes.len() > self.text_bytes_max {
            let (length, most) = (bytes.len(), self.text_bytes_max);
            return Err(format!("`{name}` has {length} bytes, more than extract.text_bytes_max ({most})"));
        }
        String::from_utf8(bytes.into_owned()).map_err(|_| format!("`{name}` is no UTF-8"))
    }
}

type Cell<'v> = Option<Cow<'v, [u8]>>;

impl Relation {
    /// The row with what did not change from the row as it was, as far as that is told.
    fn completed<'v>(&self, new: &Tuple<'v>, old: Option<&Old<'v>>) -> Tuple<'v> {
        let before = |at: usize| {
            let old = old.filter(|old| old.is_whole || self.columns.get(at).is_some_and(|column| column.is_identity));
            old.and_then(|old| old.row.get(at).copied()).unwrap_or(Value::Unchanged)
        };
        let completed = |(at, value): (usize, &Value<'v>)| match value {
            Value::Unchanged => before(at),
            told => *told,
        };
        new.iter().enumerate().map(completed).collect()
    }

    /// The values of the columns of `[input]`.
    fn cells<'v>(&self, row: &Tuple<'v>) -> Result<Vec<Cell<'v>>, Error> {
        if row.len() != self.columns.len() {
            let (values, columns) = (row.len(), self.columns.len());
            return Err(Error::source(format!("a row of {values} values came for a table of {columns} columns")));
        }
        let cell = |at: &usize| match row[*at] {
            Value::Text(text) => Some(Cow::Borrowed(text)),
            Value::Null | Value::Unchanged => None,
        };
        Ok(self.places.iter().map(cell).collect())
    }

    /// What tells which row it is.
    fn identity(&self, row: &Tuple<'_>) -> Result<Vec<(&String, String)>, Error> {
        let parts = self.columns.iter().zip(row).filter(|(column, _)| column.is_identity);
        let told = parts.map(|(column, value)| match value {
            Value::Text(text) => Ok((&column.name, String::from_utf8_lossy(text).into_owned())),
            Value::Null | Value::Unchanged => Err(Error::source(format!(
                "a change does not tell `{}`, which says of which row it is: ALTER TABLE … REPLICA IDENTITY FULL",
                column.name
            ))),
        });
        told.collect()
    }
}
