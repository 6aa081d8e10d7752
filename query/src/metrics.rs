//! What query measures: the names of its metrics, and the only place that records them.
//!
//! One question, one profile call, one look at the lake or one computation enters at a time; series of the recorder leave.
//! No label and no span holds SQL, a parameter, a caller or a person.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use schemas::Contracts;
use tracing::Span;
use tracing::field::Empty;

use crate::error::ErrorKind;
use crate::policy::Door;
use crate::source::TableVersion;

pub const REQUESTS: &str = "quad_query_requests_total";
pub const REQUEST_SECONDS: &str = "quad_query_seconds";
pub const ROWS: &str = "quad_query_rows_total";
pub const RUNNING: &str = "quad_running_queries";
pub const QUEUED: &str = "quad_queued_queries";
pub const SNAPSHOT_VERSION: &str = "quad_snapshot_commits";
pub const SNAPSHOT_AGE: &str = "quad_snapshot_age_seconds";
pub const REFRESH_AGE: &str = "quad_refresh_age_seconds";
pub const REFRESH_ERRORS: &str = "quad_refresh_errors_total";
pub const TAIL_BYTES: &str = "quad_tail_bytes";
pub const PROFILES: &str = "quad_computed_profiles";
pub const PROFILES_AGE: &str = "quad_profiles_age_seconds";
pub const PROFILES_SECONDS: &str = "quad_profiles_compute_seconds";
pub const PROFILES_ERRORS: &str = "quad_profiles_errors_total";
pub const FILES_ERRORS: &str = "quad_profile_table_errors_total";

/// Says what each metric means; call it once, after the recorder is installed.
pub fn describe() {
    let count = Unit::Count;
    describe_counter!(REQUESTS, count, "Requests answered, by door and outcome: ok, canceled, or the kind of error");
    describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "How long a request took, its whole answer included");
    describe_counter!(ROWS, count, "Rows that SQL answers gave");
    describe_gauge!(RUNNING, count, "Questions that run");
    describe_gauge!(QUEUED, count, "Questions that wait for their turn");
    describe_gauge!(SNAPSHOT_VERSION, count, "Commits of a table that answers are given from");
    describe_gauge!(
        SNAPSHOT_AGE,
        Unit::Seconds,
        "Time since a new version of the table was taken up, or since the start"
    );
    describe_gauge!(
        REFRESH_AGE,
        Unit::Seconds,
        "Time since the lake was last looked at with success, or since the start"
    );
    describe_counter!(REFRESH_ERRORS, count, "Looks at the lake that failed");
    describe_gauge!(TAIL_BYTES, Unit::Bytes, "Memory of records that are answered from before they have landed");
    describe_gauge!(PROFILES, count, "Profiles that are held, one a person");
    describe_gauge!(PROFILES_AGE, Unit::Seconds, "Time since the profiles were computed, or since the start");
    describe_histogram!(PROFILES_SECONDS, Unit::Seconds, "How long a computation of all profiles took");
    describe_counter!(PROFILES_ERRORS, count, "Computations of profiles that failed");
    describe_counter!(
        FILES_ERRORS,
        count,
        "Writings of profiles to the lake, as tables or as the checkpoint, that failed"
    );
}

/// How a request ended, as metrics and spans name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Dropped before its end: the client cancelled or went away.
    Canceled,
    Failed(ErrorKind),
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Canceled => ErrorKind::Canceled.name(),
            Self::Failed(kind) => kind.name(),
        }
    }
}

/// One request on its way, from when it was understood until it is dropped: that is when it is recorded.
#[derive(Debug)]
pub struct Request {
    door: Door,
    began: Instant,
    span: Span,
    pub outcome: Outcome,
    /// Of an SQL answer.
    pub rows: usize,
}

impl Request {
    pub fn begin(door: Door) -> Self {
        let span = tracing::debug_span!(
            target: "quad::trace", "query", otel.name = door.name(), outcome = Empty, rows = Empty
        );
        Self { door, began: Instant::now(), span, outcome: Outcome::Canceled, rows: 0 }
    }

