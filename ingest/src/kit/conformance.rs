//! Whether a connector does what extract relies on: its source, live or recorded, is pulled as extract would.
//!
//! A source and a table's rehearsal enter; findings leave, one a check, with what is wrong and what to do. A table is
//! pulled whole, then once more with cuts, before and after its cursor was saved, then a third time from where the first
//! ended. Nothing is written, and no finding holds a value of the source, save codes that no map knows.

mod judge;
mod shown;

use chrono::Utc;
use schemas::Sensitive;

use self::judge::Pulls;
use self::shown::Shown;
use super::rehearsal::Rehearsal;
use crate::connector::{Pull, Spec, TableMapping};
use crate::error::Error;
use crate::extract::source::{Coverage, Source, Worker};

/// How often a pull is cut. From the last cut on it runs to its end.
const CUTS_MAX: usize = 12;
/// Batches that a pull may go on before it is cut, at most: 2 to this power.
const CUT_EXPONENT_MAX: usize = 4;
/// A shorter secret is found everywhere.
const SECRET_BYTES_MIN: usize = 4;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// It holds, and somebody should look.
    Warning,
    Failed,
    /// It does not apply, or could not be tried.
    Skipped,
}

/// One check of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub check: &'static str,
    pub outcome: Outcome,
    /// What was seen; when it is not well, what to do.
    pub text: String,
}

/// How a table is tried.
pub struct Trial<'a> {
    pub worker: &'a Worker,
    /// Each pull ends after so many rows.
    pub rows_max: usize,
    /// Where pulls are cut follows from it.
    pub seed: u64,
    /// Texts that may be in no letter and no error.
    pub secrets: &'a [Sensitive<String>],
}

/// Pulls a table as extract would, and judges what was shown. Blocks.
pub fn run(source: &mut dyn Source, rehearsal: &Rehearsal, trial: &Trial<'_>) -> Vec<Finding> {
    let table = &rehearsal.table;
    let mut errors = Vec::new();
    let mut pull = |source: &mut dyn Source, what: &str, ends: Ends, after: &[String]| {
        let cuts = if matches!(ends, Ends::Keys(_)) { CUTS_MAX } else { 0 };
        let mut attempt = Attempt { rehearsal, trial, shown: Shown::default(), ends, cuts, random: trial.seed | 1 };
        let outcome = attempt.pull(source, after);
        outcome.map(|()| attempt.shown).map_err(|error| {
            let text = format!("{what}: {}", error.chain());
            errors.push(text.clone());
            text
        })
    };
    let whole = pull(source, "the first pull", Ends::Rows(trial.rows_max), &[]);
    let (cut, again) = match &whole {
        Ok(shown) => {
            // Rows with one cursor may come in another order: it goes a little further.
            let keys_max = shown.versions.len() + 2 * trial.worker.limits.rows_max;
            let ends = Ends::Keys(if shown.is_cut_short { keys_max } else { usize::MAX });
            let cut = pull(source, "a pull that was cut and resumed", ends, &[]);
            (cut, pull(source, "a pull after the first", Ends::Rows(trial.rows_max), &shown.cursor))
        }
        Err(_) => (Err(String::new()), Err(String::new())),
    };
    errors.extend(provoked(source, table));
    match whole {
        Ok(whole) => judge::findings(&Pulls { rehearsal, trial, whole, cut, again, errors: &errors }),
        Err(error) => {
            let secrets = judge::secrets(trial, &errors, false);
            vec![Finding { check: "answers", outcome: Outcome::Failed, text: error }, secrets]
        }
    }
}

/// Where a secret occurs.
fn leak<'t>(secrets: &[Sensitive<String>], texts: impl IntoIterator<Item = &'t str>) -> bool {
    let mut secrets =
        secrets.iter().map(Sensitive::expose).filter(|secret| secret.len() >= SECRET_BYTES_MIN).peekable();
    secrets.peek().is_some() && {
        let secrets: Vec<_> = secrets.collect();
        texts.into_iter().any(|text| secrets.iter().any(|secret| text.contains(secret.as_str())))
    }
}

/// Whether any of the secrets occurs in `text`, such as the log of a run.
pub fn leaks(secrets: &[Sensitive<String>], text: &str) -> bool {
    leak(secrets, [text])
}

/// What the source says to a question that it cannot answer: errors are where secrets leak.
fn provoked(source: &mut dyn Source, table: &TableMapping) -> Option<String> {
    let mut table = table.clone();
    match &mut table.spec {
        Spec::Sql(asked) => asked.query = format!("SELECT no_such_column_quad FROM ({}) q", asked.query),
        Spec::Http(asked) => asked.path.push_str("/no-such-path-quad"),
        _ => return None,
    }
    source.probe(&table).err().map(|error| error.chain())
}

/// When a pull has shown enough.
#[derive(Clone, Copy)]
enum Ends {
    /// After so many rows.
    Rows(usize),
    /// It is cut, and shows rows again: after so many keys.
    Keys(usize),
}

/// One pull of a table, cut or not.
struct Attempt<'a> {
    rehearsal: &'a Rehearsal,
    trial: &'a Trial<'a>,
    shown: Shown,
    ends: Ends,
    /// How often it is still to be cut.
    cuts: usize,
    random: u64,
}

impl Attempt<'_> {
    fn pull(&mut self, source: &mut dyn Source, after: &[String]) -> Result<(), Error> {
        let mut saved = after.to_vec();
        loop {
            let cut_after = self.cut_after();
            // Half of the cuts come after the log has the rows and before the cursor is saved.
            let is_saved_first = self.cuts % 2 == 1;
            let (mut batches, mut is_cut) = (0, false);
            let mut at = saved.clone();
            self.shown.begin();
            let pulled = source.pull(&self.rehearsal.table, &saved, &mut |batch, cursor| {
                if batch.num_rows() > 0 {
                    let taken = self.trial.worker.block_on(self.rehearsal.run(&batch, Utc::now()))??;
                    self.shown.take(self.rehearsal, self.trial, &batch, &taken)?;
                    batches += 1;
                    is_cut = cut_after == Some(batches);
                }
                if is_cut && !is_saved_first {
                    return Err(ended());
                }
                if let Some(cursor) = cursor {
                    self.shown.moved(&self.rehearsal.table, &cursor);
                    at = cursor;
                }
                match is_cut || self.is_full() {
                    true => Err(ended()),
                    false => Ok(()),
                }
            });
            if !is_cut {
                let is_full = self.is_full();
                self.shown.ended(if is_full { Coverage::Part } else { pulled? }, is_full, at);
                return Ok(());
            }
            self.shown.cuts += 1;
            self.cuts -= 1;
            // The cursor of a snapshot is saved at its end.
            if !matches!(self.rehearsal.table.pull, Pull::Snapshot { .. }) {
                saved = at;
            }
        }
    }

    fn is_full(&self) -> bool {
        match self.ends {
            Ends::Rows(rows_max) => self.shown.rows >= rows_max,
            Ends::Keys(keys_max) => self.shown.versions.len() >= keys_max,
        }
    }

    /// The batch that is the last of this pull, further on with each cut.
    fn cut_after(&mut self) -> Option<usize> {
        let done = self.shown.cuts;
        // Xorshift (Marsaglia 2003): equal seeds cut alike.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.cuts > 0).then(|| 1 + self.random as usize % (1 << done.min(CUT_EXPONENT_MAX)))
    }
}

/// Only an error ends a pull early.
fn ended() -> Error {
    Error::source("seen enough")
}
