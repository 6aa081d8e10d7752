//! The `sql` source: pulling tables over ODBC.
//!
//! A connector's query enters, batches of text columns leave: every database hands its values over as text, so that a
//! mapping is the same for all. Column names are folded to upper case, since databases differ in how they fold.
//!
//! Two ways to pull. With a cursor, rows come in the order of its columns, after the last that was saved, less an
//! overlap; repeats are recognised by key and hash. As a snapshot, all rows come, and rows that vanished are deleted.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_odbc::odbc_api::{self, Connection, ConnectionOptions, IntoParameter, ResultSetMetadata, environment};
use arrow_odbc::{OdbcReaderBuilder, arrow_schema_from};
use schemas::Sensitive;
use serde::Deserialize;

use super::overlap::earlier;
use super::source::{Coverage, Each, Limits, Source, Span};
use crate::connector::{Pull, Spec, TableMapping};
use crate::error::{Error, ErrorKind};
use crate::settings::SourceSettings;

/// Memory for one batch on its way out of the driver.
const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;

const CONNECT_TIMEOUT_S: u32 = 10;
const QUERY_TIMEOUT_S: usize = 3600;

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
    connection: Connection<'static>,
    limits: Limits,
}

impl Source for SqlSource {
    fn probe(&mut self, table: &TableMapping) -> Result<(), Error> {
        let sql = format!("SELECT * FROM ({}) q WHERE 1 = 0", Table::of(table)?.query);
        self.connection.execute(&sql, (), Some(QUERY_TIMEOUT_S)).map_err(|error| refused(&error)).map(|_| ())
    }

    fn pull(&mut self, table: &TableMapping, after: &[String], each: Each<'_>) -> Result<Coverage, Error> {
        let declared = Table::of(table)?;
        let (sql, parameters) = match table.pull {
            Pull::Cursor => declared.statement(after),
            _ => (declared.query.clone(), Vec::new()),
        };
        self.run(&sql, &parameters, &declared.cursor, each)?;
        Ok(Coverage::Whole)
    }

    fn pull_span(&mut self, table: &TableMapping, span: &Span<'_>, each: Each<'_>) -> Result<(), Error> {
        let declared = Table::of(table)?;
        let (sql, parameters) = declared.statement_of_span(span);
        self.run(&sql, &parameters, &declared.cursor, each)
    }

    fn is_kept(&self) -> bool {
        false
    }
}

impl SqlSource {
    /// Connects.
    ///
    /// # Errors
    /// `Settings` when the driver is not installed, naming the package; `Source` when the database does not answer.
    pub fn connect(settings: &SourceSettings, limits: Limits) -> Result<Self, Error> {
        let string = settings.connection.as_deref().unwrap_or_default();
        let environment = environment().map_err(|error| Error::internal("start ODBC", error))?;
        let secret = connection_string(string, settings.password.as_ref());
        let options = ConnectionOptions { login_timeout_sec: Some(CONNECT_TIMEOUT_S), ..ConnectionOptions::default() };
        match environment.connect_with_connection_string(&secret, options) {
            Ok(connection) => Ok(Self { connection, limits }),
            Err(error) => Err(connect_error(string, &error)),
        }
    }

    fn run(&self, sql: &str, parameters: &[String], columns: &[String], each: Each<'_>) -> Result<(), Error> {
        let parameters: Vec<_> = parameters.iter().map(|value| value.as_str().into_parameter()).collect();
        let cursor = self.connection.execute(sql, parameters.as_slice(), Some(QUERY_TIMEOUT_S));
        let cursor = cursor.map_err(|error| refused(&error))?;
        let mut cursor = cursor.ok_or_else(|| Error::settings("the query gives no rows: it must be a SELECT"))?;
        let schema = Arc::new(text_schema(&mut cursor)?);
        let reader = OdbcReaderBuilder::new()
            .with_schema(schema)
            .with_max_num_rows_per_batch(self.limits.rows_max)
            .with_max_bytes_per_batch(BATCH_BYTES_MAX)
            .with_max_text_size(self.limits.text_bytes_max)
            .build(cursor)
            .map_err(|error| Error::source(format!("could not read the query's columns: {error}")))?;
        for batch in reader {
            let batch = batch.map_err(|error| {
                Error::source(format!("could not read rows: {}", error.to_string().replace('\n', " ")))
            })?;
            let cursor = last_cursor(&batch, columns)?;
            each(batch, cursor)?;
        }
        Ok(())
    }
}

/// The string a driver is given: with the password, ended by `;`, and followed in memory by a NUL that its length does
/// not count. MariaDB's driver reads up to a NUL whatever length it is told, and takes what lies behind for the user.
fn connection_string(string: &str, password: Option<&Sensitive<String>>) -> String {
    let mut whole = string.trim_end_matches(';').to_string();
    if let Some(password) = password {
        whole.push_str(&format!(";Pwd={{{}}}", password.expose().replace('}', "}}")));
    }
    whole.push_str(";\0");
    whole.pop();
    whole
}

