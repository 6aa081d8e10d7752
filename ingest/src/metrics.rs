//! What ingest measures: the names of its metrics, and the only place that records them.
//!
//! Counts and durations of whole batches, pulls, pushes and commits enter; series of the recorder leave. Nothing is recorded
//! a record, and no label holds a value of a row: sources, tables and rules come from settings, connectors and contracts.

use std::collections::HashMap;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use tracing::Span;
use tracing::field::Empty;

use crate::error::ErrorKind;
use crate::landing::Landed;
use crate::letter::{Letter, Stage};

pub const EXTRACTED_RECORDS: &str = "quad_extracted_records_total";
pub const EXTRACTED_LETTERS: &str = "quad_extracted_letters_total";
pub const REPEATED_RECORDS: &str = "quad_repeated_records_total";
pub const DEAD_LETTERS: &str = "quad_dead_letters_total";
pub const PULL_SECONDS: &str = "quad_pull_seconds";
pub const PULL_ERRORS: &str = "quad_pull_errors_total";
pub const PUSH_REQUESTS: &str = "quad_push_requests_total";
pub const CURSOR_AGE: &str = "quad_cursor_age_seconds";
pub const FRESHNESS: &str = "quad_freshness_seconds";
pub const FRESHNESS_LIMIT: &str = "quad_freshness_limit_seconds";
pub const LANDED_ROWS: &str = "quad_landed_rows_total";
pub const LANDED_BYTES: &str = "quad_landed_bytes_total";
pub const LANDED_COMMITS: &str = "quad_landed_commits_total";
pub const COMMIT_SECONDS: &str = "quad_commit_seconds";
pub const COMMIT_AGE: &str = "quad_commit_age_seconds";
pub const LAG: &str = "quad_lag_records";
pub const LAND_STOPPED: &str = "quad_land_stopped_partitions";
pub const LAND_RETRIES: &str = "quad_land_retries_total";

/// Says what each metric means; call it once, after the recorder is installed.
pub fn describe() {
    let count = Unit::Count;
    describe_counter!(EXTRACTED_RECORDS, count, "Records that the log has acknowledged, deletes among them");
    describe_counter!(EXTRACTED_LETTERS, count, "Source rows that became dead letters");
    describe_counter!(REPEATED_RECORDS, count, "Source rows that came again unchanged and were left out");
    describe_counter!(DEAD_LETTERS, count, "Dead letters, by the rule that was broken and where it was found");
    describe_histogram!(PULL_SECONDS, Unit::Seconds, "How long a successful pull of one table took");
    describe_counter!(PULL_ERRORS, count, "Pulls that failed and were tried again");
    describe_counter!(PUSH_REQUESTS, count, "Pushes answered, by HTTP status; no source when its name is unknown");
    describe_gauge!(CURSOR_AGE, Unit::Seconds, "Time since the last successful pull or push, or the start if none was");
    describe_gauge!(
        FRESHNESS,
        Unit::Seconds,
        "Age of the newest row received, by the source's own clock, or since the start"
    );
    describe_gauge!(FRESHNESS_LIMIT, Unit::Seconds, "The latency that the contract of the table promises");
    describe_counter!(LANDED_ROWS, count, "Rows committed to the lake");
    describe_counter!(LANDED_BYTES, Unit::Bytes, "Encoded bytes committed to the lake");
    describe_counter!(LANDED_COMMITS, count, "Commits to the lake, those that only move positions among them");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "How long a commit took");
    describe_gauge!(COMMIT_AGE, Unit::Seconds, "Time since the last commit, or since the start if none was");
    describe_gauge!(LAG, count, "Records in the log that are not in the lake");
    describe_gauge!(LAND_STOPPED, count, "Partitions whose records are gone from the log; see quad land reset");
    describe_counter!(LAND_RETRIES, count, "Times that landing started over from the lake's positions, by cause");
}

/// Makes the series of one table of a source, so that a source that never answers is seen as well as a busy one.
pub fn register(source: &str, table: &str, is_pulled: bool, freshness_limit_s: Option<u64>) {
    for name in [EXTRACTED_RECORDS, EXTRACTED_LETTERS, REPEATED_RECORDS, PULL_ERRORS] {
        counter!(name, "source" => source.to_string(), "table" => table.to_string()).increment(0);
    }
    if is_pulled {
        let _ = histogram!(PULL_SECONDS, "source" => source.to_string(), "table" => table.to_string());
    }
    if let Some(limit_s) = freshness_limit_s {
        gauge!(FRESHNESS_LIMIT, "source" => source.to_string(), "table" => table.to_string()).set(limit_s as f64);
    }
}

