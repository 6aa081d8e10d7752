//! Writing into real databases over ODBC: tables, rows, and the changes of the day.
//!
//! Connection strings and writes enter; SQLite, PostgreSQL and MariaDB hold the rows afterwards. Only portable SQL is
//! used. Rows go in transactions of many, so that a reader never sees half a step.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use arrow_odbc::odbc_api::{Connection, ConnectionOptions, Cursor, environment};
use chrono::NaiveDateTime;

use crate::campus::Campus;
use crate::clock::dashed;
use crate::record::Change;
use crate::source::{Row, SYSTEMS, System, Table, Write};

/// Rows of one INSERT, and of one transaction.
const ROWS_OF_INSERT: usize = 500;
const ROWS_OF_TRANSACTION: usize = 20_000;

/// ODBC connection strings of the three systems: they may be equal.
#[derive(Clone, Debug)]
pub struct Databases {
    pub student_affairs: String,
    pub academic: String,
    pub logistics: String,
}

impl Databases {
    pub fn of(&self, system: System) -> &str {
        match system {
            System::StudentAffairs => &self.student_affairs,
            System::Academic => &self.academic,
            System::Logistics => &self.logistics,
        }
    }

    /// The connection string of an SQLite file that a writer and a reader use at once.
    pub fn sqlite(file: &std::path::Path) -> String {
        format!("Driver=SQLite3;Database={};Timeout=20000;SyncPragma=NORMAL", file.display())
    }
}

/// An open connection to one system.
pub struct Database {
    system: System,
    connection: Connection<'static>,
    escapes_backslash: bool,
}

impl Database {
    /// Connects; an SQLite file is switched to write-ahead logging.
    ///
    /// # Errors
    /// The driver is missing, or the server does not answer.
    pub fn open(connection_string: &str, system: System) -> Result<Database> {
        let environment = environment().context("could not start ODBC")?;
        // MariaDB's driver reads the last value up to a NUL that is not there, unless a semicolon ends it.
        let terminated = format!("{};", connection_string.trim_end_matches(';'));
        let connection = environment
            .connect_with_connection_string(&terminated, ConnectionOptions::default())
            .context("could not connect to a source database")?;
        let product = connection.database_management_system_name().unwrap_or_default().to_lowercase();
        let database =
            Database { system, connection, escapes_backslash: product.contains("maria") || product.contains("mysql") };
        if product.contains("sqlite") {
            database.execute("PRAGMA journal_mode=WAL")?;
        }
        database.connection.set_autocommit(false).context("could not begin a transaction")?;
        Ok(database)
    }

