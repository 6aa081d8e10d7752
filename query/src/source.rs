//! Where rows come from: the lake, or memory in tests. A contract enters, the newest version of its table leaves.
//! Nothing is ever written.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use schemas::Contract;
use tokio::sync::Mutex;

use crate::error::{Error, ErrorKind};

/// A table's rows at one version. What is pinned here never changes.
#[derive(Debug, Clone)]
pub struct TableVersion {
    /// Grows with every commit.
    pub version: u64,
    pub rows: Arc<dyn TableProvider>,
}

/// The tables that questions are asked of.
pub enum Source {
    /// The lake, with the tables that have been opened: a refresh then reads only what is new in their logs, of all tables
    /// at once.
    Lake(lake::Lake, Mutex<HashMap<String, Opened>>),
    /// Tables in memory, by `<domain>.<table>`.
    Memory(Mutex<HashMap<String, TableVersion>>),
}

/// A table of the lake once it is there.
type Opened = Arc<Mutex<Option<lake::Table>>>;

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lake(..) => "Source::Lake",
            Self::Memory(_) => "Source::Memory",
        })
    }
}

impl Source {
    pub fn lake(lake: lake::Lake) -> Self {
        Self::Lake(lake, Mutex::default())
    }

    pub fn memory(tables: impl IntoIterator<Item = (String, TableVersion)>) -> Self {
        Self::Memory(Mutex::new(tables.into_iter().collect()))
    }

    /// The newest version of the table of `contract`, if it is another than `known`; `None` when there is nothing new.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    pub async fn newer(&self, contract: &Contract, known: Option<u64>) -> Result<Option<TableVersion>, Error> {
        let name = contract.name();
        match self {
            Self::Memory(tables) => {
                Ok(tables.lock().await.get(&name).filter(|table| Some(table.version) != known).cloned())
            }
            Self::Lake(lake, tables) => {
                let opened = tables.lock().await.entry(name.clone()).or_default().clone();
                newer_in_lake(lake, &mut *opened.lock().await, contract, known).await.map_err(|error| {
                    Error::new(ErrorKind::Unavailable, format!("could not read {name}")).with_source(error)
                })
            }
        }
    }
}

async fn newer_in_lake(
    lake: &lake::Lake,
    opened: &mut Option<lake::Table>,
    contract: &Contract,
    known: Option<u64>,
) -> Result<Option<TableVersion>, lake::Error> {
    match opened {
        Some(table) => table.refresh().await?,
        None => *opened = lake.find(contract).await?,
    }
    let Some(table) = opened else { return Ok(None) };
    if Some(table.version()) == known {
        return Ok(None);
    }
    let snapshot = table.snapshot().await?;
    Ok(Some(TableVersion { version: snapshot.version, rows: snapshot.provider }))
}
