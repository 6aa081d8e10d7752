//! The rows of one table's tail. Chunks enter in the order of each partition; those behind what has landed leave, and those that
//! have landed stay for a short time: who follows a table sees what is new without looking into the lake.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{AsArray, BooleanArray};
use datafusion::arrow::compute::{concat_batches, filter_record_batch, not};
use datafusion::arrow::datatypes::{Int32Type, Int64Type};
use datafusion::arrow::record_batch::RecordBatch;
use lake::Span;
use schemas::record::POSITION;
use topic::Extent;

use super::Positions;
use crate::source::{Recent, TableVersion};

/// Chunks of as many rows are not joined to others.
const CHUNK_ROWS_MAX: usize = 8192;

/// Between two marks. What has landed stays for as long, and for twice as long at the most.
const MARK_EVERY: Duration = Duration::from_secs(10);

/// Rows that have landed and stay, at the most.
const RECENT_ROWS_MAX: usize = 200_000;

/// What is held of one table.
#[derive(Debug, Default)]
pub struct Held {
    chunks: Vec<Chunk>,
    /// Those that have landed since the first mark.
    recent: Vec<Chunk>,
    /// One or two; none before the first version of the lake.
    marks: VecDeque<Mark>,
    /// What has landed, as of the last cut.
    landed: Positions,
    /// How far the log was read.
    read: Positions,
    /// Where reading stands, without a gap since the first mark.
    at: Positions,
    /// Of the topic; 0 while it is not known.
    pub partitions: i32,
    /// Changes whenever anything here does.
    pub stamp: u64,
}

/// Rows, and the first and last offset of each of their partitions.
#[derive(Debug)]
struct Chunk {
    rows: RecordBatch,
    spans: BTreeMap<i32, (i64, i64)>,
}

/// A version of the lake, behind which every row is still held.
#[derive(Debug)]
struct Mark {
    at: Instant,
    landed: Arc<Positions>,
    spans: Option<Arc<[Span]>>,
    cut: u64,
}

/// Where to begin with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    At(i64),
    /// Its next record is gone, or was never in this log.
    Gap,
    /// What has landed of it is not known yet.
    Unknown,
}

impl Held {
    /// The topic is there, with so many partitions.
    pub fn meet(&mut self, partitions: usize) {
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        self.stamp += u64::from(self.partitions != partitions);
        self.partitions = partitions;
    }

    /// Where to read a partition that holds `extent`. Nothing has landed of one at 0, so its oldest record is the next.
    pub fn start(&self, extent: &Extent) -> Start {
        match self.position(extent.partition) {
            None => Start::Unknown,
            Some(0) => Start::At(extent.low),
            Some(offset) if (extent.low..=extent.high).contains(&offset) => Start::At(offset),
            Some(_) => Start::Gap,
        }
    }

    /// A partition is read from here.
    pub fn begin(&mut self, partition: i32, offset: i64) {
        // What lies between may have landed, and is not held.
        if self.at.insert(partition, offset) != Some(offset) {
            self.marks.clear();
        }
    }

    /// The next offset that is neither read nor landed.
    pub fn position(&self, partition: i32) -> Option<i64> {
        self.read.get(&partition).copied().max(self.landed.get(&partition).copied())
    }

    /// Takes rows, and how far they reach: all good records between there and where the partition was read to.
    pub fn add(&mut self, rows: Option<RecordBatch>, next: &Positions) {
        for (&partition, &offset) in next {
            for known in [&mut self.read, &mut self.at] {
                let known = known.entry(partition).or_default();
                *known = offset.max(*known);
            }
        }
        self.chunks.extend(rows.filter(|rows| rows.num_rows() > 0).map(Chunk::new));
        // As a log-structured merge: few chunks, and no row is copied more than a dozen times.
        while let [.., before, last] = self.chunks.as_slice()
            && before.rows.num_rows() <= 2 * last.rows.num_rows()
            && before.rows.num_rows() + last.rows.num_rows() <= CHUNK_ROWS_MAX
        {
            let Ok(rows) = concat_batches(&last.rows.schema(), [&before.rows, &last.rows]) else { break };
            self.chunks.truncate(self.chunks.len() - 2);
            self.chunks.push(Chunk::new(rows));
        }
        self.stamp += 1;
    }

