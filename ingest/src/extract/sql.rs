//! The `sql` source: pulling tables over ODBC.
//!
//! A connector's query enters, batches of text columns leave: every database hands its values over as text, so that a
//! mapping is the same for all. Column names are folded to upper case, since databases differ in how they fold.
//!
//! Two ways to pull. With a cursor, rows come in the order of its columns, after the last that was saved, less an
//! overlap; repeats are recognised by key and hash. As a snapshot, all rows come, and rows that vanished are deleted.

pub(super) mod connection;
mod fetch;
mod twins;

use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use chrono::Utc;
use serde::Deserialize;

use self::connection::Connection;
use self::twins::Twins;
use super::overlap::{earlier, is_ahead, is_earlier};
use super::source::{Coverage, Each, Limits, Source, Span, Worker};
use crate::connector::{Pull, Spec, TableMapping};
use crate::error::Error;
use crate::settings::SourceSettings;

/// The keys of a table that is pulled over ODBC.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// A SELECT that runs in the source.
    pub query: String,
    /// With `pull = "cursor"`: the first column is the change time, all together are unique.
    #[serde(default)]
    pub cursor: Vec<String>,
    #[serde(default)]
    pub overlap_s: u64,
    /// The table has no key: rows that are equal in every column are told apart by a column `_TWIN`, 1, 2, and so on.
    #[serde(default)]
    pub twins: bool,
}

impl Table {
    /// The table, or what it lacks for its way to pull.
    pub(crate) fn checked(mut self, pull: &Pull) -> Result<Self, String> {
        self.query = self.query.trim().trim_end_matches(';').to_string();
        match pull {
            Pull::Cursor if self.cursor.is_empty() => Err("`pull = \"cursor\"` needs `cursor`, its columns".into()),
            Pull::Snapshot { .. } if !self.cursor.is_empty() => {
                Err("`cursor` is for `pull = \"cursor\"`: a snapshot brings all rows".into())
            }
            Pull::Snapshot { .. } if self.twins => {
                Err("`twins` is for `pull = \"cursor\"`, whose order it needs".into())
            }
            _ => Ok(self),
        }
    }

    fn of(table: &TableMapping) -> Result<&Self, Error> {
        match &table.spec {
            Spec::Sql(declared) => Ok(declared),
            _ => Err(Error::settings(format!("table `{}` has no query", table.name))),
        }
    }
}

/// One connection to a database.
pub struct SqlSource {
    connection: Connection,
    worker: Worker,
    rows_per_s_max: Option<u32>,
}

impl Source for SqlSource {
    fn probe(&mut self, table: &TableMapping) -> Result<(), Error> {
        let sql = format!("SELECT * FROM ({}) q WHERE 1 = 0", Table::of(table)?.query);
        let mut answer = self.connection.ask(&sql, &[]);
        while answer.next()?.is_some() {}
        Ok(())
    }

    fn pull(&mut self, table: &TableMapping, after: &[String], each: Each<'_>) -> Result<Coverage, Error> {
        let declared = Table::of(table)?;
        let (sql, parameters) = match table.pull {
            Pull::Cursor => declared.statement(after),
            _ => (declared.query.clone(), Vec::new()),
        };
        self.run(declared, &sql, &parameters, &mut |batch, cursor| {
            // While the overlap comes again, the cursor stays: else who is stopped there would begin before the overlap.
            let is_behind = |cursor: &Vec<String>| after.first().is_some_and(|after| is_earlier(&cursor[0], after));
            each(batch, cursor.filter(|cursor| !is_behind(cursor)))
        })?;
        Ok(Coverage::Whole)
    }

    fn pull_span(&mut self, table: &TableMapping, span: &Span<'_>, each: Each<'_>) -> Result<(), Error> {
        let declared = Table::of(table)?;
        let (sql, parameters) = declared.statement_of_span(span);
        self.run(declared, &sql, &parameters, each)
    }

    fn is_kept(&self) -> bool {
        false
    }

    fn waits_for_the_log(&self) -> bool {
        false
    }
}

