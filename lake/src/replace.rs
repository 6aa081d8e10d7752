//! Tables that are written as a whole: derived from others, without a contract, a topic or positions.
//!
//! Rows enter, which nobody sees; one commit puts them in the place of all rows before, under other columns if there are any,
//! with what they are of as properties of the table. Of two that replace one table at the same time the first wins; what
//! the other has written are files that no version needs.

use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use deltalake::DeltaTableError;
use deltalake::kernel::transaction::{CommitBuilder, TableReference, TransactionError};
use deltalake::kernel::{Action, MetadataExt, StructType};
use deltalake::operations::write::writer::DeltaWriter;
use deltalake::protocol::{DeltaOperation, SaveMode};

use crate::append::{FILE_BYTES_TARGET, writer};
use crate::error::{Error, ErrorKind};
use crate::table::{Lake, Table, arrow_schema, delta_schema};

/// All rows of a table's next version.
pub struct Replacement {
    table: Table,
    columns: StructType,
    /// The same as rows are written in.
    schema: SchemaRef,
    writer: DeltaWriter,
}

impl Replacement {
    /// Begins to write the table `<domain>.<table>`, which is created when it is not there.
    ///
    /// # Errors
    /// `Store` when the location cannot be read or written; `Schema` when Delta has no such columns.
    pub async fn begin(lake: &Lake, name: &str, title: &str, schema: &Schema) -> Result<Self, Error> {
        let columns = delta_schema(name, schema)?;
        let schema = arrow_schema(name, &columns)?;
        let table = match lake.find_named(name).await? {
            Some(table) => table,
            None => lake.create(name, title, &schema, &[]).await?,
        };
        let writer = writer(&table, &schema, Some(FILE_BYTES_TARGET))?;
        Ok(Self { table, columns, schema, writer })
    }

    /// Writes a batch of the columns that this began with, which is seen only after [`Replacement::finish`].
    ///
    /// # Errors
    /// `Schema` when it has other columns; `Store` when it cannot be written.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let pairs = batch.columns().iter().zip(self.schema.fields());
        let columns = pairs.map(|(column, field)| cast(column, field.data_type())).collect::<Result<Vec<_>, _>>();
        let batch = columns.and_then(|columns| RecordBatch::try_new(self.schema.clone(), columns));
        let batch = batch.map_err(|error| Error {
            kind: ErrorKind::Schema,
            message: format!("rows for {} are not of its columns", self.table.name()),
            source: Some(Box::new(error)),
        })?;
        self.writer.write(&batch).await.map_err(|error| Error::delta("write to", self.table.name(), error))
    }

    /// Puts the rows in the place of those before, and `properties` among those of the table; gives the table back, to be
    /// kept in order.
    ///
    /// # Errors
    /// `Fenced` when another has committed to the table since this began, `Store` when the commit cannot be made.
    pub async fn finish(self, properties: &[(&str, String)]) -> Result<Table, Error> {
        let Self { table, columns, writer, .. } = self;
        match switch_over(&table, &columns, writer, properties).await {
            Ok(()) => Ok(table),
            Err(DeltaTableError::Transaction { source: TransactionError::MaxCommitAttempts(_) }) => {
                let message = format!("another has written {} meanwhile", table.name());
                Err(Error::new(ErrorKind::Fenced, message))
            }
            Err(error) => Err(Error::delta("replace", table.name(), error)),
        }
    }
}

async fn switch_over(
    table: &Table,
    columns: &StructType,
    writer: DeltaWriter,
    properties: &[(&str, String)],
) -> Result<(), DeltaTableError> {
    let adds = writer.close().await?;
    let snapshot = table.delta.snapshot()?;
    let mut metadata = snapshot.metadata().clone().with_schema(columns)?;
    for (key, value) in properties {
        metadata = metadata.add_config_key(key.to_string(), value.clone())?;
    }
    let removes = snapshot.log_data().into_iter().map(|file| Action::Remove(file.remove_action(true)));
    let actions = removes.chain(adds.into_iter().map(Action::Add)).chain([Action::Metadata(metadata)]).collect();
    let operation = DeltaOperation::Write { mode: SaveMode::Overwrite, partition_by: None, predicate: None };
    let reference: &dyn TableReference = snapshot;
    // Without a retry the commit is that of the next version or none: nothing that came meanwhile stays beside these rows.
    let commit = CommitBuilder::default().with_actions(actions).with_max_retries(0);
    commit.build(Some(reference), table.delta.log_store(), operation).await?;
    Ok(())
}
