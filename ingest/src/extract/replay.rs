//! Dead letters once more: replayed through the present mapping and contract, or discarded.
//!
//! Letters enter as their table gives them. A row that passes now is appended to the log once, and its letter is marked
//! resolved; one that does not stays open, with what is still wrong. A letter of stage `extract` holds its masked source row
//! and goes through its source's mapping; one of stage `land` holds its record or lake row and goes through the contract.
//!
//! What was replayed is remembered before it is marked, so that a replay that is repeated after a crash appends nothing
//! twice. Masked values never come back: a row that needs one has to come from its source.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use schemas::{Contract, Decoder};
use serde::Serialize;
use topic::Message;

use super::pipeline::Pipeline;
use super::pull::LETTER;
use super::run::Extract;
use super::state::Seen;
use crate::error::{Error, ErrorKind};
use crate::letter::{self, Fate, Letter, Marked, Stage, Stored};
use crate::mapping::Mapped;
use crate::refine::Refiner;

/// What became of one letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub letter_id: String,
    pub verdict: Verdict,
    /// The rule and field that it still breaks.
    pub rule: String,
    pub field: String,
    /// How it was resolved, or what to do.
    pub note: String,
}

/// See [`Outcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Its row is in the log; in a dry run, would be.
    Resolved,
    Discarded,
    /// It still breaks a rule, and stays open.
    Rejected,
    /// It cannot be replayed, and stays open.
    Impossible,
}

/// What the present mapping and contract make of a letter.
enum Attempt {
    Passes(Box<Passed>),
    LeftOut,
    Rejected { rule: String, field: String, message: String },
    Impossible(String),
}

/// A record for the log, and where it is remembered.
struct Passed {
    contract: Arc<Contract>,
    message: Message,
    hash: String,
    updated_us: Option<i64>,
    /// The source and table whose memory it is; a key there, and the key of the letter beside it.
    memory: (String, String),
    key: String,
    letter_key: String,
}

/// Memory of letters from landing: their rows are in the memory of their pulls already, since they reached the log.
const LANDED: &str = "\u{1}land";

/// Contracts in use, ready to read records of stage `land`.
type Tables = BTreeMap<String, (Refiner, Decoder)>;

