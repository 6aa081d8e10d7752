//! What pulls have shown → findings: each check says what was seen, and when that is not well, what to do.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Schema;
use chrono::{DateTime, TimeDelta, Utc};
use schemas::Kind as TableKind;

use super::shown::Shown;
use super::{Finding, Outcome, Trial, leak};
use crate::connector::{Pull, Spec};
use crate::extract::pull::{LETTER, deletes};
use crate::extract::source::Coverage;
use crate::extract::state::Vanished;
use crate::kit::rehearsal::Rehearsal;

use Outcome::{Failed, Ok as Well, Skipped, Warning};

/// A larger share of rejected rows than a source's own mistakes explain; in a few rows, one of two.
const REJECTED_SHARE_MAX: f64 = 0.05;
const REJECTED_FEW_MAX: usize = 10;
const REJECTED_SHARE_OF_FEW_MAX: f64 = 0.5;
/// Reasons and codes that a finding names.
const NAMED_MAX: usize = 5;
/// A longer text than this share of the limit will soon be too long.
const TEXT_SHARE_MAX: f64 = 0.8;
/// Clocks of devices are up to a day ahead.
const AHEAD_MAX: TimeDelta = TimeDelta::days(1);
/// 1990-01-01: nothing before it happened in a system of today.
const EVENT_US_MIN: i64 = 631_152_000_000_000;
/// Deletes that are tried.
const DELETES_TRIED_MAX: usize = 100;

/// All that was pulled of one table; a pull that failed says why.
pub(super) struct Pulls<'a> {
    pub rehearsal: &'a Rehearsal,
    pub trial: &'a Trial<'a>,
    pub whole: Shown,
    pub cut: Result<Shown, String>,
    pub again: Result<Shown, String>,
    /// What the source said of what it could not do.
    pub errors: &'a [String],
}

type Judgement = (Outcome, String);

/// Every check, in the order of a row's way.
pub(super) fn findings(pulls: &Pulls<'_>) -> Vec<Finding> {
    let of = |check, (outcome, text): Judgement| Finding { check, outcome, text };
    let mut found = vec![
        of("answers", answers(&pulls.whole)),
        of("batches", batches(pulls)),
        of("columns", columns(pulls)),
        of("contract", contract(&pulls.whole)),
        of("codes", codes(pulls)),
        of("keys", keys(&pulls.whole)),
        of("times", times(pulls)),
        of("cursor", cursor(pulls)),
        of("resume", resume(pulls)),
        of("repeats", repeats(pulls)),
        of("deletes", removals(pulls)),
        of("lateness", lateness(pulls)),
    ];
    let has_leak = pulls.whole.has_leak || leak(pulls.trial.secrets, found.iter().map(|finding| finding.text.as_str()));
    found.push(secrets(pulls.trial, pulls.errors, has_leak));
    found
}

/// No secret is in a letter, a finding or an error.
pub(super) fn secrets(trial: &Trial<'_>, errors: &[String], has_leak: bool) -> Finding {
    let (outcome, text) =
        match (trial.secrets.is_empty(), has_leak || leak(trial.secrets, errors.iter().map(String::as_str))) {
            (true, _) => (Skipped, "the source has no password".to_string()),
            (false, true) => (
                Failed,
                "the password stands in a letter or an error: take it out of the connection string, the query \
                                   or the path"
                    .to_string(),
            ),
            (false, false) => (Well, format!("in no letter and in none of {} errors", errors.len())),
        };
    Finding { check: "secrets", outcome, text }
}

fn answers(shown: &Shown) -> Judgement {
    let end = if shown.is_cut_short { "; --rows ended the pull" } else { "" };
    match shown.rows {
        0 => (Warning, "no rows: is this the right table, user or folder?".to_string()),
        rows => (Well, format!("{rows} rows{end}")),
    }
}

fn batches(pulls: &Pulls<'_>) -> Judgement {
    let (shown, limits) = (&pulls.whole, pulls.trial.worker.limits);
    if shown.batch_rows_max > limits.rows_max {
        let text = format!(
            "a batch of {} rows, and the limit is {}: the source must divide it",
            shown.batch_rows_max, limits.rows_max
        );
        return (Failed, text);
    }
    let (bytes, column) = &shown.text_max;
    let text = format!("up to {} rows and {} KiB", shown.batch_rows_max, shown.batch_bytes_max.div_ceil(1024));
    match *bytes as f64 > TEXT_SHARE_MAX * limits.text_bytes_max as f64 {
        true => (
            Warning,
            format!(
                "{text}; {column} has a text of {bytes} bytes, and extract.text_bytes_max is {}",
                limits.text_bytes_max
            ),
        ),
        false => (Well, text),
    }
}

