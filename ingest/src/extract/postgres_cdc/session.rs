//! What is asked of the server: all of it SELECTs over ODBC, whose answers are text.
//!
//! Questions enter; rows, messages of pgoutput and plain answers leave, each part by part. The server is changed only by
//! making, moving and dropping the slot that is named.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};

use super::Table;
use super::changes::{Fetch, Missing};
use super::pgoutput::{Lsn, Message, unhex};
use super::server::{self, Relation, Server};
use crate::error::Error;
use crate::extract::source::{Limits, Worker};
use crate::extract::sql::connection::Connection;
use crate::settings::SourceSettings;

/// Messages after which a peek ends with the transaction that is under way.
const MESSAGES_MAX: usize = 100_000;
/// A message comes in pieces of so many bytes, each a line of hexadecimal digits: drivers cut long texts off.
const PIECE_BYTES: usize = 3072;
/// What a piece may have beside its digits.
const PIECE_HEAD_BYTES: usize = 64;
/// Pieces that are fetched at once.
const PIECES_MAX: usize = 1024;
/// The largest change of a row.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Characters of a long answer in one line, and lines that are fetched at once.
const LINE_CHARS: usize = 2000;
const LINES_MAX: usize = 64;
/// Between two looks whether transactions have ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Takes the message that stands at a place, and may break off.
pub(super) type Take<'t> = &'t mut dyn FnMut(&str, Message<'_>, Fetch<'_>) -> Result<ControlFlow<()>, Error>;

/// One connection, and another one for questions while the first gives its answer.
pub(super) struct Session {
    connection: Connection,
    /// Opened when there is such a question.
    aside: Option<Connection>,
    settings: SourceSettings,
    worker: Worker,
}

impl Session {
    /// # Errors
    /// As [`Connection::open`].
    pub(super) fn open(settings: &SourceSettings, worker: &Worker) -> Result<Self, Error> {
        let connection = Connection::open(settings, worker.limits, worker)?;
        // Rows that a policy hides would look deleted: so the server refuses to give the others.
        lines(&connection, "SELECT set_config('row_security', 'off', false)", &[])?;
        Ok(Self { connection, aside: None, settings: settings.clone(), worker: worker.clone() })
    }

    /// How a table is on the server, with slot and publication of this name.
    ///
    /// # Errors
    /// `Source` when the database refuses.
    pub(super) fn server(&self, declared: &Table, name: &str) -> Result<Server, Error> {
        let sql = format!(
            "SELECT substr(answer, 1 + {LINE_CHARS} * line, {LINE_CHARS}) \
             FROM ({}) q (answer), generate_series(0, length(answer) / {LINE_CHARS}) line",
            server::question(name)
        );
        Server::read(&lines(&self.connection, &sql, std::slice::from_ref(&declared.table))?)
    }

    /// Gives every row that is there.
    ///
    /// # Errors
    /// `Source` when the database refuses; whatever `take` returns.
    pub(super) fn rows(&self, sql: &str, take: &mut dyn FnMut(&RecordBatch) -> Result<(), Error>) -> Result<(), Error> {
        let mut answer = self.connection.ask(sql, &[]);
        while let Some(rows) = answer.next()? {
            take(&rows)?;
        }
        Ok(())
    }

    /// # Errors
    /// `Source` with what to do.
    pub(super) fn make_slot(&self, name: &str) -> Result<(), Error> {
        self.change(name, &format!("SELECT lsn::text FROM pg_create_logical_replication_slot('{name}', 'pgoutput')"))
    }

    /// Lets the server forget what was committed before `to`.
    ///
    /// # Errors
    /// `Source` with what to do.
    pub(super) fn advance_slot(&self, name: &str, to: Lsn) -> Result<(), Error> {
        self.change(name, &format!("SELECT end_lsn::text FROM pg_replication_slot_advance('{name}', '{to}')"))
    }

    /// # Errors
    /// `Source` with what to do.
    pub(super) fn drop_slot(&self, name: &str) -> Result<(), Error> {
        self.change(name, &format!("SELECT pg_drop_replication_slot('{name}')::text"))
    }

    fn change(&self, name: &str, sql: &str) -> Result<(), Error> {
        lines(&self.connection, sql, &[]).map(|_| ()).map_err(|error| mended(error, name))
    }

