//! Where rows come from: the lake and the tail of the log, or memory in tests. A contract enters, the newest version of its
//! table leaves. Nothing is ever written.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::datasource::empty::EmptyTable;
use lake::{Lake, Span};
use schemas::Contract;
use tokio::sync::Mutex;

use crate::error::{Error, ErrorKind};
use crate::table::view;
use crate::tail::{Positions, Tail};

/// A table's rows at one version of the lake, and what the log has beyond it. What is pinned here never changes.
#[derive(Debug, Clone)]
pub struct TableVersion {
    /// Of the lake; grows with every commit. `None` before the first.
    pub version: Option<u64>,
    /// Where its records come from; empty for rows that are not from a topic.
    pub topic: Arc<str>,
    pub rows: Arc<dyn TableProvider>,
    /// What its files hold, where that is known.
    pub spans: Option<Arc<[Span]>>,
    /// The offsets that this version of the lake reaches to, where there is a tail.
    pub landed: Arc<Positions>,
    /// Rows behind them.
    pub tail: Arc<Vec<RecordBatch>>,
    /// Rows before them that are still in memory.
    pub recent: Option<Arc<Recent>>,
    /// The offsets that both together reach to.
    pub next: Arc<Positions>,
    /// Of the tail that was taken.
    pub stamp: Option<u64>,
    /// The version by which rows were last taken away or replaced, as far as is known: since then there were only more.
    pub cut: u64,
    /// Of lake and tail, only what had been received by then (microseconds UTC) is read; everything without it.
    pub received_by: Option<i64>,
}

/// Rows that are in the lake, but not for long.
#[derive(Debug)]
pub struct Recent {
    /// From these offsets on, they and the tail are all that came.
    pub from: Arc<Positions>,
    /// As [`TableVersion::spans`], of what came before.
    pub spans: Option<Arc<[Span]>>,
    pub rows: Arc<Vec<RecordBatch>>,
}

impl TableVersion {
    /// A version without a tail.
    pub fn new(version: Option<u64>, rows: Arc<dyn TableProvider>) -> Self {
        Self {
            version,
            topic: "".into(),
            rows,
            spans: None,
            landed: Arc::default(),
            tail: Arc::default(),
            recent: None,
            next: Arc::default(),
            stamp: None,
            cut: 0,
            received_by: None,
        }
    }

    /// Rows that are in memory alone, and from no topic.
    pub fn held(rows: Arc<Vec<RecordBatch>>) -> Self {
        let nothing = Arc::new(EmptyTable::new(Arc::new(Schema::empty())));
        Self { tail: rows, ..Self::new(None, nothing) }
    }

    /// Whether it is [`TableVersion::held`].
    pub fn is_held(&self) -> bool {
        self.version.is_none() && self.topic.is_empty()
    }

    /// How many commits the lake has of it.
    pub fn commits(&self) -> u64 {
        self.version.map_or(0, |version| version + 1)
    }
}

/// The tables that questions are asked of.
pub enum Source {
    Lake(LakeSource),
    /// Tables in memory, by `<domain>.<table>`.
    Memory(Mutex<HashMap<String, TableVersion>>),
}

/// The lake, with the tables that have been opened: a refresh then reads only what is new in their logs, of all tables at
/// once.
pub struct LakeSource {
    lake: Lake,
    tables: Mutex<HashMap<String, Arc<Mutex<Opened>>>>,
    tail: Option<Arc<Tail>>,
}

/// A table of the lake, once it is there, and what has landed in it.
#[derive(Default)]
struct Opened {
    table: Option<lake::Table>,
    landed: Arc<Positions>,
    /// The version that `landed` and `cut` are of.
    looked: Option<u64>,
    /// As [`TableVersion::cut`].
    cut: u64,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lake(_) => "Source::Lake",
            Self::Memory(_) => "Source::Memory",
        })
    }
}

impl Source {
    /// The tables of `lake`, with the tail of the log where it can be read.
    pub fn lake(lake: Lake, tail: Option<Arc<Tail>>) -> Self {
        Self::Lake(LakeSource { lake, tables: Mutex::default(), tail })
    }

