//! Appending rows together with the positions they came from.
//!
//! Partitions are taken over at the positions of one snapshot; batches in the table's schema enter and are written to
//! Parquet as they come; one commit makes them, and the next offset of each partition they came from, visible at once.
//! A commit that fails leaves the table as it was. What never happens: a commit for a partition that another writer has
//! moved since it was taken over.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::compute::partition;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use deltalake::DeltaTableError;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::scalars::ScalarExt;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TableReference};
use deltalake::kernel::{Action, Add, MetadataExt, StructType};
use deltalake::operations::get_num_idx_cols_and_stats_columns;
use deltalake::operations::write::writer::{DeltaWriter, WriterConfig};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::table::state::DeltaTableState;
use indexmap::IndexMap;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use schemas::record::BIZ_DATE;

use crate::error::{Error, ErrorKind};
use crate::history::{COMMIT_INFO, Landing, Move};
use crate::table::{Table, transaction, transaction_id};

/// Rows to a Parquet row group: large enough to compress and to prune, small enough that the group which is being built
/// fits the memory of a lane.
const ROW_GROUP_ROWS_MAX: usize = 128 * 1024;

/// A dictionary that outgrows this, in bytes, is given up early in its row group: it would not have saved much.
const DICTIONARY_BYTES_MAX: usize = 256 * 1024;

/// Rows that are encoded at a time.
const WRITE_ROWS: usize = 8 * 1024;

/// Rows of one partition in a stretch, below which gathering them is cheaper.
const STRETCH_ROWS_MIN: usize = 256;

/// Bytes of a file where there is a choice: large enough to scan, small enough to skip.
pub(crate) const FILE_BYTES_TARGET: NonZeroU64 = NonZeroU64::new(128 << 20).expect("not 0");

/// How far a commit moves one partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub topic: String,
    pub partition: i32,
    /// The first offset that is not in the lake.
    pub next_offset: i64,
    /// Rows and dead letters of these offsets.
    pub rows: u64,
    pub letters: u64,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub version: u64,
    pub rows: usize,
    pub landing: Landing,
}

/// Writes to one table, under one landing id.
pub struct Appender {
    table: Table,
    landing: String,
    /// The columns of what is written: the table's, and those that the next commit adds.
    schema: SchemaRef,
    writer: Option<DeltaWriter>,
    rows: usize,
    bytes: usize,
    /// The partitions this writer has taken over, at their next offsets as of the table's version.
    held: BTreeMap<(String, i32), i64>,
}

impl Appender {
    /// Writes rows in `schema`: the table's own, or one that adds columns to it (see [`crate::Lake::table`]).
    pub fn new(table: Table, schema: SchemaRef, landing: impl Into<String>) -> Self {
        Self { table, landing: landing.into(), schema, writer: None, rows: 0, bytes: 0, held: BTreeMap::new() }
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Rows written since the last commit.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes written since the last commit, as they were in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a topic's partitions over from whoever had them, and gives the next offset of each as of now; `oldest`
    /// where nothing has landed yet.
    ///
    /// # Errors
    /// `Fenced` when a partition that was held before has been moved by another writer; `Store` when the log cannot be
    /// read.
    pub async fn take(&mut self, topic: &str, oldest: &BTreeMap<i32, i64>) -> Result<BTreeMap<i32, i64>, Error> {
        let before = self.table.version();
        self.table.refresh().await?;
        self.check_held(before + 1..=self.table.version()).await?;
        let mut positions = BTreeMap::new();
        for (&partition, &oldest) in oldest {
            let landed = self.table.next_offset(&self.landing, topic, partition).await?;
            positions.insert(partition, landed.unwrap_or(oldest));
        }
        let held = positions.iter().map(|(&partition, &offset)| ((topic.to_string(), partition), offset));
        self.held.extend(held);
        Ok(positions)
    }

    /// Gives partitions up; what was written for them must have been committed.
    pub fn give_up(&mut self, topic: &str, partitions: &[i32]) {
        self.held.retain(|(name, partition), _| name != topic || !partitions.contains(partition));
    }

    /// The next offset of a partition that this writer holds.
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        self.held.get(&(topic.to_string(), partition)).copied()
    }