impl Extract {
    /// Sends `letters` through again, at most `replay_rate_max` a second, and marks in the name of `by` what is resolved.
    /// A dry run only says what would become of them.
    ///
    /// # Errors
    /// `Log` or `Lake` when they do not answer: what was appended is recognised when it is replayed again.
    pub async fn replay(
        self: &Arc<Self>,
        letters: Vec<Stored>,
        by: &str,
        dry_run: bool,
    ) -> Result<Vec<Outcome>, Error> {
        // One at a time: two replays of one letter must not both find it unknown.
        let _alone = self.replaying.lock().await;
        let (mut tables, mut outcomes, mut marks) = (Tables::new(), Vec::new(), Vec::new());
        for stored in letters {
            self.replay_pace.until_ready().await;
            let Some(letter) = stored.letter() else {
                outcomes.push(not_itself(stored.letter_id));
                continue;
            };
            let outcome = |verdict, note: &str| Outcome {
                letter_id: stored.letter_id.clone(),
                verdict,
                rule: String::new(),
                field: String::new(),
                note: note.to_string(),
            };
            let outcome = match self.attempt(&letter, &mut tables).await? {
                Attempt::Passes(_) if dry_run => outcome(Verdict::Resolved, "passes now"),
                Attempt::Passes(passed) => outcome(Verdict::Resolved, self.take(passed).await?),
                Attempt::LeftOut => outcome(Verdict::Resolved, "the mapping leaves this row out now"),
                Attempt::Rejected { rule, field, message } => {
                    Outcome { rule, field, ..outcome(Verdict::Rejected, &message) }
                }
                Attempt::Impossible(message) => outcome(Verdict::Impossible, &message),
            };
            if outcome.verdict == Verdict::Resolved {
                let (occurred_at, note) = (stored.occurred_at.clone(), outcome.note.clone());
                marks.push(Marked { letter, occurred_at, fate: Fate::Resolved, note });
            }
            outcomes.push(outcome);
        }
        if !dry_run {
            self.mark(marks, by).await?;
        }
        let resolved = outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Resolved).count();
        tracing::info!(by, letters = outcomes.len(), resolved, dry_run, "dead letters were replayed");
        Ok(outcomes)
    }

    /// Marks `letters` as discarded by `by`, for `reason`.
    ///
    /// # Errors
    /// `Log` when it does not answer.
    pub async fn discard(
        self: &Arc<Self>,
        letters: Vec<Stored>,
        by: &str,
        reason: &str,
    ) -> Result<Vec<Outcome>, Error> {
        let _alone = self.replaying.lock().await;
        let (mut outcomes, mut marks) = (Vec::new(), Vec::new());
        for stored in letters {
            let Some(letter) = stored.letter() else {
                outcomes.push(not_itself(stored.letter_id));
                continue;
            };
            let (rule, field, note) = (String::new(), String::new(), reason.to_string());
            outcomes.push(Outcome { letter_id: stored.letter_id, verdict: Verdict::Discarded, rule, field, note });
            let (occurred_at, note) = (stored.occurred_at, reason.to_string());
            marks.push(Marked { letter, occurred_at, fate: Fate::Discarded, note });
        }
        tracing::info!(by, letters = marks.len(), "dead letters were discarded");
        self.mark(marks, by).await?;
        Ok(outcomes)
    }

    async fn attempt(&self, letter: &Letter, tables: &mut Tables) -> Result<Attempt, Error> {
        match letter.stage {
            Stage::Extract => self.attempt_row(letter).await,
            Stage::Land => self.attempt_record(letter, tables).await,
        }
    }

    /// A source row, through the mapping of its source.
    async fn attempt_row(&self, letter: &Letter) -> Result<Attempt, Error> {
        let Some(input) = row(&letter.bytes) else {
            return Ok(Attempt::Impossible("its bytes are no row".into()));
        };
        let Some(source) = self.sources().iter().find(|source| source.id == letter.source) else {
            return Ok(Attempt::Impossible(format!(
                "source `{}` is not in the settings of this process",
                letter.source
            )));
        };
        let is_meant = |pipeline: &&Pipeline| pipeline.contract().name() == letter.target;
        let mut attempt =
            Attempt::Impossible(format!("no table of source `{}` gives {}", letter.source, letter.target));
        for pipeline in source.pipelines.iter().filter(is_meant) {
            attempt = attempt_mapping(pipeline, letter, &input).await?;
            // Of several tables for one contract, the row is of the one whose columns it has.
            if !matches!(&attempt, Attempt::Rejected { rule, .. } if rule == "mapping") {
                break;
            }
        }
        Ok(attempt)
    }

    /// A record or lake row, through the contract of its table.
    async fn attempt_record(&self, letter: &Letter, tables: &mut Tables) -> Result<Attempt, Error> {
        let Some(contract) = self.contracts.get(&letter.target) else {
            return Ok(Attempt::Impossible(format!("there is no contract {}", letter.target)));
        };
        if !tables.contains_key(&letter.target) {
            let mut decoder = Decoder::new(contract)?;
            for writer in self.lake.writer_schemas(contract).await? {
                decoder.learn(&writer)?;
            }
            tables.insert(letter.target.clone(), (Refiner::new(contract.clone())?, decoder));
        }
        let (refiner, decoder) = tables.get_mut(&letter.target).expect("it was just made");
        let batch = if let Some(row) = row(&letter.bytes) {
            row
        } else {
            let Ok(bytes) = STANDARD.decode(&letter.bytes) else {
                return Ok(Attempt::Impossible("its bytes are neither a row nor base64".into()));
            };
            decoder.push(0, 0, &bytes)?;
            match decoder.finish()? {
                (decoded, bad) if bad.is_empty() && decoded.len() == 1 => decoded[0].batch.clone(),
                (_, bad) => {
                    let (rule, message) = bad.into_iter().next().map(|bad| (bad.rule, bad.message)).unwrap_or_default();
                    let (rule, field) = (rule.to_string(), String::new());
                    return Ok(Attempt::Rejected { rule, field, message });
                }
            }
        };
        let source = batch.column_by_name("src").map_or(&letter.source[..], |src| src.as_string::<i32>().value(0));
        let mapped = Mapped { batch: batch.clone(), rows: vec![0], failed: Vec::new() };
        let now = Utc::now();
        let (records, violations) = refiner.records(source, &mapped, now)?;
        let message = refiner.messages(&records, now)?.pop();
        Ok(match (records.versions().next().zip(message), violations.into_iter().next()) {
            (Some((version, message)), _) => Attempt::Passes(Box::new(Passed {
                contract: contract.clone(),
                message,
                hash: version.hash.to_string(),
                updated_us: version.updated_us,
                memory: (LANDED.to_string(), letter.target.clone()),
                key: letter.id(),
                letter_key: String::new(),
            })),
            (None, Some(broken)) => {
                Attempt::Rejected { rule: broken.rule, field: broken.field, message: broken.message }
            }
            (None, None) => Attempt::LeftOut,
        })
    }

    /// Appends a record unless it or a later version of its row is in the log, and remembers it.
    async fn take(self: &Arc<Self>, passed: Box<Passed>) -> Result<&'static str, Error> {
        let extract = self.clone();
        let taken = tokio::task::spawn_blocking(move || -> Result<&'static str, Error> {
            let memory = extract.state().table(&passed.memory.0, &passed.memory.1);
            let (row, letter, cursor) = (memory.seen(&passed.key)?, memory.seen(&passed.letter_key)?, memory.cursor()?);
            if row.as_ref().is_some_and(|row| row.hash == passed.hash) {
                return Ok("was in the log already");
            }
            // A pull forgets what it does not see: the row is known and the letter is not when the source has mended it.
            let is_pulled = cursor.pull > 0;
            let is_later = |row: &Seen| letter.as_ref().is_none_or(|letter| row.pull > letter.pull);
            if is_pulled && row.as_ref().is_some_and(is_later) {
                return Ok("a later pull has brought another version of this row");
            }
            let pull = letter.map_or(cursor.pull, |letter| letter.pull);
            extract.log.append(&passed.contract.topic(), vec![passed.message])?;
            let updated_us = passed.updated_us.max(row.and_then(|row| row.updated_us));
            memory.remember(&passed.key, &Seen { hash: passed.hash, pull, updated_us })?;
            Ok("replayed")
        });
        taken.await.map_err(|error| Error::internal("replay a letter", error))?
    }

    /// Appends what became of letters to their own topic.
    async fn mark(self: &Arc<Self>, marks: Vec<Marked>, by: &str) -> Result<(), Error> {
        if marks.is_empty() {
            return Ok(());
        }
        let now = Utc::now();
        let mapped =
            Mapped { batch: letter::marked(&marks, by, now)?, rows: (0..marks.len()).collect(), failed: Vec::new() };
        let (records, violations) = self.letters.records("quad", &mapped, now)?;
        if let Some(violation) = violations.first() {
            let what = format!("mark a letter: {} {}", violation.field, violation.rule);
            return Err(Error::internal(what, violation.message.clone()));
        }
        let (extract, topic) = (self.clone(), self.letters.contract().topic());
        let messages = self.letters.messages(&records, now)?;
        let marked = tokio::task::spawn_blocking(move || extract.log.append(&topic, messages)).await;
        marked.map_err(|error| Error::internal("mark letters", error))??;
        Ok(())
    }
}

