//! A connection on a thread of its own, so that a driver that hangs holds up nobody.
//!
//! A connection string and statements enter; batches of text leave through a channel that holds one, so that the next is
//! fetched while the last is worked on, and no more than that is in memory. Whoever waits gives up after a time or when
//! the process stops; the thread then ends when its driver returns, or with the process.

use std::sync::mpsc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_odbc::odbc_api::{self, ConnectionOptions, IntoParameter, environment};
use chrono::{Offset, Utc};
use chrono_tz::Tz;
use schemas::Sensitive;
use tokio::sync::{mpsc as batches, oneshot};

use super::fetch::fetch;
use crate::error::{Error, ErrorKind};
use crate::extract::source::{Limits, Worker};
use crate::settings::SourceSettings;

const CONNECT_TIMEOUT_S: u32 = 10;

/// The thread of one connection, which ends when this is dropped.
pub(in crate::extract) struct Connection {
    questions: mpsc::Sender<Question>,
    limits: Limits,
    worker: Worker,
    timeout: Duration,
}

/// A statement, and where its rows go; [`None`] after the last.
struct Question {
    sql: String,
    parameters: Vec<String>,
    limits: Limits,
    rows: batches::Sender<Result<Option<RecordBatch>, Error>>,
}

/// The rows of one statement.
pub(in crate::extract) struct Answer<'a> {
    rows: batches::Receiver<Result<Option<RecordBatch>, Error>>,
    connection: &'a Connection,
}

impl Connection {
    /// # Errors
    /// `Settings` when the driver is not installed, naming the package; `Source` when the database does not answer.
    pub(in crate::extract) fn open(settings: &SourceSettings, limits: Limits, worker: &Worker) -> Result<Self, Error> {
        let string = settings.connection.clone().unwrap_or_default();
        let password = settings.password.clone();
        let (opened, is_open) = oneshot::channel();
        let (questions, asked) = mpsc::channel::<Question>();
        let (timeout, zone) = (Duration::from_secs(settings.timeout_s), worker.timezone);
        let serve = move || {
            let connection = match connect(&string, password.as_ref(), limits, timeout, zone) {
                Ok(connection) => connection,
                Err(error) => return drop(opened.send(Err(error))),
            };
            if opened.send(Ok(())).is_err() {
                return;
            }
            // MariaDB would count the time that the rows are worked on; its driver has a limit for each read.
            let limit_s = (!string.to_lowercase().contains("mariadb")).then_some(timeout.as_secs() as usize);
            for question in asked {
                let outcome = answer(&connection, &question, limit_s);
                // Nobody may be waiting any more.
                let _ = question.rows.blocking_send(outcome.map(|()| None));
            }
        };
        let thread = std::thread::Builder::new().name("odbc".to_string()).spawn(serve);
        thread.map_err(|error| Error::internal("start a thread", error))?;
        // The driver is told the same limit, and not every driver keeps to it.
        let wait = Duration::from_secs(2 * u64::from(CONNECT_TIMEOUT_S));
        match worker.block_on(async { tokio::time::timeout(wait, is_open).await })? {
            Ok(Ok(opened)) => opened?,
            Ok(Err(_)) => return Err(Error::internal("connect", "the driver's thread has ended")),
            Err(_) => return Err(Error::source(format!("could not connect: no answer for {} s", wait.as_secs()))),
        }
        Ok(Self { questions, limits, worker: worker.clone(), timeout })
    }

    /// Runs a statement whose parameters are text.
    pub(in crate::extract) fn ask(&self, sql: &str, parameters: &[String]) -> Answer<'_> {
        self.ask_within(sql, parameters, self.limits)
    }

    /// As [`Connection::ask`], with limits of its own.
    pub(in crate::extract) fn ask_within(&self, sql: &str, parameters: &[String], limits: Limits) -> Answer<'_> {
        let (sender, rows) = batches::channel(1);
        let question = Question { sql: sql.to_string(), parameters: parameters.to_vec(), limits, rows: sender };
        // A thread that has ended drops the question, which the answer tells.
        let _ = self.questions.send(question);
        Answer { rows, connection: self }
    }
}

impl Answer<'_> {
    /// The next batch; `None` after the last.
    ///
    /// # Errors
    /// `Source` when the database refuses, or has given nothing for too long; when the process stops.
    pub(in crate::extract) fn next(&mut self) -> Result<Option<RecordBatch>, Error> {
        let Connection { worker, timeout, .. } = self.connection;
        match worker.block_on(async { tokio::time::timeout(*timeout, self.rows.recv()).await })? {
            Ok(Some(batch)) => batch,
            Ok(None) => Err(Error::internal("read rows", "the driver's thread has ended")),
            Err(_) => Err(Error::source(format!(
                "the source has given nothing for {} s, the `timeout_s` of this source: is a table locked, or an index \
                 missing on the cursor's columns?",
                timeout.as_secs()
            ))),
        }
    }
}