    /// Writes a batch in the schema of this writer. Visible only after [`Appender::commit`].
    ///
    /// # Errors
    /// `Schema` when the batch has other columns; `Store` when it cannot be written, which discards all
    /// that was written since the last commit.
    pub async fn write(&mut self, batch: RecordBatch) -> Result<(), Error> {
        let failed = |error| Error::delta("write to", self.table.name(), error);
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => writer(&self.table, &self.schema, None)?,
        };
        write_stretches(&mut writer, &batch, self.table.is_partitioned()).await.map_err(failed)?;
        self.writer = Some(writer);
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        Ok(())
    }

    /// Commits what was written, and `progress`, as one version. No rows: the positions move all the same.
    ///
    /// # Errors
    /// `Fenced` when another writer has moved one of the held partitions, or one is to be moved back or is not held;
    /// `Store` when the commit could not be made, or it is not known whether it was: [`Appender::take`] tells.
    pub async fn commit(&mut self, progress: &[Progress]) -> Result<Commit, Error> {
        self.commit_with(progress, None).await
    }

    /// As [`Appender::commit`], with a remark that stays in the table's log and in the ledger.
    ///
    /// # Errors
    /// As [`Appender::commit`].
    pub async fn commit_with(&mut self, progress: &[Progress], note: Option<String>) -> Result<Commit, Error> {
        let moves = self.moves(progress)?;
        let adds = match self.writer.take() {
            Some(writer) => writer.close().await.map_err(|error| self.not_committed(error))?,
            None => Vec::new(),
        };
        let before = self.table.version();
        let bytes = adds.iter().map(|add| add.size.unsigned_abs()).sum();
        let landing = Landing { landing: self.landing.clone(), bytes, moves, note };
        let (version, state) = self.send(adds, &landing).await.map_err(|error| self.not_committed(error))?;
        self.table.delta.state = Some(state);
        self.table.reload_schema()?;
        for moved in &landing.moves {
            self.held.insert((moved.topic.clone(), moved.partition), moved.next_offset);
        }
        // Versions in between are by others: they may have moved a partition that this commit did not.
        self.check_held(before + 1..=version - 1).await?;
        self.bytes = 0;
        Ok(Commit { version, rows: std::mem::take(&mut self.rows), landing })
    }

    fn not_committed(&self, error: DeltaTableError) -> Error {
        Error::delta("commit to", self.table.name(), error)
    }

    fn moves(&self, progress: &[Progress]) -> Result<Vec<Move>, Error> {
        let moved = |moved: &Progress| {
            let (topic, partition) = (moved.topic.clone(), moved.partition);
            let Some(first_offset) = self.position(&topic, partition) else {
                let message = format!("{topic}/{partition} is not held by this writer of {}", self.table.name());
                return Err(Error::new(ErrorKind::Fenced, message));
            };
            let Progress { next_offset, rows, letters, .. } = *moved;
            if next_offset < first_offset {
                let message = format!("{topic}/{partition} of {} would go back to {next_offset}", self.table.name());
                return Err(Error::new(ErrorKind::Fenced, message));
            }
            Ok(Move { topic, partition, first_offset, next_offset, rows, letters })
        };
        progress.iter().map(moved).collect()
    }

    /// One commit on top of the version that the held positions were read from.
    async fn send(&mut self, adds: Vec<Add>, landing: &Landing) -> Result<(u64, DeltaTableState), DeltaTableError> {
        let snapshot = self.table.delta.snapshot()?;
        let mut actions: Vec<Action> = adds.into_iter().map(Action::Add).collect();
        if !actions.is_empty() && self.table.differs(&self.schema) {
            let schema: StructType = self.schema.as_ref().try_into_kernel()?;
            actions.push(Action::Metadata(snapshot.metadata().clone().with_schema(&schema)?));
        }
        let transactions = landing
            .moves
            .iter()
            .map(|moved| transaction(&self.landing, &moved.topic, moved.partition, moved.next_offset));
        let properties = CommitProperties::default()
            .with_application_transactions(transactions.collect())
            .with_metadata([(COMMIT_INFO.to_string(), serde_json::to_value(landing)?)]);
        let partition_columns = snapshot.metadata().partition_columns();
        let partition_by = (!partition_columns.is_empty()).then(|| partition_columns.to_vec());
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by, predicate: None };
        let table: &dyn TableReference = snapshot;
        let finalized = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(table), self.table.delta.log_store(), operation)
            .await?;
        Ok((finalized.version(), finalized.snapshot()))
    }

    /// That no commit of these versions, which are all by others, has moved a held partition.
    async fn check_held(&mut self, versions: RangeInclusive<u64>) -> Result<(), Error> {
        for version in versions {
            let Some(moved) = self.table.moved_in(version).await? else {
                return self.check_positions().await;
            };
            for (topic, partition) in self.held.keys() {
                if moved.contains(&transaction_id(&self.landing, topic, *partition)) {
                    return Err(self.moved_by_another(topic, *partition));
                }
            }
        }
        Ok(())
    }

    /// As [`Appender::check_held`], from the table's state: for versions whose log entries are gone.
    async fn check_positions(&mut self) -> Result<(), Error> {
        for ((topic, partition), &offset) in &self.held {
            let landed = self.table.next_offset(&self.landing, topic, *partition).await?;
            if landed.is_some_and(|landed| landed != offset) {
                return Err(self.moved_by_another(topic, *partition));
            }
        }
        Ok(())
    }

    fn moved_by_another(&self, topic: &str, partition: i32) -> Error {
        let message = format!("another writer has moved {topic}/{partition} of {}", self.table.name());
        Error::new(ErrorKind::Fenced, message)
    }
}

