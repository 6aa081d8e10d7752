//! The ledger: a table that tells of every commit of landing, by partition.
//!
//! Commits enter; rows of `platform.ledger` leave, a few seconds later and many at a time. The ledger has its own position
//! in each partition: where a crash left it behind the table, the table's Delta log says what is missing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use chrono::{DateTime, SecondsFormat};
use lake::{Landing, Move, Progress, Table};

use super::Land;
use super::own::OwnTable;
use crate::error::Error;

/// The contract of the ledger.
pub const CONTRACT: &str = "platform.ledger";

/// Why a row of the ledger has no counts.
const UNTOLD: &str = "the table's log no longer tells of these commits";

/// One commit of one partition.
#[derive(Debug, Clone)]
struct Line {
    target: String,
    /// Version, time and file bytes; `None` where the table's log no longer tells.
    commit: Option<(u64, i64, u64)>,
    moved: Move,
    note: Option<String>,
}

/// The ledger, as landing writes it.
pub struct Ledger {
    landing: String,
    waiting: Mutex<Vec<Line>>,
    own: tokio::sync::Mutex<OwnTable>,
}

impl Ledger {
    /// # Errors
    /// As [`OwnTable::open`].
    pub async fn open(land: &Land) -> Result<Self, Error> {
        let own = tokio::sync::Mutex::new(OwnTable::open(land, CONTRACT).await?);
        Ok(Self { landing: land.settings.id.clone(), waiting: Mutex::default(), own })
    }

    /// Takes a topic's partitions over, `table` being at `positions`: what the ledger lacks up to there is added.
    ///
    /// # Errors
    /// `Fenced` and `Lake`, as [`lake::Appender::take`].
    pub async fn take(
        &self,
        table: &Table,
        topic: &str,
        oldest: &BTreeMap<i32, i64>,
        positions: &BTreeMap<i32, i64>,
    ) -> Result<(), Error> {
        let known = self.own.lock().await.appender.take(topic, oldest).await?;
        for (&partition, &position) in positions {
            let from = known.get(&partition).copied().unwrap_or(position);
            if from < position {
                let missing = self.missing(table, topic, partition, from..position).await?;
                self.waiting.lock().expect("no holder of this lock panics").extend(missing);
            }
        }
        Ok(())
    }

    /// What the Delta log tells of a partition's `offsets`, and a line without counts for each gap.
    async fn missing(
        &self,
        table: &Table,
        topic: &str,
        partition: i32,
        offsets: std::ops::Range<i64>,
    ) -> Result<Vec<Line>, Error> {
        let untold = |first_offset, next_offset| Line {
            target: table.name().to_string(),
            commit: None,
            moved: Move { topic: topic.to_string(), partition, first_offset, next_offset, rows: 0, letters: 0 },
            note: Some(UNTOLD.to_string()),
        };
        let (mut lines, mut at) = (Vec::new(), offsets.start);
        for entry in table.commits_since(&self.landing, topic, partition, offsets.start).await? {
            let is_ours = |moved: &&Move| moved.topic == topic && moved.partition == partition;
            let Some(moved) = entry.landing.moves.iter().find(is_ours).filter(|moved| moved.first_offset >= at) else {
                continue;
            };
            if moved.first_offset > at {
                lines.push(untold(at, moved.first_offset));
            }
            at = moved.next_offset;
            lines.push(Line {
                target: table.name().to_string(),
                commit: Some((entry.version, entry.committed_ms, entry.landing.bytes)),
                moved: moved.clone(),
                note: entry.landing.note.clone(),
            });
        }
        if at < offsets.end {
            lines.push(untold(at, offsets.end));
        }
        Ok(lines)
    }

    /// Writes down what is waiting, then gives a topic's partitions up.
    ///
    /// # Errors
    /// As [`Ledger::flush`].
    pub async fn give_up(&self, topic: &str, partitions: &[i32]) -> Result<(), Error> {
        self.flush().await?;
        self.own.lock().await.appender.give_up(topic, partitions);
        Ok(())
    }

    /// Notes a commit to `target`; it is written with the next flush.
    pub fn note(&self, target: &str, version: u64, committed_ms: i64, landing: &Landing) {
        let line = |moved: &Move| Line {
            target: target.to_string(),
            commit: Some((version, committed_ms, landing.bytes)),
            moved: moved.clone(),
            note: landing.note.clone(),
        };
        self.waiting.lock().expect("no holder of this lock panics").extend(landing.moves.iter().map(line));
    }

    /// Commits what was noted since the last flush.
    ///
    /// # Errors
    /// `Fenced` and `Lake`, as [`lake::Appender::commit`].
    pub async fn flush(&self) -> Result<(), Error> {
        let mut own = self.own.lock().await;
        let lines = std::mem::take(&mut *self.waiting.lock().expect("no holder of this lock panics"));
        if lines.is_empty() {
            return Ok(());
        }
        let mut progress: BTreeMap<(&str, i32), i64> = BTreeMap::new();
        for Line { moved, .. } in &lines {
            progress.insert((&moved.topic, moved.partition), moved.next_offset);
        }
        let progress: Vec<Progress> = progress
            .into_iter()
            .map(|((topic, partition), next_offset)| Progress {
                topic: topic.to_string(),
                partition,
                next_offset,
                rows: 0,
                letters: 0,
            })
            .collect();
        let partitions = Int32Array::from_iter_values(lines.iter().map(|line| line.moved.partition));
        let offsets = Int64Array::from_iter_values(lines.iter().map(|line| line.moved.first_offset));
        let rows = own.rows(mapped(&self.landing, &lines)?, partitions, offsets)?;
        own.appender.write(rows).await?;
        own.commit(&progress).await?;
        Ok(())
    }
}

/// Lines in the columns of their contract.
fn mapped(landing: &str, lines: &[Line]) -> Result<RecordBatch, Error> {
    let text = |value: &dyn Fn(&Line) -> Option<String>| -> ArrayRef {
        Arc::new(lines.iter().map(value).collect::<StringArray>())
    };
    let of_commit = |line: &Line, value: u64| line.commit.map(|_| value.to_string());
    let now = chrono::Utc::now();
    let columns: [(&str, ArrayRef); 12] = [
        ("landing", text(&|_| Some(landing.to_string()))),
        ("topic", text(&|line| Some(line.moved.topic.clone()))),
        ("topic_partition", text(&|line| Some(line.moved.partition.to_string()))),
        ("first_offset", text(&|line| Some(line.moved.first_offset.to_string()))),
        ("next_offset", text(&|line| Some(line.moved.next_offset.to_string()))),
        ("target", text(&|line| Some(line.target.clone()))),
        ("table_version", text(&|line| line.commit.map(|(version, _, _)| version.to_string()))),
        ("row_count", text(&|line| of_commit(line, line.moved.rows))),
        ("letter_count", text(&|line| of_commit(line, line.moved.letters))),
        ("file_bytes", text(&|line| line.commit.map(|(_, _, bytes)| bytes.to_string()))),
        (
            "committed_at",
            text(&|line| {
                let moment = line.commit.and_then(|(_, millis, _)| DateTime::from_timestamp_millis(millis));
                Some(moment.unwrap_or(now).to_rfc3339_opts(SecondsFormat::Millis, true))
            }),
        ),
        ("note", text(&|line| line.note.clone())),
    ];
    let fields: Vec<_> = columns.iter().map(|(name, _)| Field::new(*name, DataType::Utf8, true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays);
    batch.map_err(|error| Error::internal("write the ledger", error))
}