    /// Waits until whoever reads the table sees all that is committed in the log now: a commit is in the log before others
    /// see it, with synchronous replication long before.
    ///
    /// # Errors
    /// `Source` when it takes too long.
    pub(super) fn catch_up(&self) -> Result<(), Error> {
        let end = lines(&self.connection, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text", &[])?;
        let sql = format!("SELECT (pg_snapshot_xmin(pg_current_snapshot()) >= '{end}'::xid8)::text");
        wait(&self.connection, &sql, &self.settings, &self.worker)
    }

    /// Gives `take` the messages of the transactions that ended before `until`, from where the slot stands; whether that was
    /// all of them. The slot stays where it is.
    ///
    /// # Errors
    /// `Source` when the database refuses; whatever `take` returns.
    pub(super) fn peek(&mut self, name: &str, relation: &Relation, until: Lsn, take: Take<'_>) -> Result<bool, Error> {
        let sql = format!(
            "SELECT lsn || ' ' || (piece = octet_length(data) / {PIECE_BYTES})::int || ' ' || \
                    encode(substr(data, 1 + piece * {PIECE_BYTES}, {PIECE_BYTES}), 'hex') \
             FROM pg_logical_slot_peek_binary_changes('{name}', '{until}', {MESSAGES_MAX}, 'proto_version', '1', \
                  'publication_names', '{name}'), \
                  generate_series(0, octet_length(data) / {PIECE_BYTES}) piece"
        );
        let limits = Limits { rows_max: PIECES_MAX, text_bytes_max: 2 * PIECE_BYTES + PIECE_HEAD_BYTES };
        let Self { connection, aside, settings, worker } = self;
        let mut fetch = |missing: &Missing<'_>| fetched(aside, settings, worker, relation, missing);
        let mut answer = connection.ask_within(&sql, &[], limits);
        let (mut message, mut messages) = (Vec::new(), 0);
        while let Some(pieces) = answer.next().map_err(|error| mended(error, name))? {
            for piece in pieces.column(0).as_string::<i32>().iter().flatten() {
                let Some(lsn) = collect(piece, &mut message)? else { continue };
                let taken = take(lsn, Message::read(&message)?, &mut fetch)?;
                message.clear();
                messages += 1;
                if taken.is_break() {
                    return Ok(false);
                }
            }
        }
        Ok(messages < MESSAGES_MAX)
    }
}

/// Adds a piece to its message; where the message stands once it is whole.
fn collect<'p>(piece: &'p str, message: &mut Vec<u8>) -> Result<Option<&'p str>, Error> {
    let parts = piece.split_once(' ').and_then(|(lsn, rest)| Some((lsn, rest.split_once(' ')?)));
    let read = parts.and_then(|(lsn, (is_last, digits))| {
        unhex(digits.as_bytes(), message)?;
        Some((is_last == "1").then_some(lsn))
    });
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(Error::source(format!(
            "a change of one row has more than {MESSAGE_BYTES_MAX} bytes: publish only the columns that are read, \
             ALTER PUBLICATION … SET TABLE … (…)"
        )));
    }
    read.ok_or_else(|| Error::internal("read a change", "it is not as it was asked for"))
}

/// The columns of a row that its change did not tell, as they are now: when they have changed since, a later change tells.
/// None when the row is gone.
fn fetched(
    aside: &mut Option<Connection>,
    settings: &SourceSettings,
    worker: &Worker,
    relation: &Relation,
    missing: &Missing<'_>,
) -> Result<Option<Vec<Option<String>>>, Error> {
    if aside.is_none() {
        *aside = Some(Connection::open(settings, worker.limits, worker)?);
    }
    let connection = aside.as_ref().expect("it was opened");
    // A change is in the log before others see it. The log tells the lower half of a transaction's number.
    let sql = format!(
        "SELECT pg_visible_in_snapshot((next - mod(next - {}, 4294967296))::text::xid8, pg_current_snapshot())::text \
         FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint) q (next)",
        missing.xid
    );
    wait(connection, &sql, settings, worker)?;
    let (names, values): (Vec<_>, Vec<_>) = missing.identity.iter().cloned().unzip();
    let mut answer = connection.ask(&relation.select_row(&missing.columns, &names), &values);
    let mut row = None;
    while let Some(rows) = answer.next()? {
        if rows.num_rows() > 0 {
            let cells = rows.columns().iter().map(|column| column.as_string::<i32>().iter().next().flatten());
            row = Some(cells.map(|cell| cell.map(str::to_string)).collect());
        }
    }
    Ok(row)
}

/// The first column of an answer, its lines one after the other.
fn lines(connection: &Connection, sql: &str, parameters: &[String]) -> Result<String, Error> {
    let limits = Limits { rows_max: LINES_MAX, text_bytes_max: 4 * LINE_CHARS };
    let mut answer = connection.ask_within(sql, parameters, limits);
    let mut whole = String::new();
    while let Some(rows) = answer.next()? {
        rows.column(0).as_string::<i32>().iter().flatten().for_each(|line| whole.push_str(line));
    }
    Ok(whole)
}

/// Asks until the answer is yes.
fn wait(connection: &Connection, sql: &str, settings: &SourceSettings, worker: &Worker) -> Result<(), Error> {
    let time_max = Duration::from_secs(settings.timeout_s);
    let began = Instant::now();
    while lines(connection, sql, &[])? != "true" {
        if began.elapsed() > time_max {
            return Err(Error::source(format!(
                "transactions that were under way have not ended for {} s, the `timeout_s` of this source: see \
                 pg_stat_activity and pg_prepared_xacts",
                time_max.as_secs()
            )));
        }
        worker.wait(LOOK_EVERY)?;
    }
    Ok(())
}

/// An error of the server with what to do.
fn mended(error: Error, name: &str) -> Error {
    let mends = [
        ("55006", "the slot is in use: does another Quad take these changes? See active_pid in pg_replication_slots"),
        (
            "53400",
            "raise max_replication_slots (each table needs one) or temp_file_limit (a peek is written there), whichever it names",
        ),
        ("42501", "ALTER ROLE … REPLICATION"),
        (
            "57014",
            "not done within `timeout_s` of this source: it waits for transactions that run, see pg_stat_activity",
        ),
    ];
    match mends.iter().find(|(state, _)| error.message.contains(&format!("State: {state}"))) {
        Some((_, mend)) => Error { message: format!("slot `{name}`: {}; {mend}", error.message), ..error },
        None => error,
    }
}