impl Table {
    /// The statement of a pull by cursor, and the values of its parameters.
    fn statement(&self, after: &[String]) -> (String, Vec<String>) {
        let Self { query, cursor: columns, overlap_s } = self;
        let (first, order) = (&columns[0], columns.join(", "));
        if after.len() != columns.len() {
            return (format!("SELECT * FROM ({query}) q ORDER BY {order}"), Vec::new());
        }
        if let Some(from) = (*overlap_s > 0).then(|| earlier(&after[0], *overlap_s)).flatten() {
            return (format!("SELECT * FROM ({query}) q WHERE {first} >= ? ORDER BY {order}"), vec![from]);
        }
        let (clause, parameters) = later(columns, after);
        (format!("SELECT * FROM ({query}) q WHERE {clause} ORDER BY {order}"), parameters)
    }

    /// Rows whose first cursor column lies in the span, after the last that came before.
    fn statement_of_span(&self, span: &Span<'_>) -> (String, Vec<String>) {
        let Self { query, cursor: columns, .. } = self;
        let (first, order) = (&columns[0], columns.join(", "));
        let mut parameters = vec![span.from.to_string(), span.to.to_string()];
        let mut rest = String::new();
        if span.after.len() == columns.len() {
            let (clause, values) = later(columns, span.after);
            rest = format!(" AND ({clause})");
            parameters.extend(values);
        }
        (format!("SELECT * FROM ({query}) q WHERE {first} >= ? AND {first} < ?{rest} ORDER BY {order}"), parameters)
    }
}

/// The condition that a row comes after the one with the cursor `after`, and the values of its parameters.
fn later(columns: &[String], after: &[String]) -> (String, Vec<String>) {
    let mut clauses = Vec::new();
    let mut parameters = Vec::new();
    for at in 0..columns.len() {
        let equal: String = columns[..at].iter().map(|column| format!("{column} = ? AND ")).collect();
        clauses.push(format!("({equal}{} > ?)", columns[at]));
        parameters.extend_from_slice(&after[..=at]);
    }
    (clauses.join(" OR "), parameters)
}

/// Every column as nullable text, named in upper case.
fn text_schema(cursor: &mut impl ResultSetMetadata) -> Result<Schema, Error> {
    let schema = arrow_schema_from(cursor, None, false)
        .map_err(|error| Error::source(format!("could not read the query's columns: {error}")))?;
    let field = |name: &String| Field::new(name.to_uppercase(), DataType::Utf8, true);
    Ok(Schema::new(schema.fields().iter().map(|known| field(known.name())).collect::<Vec<_>>()))
}

/// The values of the cursor's columns in the last row of `batch` that has them all; `None` without such columns.
fn last_cursor(batch: &RecordBatch, columns: &[String]) -> Result<Option<Vec<String>>, Error> {
    if columns.is_empty() {
        return Ok(None);
    }
    let mut arrays = Vec::new();
    for name in columns {
        let column = batch.column_by_name(&name.to_uppercase());
        let column = column.ok_or_else(|| Error::settings(format!("cursor column `{name}` is not in the query")))?;
        arrays.push(column.as_string::<i32>());
    }
    let whole = (0..batch.num_rows()).rev().find(|&row| arrays.iter().all(|array| array.is_valid(row)));
    Ok(whole.map(|row| arrays.iter().map(|array| array.value(row).to_string()).collect()))
}

/// Debian packages of the drivers that have one, and what to do for the others.
const DRIVERS: [(&str, &str); 8] = [
    ("postgresql", "apt install odbc-postgresql"),
    ("mariadb", "apt install odbc-mariadb"),
    ("mysql", "apt install odbc-mariadb and use Driver=MariaDB Unicode"),
    ("sqlite", "apt install libsqliteodbc"),
    ("sql server", "install Microsoft's msodbcsql18"),
    ("oracle", "install Oracle Instant Client with its ODBC package"),
    ("dm", "install the DM8 ODBC driver of 达梦"),
    ("kingbase", "install the KingbaseES ODBC driver of 人大金仓"),
];

fn connect_error(string: &str, error: &odbc_api::Error) -> Error {
    let text = one_line(error);
    let missing = ["IM002", "IM003", "Can't open lib", "file not found"].iter().any(|sign| text.contains(sign));
    if !missing {
        return Error::new(ErrorKind::Source, format!("could not connect: {text}"));
    }
    let lower = string.to_lowercase();
    let driver = lower.split(';').find_map(|part| part.trim().strip_prefix("driver=")).unwrap_or_default();
    let hint = DRIVERS.iter().find(|(name, _)| driver.contains(name)).map_or("see `odbcinst -q -d`", |(_, hint)| hint);
    Error::new(ErrorKind::Source, format!("the ODBC driver `{driver}` is not installed: {hint}"))
}

fn refused(error: &odbc_api::Error) -> Error {
    Error::source(format!("the source refused the query: {}", one_line(error)))
}

fn one_line(error: &odbc_api::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn cursor(columns: &[&str], overlap_s: u64) -> Table {
        let cursor = columns.iter().map(|name| name.to_string()).collect();
        Table { query: "SELECT XH, ZHXGSJ FROM T".into(), cursor, overlap_s }
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

    #[test]
    fn a_missing_driver_names_its_package() {
        let settings = SourceSettings {
            connection: Some("Driver=PostgreSQL Nowhere;Server=127.0.0.1".into()),
            password: Some(Sensitive::new("secret".into())),
            ..SourceSettings::of("x")
        };
        let limits = Limits { rows_max: 1, text_bytes_max: 1 };
        let error = SqlSource::connect(&settings, limits).err().expect("no such driver").to_string();
        expect!["the ODBC driver `postgresql nowhere` is not installed: apt install odbc-postgresql"].assert_eq(&error);
    }
}
