//! The tables: where they are, how they come to be, and which position they hold.
//!
//! A contract enters, an open [`Table`] leaves; a table without one (see [`crate::Replacement`]) goes by its name. A table is
//! created once, from the contract's lake schema. A contract that has gained fields since is accepted, and the first commit
//! with such rows adds the columns; any other difference is refused, with the column named.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use deltalake::kernel::engine::arrow_conversion::{TryIntoArrow, TryIntoKernel};
use deltalake::kernel::{StructType, Transaction};
use deltalake::protocol::SaveMode;
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError, TableProperty};
use object_store::ObjectStore;
use schemas::Contract;
use url::Url;

use crate::error::{Error, ErrorKind};
use crate::settings::Settings;
use crate::storage;

/// The root of all tables.
#[derive(Debug, Clone)]
pub struct Lake {
    root: Url,
    /// One client for all tables; `None` for a folder.
    pub(crate) store: Option<Arc<dyn ObjectStore>>,
}

impl Lake {
    /// Opens the lake, creating the folder of a local one. On object storage the process's `AWS_*` variables hold.
    ///
    /// # Errors
    /// `Settings` when the path is neither a folder nor the URL of a store that can be opened.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        Self::open_with(settings, &std::env::vars().collect::<Vec<_>>())
    }

    /// As [`Lake::open`], with these variables instead of the process's.
    ///
    /// # Errors
    /// As [`Lake::open`].
    pub fn open_with(settings: &Settings, environment: &[(String, String)]) -> Result<Self, Error> {
        let path = settings.path.trim_end_matches('/');
        let wrong = |message: String| Error::new(ErrorKind::Settings, format!("lake.path `{path}`: {message}"));
        let root = match Url::parse(&format!("{path}/")) {
            Ok(url) if url.scheme() == storage::SCHEME => {
                let store = storage::open(&url, &settings.s3, environment)?;
                return Ok(Self { root: url, store: Some(store) });
            }
            Ok(url) if url.scheme() == "file" => url,
            Ok(url) if url.scheme().len() > 1 => {
                return Err(wrong("not a scheme of ours; use a folder or s3://<bucket>/<prefix>".into()));
            }
            _ => {
                std::fs::create_dir_all(path).map_err(|error| wrong(error.to_string()))?;
                let folder = Path::new(path).canonicalize().map_err(|error| wrong(error.to_string()))?;
                Url::from_directory_path(folder).map_err(|()| wrong("not an absolute folder".into()))?
            }
        };
        Ok(Self { root, store: None })
    }

    /// Asks an object store for the first names below the lake; a folder is reached by opening it.
    ///
    /// # Errors
    /// `Settings` when the store refuses or has no such bucket, `Store` when it does not answer.
    pub async fn reach(&self) -> Result<(), Error> {
        let Some(store) = &self.store else { return Ok(()) };
        let prefix = object_store::path::Path::from_url_path(self.root.path());
        let prefix = prefix.map_err(|error| Error::unreachable(&self.root, error.into()))?;
        store.list_with_delimiter(Some(&prefix)).await.map_err(|error| Error::unreachable(&self.root, error))?;
        Ok(())
    }

    /// Where the table of `contract` is: `<root>/<domain>/<table>/`.
    pub fn location(&self, contract: &Contract) -> Url {
        self.location_of(&contract.name())
    }

    /// Where the table `<domain>.<table>` is.
    fn location_of(&self, name: &str) -> Url {
        self.below(&name.replace('.', "/"))
    }

    /// Where a folder is.
    pub(crate) fn below(&self, folder: &str) -> Url {
        self.root.join(&format!("{folder}/")).expect("plain names join any URL")
    }

    /// Opens the table of `contract` if it has been created.
    ///
    /// # Errors
    /// `Store` when the location cannot be read.
    pub async fn find(&self, contract: &Contract) -> Result<Option<Table>, Error> {
        self.find_named(&contract.name()).await
    }

    /// As [`Lake::find`], of the table `<domain>.<table>`, which may have no contract.
    ///
    /// # Errors
    /// As [`Lake::find`].
    pub async fn find_named(&self, name: &str) -> Result<Option<Table>, Error> {
        let failed = |error| Error::delta("open", name, error);
        let mut delta = self.builder(name).map_err(failed)?;
        if !delta.verify_deltatable_existence().await.map_err(failed)? {
            return Ok(None);
        }
        delta.load().await.map_err(failed)?;
        Ok(Some(Table::new(name.to_string(), delta)?))
    }

    /// Opens the table of `contract`, creating it when it is not there.
    ///
    /// # Errors
    /// `Store` when the location cannot be read or written; `Schema` when a column of the table is not in the contract, or
    /// has another type there.
    pub async fn table(&self, contract: &Contract) -> Result<Table, Error> {
        let table = match self.find(contract).await? {
            Some(table) => table,
            None => {
                let partition: &[&str] = if contract.is_partitioned() { &[schemas::record::BIZ_DATE] } else { &[] };
                self.create(&contract.name(), &contract.title, &contract.lake_schema(), partition).await?
            }
        };
        check_columns(&table, contract)?;
        Ok(table)
    }

    fn builder(&self, name: &str) -> Result<DeltaTable, DeltaTableError> {
        let location = self.location_of(name);
        if let Ok(folder) = location.to_file_path() {
            std::fs::create_dir_all(folder).map_err(|source| DeltaTableError::Io { source })?;
        }
        let builder = DeltaTableBuilder::from_url(location.clone())?;
        match &self.store {
            Some(store) => builder.with_storage_backend(store.clone(), location).build(),
            None => builder.build(),
        }
    }

    /// Creates the table `<domain>.<table>`, unless another process does at the same time.
    pub(crate) async fn create(
        &self,
        name: &str,
        title: &str,
        schema: &Schema,
        partition: &[&str],
    ) -> Result<Table, Error> {
        let delta = self.builder(name).map_err(|error| Error::delta("create", name, error))?;
        let created = delta
            .create()
            .with_table_name(name)
            .with_comment(title)
            .with_columns(delta_schema(name, schema)?.fields().cloned())
            .with_partition_columns(partition.iter().copied())
            // Upkeep cleans the log. deltalake would list all of it after every commit to see whether something is old.
            .with_configuration_property(TableProperty::EnableExpiredLogCleanup, Some("false"))
            .with_save_mode(SaveMode::Ignore)
            .await;
        match created {
            Ok(delta) => Table::new(name.to_string(), delta),
            // Another process created it between our look and our try.
            Err(error) => match self.find_named(name).await? {
                Some(table) => Ok(table),
                None => Err(Error::delta("create", name, error)),
            },
        }
    }
}