impl SqlSource {
    /// Connects.
    ///
    /// # Errors
    /// `Settings` when the driver is not installed, naming the package; `Source` when the database does not answer.
    pub fn connect(settings: &SourceSettings, worker: &Worker) -> Result<Self, Error> {
        let rows_per_s_max = settings.rows_per_s_max;
        // A batch is what is taken at once.
        let rows_max = worker.limits.rows_max.min(rows_per_s_max.map_or(usize::MAX, |rows| rows.max(1) as usize));
        let connection = Connection::open(settings, Limits { rows_max, ..worker.limits }, worker)?;
        Ok(Self { connection, worker: worker.clone(), rows_per_s_max })
    }

    fn run(&self, declared: &Table, sql: &str, parameters: &[String], each: Each<'_>) -> Result<(), Error> {
        let mut answer = self.connection.ask(sql, parameters);
        let mut twins = declared.twins.then(|| Twins::new(&declared.cursor));
        let (began, mut rows) = (Instant::now(), 0);
        while let Some(mut batch) = answer.next()? {
            rows += batch.num_rows();
            let cursor = self.last_cursor(declared, &batch)?;
            if let Some(twins) = &mut twins {
                batch = twins.number(&batch)?;
            }
            each(batch, cursor)?;
            self.keep_pace(began, rows)?;
        }
        Ok(())
    }

    /// Waits until `rows` since `began` are no more than may come in that time.
    fn keep_pace(&self, began: Instant, rows: usize) -> Result<(), Error> {
        let Some(rows_per_s_max) = self.rows_per_s_max else { return Ok(()) };
        let due = Duration::from_secs_f64(rows as f64 / f64::from(rows_per_s_max.max(1)));
        self.worker.wait(due.saturating_sub(began.elapsed()))
    }

    /// The values of the cursor's columns in the last row of `batch` that has them all; `None` without such columns. A row
    /// whose time is still to come does not count: its clock is ahead, and rows with right clocks will come after it.
    fn last_cursor(&self, declared: &Table, batch: &RecordBatch) -> Result<Option<Vec<String>>, Error> {
        if declared.cursor.is_empty() {
            return Ok(None);
        }
        let mut arrays = Vec::new();
        for name in &declared.cursor {
            let column = batch.column_by_name(&name.to_uppercase());
            let column =
                column.ok_or_else(|| Error::settings(format!("cursor column `{name}` is not in the query")))?;
            arrays.push(column.as_string::<i32>());
        }
        let (now, zone) = (Utc::now(), self.worker.timezone);
        // Without an overlap a number may be any number.
        let is_early = |value: &str| {
            let is_time = declared.overlap_s > 0 || value.parse::<i64>().is_err();
            is_time && is_ahead(value, now, zone)
        };
        let is_last = |row: &usize| arrays.iter().all(|array| array.is_valid(*row)) && !is_early(arrays[0].value(*row));
        let last = (0..batch.num_rows()).rev().find(is_last);
        Ok(last.map(|row| arrays.iter().map(|array| array.value(row).to_string()).collect()))
    }
}

impl Table {
    /// How many rows at the beginning of a batch the statement after `cursor` will not show again.
    pub(crate) fn settled(&self, batch: &RecordBatch, cursor: &[String]) -> usize {
        let columns = self.cursor.iter().map(|name| batch.column_by_name(&name.to_uppercase())?.as_string_opt::<i32>());
        let Some(columns) = columns.collect::<Option<Vec<_>>>() else { return 0 };
        if let Some(from) = self.from(cursor) {
            // In both orders, since the database may hold its times as text. What has no time is not asked for again.
            let first = columns[0];
            let is_settled = |row: &usize| {
                first.is_null(*row) || (first.value(*row) < &*from && is_earlier(first.value(*row), &from))
            };
            // Some databases give rows without a time last: they are no part of the order.
            let rows: Vec<_> = (0..batch.num_rows()).collect();
            let end = rows.iter().rposition(|row| first.is_valid(*row)).map_or(0, |last| last + 1);
            return rows[..end].partition_point(is_settled);
        }
        let is_last = |row: &usize| columns.iter().zip(cursor).all(|(column, value)| column.value(*row) == value);
        match self.twins {
            true => 0,
            false => (0..batch.num_rows()).rev().find(is_last).map_or(0, |row| row + 1),
        }
    }

