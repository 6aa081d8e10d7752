//! The boundary of pulled sources: one trait, and the one place that knows who implements it.
//!
//! A table of a connector and the cursor that was saved last enter; batches of nullable text columns leave, each with the
//! cursor after it. A source decides what its cursor is made of (columns, page tokens, files, offsets): to the others it is
//! a list of texts. It is saved only after the log has every record of the batch, so a source may be stopped at any moment
//! and is asked again from there; rows that come twice are recognised by key and hash.

use std::time::Duration;

use arrow::array::RecordBatch;
use chrono_tz::Tz;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::error::Elapsed;

use super::files::FilesSource;
use super::http::HttpSource;
use super::kafka::KafkaSource;
use super::mqtt::MqttSource;
use super::postgres_cdc::PostgresCdcSource;
use super::secret;
use super::singer::SingerSource;
use super::sql::SqlSource;
use crate::connector::{Connector, Kind, TableMapping};
use crate::error::Error;
use crate::settings::{ExtractSettings, SourceSettings};

/// Takes one batch, which may be empty, and the cursor after it; `None` leaves the cursor where it was. It returns when the
/// log has every record, see [`Source::waits_for_the_log`]. Its errors are passed on as they are.
pub type Each<'a> = &'a mut dyn FnMut(RecordBatch, Option<Vec<String>>) -> Result<(), Error>;

/// A system that is asked for rows. It lives on one thread and may block there, see [`Worker`].
pub trait Source {
    /// Asks for as little as shows that `table` would answer.
    ///
    /// # Errors
    /// `Source` with the system's own words, `Settings` with the mend.
    fn probe(&mut self, table: &TableMapping) -> Result<(), Error>;

    /// Gives `each` what came after the cursor `after`, which is empty before the first pull. A stream gives what has
    /// come, and returns when nothing more comes for a moment: other tables of the source wait for it.
    ///
    /// # Errors
    /// `Source` when the system fails; whatever `each` returns.
    fn pull(&mut self, table: &TableMapping, after: &[String], each: Each<'_>) -> Result<Coverage, Error>;

    /// Gives `each` the rest of a span of the past.
    ///
    /// # Errors
    /// As [`Source::pull`]; `Settings` when this kind of source cannot be asked for a span.
    fn pull_span(&mut self, table: &TableMapping, _span: &Span<'_>, _each: Each<'_>) -> Result<(), Error> {
        Err(Error::settings(format!("table `{}`: this kind of source cannot be asked for a span", table.name)))
    }

    /// Whether the source needs to know that the log has a batch before it gives the next, because it acknowledges it to
    /// its system, say. Otherwise it makes the next while one is sent and another waits, and `each` fails for one before.
    fn waits_for_the_log(&self) -> bool {
        true
    }

    /// Whether it is kept until the next pull, or connected anew: no database holds a connection for one that sleeps.
    fn is_kept(&self) -> bool {
        true
    }
}

/// How much a pull has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Coverage {
    /// All there was after the cursor: in a snapshot, what was not shown has vanished.
    Whole,
    /// Some of it, or nothing because nothing has changed: no row may be taken for gone.
    Part,
    /// All there was, from where only changes come: what was not shown has vanished. With the cursor after it, which is saved when
    /// what vanished is deleted.
    Anew(Vec<String>),
}

/// A span of the past, `from..to` in the cursor's own terms, after what was got before.
pub struct Span<'a> {
    pub from: &'a str,
    pub to: &'a str,
    /// Empty before the first row.
    pub after: &'a [String],
}

/// The most a source gives at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub rows_max: usize,
    pub text_bytes_max: usize,
}

/// What a source works with on its thread: its limits, the runtime, and the wish to stop.
#[derive(Clone)]
pub struct Worker {
    pub limits: Limits,
    /// The id of the source that is asked, where it is known.
    pub id: Option<String>,
    /// The id of the source that is pulled; none for who only looks, and leaves no trace there.
    pub source: Option<String>,
    /// The zone of times that do not name theirs.
    pub timezone: Tz,
    handle: Handle,
    shutdown: watch::Receiver<bool>,
}