    /// What has not landed.
    pub fn cut(&mut self, landed: &Positions) -> Arc<Vec<RecordBatch>> {
        for (&partition, &offset) in landed {
            let known = self.landed.entry(partition).or_default();
            *known = offset.max(*known);
        }
        for chunk in std::mem::take(&mut self.chunks) {
            let (before, behind) = chunk.cut(&self.landed);
            self.recent.extend(before);
            self.chunks.extend(behind);
        }
        rows(&self.chunks)
    }

    /// What of `version` is held that has landed, once what has not is cut off; none while landing is ahead of what was read.
    pub fn recent(&mut self, version: &TableVersion, now: Instant) -> Option<Arc<Recent>> {
        let rows_held: usize = self.recent.iter().map(|chunk| chunk.rows.num_rows()).sum();
        if rows_held > RECENT_ROWS_MAX || self.marks.back().is_some_and(|mark| mark.cut != version.cut) {
            self.marks.clear();
        }
        if self.marks.back().is_none_or(|mark| now.duration_since(mark.at) >= MARK_EVERY) {
            let TableVersion { landed, spans, cut, .. } = version;
            self.marks.push_back(Mark { at: now, landed: landed.clone(), spans: spans.clone(), cut: *cut });
            self.marks.drain(..self.marks.len().saturating_sub(2));
        }
        let Mark { landed, spans, .. } = &self.marks[0];
        let is_before = |(partition, (_, last)): (&i32, &(i64, i64))| last < landed.get(partition).unwrap_or(&0);
        self.recent.retain(|chunk| !chunk.spans.iter().all(is_before));
        let is_read = |(partition, landed): (&i32, &i64)| self.at.get(partition).is_some_and(|at| at >= landed);
        let recent = || Arc::new(Recent { from: landed.clone(), spans: spans.clone(), rows: rows(&self.recent) });
        version.landed.iter().all(is_read).then(recent)
    }

    /// How far lake and tail together reach.
    pub fn next(&self) -> Positions {
        let partitions = self.landed.keys().chain(self.read.keys());
        partitions.map(|&partition| (partition, self.position(partition).unwrap_or(0))).collect()
    }

    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.rows.get_array_memory_size()).sum()
    }
}

impl Chunk {
    fn new(rows: RecordBatch) -> Self {
        let mut spans: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
        for (partition, offset) in places(&rows) {
            let span = spans.entry(partition).or_insert((offset, offset));
            *span = (span.0.min(offset), span.1.max(offset));
        }
        Self { rows, spans }
    }

    /// The rows that have landed, and those that have not.
    fn cut(self, landed: &Positions) -> (Option<Self>, Option<Self>) {
        let landed = |partition: i32| landed.get(&partition).copied().unwrap_or(0);
        if self.spans.iter().all(|(&partition, &(first, _))| first >= landed(partition)) {
            return (None, Some(self));
        }
        if self.spans.iter().all(|(&partition, &(_, last))| last < landed(partition)) {
            return (Some(self), None);
        }
        let is_behind: BooleanArray =
            places(&self.rows).map(|(partition, offset)| Some(offset >= landed(partition))).collect();
        let part = |mask: &BooleanArray| {
            let rows = filter_record_batch(&self.rows, mask).expect("a mask of a batch's own rows filters it");
            Some(Self::new(rows))
        };
        (part(&not(&is_behind).expect("a mask")), part(&is_behind))
    }
}

fn rows(chunks: &[Chunk]) -> Arc<Vec<RecordBatch>> {
    Arc::new(chunks.iter().map(|chunk| chunk.rows.clone()).collect())
}

/// The partition and offset of each row.
pub fn places(rows: &RecordBatch) -> impl Iterator<Item = (i32, i64)> + '_ {
    let [_, partition, offset] = POSITION;
    let column = |name| rows.column_by_name(name).expect("a lake row has its place");
    let partitions = column(partition).as_primitive::<Int32Type>().values().iter();
    partitions.copied().zip(column(offset).as_primitive::<Int64Type>().values().iter().copied())
}
