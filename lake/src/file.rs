//! Files beside the tables: what is derived from them, is written and read as a whole, and can be made anew.
//!
//! Bytes enter, and leave as they were. A reader sees a file as it was or as it is, never a part of it.

use bytes::Bytes;
use deltalake::logstore::object_store::{ObjectStoreExt, path::Path};
use deltalake::logstore::{ObjectStoreRef, object_store};
use deltalake::{DeltaTableBuilder, DeltaTableError};

use crate::error::{Error, ErrorKind};
use crate::table::Lake;

impl Lake {
    /// Writes the file `name` of a folder below the lake's root, in the place of one that is there.
    ///
    /// # Errors
    /// `Store` when the store cannot be written.
    pub async fn write_file(&self, folder: &str, name: &str, bytes: Bytes) -> Result<(), Error> {
        let store = self.folder(folder).map_err(|error| failed("write", folder, name, error))?;
        store.put(&Path::from(name), bytes.into()).await.map_err(|error| failed("write", folder, name, error))?;
        Ok(())
    }

    /// The file `name` of a folder, if it is there.
    ///
    /// # Errors
    /// `Store` when the store cannot be read.
    pub async fn read_file(&self, folder: &str, name: &str) -> Result<Option<Bytes>, Error> {
        // Whoever only reads makes no folder.
        if self.below(folder).to_file_path().is_ok_and(|path| !path.exists()) {
            return Ok(None);
        }
        let store = self.folder(folder).map_err(|error| failed("read", folder, name, error))?;
        match store.get(&Path::from(name)).await {
            Ok(found) => Ok(Some(found.bytes().await.map_err(|error| failed("read", folder, name, error))?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("read", folder, name, error)),
        }
    }

    /// The store of a folder below the lake's root, made as the stores of tables are.
    pub(crate) fn folder(&self, folder: &str) -> Result<ObjectStoreRef, DeltaTableError> {
        let location = self.below(folder);
        if let Ok(folder) = location.to_file_path() {
            std::fs::create_dir_all(folder).map_err(|source| DeltaTableError::Io { source })?;
        }
        let builder = DeltaTableBuilder::from_url(location.clone())?;
        let storage = match &self.store {
            Some(store) => builder.with_storage_backend(store.clone(), location).build_storage()?,
            None => builder.build_storage()?,
        };
        Ok(storage.object_store(None))
    }
}

fn failed(what: &str, folder: &str, name: &str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error {
        kind: ErrorKind::Store,
        message: format!("could not {what} {folder}/{name} in the lake"),
        source: Some(Box::new(source)),
    }
}