    /// How far the campus has come: one row, changed in the same transaction as the rows of a step, so that a player that
    /// was killed goes on where it stopped.
    fn progress_table(&self) -> &'static str {
        match self.system {
            System::StudentAffairs => "CAMPUS_PROGRESS_XG",
            System::Academic => "CAMPUS_PROGRESS_JW",
            System::Logistics => "CAMPUS_PROGRESS_HQ",
        }
    }

    /// Does what nobody at the campus would: `sql`, in a transaction of its own.
    ///
    /// # Errors
    /// What the database says.
    pub fn tamper(&self, sql: &str) -> Result<()> {
        self.execute(sql)?;
        self.commit()
    }

    fn execute(&self, sql: &str) -> Result<()> {
        let cursor = self.connection.execute(sql, (), None);
        drop(cursor.with_context(|| format!("could not execute {}", sql.chars().take(200).collect::<String>()))?);
        Ok(())
    }

    /// Creates the system's tables and views, dropping what is there.
    ///
    /// # Errors
    /// What the database says.
    pub fn create(&self) -> Result<()> {
        let system = self.system;
        for (view, _) in system.views() {
            self.execute(&format!("DROP VIEW IF EXISTS {view}"))?;
        }
        for table in system.tables() {
            self.execute(&format!("DROP TABLE IF EXISTS {}", table.name))?;
            let columns: Vec<String> = table.columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
            self.execute(&format!("CREATE TABLE {} ({})", table.name, columns.join(", ")))?;
        }
        for (view, query) in system.views() {
            self.execute(&format!("CREATE VIEW {view} AS {query}"))?;
        }
        let progress = self.progress_table();
        self.execute(&format!("DROP TABLE IF EXISTS {progress}"))?;
        self.commit()
    }

    fn finish(&self) -> Result<()> {
        for table in self.system.tables() {
            for (number, columns) in table.indexes.iter().enumerate() {
                self.execute(&format!("CREATE INDEX IDX_{}_{number} ON {} ({columns})", table.name, table.name))?;
            }
        }
        let progress = self.progress_table();
        self.execute(&format!("CREATE TABLE {progress} (STEP VARCHAR(30) NOT NULL)"))?;
        self.execute(&format!("INSERT INTO {progress} VALUES (' ')"))?;
        self.commit()
    }

    /// The last step that was applied, as `YYYY-MM-DD HH:MM:SS`; empty when filled and no more; None when not filled.
    pub fn progress(&self) -> Option<String> {
        let progress = self.progress_table();
        let cursor = self.connection.execute(&format!("SELECT STEP FROM {progress}"), (), None);
        let step = cursor.ok().flatten().and_then(|mut cursor| {
            let mut text = Vec::new();
            let mut row = cursor.next_row().ok().flatten()?;
            row.get_text(1, &mut text).ok()?;
            Some(String::from_utf8_lossy(&text).trim().to_string())
        });
        // A failed question leaves some databases in a failed transaction.
        let _ = self.connection.rollback();
        step
    }

    /// Applies the writes of a step in order and commits them together, unless that was done before.
    ///
    /// # Errors
    /// What the database says; nothing of the step is there then.
    pub fn apply(&self, step: NaiveDateTime, writes: &[Write]) -> Result<()> {
        let step = dashed(step);
        if self.progress().is_some_and(|done| done >= step) {
            return Ok(());
        }
        for write in writes {
            match write.change {
                Change::Insert => self.insert(write.table, std::slice::from_ref(&write.row))?,
                Change::Update => self.execute(&self.update_sql(write))?,
                Change::Delete => {
                    self.execute(&format!("DELETE FROM {} WHERE {}", write.table.name, self.key_sql(write)))?;
                }
            }
        }
        let progress = self.progress_table();
        self.execute(&format!("UPDATE {progress} SET STEP = '{step}'"))?;
        self.commit()
    }

    fn insert(&self, table: &Table, rows: &[Row]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut sql = format!("INSERT INTO {} VALUES ", table.name);
        for (number, row) in rows.iter().enumerate() {
            sql.push_str(if number == 0 { "(" } else { ",(" });
            for (place, value) in row.iter().enumerate() {
                if place > 0 {
                    sql.push(',');
                }
                self.literal(&mut sql, value.as_deref());
            }
            sql.push(')');
        }
        self.execute(&sql)
    }

    fn update_sql(&self, write: &Write) -> String {
        let mut sql = format!("UPDATE {} SET ", write.table.name);
        for (place, ((name, _), value)) in write.table.columns.iter().zip(&write.row).enumerate() {
            let _ = write!(sql, "{}{name} = ", if place > 0 { ", " } else { "" });
            self.literal(&mut sql, value.as_deref());
        }
        let _ = write!(sql, " WHERE {}", self.key_sql(write));
        sql
    }

    fn key_sql(&self, write: &Write) -> String {
        let mut sql = String::new();
        for (place, key) in write.table.key.iter().enumerate() {
            let column = write.table.columns.iter().position(|(name, _)| name == key).expect("a key is a column");
            let _ = write!(sql, "{}{key} = ", if place > 0 { " AND " } else { "" });
            self.literal(&mut sql, write.row[column].as_deref());
        }
        sql
    }

    fn literal(&self, sql: &mut String, value: Option<&str>) {
        let Some(value) = value else {
            sql.push_str("NULL");
            return;
        };
        sql.push('\'');
        for character in value.chars() {
            match character {
                '\'' => sql.push_str("''"),
                '\\' if self.escapes_backslash => sql.push_str("\\\\"),
                other => sql.push(other),
            }
        }
        sql.push('\'');
    }

    fn commit(&self) -> Result<()> {
        self.connection.commit().context("could not commit")
    }
}

/// Creates every system's tables and fills in all that was there when the day began. Returns the rows written.
///
/// # Errors
/// A database that cannot be reached or written.
pub fn fill(campus: &Campus, databases: &Databases) -> Result<usize> {
    let mut rows_written = 0;
    for system in SYSTEMS {
        let database = Database::open(databases.of(system), system)?;
        database.create()?;
        rows_written += fill_system(campus, &database)?;
        database.finish()?;
    }
    Ok(rows_written)
}

fn fill_system(campus: &Campus, database: &Database) -> Result<usize> {
    let mut rows_written = 0;
    let mut pending: Vec<Row> = Vec::new();
    let mut of_table: Option<&'static Table> = None;
    for write in database.system.writes(campus, NaiveDateTime::MIN..campus.plan.day_start()) {
        let other = of_table.filter(|table| table.name != write.table.name || pending.len() == ROWS_OF_INSERT);
        if let Some(table) = other {
            database.insert(table, &std::mem::take(&mut pending))?;
        }
        of_table = Some(write.table);
        pending.push(write.row);
        rows_written += 1;
        if rows_written % ROWS_OF_TRANSACTION == 0 {
            database.commit()?;
        }
    }
    if let Some(table) = of_table {
        database.insert(table, &pending)?;
    }
    database.commit()?;
    Ok(rows_written)
}