/// Records and letters of one batch are in the log.
pub fn extracted(source: &str, table: &str, records: usize, letters: &[Letter]) {
    for (name, count) in [(EXTRACTED_RECORDS, records), (EXTRACTED_LETTERS, letters.len())] {
        counter!(name, "source" => source.to_string(), "table" => table.to_string()).increment(count as u64);
    }
    dead_letters(letters);
}

/// Rows of one batch were known already.
pub fn repeated(source: &str, table: &str, records: usize) {
    let labels = [("source", source.to_string()), ("table", table.to_string())];
    counter!(REPEATED_RECORDS, &labels).increment(records as u64);
}

/// Letters are written: to the log by extract, to the lake by landing. Call it once a batch or commit, after it is durable.
pub fn dead_letters(letters: &[Letter]) {
    let mut counts: HashMap<(Stage, &str, &str), u64> = HashMap::new();
    for letter in letters {
        *counts.entry((letter.stage, &letter.target, &letter.rule)).or_default() += 1;
    }
    for ((stage, table, rule), count) in counts {
        let labels = [("stage", stage.name().to_string()), ("table", table.to_string()), ("rule", rule.to_string())];
        counter!(DEAD_LETTERS, &labels).increment(count);
    }
}

/// A pull of one table has ended.
pub fn pulled(source: &str, table: &str, took: Duration, is_well: bool) {
    let labels = [("source", source.to_string()), ("table", table.to_string())];
    match is_well {
        true => histogram!(PULL_SECONDS, &labels).record(took),
        false => counter!(PULL_ERRORS, &labels).increment(1),
    }
}

/// A push was answered. Names that no settings hold must not come here: whoever pushes could make series without end.
pub fn pushed(known: Option<(&str, &str)>, status: u16) {
    let (source, table) = known.unwrap_or_default();
    let labels = [("source", source.to_string()), ("table", table.to_string()), ("status", status.to_string())];
    counter!(PUSH_REQUESTS, &labels).increment(1);
}

/// How old a table of a source is, at the moment of asking.
pub fn aged(source: &str, table: &str, cursor_age: Duration, freshness: Duration) {
    for (name, age) in [(CURSOR_AGE, cursor_age), (FRESHNESS, freshness)] {
        gauge!(name, "source" => source.to_string(), "table" => table.to_string()).set(age.as_secs_f64());
    }
}

/// A span that is exported when `observe.otlp_endpoint` is set. `records`, `dead_letters` and `outcome` are recorded at its
/// end; what a row or a statement says never is.
pub fn span(name: &'static str, source: &str, table: &str) -> Span {
    let span = tracing::debug_span!(
        target: "quad::trace", "ingest", otel.name = name, source = Empty, table, records = Empty, dead_letters = Empty,
        outcome = Empty
    );
    if !source.is_empty() {
        span.record("source", source);
    }
    span
}

/// Records the end of `span`.
pub fn end_span(span: &Span, records: usize, dead_letters: usize, failed: Option<ErrorKind>) {
    span.record("records", records);
    span.record("dead_letters", dead_letters);
    span.record("outcome", failed.map_or("ok", ErrorKind::name));
}

/// Makes the series of a table of the lake.
pub fn register_landed(table: &str) {
    for name in [LANDED_ROWS, LANDED_BYTES, LANDED_COMMITS] {
        counter!(name, "table" => table.to_string()).increment(0);
    }
    let _ = histogram!(COMMIT_SECONDS, "table" => table.to_string());
    for kind in [ErrorKind::Log, ErrorKind::Lake, ErrorKind::Fenced] {
        counter!(LAND_RETRIES, "kind" => kind.name()).increment(0);
    }
}

/// A commit is in the lake.
pub fn landed(table: &str, landed: Landed) {
    for (name, count) in [(LANDED_ROWS, landed.rows), (LANDED_BYTES, landed.bytes), (LANDED_COMMITS, 1)] {
        counter!(name, "table" => table.to_string()).increment(count as u64);
    }
    histogram!(COMMIT_SECONDS, "table" => table.to_string()).record(landed.took);
}

/// How long ago the last commit of a table was, at the moment of asking.
pub fn commit_age(table: &str, age: Duration) {
    gauge!(COMMIT_AGE, "table" => table.to_string()).set(age.as_secs_f64());
}

/// How many partitions wait for a person.
pub fn stopped(partitions: usize) {
    gauge!(LAND_STOPPED).set(partitions as f64);
}

/// How far the lake is behind the log in one partition.
pub fn lag(table: &str, partition: i32, records: u64) {
    gauge!(LAG, "table" => table.to_string(), "partition" => partition.to_string()).set(records as f64);
}

/// Landing starts over.
pub fn restarted(kind: ErrorKind) {
    counter!(LAND_RETRIES, "kind" => kind.name()).increment(1);
}
