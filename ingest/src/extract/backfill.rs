//! Backfill: rows of a past span of a source, pulled once more beside the live pulls.
//!
//! A source's table and a span of its cursor enter; records leave through the same pipeline as those of a pull. How far each
//! backfill is stands on disk and is saved after the log has acknowledged, so that it can be paused, and goes on after a
//! crash. The live cursor is never touched. One backfill runs at a time, so that a source is asked by two at the most.
//!
//! Rows that a live pull has just sent are recognised; others are in the log once more, and tables show them once.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::pipeline::{Pipeline, Ready};
use super::pull::LETTER;
use super::run::{Extract, PreparedSource};
use super::source::{self, Span, Worker};
use crate::connector::{Kind, Pull};
use crate::error::{Error, ErrorKind};

/// Between two looks for a backfill to run.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// One backfill, as it stands on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Backfill {
    pub id: u64,
    pub source: String,
    /// The table of the connector.
    pub table: String,
    /// The span `from..to`, in the terms of the source: of the first cursor column (`sql`) or `since` (`http`) in its own
    /// format, or of the records' timestamps in RFC 3339 (`kafka`).
    pub from: String,
    pub to: String,
    pub state: BackfillState,
    /// The cursor's values of the last row that was sent; empty before the first.
    pub at: Vec<String>,
    /// Rows read; records, repeats and letters that became of them.
    pub rows: u64,
    pub records: u64,
    pub repeats: u64,
    pub letters: u64,
    pub by: String,
    pub started_at: DateTime<Utc>,
    /// Why it waits before it goes on.
    pub error: Option<String>,
}

/// What a backfill is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackfillState {
    Running,
    Paused,
    Done,
}

/// What a backfill is to cover.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackfillRequest {
    pub source: String,
    /// A table of the connector, or its contract; all that are pulled by cursor when left out.
    pub table: Option<String>,
    pub from: String,
    pub to: String,
}

impl Extract {
    /// Begins a backfill of each table that is asked for, in the name of `by`.
    ///
    /// # Errors
    /// `Settings` when there is no such table, it is not pulled by cursor, or the span is empty.
    pub fn begin_backfill(&self, request: &BackfillRequest, by: &str) -> Result<Vec<Backfill>, Error> {
        let can_be_asked = |kind| matches!(kind, Kind::Sql | Kind::Http | Kind::Kafka);
        let is_meant = |source: &&PreparedSource| source.id == request.source && can_be_asked(source.connector.kind);
        let source = self.sources().iter().find(is_meant).ok_or_else(|| {
            let id = &request.source;
            Error::settings(format!("no source `{id}` that can be asked for a span; see `quad sources`"))
        })?;
        if request.from >= request.to {
            return Err(Error::settings(format!("`{}` is not before `{}`", request.from, request.to)));
        }
        let is_wanted = |pipeline: &&Pipeline| {
            let named = |name: &String| *name == pipeline.table.name || *name == pipeline.contract().name();
            request.table.as_ref().is_none_or(named) && pipeline.table.pull == Pull::Cursor
        };
        let mut begun = Vec::new();
        for pipeline in source.pipelines.iter().filter(is_wanted) {
            begun.push(self.state().add_backfill(|id| Backfill {
                id,
                source: source.id.clone(),
                table: pipeline.table.name.clone(),
                from: request.from.clone(),
                to: request.to.clone(),
                state: BackfillState::Running,
                at: Vec::new(),
                rows: 0,
                records: 0,
                repeats: 0,
                letters: 0,
                by: by.to_string(),
                started_at: Utc::now(),
                error: None,
            })?);
        }
        if begun.is_empty() {
            let table = request.table.as_deref().unwrap_or("any table");
            return Err(Error::settings(format!(
                "{table} of `{}` is not pulled by cursor; a table that is pulled whole comes whole with every pull",
                request.source
            )));
        }
        Ok(begun)
    }

    /// All backfills, the oldest first.
    ///
    /// # Errors
    /// `Internal` when the disk does not answer.
    pub fn backfills(&self) -> Result<Vec<Backfill>, Error> {
        self.state().backfills()
    }

    /// Pauses a backfill, or lets it go on; one that is done stays done.
    ///
    /// # Errors
    /// `Settings` when there is none of that number.
    pub fn set_backfill(&self, id: u64, state: BackfillState) -> Result<Backfill, Error> {
        let changed = self.state().change_backfill(id, |backfill| {
            if backfill.state != BackfillState::Done {
                backfill.state = state;
            }
        })?;
        changed.ok_or_else(|| Error::settings(format!("no backfill {id}; see `quad backfill list`")))
    }