/// That every column of the table is in the contract, of the same type: then rows of the contract can be appended.
fn check_columns(table: &Table, contract: &Contract) -> Result<(), Error> {
    let expected = contract.lake_schema();
    let refuse = |message: String| Err(Error::new(ErrorKind::Schema, format!("table {}: {message}", table.name)));
    for column in table.schema().fields() {
        let name = column.name();
        match expected.field_with_name(name) {
            Err(_) if contract.fields.iter().any(|field| field.aliases.contains(name)) => {
                return refuse(format!(
                    "column `{name}` has a new name in the contract; `quad land --rebuild {}` makes the table anew with it",
                    table.name
                ));
            }
            Err(_) => {
                return refuse(format!(
                    "column `{name}` is not in the contract: a newer contract has landed here, so upgrade this process; \
                     a field is never removed, only left empty"
                ));
            }
            Ok(field) if field.data_type() != column.data_type() => {
                let (stored, declared) = (column.data_type(), field.data_type());
                return refuse(format!(
                    "column `{name}` is {stored} in the lake and {declared} in the contract; `quad land --rebuild {}` \
                     makes the table anew from the topic",
                    table.name
                ));
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

/// One open table, at the version it was last loaded or committed at.
#[derive(Debug)]
pub struct Table {
    pub(crate) name: String,
    pub(crate) delta: DeltaTable,
    schema: SchemaRef,
}

impl Table {
    fn new(name: String, delta: DeltaTable) -> Result<Self, Error> {
        Ok(Self { schema: schema(&name, &delta)?, name, delta })
    }

    /// After the table has moved to another version.
    pub(crate) fn reload_schema(&mut self) -> Result<(), Error> {
        self.schema = schema(&self.name, &self.delta)?;
        Ok(())
    }

    /// `<domain>.<table>`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The columns, in order, with the partition column last.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Whether `schema` has other columns, or the same in other types.
    pub(crate) fn differs(&self, schema: &SchemaRef) -> bool {
        let is_stored = |field: &Arc<arrow::datatypes::Field>| {
            self.schema.field_with_name(field.name()).is_ok_and(|stored| stored.data_type() == field.data_type())
        };
        schema.fields().len() != self.schema.fields().len() || !schema.fields().iter().all(is_stored)
    }

    /// Whether its files are apart by day.
    pub(crate) fn is_partitioned(&self) -> bool {
        self.delta.snapshot().is_ok_and(|snapshot| !snapshot.metadata().partition_columns().is_empty())
    }

    /// The version of this snapshot.
    pub fn version(&self) -> u64 {
        self.delta.version().unwrap_or_default()
    }

    /// Rows in this version, from the log's own counts.
    ///
    /// # Errors
    /// `Store` when a file in the log has no count.
    pub fn rows(&self) -> Result<u64, Error> {
        let failed = |error| Error::delta("count the rows of", &self.name, error);
        let files = self.delta.snapshot().map_err(failed)?.log_data();
        Ok(files.into_iter().filter_map(|file| file.num_records()).map(|rows| rows as u64).sum())
    }

    /// Loads what others have committed since.
    ///
    /// # Errors
    /// `Store` when the log cannot be read.
    pub async fn refresh(&mut self) -> Result<(), Error> {
        self.delta.update_state().await.map_err(|error| Error::delta("refresh", &self.name, error))?;
        self.reload_schema()
    }

    /// The next offset to land of a topic's partition, as committed under `landing`; `None` before the first.
    ///
    /// # Errors
    /// `Store` when the log cannot be read.
    pub async fn next_offset(&self, landing: &str, topic: &str, partition: i32) -> Result<Option<i64>, Error> {
        let failed = |error| Error::delta("read the position of", &self.name, error);
        let state = self.delta.snapshot().map_err(failed)?;
        let log_store = self.delta.log_store();
        state.transaction_version(log_store.as_ref(), transaction_id(landing, topic, partition)).await.map_err(failed)
    }
}

fn schema(name: &str, delta: &DeltaTable) -> Result<SchemaRef, Error> {
    let failed = |error| Error::delta("read the schema of", name, error);
    arrow_schema(name, delta.snapshot().map_err(failed)?.schema().as_ref())
}

/// A schema as Delta writes it down.
pub(crate) fn delta_schema(name: &str, schema: &Schema) -> Result<StructType, Error> {
    schema
        .try_into_kernel()
        .map_err(|error| Error::new(ErrorKind::Schema, format!("table {name} has no Delta schema: {error}")))
}

/// A schema as it is read from Delta: the elements of lists have a name of their own there.
pub(crate) fn arrow_schema(name: &str, schema: &StructType) -> Result<SchemaRef, Error> {
    let schema = schema.try_into_arrow();
    let schema =
        schema.map_err(|error| Error::new(ErrorKind::Schema, format!("table {name} has no Arrow schema: {error}")))?;
    Ok(Arc::new(schema))
}

/// The Delta application id of one partition: `<landing>/<topic>/<partition>`.
pub(crate) fn transaction_id(landing: &str, topic: &str, partition: i32) -> String {
    format!("{}{partition}", transaction_prefix(landing, topic))
}

/// What the ids of all partitions of a topic begin with.
pub(crate) fn transaction_prefix(landing: &str, topic: &str) -> String {
    format!("{landing}/{topic}/")
}

pub(crate) fn transaction(landing: &str, topic: &str, partition: i32, next_offset: i64) -> Transaction {
    Transaction::new(transaction_id(landing, topic, partition), next_offset)
}