    pub fn memory(tables: impl IntoIterator<Item = (String, TableVersion)>) -> Self {
        Self::Memory(Mutex::new(tables.into_iter().collect()))
    }

    pub fn tail(&self) -> Option<&Arc<Tail>> {
        match self {
            Self::Lake(source) => source.tail.as_ref(),
            Self::Memory(_) => None,
        }
    }

    /// The newest version of the table of `contract`, if it tells more than `known`; `None` when there is nothing new.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    pub async fn newer(
        &self,
        contract: &Contract,
        known: Option<&TableVersion>,
    ) -> Result<Option<TableVersion>, Error> {
        let name = contract.name();
        match self {
            Self::Memory(tables) => {
                let is_new = |table: &&TableVersion| known.is_none_or(|known| known.version != table.version);
                Ok(tables.lock().await.get(&name).filter(is_new).cloned())
            }
            Self::Lake(source) => source.newer(contract, known).await.map_err(|error| {
                Error::new(ErrorKind::Unavailable, format!("could not read {name}")).with_source(error)
            }),
        }
    }
}

impl LakeSource {
    async fn newer(
        &self,
        contract: &Contract,
        known: Option<&TableVersion>,
    ) -> Result<Option<TableVersion>, lake::Error> {
        let opened = self.tables.lock().await.entry(contract.name()).or_default().clone();
        let mut opened = opened.lock().await;
        match &mut opened.table {
            Some(table) => table.refresh().await?,
            None => opened.table = self.lake.find(contract).await?,
        }
        let partitions = self.tail.as_ref().map_or(0, |tail| tail.partitions(&contract.name()));
        opened.look(contract, self.tail.as_deref(), partitions).await?;
        let is_known = |known: &TableVersion| {
            known.version == opened.table.as_ref().map(lake::Table::version)
                && known.landed.len() == opened.landed.len()
        };
        if known.is_some_and(is_known) {
            return Ok(None);
        }
        let version = match &opened.table {
            Some(table) => {
                let snapshot = table.snapshot().await?;
                // For those who follow the tail; where it is not known, they look into the files.
                let spans = match self.tail.is_some() && view::is_day_of_key(contract) {
                    true => table.spans(&contract.event_time).unwrap_or_default().map(Arc::from),
                    false => None,
                };
                TableVersion { spans, ..TableVersion::new(Some(snapshot.version), snapshot.provider) }
            }
            None if opened.landed.is_empty() => return Ok(None),
            // Nothing has landed, and the tail begins at the first record.
            None => TableVersion::new(None, Arc::new(EmptyTable::new(contract.lake_schema()))),
        };
        let (landed, cut) = (opened.landed.clone(), opened.cut);
        Ok(Some(TableVersion { topic: contract.topic().into(), next: landed.clone(), landed, cut, ..version }))
    }
}

impl Opened {
    /// Looks what has landed by the present version: in the commits since the last look, or else in the whole log of the table.
    async fn look(&mut self, contract: &Contract, tail: Option<&Tail>, partitions: i32) -> Result<(), lake::Error> {
        let Some(tail) = tail else { return Ok(()) };
        let (topic, count) = (contract.topic(), usize::try_from(partitions).unwrap_or(0));
        let Some(table) = &self.table else {
            self.landed = Arc::new((0..partitions).map(|partition| (partition, 0)).collect());
            return Ok(());
        };
        if let Some(since) = self.looked.filter(|_| self.landed.len() == count) {
            if since == table.version() {
                return Ok(());
            }
            if let Some(moved) = table.moved_since(tail.landing(), &topic, since).await? {
                Arc::make_mut(&mut self.landed).extend(moved.next);
                if moved.has_other_changes {
                    self.cut = table.version();
                }
                self.looked = Some(table.version());
                return Ok(());
            }
        }
        let mut landed = Positions::new();
        for partition in 0..partitions {
            let next = table.next_offset(tail.landing(), &topic, partition).await?;
            landed.insert(partition, next.unwrap_or(0));
        }
        (self.landed, self.cut, self.looked) = (Arc::new(landed), table.version(), Some(table.version()));
        Ok(())
    }
}