    pub fn took(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.span.record("outcome", self.outcome.name());
        self.span.record("rows", self.rows);
        let door = self.door.name();
        counter!(REQUESTS, "door" => door, "outcome" => self.outcome.name()).increment(1);
        histogram!(REQUEST_SECONDS, "door" => door).record(self.took());
        if self.door.is_sql() {
            counter!(ROWS, "door" => door).increment(self.rows as u64);
        }
    }
}

/// A request was refused before it ran: a wrong token, a mistake in the SQL, a table that the caller may not read.
pub fn refused(door: Door, kind: ErrorKind) {
    counter!(REQUESTS, "door" => door.name(), "outcome" => kind.name()).increment(1);
}

/// The lake could not be looked at.
pub fn refresh_failed() {
    counter!(REFRESH_ERRORS).increment(1);
}

/// A computation of all profiles has ended; how many there are, unless it failed.
pub fn computed(took: Duration, profiles: Option<usize>) {
    match profiles {
        Some(profiles) => {
            gauge!(PROFILES).set(profiles as f64);
            histogram!(PROFILES_SECONDS).record(took);
        }
        None => counter!(PROFILES_ERRORS).increment(1),
    }
}

/// Profiles could not be written to the lake.
pub fn files_failed() {
    counter!(FILES_ERRORS).increment(1);
}

/// What grows by itself: when the lake was looked at and each table's version taken up, and how many questions wait.
#[derive(Debug)]
pub struct Watch {
    started: Instant,
    refreshed: Mutex<Option<Instant>>,
    /// By table.
    taken_up: Mutex<BTreeMap<String, Instant>>,
    queued: AtomicUsize,
}

impl Watch {
    /// All series that exist before the first request are made.
    pub fn new(contracts: &Contracts) -> Self {
        counter!(REFRESH_ERRORS).increment(0);
        counter!(PROFILES_ERRORS).increment(0);
        counter!(FILES_ERRORS).increment(0);
        gauge!(PROFILES).set(0.0);
        let started = Instant::now();
        let taken_up = contracts.iter().map(|contract| (contract.name(), started)).collect();
        Self { started, refreshed: Mutex::default(), taken_up: Mutex::new(taken_up), queued: AtomicUsize::new(0) }
    }

    /// The lake was looked at.
    pub fn refreshed(&self) {
        *self.refreshed.lock().expect("no holder of this lock panics") = Some(Instant::now());
    }

    /// New versions of tables are answered from.
    pub fn taken_up(&self, changed: &HashMap<String, TableVersion>) {
        let now = Instant::now();
        let mut taken_up = self.taken_up.lock().expect("no holder of this lock panics");
        for (table, version) in changed {
            taken_up.insert(table.clone(), now);
            gauge!(SNAPSHOT_VERSION, "table" => table.clone()).set(version.commits() as f64);
        }
    }

    /// Time since the lake was last looked at; `None` before the first time.
    pub fn refresh_age(&self) -> Option<Duration> {
        self.refreshed.lock().expect("no holder of this lock panics").map(|at| at.elapsed())
    }

    /// Counts a question as waiting until the answer is dropped.
    pub fn queue(&self) -> Queued<'_> {
        self.queued.fetch_add(1, Ordering::Relaxed);
        Queued(&self.queued)
    }

    /// Sets the gauges; called when the metrics are asked for. `profiles_age` is `None` before the first computation.
    pub fn observe(&self, running: usize, profiles_age: Option<Duration>, tail_bytes: usize) {
        gauge!(TAIL_BYTES).set(tail_bytes as f64);
        gauge!(RUNNING).set(running as f64);
        gauge!(QUEUED).set(self.queued.load(Ordering::Relaxed) as f64);
        gauge!(REFRESH_AGE).set(self.refresh_age().unwrap_or(self.started.elapsed()).as_secs_f64());
        gauge!(PROFILES_AGE).set(profiles_age.unwrap_or(self.started.elapsed()).as_secs_f64());
        for (table, at) in &*self.taken_up.lock().expect("no holder of this lock panics") {
            gauge!(SNAPSHOT_AGE, "table" => table.clone()).set(at.elapsed().as_secs_f64());
        }
    }
}

/// A question that waits for its turn.
#[derive(Debug)]
pub struct Queued<'a>(&'a AtomicUsize);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