    /// From where on rows are asked for again, after the last that came.
    fn from(&self, after: &[String]) -> Option<String> {
        (self.overlap_s > 0).then(|| earlier(after.first()?, self.overlap_s)).flatten()
    }

    /// The statement of a pull by cursor, and the values of its parameters.
    fn statement(&self, after: &[String]) -> (String, Vec<String>) {
        let Self { query, cursor: columns, twins, .. } = self;
        let (first, order) = (&columns[0], columns.join(", "));
        if after.len() != columns.len() {
            return (format!("SELECT * FROM ({query}) q ORDER BY {order}"), Vec::new());
        }
        if let Some(from) = self.from(after) {
            return (format!("SELECT * FROM ({query}) q WHERE {first} >= ? ORDER BY {order}"), vec![from]);
        }
        let (clause, parameters) = later(columns, after, *twins);
        (format!("SELECT * FROM ({query}) q WHERE {clause} ORDER BY {order}"), parameters)
    }

    /// Rows whose first cursor column lies in the span, after the last that came before.
    fn statement_of_span(&self, span: &Span<'_>) -> (String, Vec<String>) {
        let Self { query, cursor: columns, .. } = self;
        let (first, order) = (&columns[0], columns.join(", "));
        let mut parameters = vec![span.from.to_string(), span.to.to_string()];
        let mut rest = String::new();
        if span.after.len() == columns.len() {
            let (clause, values) = later(columns, span.after, self.twins);
            rest = format!(" AND ({clause})");
            parameters.extend(values);
        }
        (format!("SELECT * FROM ({query}) q WHERE {first} >= ? AND {first} < ?{rest} ORDER BY {order}"), parameters)
    }
}

