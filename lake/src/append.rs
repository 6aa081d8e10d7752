//! Appending rows together with the positions they came from.
//!
//! Batches in the table's schema enter and are written to Parquet as they come; one commit makes them, and
//! the next offset of each partition they came from, visible at once. A commit that fails leaves the files
//! unreferenced and the table as it was.

use arrow::record_batch::RecordBatch;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::error::Error;
use crate::table::{Table, transaction};

/// Rows to a Parquet row group: large enough to compress, small enough to prune.
const ROW_GROUP_ROWS_MAX: usize = 256 * 1024;

/// How far a commit moves one partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub topic: String,
    pub partition: i32,
    /// The first offset that is not in the lake.
    pub next_offset: i64,
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    pub version: u64,
    pub rows: usize,
}

/// Writes to one table, under one landing id.
pub struct Appender {
    table: Table,
    landing: String,
    writer: Option<RecordBatchWriter>,
    rows: usize,
}

impl Appender {
    pub fn new(table: Table, landing: impl Into<String>) -> Self {
        Self { table, landing: landing.into(), writer: None, rows: 0 }
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Rows written since the last commit.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Encoded bytes written since the last commit, roughly.
    pub fn bytes(&self) -> usize {
        self.writer.as_ref().map_or(0, RecordBatchWriter::buffer_len)
    }

    /// Writes a batch in the table's schema. Visible only after [`Appender::commit`].
    ///
    /// # Errors
    /// `Schema` when the batch has other columns; `Store` when it cannot be written, which discards all
    /// that was written since the last commit.
    pub async fn write(&mut self, batch: RecordBatch) -> Result<(), Error> {
        let failed = |error| Error::delta("write to", &self.table.name, error);
        let rows = batch.num_rows();
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => new_writer(&self.table)?,
        };
        writer.write(batch).await.map_err(failed)?;
        self.writer = Some(writer);
        self.rows += rows;
        Ok(())
    }

    /// Commits what was written, and `progress`, as one version. No rows: the positions move all the same.
    ///
    /// # Errors
    /// `Fenced` when another writer has moved one of these partitions under the same landing id;
    /// `Store` when the commit could not be made. Either way nothing of it is visible.
    pub async fn commit(&mut self, progress: &[Progress]) -> Result<Commit, Error> {
        let failed = |error| Error::delta("commit to", &self.table.name, error);
        let transactions =
            progress.iter().map(|moved| transaction(&self.landing, &moved.topic, moved.partition, moved.next_offset));
        let properties = CommitProperties::default().with_application_transactions(transactions.collect());
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => new_writer(&self.table)?,
        };
        let mut writer = writer.with_commit_properties(properties);
        let version = writer.flush_and_commit(&mut self.table.delta).await.map_err(failed)?;
        Ok(Commit { version, rows: std::mem::take(&mut self.rows) })
    }

    /// Forgets what was written since the last commit and loads the table's newest version.
    ///
    /// # Errors
    /// `Store` when the log cannot be read.
    pub async fn reset(&mut self) -> Result<(), Error> {
        self.writer = None;
        self.rows = 0;
        self.table.refresh().await
    }
}

fn new_writer(table: &Table) -> Result<RecordBatchWriter, Error> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .build();
    let writer = RecordBatchWriter::for_table(&table.delta);
    let writer = writer.map_err(|error| Error::delta("write to", &table.name, error))?;
    Ok(writer.with_writer_properties(properties))
}
