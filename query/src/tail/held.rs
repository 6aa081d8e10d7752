//! The rows of one table's tail. Chunks enter in the order of each partition; those behind what has landed leave.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, BooleanArray};
use datafusion::arrow::compute::{concat_batches, filter_record_batch};
use datafusion::arrow::datatypes::{Int32Type, Int64Type};
use datafusion::arrow::record_batch::RecordBatch;
use schemas::record::POSITION;
use topic::Extent;

use super::Positions;

/// Chunks of as many rows are not joined to others.
const CHUNK_ROWS_MAX: usize = 8192;

/// What is held of one table.
#[derive(Debug, Default)]
pub struct Held {
    chunks: Vec<Chunk>,
    /// What has landed, as of the last cut.
    landed: Positions,
    /// How far the log was read.
    read: Positions,
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

    /// The next offset that is neither read nor landed.
    pub fn position(&self, partition: i32) -> Option<i64> {
        self.read.get(&partition).copied().max(self.landed.get(&partition).copied())
    }

    /// Takes rows, and how far they reach: all good records between there and where the partition was read to.
    pub fn add(&mut self, rows: Option<RecordBatch>, next: &Positions) {
        for (&partition, &offset) in next {
            let read = self.read.entry(partition).or_default();
            *read = offset.max(*read);
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

    /// Forgets what has landed, and gives the rest.
    pub fn cut(&mut self, landed: &Positions) -> Arc<Vec<RecordBatch>> {
        for (&partition, &offset) in landed {
            let known = self.landed.entry(partition).or_default();
            *known = offset.max(*known);
        }
        self.chunks =
            std::mem::take(&mut self.chunks).into_iter().filter_map(|chunk| chunk.cut(&self.landed)).collect();
        Arc::new(self.chunks.iter().map(|chunk| chunk.rows.clone()).collect())
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

    /// The rows that have not landed.
    fn cut(self, landed: &Positions) -> Option<Self> {
        let landed = |partition: i32| landed.get(&partition).copied().unwrap_or(0);
        if self.spans.iter().all(|(&partition, &(first, _))| first >= landed(partition)) {
            return Some(self);
        }
        if self.spans.iter().all(|(&partition, &(_, last))| last < landed(partition)) {
            return None;
        }
        let is_ahead = places(&self.rows).map(|(partition, offset)| Some(offset >= landed(partition)));
        let rows = filter_record_batch(&self.rows, &BooleanArray::from_iter(is_ahead));
        Some(Self::new(rows.expect("a mask of a batch's own rows filters it")))
    }
}

/// The partition and offset of each row.
pub fn places(rows: &RecordBatch) -> impl Iterator<Item = (i32, i64)> + '_ {
    let [_, partition, offset] = POSITION;
    let column = |name| rows.column_by_name(name).expect("a lake row has its place");
    let partitions = column(partition).as_primitive::<Int32Type>().values().iter();
    partitions.copied().zip(column(offset).as_primitive::<Int64Type>().values().iter().copied())
}