fn columns(pulls: &Pulls<'_>) -> Judgement {
    let cursor: &[String] = match &pulls.rehearsal.table.spec {
        Spec::Sql(declared) => &declared.cursor,
        _ => &[],
    };
    let is_used = |name: &&String| {
        let is_cursor = cursor.iter().any(|column| column.eq_ignore_ascii_case(name));
        is_cursor || name.starts_with('_') || pulls.rehearsal.mapping.reads(name)
    };
    let unused: Vec<_> = pulls.whole.columns.iter().filter(|name| !is_used(name)).cloned().collect();
    match unused.is_empty() {
        true => (Well, format!("{} asked for, all of them used", pulls.whole.columns.len())),
        false => {
            (Warning, format!("asked for and not mapped: {}; do not ask for what nobody keeps", unused.join(", ")))
        }
    }
}

fn contract(shown: &Shown) -> Judgement {
    let (rejected, share) = (shown.letters(), shown.letters() as f64 / shown.rows.max(1) as f64);
    let mut reasons: Vec<_> = shown.rejected.iter().collect();
    reasons.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
    let named = reasons.iter().take(NAMED_MAX).map(|((field, rule, message), times)| match field.is_empty() {
        true => format!("{times} × {rule}: {message}"),
        false => format!("{times} × {field} {rule}: {message}"),
    });
    let named = named.collect::<Vec<_>>().join("; ");
    let left_out =
        if shown.left_out > 0 { format!(", {} left out by the mapping", shown.left_out) } else { String::new() };
    let text = format!("{rejected} of {} rows rejected ({:.1} %){left_out}", shown.rows, 100.0 * share);
    let share_max = if rejected <= REJECTED_FEW_MAX { REJECTED_SHARE_OF_FEW_MAX } else { REJECTED_SHARE_MAX };
    match share {
        0.0 => (Well, text),
        share if share <= share_max => (Warning, format!("{text}: {named}")),
        _ => (Failed, format!("{text}, more than a source's mistakes explain; mend the mapping: {named}")),
    }
}