/// Writes rows to the files of their partitions. Rows of a day come in stretches, since a day's records follow each other on
/// a topic: those are cut out as they are, where the writer would gather each row anew.
async fn write_stretches(
    writer: &mut DeltaWriter,
    batch: &RecordBatch,
    is_partitioned: bool,
) -> Result<(), DeltaTableError> {
    let Some(days) = batch.column_by_name(BIZ_DATE).filter(|_| is_partitioned) else {
        return writer.write(batch).await;
    };
    let stretches = partition(std::slice::from_ref(days))?.ranges();
    if stretches.len() * STRETCH_ROWS_MIN > batch.num_rows() {
        return writer.write(batch).await;
    }
    for rows in stretches {
        let day = ScalarExt::from_array(days, rows.start);
        let day = day.ok_or_else(|| DeltaTableError::generic("a day cannot be a partition value"))?;
        let values = IndexMap::from([(BIZ_DATE.to_string(), day)]);
        writer.write_partition(batch.slice(rows.start, rows.len()), &values).await?;
    }
    Ok(())
}

/// A writer of rows in `schema` to a table, which may lack some of the columns yet. A file ends at `file_bytes`, or with the
/// writer.
pub(crate) fn writer(table: &Table, schema: &SchemaRef, file_bytes: Option<NonZeroU64>) -> Result<DeltaWriter, Error> {
    let snapshot = table.delta.snapshot().map_err(|error| Error::delta("write to", table.name(), error))?;
    let (indexed, statistics) = get_num_idx_cols_and_stats_columns(Some(snapshot.table_config()), HashMap::new());
    let config = WriterConfig::new(
        Arc::clone(schema),
        snapshot.metadata().partition_columns().to_vec(),
        Some(properties(schema)),
        file_bytes,
        Some(WRITE_ROWS),
        indexed,
        statistics,
    );
    Ok(DeltaWriter::new(table.delta.log_store().object_store(None), config))
}

/// Columns that hardly repeat get no dictionary: building one and giving it up costs more than it saves. Times and offsets
/// are near their neighbours, so they are stored as differences. Nobody looks for a range of hashes.
fn properties(schema: &Schema) -> WriterProperties {
    let [_, _, offset] = schemas::record::POSITION;
    let is_near = |field: &&FieldRef| {
        matches!(field.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)) || field.name() == offset
    };
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
        .set_column_dictionary_enabled(ColumnPath::from("raw_hash"), false)
        .set_column_statistics_enabled(ColumnPath::from("raw_hash"), EnabledStatistics::None)
        .set_column_dictionary_enabled(ColumnPath::from("src_key"), false);
    for field in schema.fields().iter().filter(is_near) {
        let column = ColumnPath::from(field.name().as_str());
        builder = builder
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    builder.build()
}