async fn attempt_mapping(pipeline: &Pipeline, letter: &Letter, input: &RecordBatch) -> Result<Attempt, Error> {
    let masked = pipeline.masked(input);
    if !masked.is_empty() {
        return Ok(Attempt::Impossible(format!(
            "it needs {}, which letters do not hold: mend the row at its source, and the next pull brings it",
            masked.join(", ")
        )));
    }
    let now = Utc::now();
    let mut ready = match pipeline.prepare(input, now).await {
        Ok(ready) => ready,
        Err(error) if error.kind == ErrorKind::Settings => {
            let (rule, field, message) = ("mapping".to_string(), String::new(), error.message);
            return Ok(Attempt::Rejected { rule, field, message });
        }
        Err(error) => return Err(error),
    };
    let message = pipeline.messages(&ready.records, now)?.pop();
    Ok(match (ready.records.versions().next().zip(message), ready.letters.pop()) {
        (Some((version, message)), _) => Attempt::Passes(Box::new(Passed {
            contract: pipeline.contract().clone(),
            message,
            hash: version.hash.to_string(),
            updated_us: version.updated_us,
            key: version.key.to_string(),
            memory: (pipeline.source.clone(), pipeline.table.name.clone()),
            letter_key: format!("{LETTER}{}", letter.id()),
        })),
        (None, Some(still)) => Attempt::Rejected { rule: still.rule, field: still.field, message: still.message },
        (None, None) => Attempt::LeftOut,
    })
}

/// A row as a letter holds it, as one row of text columns.
fn row(json: &str) -> Option<RecordBatch> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).ok()?;
    let column = |value: &serde_json::Value| Arc::new(StringArray::from(vec![value.as_str()])) as ArrayRef;
    let fields: Vec<_> = object.keys().map(|name| Field::new(name, DataType::Utf8, true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), object.values().map(column).collect()).ok()
}

fn not_itself(letter_id: String) -> Outcome {
    let note = "its content is not that of its number; replay what `platform.dead_letter` gives".to_string();
    Outcome { letter_id, verdict: Verdict::Impossible, rule: String::new(), field: String::new(), note }
}
