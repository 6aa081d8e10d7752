//! Making a table's rows anew, and switching over in one commit.
//!
//! Rows enter, which nobody sees; one commit takes the files of the version that the rebuild began with away and puts the
//! new ones in their place, with new columns or types if there are any. What was appended meanwhile stays, and so do all
//! positions. A rebuild that is given up leaves the table as it was.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use deltalake::DeltaTableError;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::{CommitBuilder, TableReference};
use deltalake::kernel::{Action, MetadataExt, StructType};
use deltalake::operations::write::writer::DeltaWriter;
use deltalake::protocol::{DeltaOperation, SaveMode};

use crate::append::{FILE_BYTES_TARGET, writer};
use crate::error::Error;
use crate::snapshot::Snapshot;
use crate::table::Table;

/// A table's next form.
pub struct Rebuild {
    table: Table,
    schema: SchemaRef,
    writer: DeltaWriter,
    rows: u64,
}

impl Rebuild {
    /// Begins with the table as it is, to be filled with rows in `schema`.
    ///
    /// # Errors
    /// `Store` when the table cannot be written to.
    pub fn new(table: Table, schema: SchemaRef) -> Result<Self, Error> {
        let writer = writer(&table, &schema, Some(FILE_BYTES_TARGET))?;
        Ok(Self { table, schema, writer, rows: 0 })
    }

    /// The table as it was when the rebuild began.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The rows as they were when the rebuild began.
    ///
    /// # Errors
    /// `Store` when the files cannot be listed.
    pub async fn before(&self) -> Result<Snapshot, Error> {
        self.table.snapshot().await
    }

    /// Writes a batch, which is seen only after [`Rebuild::finish`].
    ///
    /// # Errors
    /// `Schema` when it has other columns; `Store` when it cannot be written.
    pub async fn write(&mut self, batch: RecordBatch) -> Result<(), Error> {
        self.rows += batch.num_rows() as u64;
        self.writer.write(&batch).await.map_err(|error| Error::delta("write to", self.table.name(), error))
    }

    /// Switches over: the version that did it, and how many rows it has written.
    ///
    /// # Errors
    /// `Store` when another has changed the files meanwhile other than by appending, a compaction say: try again.
    pub async fn finish(self) -> Result<(u64, u64), Error> {
        let Self { table, schema, writer, rows } = self;
        let version = switch_over(&table, &schema, writer).await;
        Ok((version.map_err(|error| Error::delta("rebuild", table.name(), error))?, rows))
    }
}

/// Files of `writer` for all files of `table`, in one commit.
async fn switch_over(table: &Table, schema: &SchemaRef, writer: DeltaWriter) -> Result<u64, DeltaTableError> {
    let adds = writer.close().await?;
    let snapshot = table.delta.snapshot()?;
    let removes = snapshot.log_data().into_iter().map(|file| Action::Remove(file.remove_action(true)));
    let mut actions: Vec<Action> = removes.chain(adds.into_iter().map(Action::Add)).collect();
    if table.differs(schema) {
        let schema: StructType = schema.as_ref().try_into_kernel()?;
        actions.push(Action::Metadata(snapshot.metadata().clone().with_schema(&schema)?));
    }
    let partition_columns = snapshot.metadata().partition_columns();
    let partition_by = (!partition_columns.is_empty()).then(|| partition_columns.to_vec());
    let operation = DeltaOperation::Write { mode: SaveMode::Overwrite, partition_by, predicate: None };
    let reference: &dyn TableReference = snapshot;
    let commit = CommitBuilder::default().with_actions(actions);
    Ok(commit.build(Some(reference), table.delta.log_store(), operation).await?.version())
}