    /// Runs what is to be run until shutdown; one that fails is tried again from where it was.
    pub(super) fn run_backfills(&self, worker: &Worker) {
        let mut failures: u32 = 0;
        while !worker.is_stopped() {
            let running = self.backfills().map(|all| all.into_iter().find(|one| one.state == BackfillState::Running));
            let outcome = match running {
                Ok(Some(backfill)) => self.run_backfill(&backfill, worker),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            let pause = match outcome {
                Ok(()) => {
                    failures = 0;
                    LOOK_EVERY
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(error = %error.chain(), "a backfill failed, trying again");
                    self.backoff(failures)
                }
            };
            if worker.wait(pause).is_err() {
                return;
            }
        }
    }

    /// Runs one from where it was, until it is done, paused, or stopped.
    fn run_backfill(&self, backfill: &Backfill, worker: &Worker) -> Result<(), Error> {
        let found = self.sources().iter().find(|source| source.id == backfill.source).and_then(|source| {
            let pipeline = source.pipelines.iter().find(|pipeline| pipeline.table.name == backfill.table)?;
            Some((source, pipeline))
        });
        let Some((source, pipeline)) = found else {
            let message = "its source or table is not in the settings any more".to_string();
            self.state().change_backfill(backfill.id, |backfill| {
                backfill.state = BackfillState::Paused;
                backfill.error = Some(message);
            })?;
            return Ok(());
        };
        if !source.schedule.is_open(Utc::now()) {
            return Ok(());
        }
        let outcome = self.pull_span(backfill, source, pipeline, worker);
        let is_stopped = matches!(&outcome, Ok(false));
        let error = outcome.as_ref().err().map(Error::chain);
        self.state().change_backfill(backfill.id, |backfill| {
            backfill.error = error;
            if outcome.is_ok() && !is_stopped {
                backfill.state = BackfillState::Done;
            }
        })?;
        outcome.map(|_| ())
    }

    /// Pulls the rest of the span. `false` when it was paused or stopped before its end.
    fn pull_span(
        &self,
        backfill: &Backfill,
        source: &PreparedSource,
        pipeline: &Pipeline,
        worker: &Worker,
    ) -> Result<bool, Error> {
        let span = Span { from: &backfill.from, to: &backfill.to, after: &backfill.at };
        let mut is_whole = true;
        let mut connection = source::connect(&source.connector, &source.settings, worker)?;
        let pulled = connection.pull_span(&pipeline.table, &span, &mut |batch, at| {
            let present = self.state().backfill(backfill.id)?;
            if worker.is_stopped() || present.is_none_or(|present| present.state != BackfillState::Running) {
                is_whole = false;
                return Err(Error::new(ErrorKind::Source, "stopped half-way"));
            }
            source.check_open(Utc::now())?;
            let ready = worker.block_on(pipeline.prepare(&batch, Utc::now()))??;
            let (fresh, repeats) = self.unseen(source, pipeline, ready)?;
            self.state().check_room()?;
            pipeline.send(&fresh)?;
            self.state().change_backfill(backfill.id, |backfill| {
                backfill.rows += batch.num_rows() as u64;
                backfill.records += fresh.records.len() as u64;
                backfill.letters += fresh.letters.len() as u64;
                backfill.repeats += repeats;
                backfill.at = at.unwrap_or_else(|| std::mem::take(&mut backfill.at));
            })?;
            Ok(())
        });
        match pulled {
            Err(_) if !is_whole => Ok(false),
            pulled => pulled.map(|()| true),
        }
    }

    /// Leaves out what the live pulls remember to have sent as it is.
    fn unseen(&self, source: &PreparedSource, pipeline: &Pipeline, ready: Ready) -> Result<(Ready, u64), Error> {
        let memory = self.state().table(&source.id, &pipeline.table.name);
        let total = ready.records.len() + ready.letters.len();
        let is_fresh = ready.records.versions().map(|version| {
            let seen = memory.seen(version.key)?;
            Ok(Some(seen.is_none_or(|seen| seen.hash != version.hash)))
        });
        let records = ready.records.select(&is_fresh.collect::<Result<_, Error>>()?)?;
        let mut fresh = Ready { records, letters: Vec::new(), ..ready };
        for letter in ready.letters {
            if memory.seen(&format!("{LETTER}{}", letter.id()))?.is_none() {
                fresh.letters.push(letter);
            }
        }
        let repeats = (total - fresh.records.len() - fresh.letters.len()) as u64;
        Ok((fresh, repeats))
    }
}
