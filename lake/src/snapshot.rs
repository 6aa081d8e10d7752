//! Reading: a table at one version, ready for DataFusion to scan.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use schemas::Contract;

use crate::error::Error;
use crate::table::{Lake, Table};

/// One table at one version. Later commits do not change it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub version: u64,
    pub provider: Arc<dyn TableProvider>,
}

impl Table {
    /// This version of the table.
    ///
    /// # Errors
    /// `Store` when the files cannot be listed from the log.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let provider = self.delta.table_provider().await;
        let provider = provider.map_err(|error| Error::scan(&self.name, error))?;
        Ok(Snapshot { version: self.version(), provider })
    }
}

impl Lake {
    /// The newest version of the table of `contract`; `None` before anything has landed.
    ///
    /// # Errors
    /// `Store` when the location cannot be read.
    pub async fn snapshot(&self, contract: &Contract) -> Result<Option<Snapshot>, Error> {
        match self.find(contract).await? {
            Some(table) => Ok(Some(table.snapshot().await?)),
            None => Ok(None),
        }
    }
}