fn codes(pulls: &Pulls<'_>) -> Judgement {
    let sensitive = pulls.rehearsal.has_sensitive();
    let unknown = pulls.rehearsal.codes_unknown.values();
    let mut sets: Vec<String> = Vec::new();
    for (set, value, _) in &unknown {
        // What a sensitive column may hold is not shown.
        sets.push(if sensitive { set.clone() } else { format!("{set} {value}") });
    }
    sets.dedup();
    let more = sets.len().saturating_sub(NAMED_MAX);
    sets.truncate(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    match unknown.is_empty() {
        true => (Well, "every code is known".to_string()),
        false => {
            (Warning, format!("not in codes/<set>.csv: {}{more}; `quad connector preview` shows rows", sets.join(", ")))
        }
    }
}

fn keys(shown: &Shown) -> Judgement {
    let keys = shown.versions.keys().filter(|key| !key.starts_with(LETTER)).count();
    match (shown.collisions, shown.changes) {
        (0, 0) => (Well, format!("{keys} keys")),
        (0, changes) => (Well, format!("{keys} keys; {changes} rows are later versions of one")),
        (collisions, _) => (
            Failed,
            format!(
                "{collisions} rows have the key of another row, other content and no later time of change: which one stays is \
                     chance. The key lacks a column, or the mapping a src_updated_at"
            ),
        ),
    }
}

fn times(pulls: &Pulls<'_>) -> Judgement {
    let contract = &pulls.rehearsal.table.contract;
    let Some((first, last)) = pulls.whole.events_us else {
        return (Skipped, format!("no row has {}", contract.event_time));
    };
    let latest = (Utc::now() + AHEAD_MAX).timestamp_micros();
    let day = |us| DateTime::from_timestamp_micros(us).map(|time| time.date_naive().to_string()).unwrap_or_default();
    let text = format!("{} from {} to {}", contract.event_time, day(first), day(last));
    match (first < EVENT_US_MIN, last > latest && contract.kind == TableKind::Event) {
        (false, false) => (Well, text),
        (true, _) => (Warning, format!("{text}: is a date's format misread?")),
        (false, true) => {
            (Warning, format!("{text}: events that are still to come; is the zone right, or a clock ahead?"))
        }
    }
}

fn cursor(pulls: &Pulls<'_>) -> Judgement {
    let (shown, table) = (&pulls.whole, &pulls.rehearsal.table);
    match table.pull {
        Pull::Snapshot { .. } => return (Skipped, "a snapshot needs none".to_string()),
        Pull::Push => return (Skipped, "the source pushes".to_string()),
        Pull::Changes => return (Skipped, "the database keeps the place".to_string()),
        Pull::Changed | Pull::Cursor => {}
    }
    if let Some((column, rows)) = shown.cursor_nulls.iter().next() {
        return (
            Failed,
            format!(
                "{column} is empty in {rows} rows, which are never seen after the first pull: COALESCE it in the query"
            ),
        );
    }
    if shown.cursor_backwards {
        return (Failed, "it went back within a pull: rows must come in its order".to_string());
    }
    let overlap_s = overlap_s(pulls);
    match (shown.cursor_ties, overlap_s, shown.rows) {
        (0, _, 0) => (Skipped, "no rows".to_string()),
        (0, ..) => (Well, "never goes back".to_string()),
        (ties, 0, _) => (
            Failed,
            format!(
                "{ties} rows have the cursor of the row before, and a pull that ends between them loses one: add \
                                          a column that tells them apart to `cursor`"
            ),
        ),
        (ties, ..) => (
            Warning,
            format!(
                "{ties} rows have the cursor of the row before, and only `overlap_s` saves them: add a column \
                                         that tells them apart to `cursor`"
            ),
        ),
    }
}

fn resume(pulls: &Pulls<'_>) -> Judgement {
    let cut = match &pulls.cut {
        Ok(cut) => cut,
        Err(error) => return (Failed, error.clone()),
    };
    let lost = pulls.whole.versions.keys().filter(|key| !cut.versions.contains_key(*key)).count();
    match (cut.cuts, lost) {
        (0, 0) => (Skipped, "one batch: nothing to cut".to_string()),
        (cuts, 0) => (Well, format!("nothing lost in {cuts} cuts, before and after the cursor was saved")),
        (cuts, lost) => (
            Failed,
            format!(
                "{lost} of {} rows did not come when the pull was cut {cuts} times and resumed: are they in the order of the \
                     cursor, and is it unique?",
                pulls.whole.versions.len()
            ),
        ),
    }
}

fn repeats(pulls: &Pulls<'_>) -> Judgement {
    let again = match &pulls.again {
        Ok(again) => again,
        Err(error) => return (Failed, error.clone()),
    };
    let known = |key: &&String| pulls.whole.versions.contains_key(*key);
    let repeats = again.versions.keys().filter(known).count();
    let new = again.versions.len() - repeats;
    let is_other = |(key, version): &(&String, &super::shown::Version)| {
        let before = pulls.whole.versions.get(*key);
        before.is_some_and(|before| before.hash != version.hash && version.updated_us <= before.updated_us)
    };
    let others = again.versions.iter().filter(is_other).count();
    match (others, again.rows) {
        (0, 0) => (Well, "a second pull brings nothing".to_string()),
        (0, _) => (Well, format!("a second pull brings {repeats} rows that are recognised and {new} new ones")),
        (others, _) => (
            Failed,
            format!(
                "{others} rows came with other content and no later time of change: does the query or the mapping hold what \
                     changes by itself, such as the time of day?"
            ),
        ),
    }
}

fn removals(pulls: &Pulls<'_>) -> Judgement {
    let (table, whole) = (&pulls.rehearsal.table, &pulls.whole);
    if table.pull == Pull::Changes {
        let tried = try_deletes(pulls).map(|()| "the stream of changes tells of them".to_string());
        return tried.map_or_else(|problem| (Failed, problem), |text| (Well, text));
    }
    let Pull::Snapshot { deletes_share_max } = table.pull else {
        return match (whole.deletes, table.contract.kind) {
            (0, TableKind::Event) => (Well, "events are not deleted".to_string()),
            (0, _) => (
                Warning,
                "no row tells of a delete, and what vanishes from the source is not noticed: map `op`, or use \
                                 pull = \"snapshot\""
                    .to_string(),
            ),
            (told, _) => (Well, format!("{told} rows tell of one")),
        };
    };
    if let Err(problem) = try_deletes(pulls) {
        return (Failed, problem);
    }
    let keys = whole.versions.keys().filter(|key| !key.starts_with(LETTER));
    let vanished = match &pulls.again {
        Ok(again) if again.coverage == Some(Coverage::Whole) && !whole.is_cut_short => {
            keys.clone().filter(|key| !again.versions.contains_key(*key)).count()
        }
        _ => 0,
    };
    let most = (keys.count() as f64 * deletes_share_max) as usize;
    if vanished > most {
        return (
            Failed,
            format!("{vanished} rows vanished between two pulls: does the source show all of a table each time?"),
        );
    }
    let text = format!("{vanished} vanished between two pulls; more than {most} at once would be refused");
    match deletes_share_max >= 1.0 {
        true => (
            Warning,
            format!("{text}, so a source that is empty by mistake deletes everything: lower deletes_share_max"),
        ),
        false => (Well, text),
    }
}

/// Whether a delete can be made of the first keys.
fn try_deletes(pulls: &Pulls<'_>) -> Result<(), String> {
    let versions = pulls.whole.versions.iter().filter(|(key, _)| !key.starts_with(LETTER)).take(DELETES_TRIED_MAX);
    let rows: Vec<_> =
        versions.map(|(key, version)| Vanished { key: key.clone(), updated_us: version.updated_us }).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let batch = deletes(&pulls.rehearsal.table.contract, &rows.iter().collect::<Vec<_>>());
    let deleted = batch.and_then(|batch| pulls.rehearsal.run_mapped(batch));
    let (keys, violations) = deleted.map_err(|error| error.chain())?;
    match violations.first() {
        Some(broken) => Err(format!("the delete of a row breaks {} {}: {}", broken.field, broken.rule, broken.message)),
        None if keys.iter().ne(rows.iter().map(|row| Some(row.key.as_str()))) => {
            Err("the delete of a row has another key than the row: is there a | in a field of the key?".to_string())
        }
        None => Ok(()),
    }
}

fn overlap_s(pulls: &Pulls<'_>) -> u64 {
    match &pulls.rehearsal.table.spec {
        Spec::Sql(declared) => declared.overlap_s,
        Spec::Http(declared) => declared.pages.overlap_s,
        _ => 0,
    }
}

/// How late rows may come and still be seen.
fn lateness(pulls: &Pulls<'_>) -> Judgement {
    let (table, whole) = (&pulls.rehearsal.table, &pulls.whole);
    if table.pull != Pull::Cursor || !matches!(table.spec, Spec::Sql(_) | Spec::Http(_)) {
        return (Skipped, "no cursor by time".to_string());
    }
    let overlap_s = overlap_s(pulls);
    let seconds = |us: i64| us / 1_000_000;
    if cursor_is_event_time(pulls) {
        return match whole.lag_us_max.map(seconds) {
            None => (
                Warning,
                format!(
                    "the cursor is the time of the event, and nothing tells when rows are written: those that come \
                                       more than overlap_s ({overlap_s} s) late are lost"
                ),
            ),
            Some(lag) if lag > overlap_s as i64 => (
                Warning,
                format!(
                    "rows were written up to {lag} s after the event that the cursor is the time of, and overlap_s is {overlap_s}: raise it, \
                 or use the time of change as cursor"
                ),
            ),
            Some(lag) => (Well, format!("rows come up to {lag} s after the event; overlap_s is {overlap_s}")),
        };
    }
    let Ok(cut) = &pulls.cut else { return (Skipped, "no second pull to compare with".to_string()) };
    let newest = whole.newest_us.filter(|_| !whole.is_cut_short);
    let new = cut.versions.iter().filter(|(key, _)| !whole.versions.contains_key(*key));
    let late = new.filter_map(|(_, version)| Some(newest? - version.updated_us?)).max().map(seconds);
    match late.filter(|late| *late > 0) {
        Some(late) if late > overlap_s as i64 => {
            (Warning, format!("a row came {late} s late while this was tried, and overlap_s is {overlap_s}: raise it"))
        }
        Some(late) => (Well, format!("a row came {late} s late while this was tried; overlap_s is {overlap_s}")),
        None if overlap_s == 0 => {
            (Warning, "overlap_s is 0: a row whose transaction ends after a later one's is lost".to_string())
        }
        None => (Well, format!("none came late while this was tried; overlap_s is {overlap_s}")),
    }
}

/// Whether the first cursor column becomes the event's time, and not the time of change.
fn cursor_is_event_time(pulls: &Pulls<'_>) -> bool {
    let table = &pulls.rehearsal.table;
    let Spec::Sql(declared) = &table.spec else { return false };
    let Some(first) = declared.cursor.first() else { return false };
    let columns = pulls.whole.columns.iter();
    let columns = columns.map(|name| (name, Arc::new(arrow::array::StringArray::from(Vec::<&str>::new())) as ArrayRef));
    let input =
        RecordBatch::try_from_iter(columns).unwrap_or_else(|_| RecordBatch::new_empty(Arc::new(Schema::empty())));
    let made = pulls.rehearsal.mapping.made_of(std::slice::from_ref(first), &input);
    let made = pulls.trial.worker.block_on(made).and_then(|made| made).unwrap_or_default();
    made.contains(&table.contract.event_time) && !made.iter().any(|name| name == "src_updated_at")
}
