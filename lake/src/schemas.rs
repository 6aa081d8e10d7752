//! The schemas that records were written with, kept beside the tables they end in.
//!
//! A contract enters and its Avro schema is kept as `_schemas/<domain>.<table>/<fingerprint>.avsc` below the lake's root;
//! all schemas of a table leave, or the one of a fingerprint. What is kept is never removed here: a record can be read for
//! as long as it exists.

#[cfg(test)]
mod tests;

use deltalake::logstore::object_store::{ObjectStoreExt, PutMode, PutOptions, path::Path};
use deltalake::logstore::{ObjectStoreRef, object_store};
use futures::TryStreamExt;
use schemas::evolution::check_writers;
use schemas::{Contract, Decoder, WriterSchema, writer};
use tokio::runtime::Handle;

use crate::error::{Error, ErrorKind};
use crate::table::Lake;

impl Lake {
    /// Keeps the present schema of `contract`, so that whoever reads its records can know it. To be called before the
    /// first record is appended.
    ///
    /// # Errors
    /// `Schema` when the contract cannot read what was written before, with the field, the reason and the way forward;
    /// `Store` when the store cannot be read or written.
    pub async fn register_schema(&self, contract: &Contract) -> Result<(), Error> {
        let present = WriterSchema::of(contract).map_err(wrong)?;
        let known = self.writer_schemas(contract).await?;
        check_writers(contract, &known).map_err(wrong)?;
        // Precision and names are not part of a fingerprint: of the contracts that share one, the newest is kept.
        let same = known.iter().find(|writer| writer.fingerprint == present.fingerprint);
        if same.is_some_and(|same| same.columns == present.columns || !present.is_newer_than(same)) {
            return Ok(());
        }
        let mode = if same.is_some() { PutMode::Overwrite } else { PutMode::Create };
        let put = self.schema_store(contract)?;
        let put = put.put_opts(&Path::from(present.file_name()), present.avsc.into(), PutOptions::from(mode)).await;
        match put {
            // Somebody else registered the same at the same time.
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(failed("keep", contract, error)),
        }
    }

    /// All schemas that records of `contract` were ever written with, as far as they were registered.
    ///
    /// # Errors
    /// `Store` when the store cannot be read, `Schema` when a file is not what its name says.
    pub async fn writer_schemas(&self, contract: &Contract) -> Result<Vec<WriterSchema>, Error> {
        let store = self.schema_store(contract)?;
        let files: Vec<_> = store.list(None).try_collect().await.map_err(|error| failed("list", contract, error))?;
        let names = files.iter().filter_map(|file| file.location.filename());
        let mut writers = Vec::new();
        for name in names.filter(|name| name.ends_with(".avsc")) {
            writers.extend(read(&store, contract, name).await?);
        }
        Ok(writers)
    }

    /// The schema of `fingerprint`, if it was registered.
    ///
    /// # Errors
    /// As [`Lake::writer_schemas`].
    pub async fn writer_schema(
        &self,
        contract: &Contract,
        fingerprint: [u8; 8],
    ) -> Result<Option<WriterSchema>, Error> {
        read(&self.schema_store(contract)?, contract, &writer::file_name(fingerprint)).await
    }

    /// A decoder of the records of `contract`: of every schema that was kept, and of those that a producer registers from
    /// now on. It blocks for each schema that is new, so it is not for async threads.
    ///
    /// # Errors
    /// `Schema` when the contract cannot read what was written before, with the field and the way forward; `Store` when the
    /// store cannot be read.
    pub async fn decoder(&self, contract: &Contract) -> Result<Decoder, Error> {
        let known = self.writer_schemas(contract).await?;
        check_writers(contract, &known).map_err(wrong)?;
        let (handle, lake, of_lookup) = (Handle::current(), self.clone(), contract.clone());
        let lookup = move |fingerprint| {
            handle.block_on(lake.writer_schema(&of_lookup, fingerprint)).map_err(schemas::Error::store)
        };
        let mut decoder = Decoder::new(contract).map_err(wrong)?.with_lookup(Box::new(lookup));
        for writer in &known {
            decoder.learn(writer).map_err(wrong)?;
        }
        Ok(decoder)
    }

    /// The store of a table's schemas, made as the stores of tables are.
    fn schema_store(&self, contract: &Contract) -> Result<ObjectStoreRef, Error> {
        self.folder(writer::folder(contract).trim_end_matches('/')).map_err(|error| failed("keep", contract, error))
    }
}

fn wrong(error: schemas::Error) -> Error {
    Error::new(ErrorKind::Schema, error.to_string())
}

async fn read(store: &ObjectStoreRef, contract: &Contract, name: &str) -> Result<Option<WriterSchema>, Error> {
    let unread = |error| failed("read", contract, error);
    let bytes = match store.get(&Path::from(name)).await {
        Ok(found) => found.bytes().await.map_err(unread)?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(unread(error)),
    };
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let writer = WriterSchema::read(name, text)
        .map_err(|error| Error::new(ErrorKind::Schema, format!("{}: {error}", writer::folder(contract))))?;
    Ok(Some(writer))
}

fn failed(what: &str, contract: &Contract, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    let message = format!("could not {what} the schemas of {}", contract.name());
    Error { kind: ErrorKind::Store, message, source: Some(Box::new(source)) }
}