/// The condition that a row comes after the one with the cursor `after`, and the values of its parameters. A row that has
/// twins is among them, since the first of them may be all that came.
fn later(columns: &[String], after: &[String], twins: bool) -> (String, Vec<String>) {
    let mut clauses = Vec::new();
    let mut parameters = Vec::new();
    for at in 0..columns.len() {
        let equal: String = columns[..at].iter().map(|column| format!("{column} = ? AND ")).collect();
        let than = if twins && at + 1 == columns.len() { ">=" } else { ">" };
        clauses.push(format!("({equal}{} {than} ?)", columns[at]));
        parameters.extend_from_slice(&after[..=at]);
    }
    (clauses.join(" OR "), parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn cursor(columns: &[&str], overlap_s: u64) -> Table {
        let cursor = columns.iter().map(|name| name.to_string()).collect();
        Table { query: "SELECT XH, ZHXGSJ FROM T".into(), cursor, overlap_s, twins: false }
    }

    fn check(table: &Table, after: &[&str], expected: expect_test::Expect) {
        let after: Vec<_> = after.iter().map(|value| value.to_string()).collect();
        let (sql, parameters) = table.statement(&after);
        expected.assert_eq(&format!("{sql}\n{parameters:?}"));
    }

    #[test]
    fn a_composite_cursor_loses_no_equal_times() {
        check(
            &cursor(&["ZHXGSJ", "XH"], 0),
            &["2026-11-24 07:00:00", "0012"],
            expect![[r#"
                SELECT * FROM (SELECT XH, ZHXGSJ FROM T) q WHERE (ZHXGSJ > ?) OR (ZHXGSJ = ? AND XH > ?) ORDER BY ZHXGSJ, XH
                ["2026-11-24 07:00:00", "2026-11-24 07:00:00", "0012"]"#]],
        );
    }

    #[test]
    fn twins_of_the_last_row_come_again() {
        check(
            &Table { twins: true, ..cursor(&["SJ", "XH"], 0) },
            &["2026-11-24 07:00:00", "0012"],
            expect![[r#"
                SELECT * FROM (SELECT XH, ZHXGSJ FROM T) q WHERE (SJ > ?) OR (SJ = ? AND XH >= ?) ORDER BY SJ, XH
                ["2026-11-24 07:00:00", "2026-11-24 07:00:00", "0012"]"#]],
        );
    }

    #[test]
    fn rows_that_the_next_statement_shows_again_are_not_settled() {
        use std::sync::Arc;

        use arrow::array::{ArrayRef, StringArray};
        let check = |table: &Table, after: &[&str], expected: usize| {
            let times = [None, Some("2026-11-24 06:00:00"), Some("2026-11-24 06:55:00"), Some("2026-11-24 07:00:00")];
            // The last row's clock is ahead: it is behind the cursor.
            let times = times.into_iter().chain([Some("2026-11-24 07:00:00"), Some("2030-01-01 00:00:00")]);
            let times = times.chain([None; 8]);
            let numbers = (1..15).map(|number| Some(number.to_string())).collect::<StringArray>();
            let columns: [(&str, ArrayRef); 2] =
                [("ZHXGSJ", Arc::new(times.collect::<StringArray>())), ("XH", Arc::new(numbers))];
            let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)));
            let after: Vec<_> = after.iter().map(|value| value.to_string()).collect();
            assert_eq!(table.settled(&batch.expect("a batch"), &after), expected, "{after:?}");
        };
        let (composite, after) = (["ZHXGSJ", "XH"], ["2026-11-24 07:00:00", "5"]);
        check(&cursor(&composite, 0), &after, 5);
        check(&cursor(&composite, 600), &after, 2);
        check(&cursor(&composite, 300), &after, 2);
        check(&cursor(&composite, 299), &after, 3);
        check(&Table { twins: true, ..cursor(&composite, 0) }, &after, 0);
        // No row of this batch moved the cursor, or it is none of this table's.
        check(&cursor(&composite, 0), &["2026-11-24 05:00:00", "9"], 0);
        check(&cursor(&["NONE"], 0), &["1"], 0);
    }

    #[test]
    fn an_overlap_moves_the_first_column_back_in_its_own_format() {
        check(
            &cursor(&["ZHXGSJ", "XH"], 600),
            &["2026-11-24 00:05:00.5", "0012"],
            expect![[r#"
                SELECT * FROM (SELECT XH, ZHXGSJ FROM T) q WHERE ZHXGSJ >= ? ORDER BY ZHXGSJ, XH
                ["2026-11-23 23:55:00.500"]"#]],
        );
        check(
            &cursor(&["TS"], 600),
            &["1795475109"],
            expect![[r#"
                SELECT * FROM (SELECT XH, ZHXGSJ FROM T) q WHERE TS >= ? ORDER BY TS
                ["1795474509"]"#]],
        );
    }

    #[test]
    fn a_span_goes_on_after_its_last_row() {
        let after = ["2026-09-02".to_string(), "7".to_string()];
        let statement =
            |after| cursor(&["TS", "ID"], 0).statement_of_span(&Span { from: "2026-09-01", to: "2026-10-01", after });
        let told = [statement(&[]), statement(&after)].map(|(sql, values)| format!("{sql}\n{values:?}\n"));
        expect![[r#"
            SELECT * FROM (SELECT XH, ZHXGSJ FROM T) q WHERE TS >= ? AND TS < ? ORDER BY TS, ID
            ["2026-09-01", "2026-10-01"]
            SELECT * FROM (SELECT XH, ZHXGSJ FROM T) q WHERE TS >= ? AND TS < ? AND ((TS > ?) OR (TS = ? AND ID > ?)) ORDER BY TS, ID
            ["2026-09-01", "2026-10-01", "2026-09-02", "2026-09-02", "7"]
        "#]]
        .assert_eq(&told.concat());
    }

    #[test]
    fn the_first_pull_has_no_predicate() {
        check(
            &cursor(&["ZHXGSJ", "XH"], 600),
            &[],
            expect![[r#"
                SELECT * FROM (SELECT XH, ZHXGSJ FROM T) q ORDER BY ZHXGSJ, XH
                []"#]],
        );
    }
}