fn connect(
    string: &str,
    password: Option<&Sensitive<String>>,
    limits: Limits,
    timeout: Duration,
    zone: Tz,
) -> Result<odbc_api::Connection<'static>, Error> {
    let environment = environment().map_err(|error| Error::internal("start ODBC", error))?;
    let secret = connection_string(string, password, options(string, limits, timeout, zone));
    let options = ConnectionOptions { login_timeout_sec: Some(CONNECT_TIMEOUT_S), ..ConnectionOptions::default() };
    environment.connect_with_connection_string(&secret, options).map_err(|error| connect_error(string, &error))
}

/// Sends the rows of a statement as they come, until nobody takes them.
fn answer(connection: &odbc_api::Connection<'_>, question: &Question, limit_s: Option<usize>) -> Result<(), Error> {
    let parameters: Vec<_> = question.parameters.iter().map(|value| value.as_str().into_parameter()).collect();
    let cursor = connection.execute(&question.sql, parameters.as_slice(), limit_s);
    let cursor = cursor.map_err(|error| refused(&error))?;
    let cursor = cursor.ok_or_else(|| Error::settings("the query gives no rows: it must be a SELECT"))?;
    fetch(cursor, question.limits, |batch| question.rows.blocking_send(Ok(Some(batch))).is_ok())
}

/// The string a driver is given: with the password, ended by `;`, and followed in memory by a NUL that its length does
/// not count. MariaDB's driver reads up to a NUL whatever length it is told, and takes what lies behind for the user.
fn connection_string(string: &str, password: Option<&Sensitive<String>>, options: Vec<(&str, String)>) -> String {
    let mut whole = string.trim_end_matches(';').to_string();
    for (name, value) in options {
        whole.push_str(&format!(";{name}={value}"));
    }
    if let Some(password) = password {
        whole.push_str(&format!(";Pwd={{{}}}", password.expose().replace('}', "}}")));
    }
    whole.push_str(";\0");
    whole.pop();
    whole
}

/// What keeps a driver from taking a whole table into memory and from waiting for ever, and lets times that have a zone come as
/// those of `zone`, unless the settings say otherwise.
fn options(string: &str, limits: Limits, timeout: Duration, zone: Tz) -> Vec<(&'static str, String)> {
    let keys: Vec<_> = string.split(';').filter_map(|part| part.split_once('=')).collect();
    let has = |name: &str| keys.iter().any(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    let driver = keys.iter().find(|(key, _)| key.trim().eq_ignore_ascii_case("driver"));
    let driver = driver.map(|(_, driver)| driver.to_lowercase()).unwrap_or_default();
    let mut options = Vec::new();
    if driver.contains("postgresql") {
        options
            .extend([("UseDeclareFetch", "1".to_string()), ("Fetch", limits.rows_max.min(FETCH_ROWS_MAX).to_string())]);
        // The ANSI driver would take the encoding that this process's locale has.
        options.push(("ConnSettings", format!("{{SET TimeZone TO '{zone}';SET client_encoding TO 'UTF8'}}")));
    } else if driver.contains("mariadb") {
        // Known from 3.1.17 on; older drivers take the whole answer into memory.
        options.extend([("FORWARDONLY", "1".to_string()), ("NO_CACHE", "1".to_string())]);
        options.push(("READ_TIMEOUT", timeout.as_secs().to_string()));
        // By its offset, since few servers have the table of zones.
        let offset = Utc::now().with_timezone(&zone).offset().fix();
        options.push(("INITSTMT", format!("{{SET time_zone='{offset}'}}")));
    }
    options.retain(|(name, _)| !has(name));
    options
}

/// Rows that PostgreSQL's driver fetches at once, and keeps.
const FETCH_ROWS_MAX: usize = 1024;

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

pub(super) fn one_line(error: &odbc_api::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const LIMITS: Limits = Limits { rows_max: 4096, text_bytes_max: 1 };
    const ZONE: Tz = Tz::Asia__Shanghai;

    #[test]
    fn a_missing_driver_names_its_package() {
        let secret = Sensitive::new("secret".to_string());
        let string = "Driver=PostgreSQL Nowhere;Server=127.0.0.1";
        let error = connect(string, Some(&secret), LIMITS, Duration::from_secs(1), ZONE).expect_err("no such driver");
        expect!["the ODBC driver `postgresql nowhere` is not installed: apt install odbc-postgresql"]
            .assert_eq(&error.to_string());
    }

    #[test]
    fn drivers_are_told_to_hand_rows_over_as_they_come() {
        let strings = ["Driver=PostgreSQL Unicode;fetch=7", "Driver={MariaDB Unicode};", "Driver=SQLite3;Database=x"];
        let options = |string| options(string, LIMITS, Duration::from_secs(60), ZONE);
        let told = strings.map(|string| connection_string(string, None, options(string)) + "\n");
        expect![[r#"
            Driver=PostgreSQL Unicode;fetch=7;UseDeclareFetch=1;ConnSettings={SET TimeZone TO 'Asia/Shanghai';SET client_encoding TO 'UTF8'};
            Driver={MariaDB Unicode};FORWARDONLY=1;NO_CACHE=1;READ_TIMEOUT=60;INITSTMT={SET time_zone='+08:00'};
            Driver=SQLite3;Database=x;
        "#]]
        .assert_eq(&told.concat());
    }
}