impl Worker {
    pub fn new(settings: &ExtractSettings, handle: Handle, shutdown: watch::Receiver<bool>) -> Self {
        let limits = Limits { rows_max: settings.batch_rows_max, text_bytes_max: settings.text_bytes_max };
        Self { limits, id: None, source: None, timezone: Tz::UTC, handle, shutdown }
    }

    /// The same, to pull the source `id`.
    pub fn pulling(&self, id: &str) -> Self {
        Self { id: Some(id.to_string()), source: Some(id.to_string()), ..self.clone() }
    }

    /// The same, to look at the source `id`.
    pub fn looking_at(&self, id: &str) -> Self {
        Self { id: Some(id.to_string()), source: None, ..self.clone() }
    }

    /// One for sources whose clocks are set to `timezone`.
    pub fn in_timezone(self, timezone: Tz) -> Self {
        Self { timezone, ..self }
    }

    /// One that nobody stops.
    pub fn alone(settings: &ExtractSettings, handle: Handle) -> Self {
        Self::new(settings, handle, watch::channel(false).1)
    }

    /// One that nobody stops, with these limits.
    pub fn of(limits: Limits, handle: Handle) -> Self {
        Self { limits, id: None, source: None, timezone: Tz::UTC, handle, shutdown: watch::channel(false).1 }
    }

    pub fn is_stopped(&self) -> bool {
        *self.shutdown.borrow()
    }

    /// # Errors
    /// `Source` when the process is stopping: a source hands it on.
    pub fn check(&self) -> Result<(), Error> {
        match self.is_stopped() {
            true => Err(stopped()),
            false => Ok(()),
        }
    }

    /// Runs a future to its end, or until the process is stopping.
    ///
    /// # Errors
    /// As [`Worker::check`].
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> Result<T, Error> {
        let mut shutdown = self.shutdown.clone();
        self.handle.block_on(async {
            tokio::select! {
                biased;
                Ok(_) = shutdown.wait_for(|stop| *stop) => Err(stopped()),
                output = future => Ok(output),
            }
        })
    }

    /// As [`Worker::block_on`], for no longer than `time_max`.
    ///
    /// # Errors
    /// As [`Worker::check`]; `Elapsed` inside.
    pub fn within<T>(&self, time_max: Duration, future: impl Future<Output = T>) -> Result<Result<T, Elapsed>, Error> {
        self.block_on(async { tokio::time::timeout(time_max, future).await })
    }

    /// Runs a future to its end, also while the process stops: for what must not be left behind.
    pub fn finish<T>(&self, future: impl Future<Output = T>) -> T {
        self.handle.block_on(future)
    }

    /// Sleeps; a process that is stopping wakes it.
    ///
    /// # Errors
    /// As [`Worker::check`].
    pub fn wait(&self, pause: Duration) -> Result<(), Error> {
        self.block_on(async { tokio::time::sleep(pause).await })
    }
}

fn stopped() -> Error {
    Error::source("stopped half-way; the rest comes with the next pull")
}

/// Connects to a source, whatever its kind.
///
/// # Errors
/// `Settings` when something is missing here, `Source` when the system does not answer.
pub fn connect(connector: &Connector, settings: &SourceSettings, worker: &Worker) -> Result<Box<dyn Source>, Error> {
    let settings = &secret::resolve(settings, worker)?;
    match connector.kind {
        Kind::Sql => Ok(Box::new(SqlSource::connect(settings, worker)?)),
        Kind::Files => Ok(Box::new(FilesSource::connect(settings, worker)?)),
        Kind::Http => Ok(Box::new(HttpSource::connect(connector, settings, worker)?)),
        Kind::Kafka => Ok(Box::new(KafkaSource::connect(settings, worker)?)),
        Kind::Singer => Ok(Box::new(SingerSource::connect(connector, settings, worker)?)),
        Kind::Mqtt => Ok(Box::new(MqttSource::connect(settings, worker)?)),
        Kind::PostgresCdc => Ok(Box::new(PostgresCdcSource::connect(settings, worker)?)),
        Kind::Webhook => Err(Error::settings("a source that pushes cannot be asked")),
    }
}
