//! Keeping up with the lake. New table versions enter, a new snapshot leaves, identity included, in one step.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::DataFusionError;
use futures::{StreamExt, TryStreamExt};
use schemas::Contract;
use schemas::record::timestamp_type;

use super::{Engine, Pin};
use crate::error::Error;
use crate::identity::{self, Facts, Index, Relinking, facts};
use crate::snapshot::Snapshot;
use crate::source::{Source, TableVersion};

/// Tables that are opened at a time: each may be a handful of requests to an object store.
const LOOKS_CONCURRENT_MAX: usize = 8;

impl Engine {
    /// Looks for new versions in the lake and new rows in the tail and, if there are any, answers from them from now on.
    /// True when there were.
    ///
    /// # Errors
    /// The first table that could not be read; the snapshot then stays as it was.
    pub async fn refresh(&self, source: &Source, person_key: &[u8]) -> Result<bool, Error> {
        let old = self.pin().snapshot.clone();
        let look = async |contract: &Arc<Contract>| -> Result<Option<(String, TableVersion)>, Error> {
            let name = contract.name();
            Ok(source.newer(contract, old.tables.get(&name)).await?.map(|version| (name, version)))
        };
        let looked = futures::stream::iter(self.contracts.iter().map(look)).buffered(LOOKS_CONCURRENT_MAX);
        let found: Vec<_> = looked.try_collect().await?;
        let changed: HashMap<String, TableVersion> = found.into_iter().flatten().collect();
        self.watch.refreshed();
        self.watch.taken_up(&changed);
        self.take_up(source, changed, person_key).await
    }

    /// As [`Engine::refresh`], of the tail alone.
    ///
    /// # Errors
    /// What DataFusion finds in the identity's tables.
    pub async fn refresh_tail(&self, source: &Source, person_key: &[u8]) -> Result<bool, Error> {
        self.take_up(source, HashMap::new(), person_key).await
    }

    async fn take_up(
        &self,
        source: &Source,
        landed: HashMap<String, TableVersion>,
        person_key: &[u8],
    ) -> Result<bool, Error> {
        let old = self.pin().snapshot.clone();
        let mut changed: HashSet<String> = landed.keys().cloned().collect();
        let mut tables = old.tables.clone();
        tables.extend(landed);
        changed.extend(source.tail().map(|tail| tail.complete(&mut tables)).unwrap_or_default());
        if changed.is_empty() {
            return Ok(false);
        }
        let is_identity_new = facts::TABLES.iter().any(|table| changed.contains(*table));
        let mut snapshot = Snapshot { links: old.links, ..Snapshot::new(tables, old.identity.clone()) };
        if is_identity_new {
            let index = self.identify(&snapshot.tables, person_key).await?;
            tracing::debug!(persons = index.persons.len(), placeholders = index.placeholders, "identity rebuilt");
            // An index that says the same stays, and with it what was computed by it.
            if index != *old.identity {
                let (before, after) = (old.identity.clone(), Arc::new(index));
                snapshot.identity = after.clone();
                let relinking = tokio::task::spawn_blocking(move || Relinking::new(&before, &after)).await;
                snapshot.links = old.links.after(&relinking.expect("comparing indexes does not panic"));
            }
        }
        tracing::debug!(snapshot = snapshot.id, "new snapshot");
        self.set_snapshot(Arc::new(snapshot));
        Ok(true)
    }

    /// Who is who in `tables`.
    ///
    /// # Errors
    /// What DataFusion finds in the identity's tables.
    pub async fn identify(&self, tables: &HashMap<String, TableVersion>, person_key: &[u8]) -> Result<Index, Error> {
        let pin = self.bind(Arc::new(Snapshot::new(tables.clone(), Arc::default())));
        let facts = self.identity_facts(&pin).await?;
        let key = person_key.to_vec();
        let index = tokio::task::spawn_blocking(move || identity::build(&facts, &key)).await;
        Ok(index.expect("building an index does not panic"))
    }

    async fn identity_facts(&self, pin: &Pin) -> Result<Facts, Error> {
        type Add = fn(&mut Facts, &RecordBatch);
        let mut facts = Facts::default();
        let questions: [(&str, Add); 6] = [
            (facts::STUDENTS_SQL, Facts::add_students),
            (facts::ENROLLMENTS_SQL, Facts::add_enrollments),
            (facts::ACCOUNTS_SQL, Facts::add_accounts),
            (facts::CARDS_SQL, Facts::add_cards),
            (facts::RENUMBERINGS_SQL, Facts::add_renumberings),
            (facts::DECISIONS_SQL, Facts::add_decisions),
        ];
        for (table, (sql, add)) in facts::TABLES.into_iter().zip(questions) {
            if self.contracts.get(table).is_some() {
                for batch in self.ask(pin, sql).await? {
                    add(&mut facts, &to_facts_types(&batch)?);
                }
            }
        }
        Ok(facts)
    }
}

/// Times as microseconds UTC, everything else as text, as `Facts` reads them.
fn to_facts_types(batch: &RecordBatch) -> Result<RecordBatch, Error> {
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (index, column) in batch.columns().iter().enumerate() {
        let column = match column.data_type() {
            DataType::Timestamp(..) => cast(column, &timestamp_type()),
            _ => cast(column, &DataType::Utf8),
        };
        columns.push((index.to_string(), column.map_err(DataFusionError::from)?, true));
    }
    Ok(RecordBatch::try_from_iter_with_nullable(columns).map_err(DataFusionError::from)?)
}
