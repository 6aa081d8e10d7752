//! What came to the tables since the computation before. Offsets enter; the moments of what lies behind them leave, and all that
//! a table has of these moments. Events that are somebody else's by a new index of the identity have come as well: to them.
//!
//! Rows are read as they are stored, all versions of them: what a question makes of them is the question's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, Date32Array, PrimitiveArray, RecordBatch,
    TimestampMicrosecondArray,
};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::common::cast::{as_date32_array, as_timestamp_microsecond_array};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::utils::disjunction;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, col, ident, lit};
use schemas::Contract;
use schemas::record::{BIZ_DATE, POSITION};

use super::compute::Computer;
use super::times::{MOMENT_US, Times};
use crate::error::Error;
use crate::identity::Relinking;
use crate::identity::columns::PersonBy;
use crate::snapshot::Snapshot;
use crate::source::TableVersion;
use crate::table::rows::Rows;
use crate::table::view;
use crate::tail::{Positions, places};

/// When a record was taken in.
const INGESTED: &str = "ingested_at";

/// Since when something has come.
#[derive(Debug, Clone)]
pub enum Since {
    /// Behind these offsets.
    Offsets(Arc<Positions>),
    /// With a new index.
    Index(Arc<Relinking>),
}

impl PartialEq for Since {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Offsets(one), Self::Offsets(other)) => one == other,
            (Self::Index(one), Self::Index(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// What came, by table.
#[derive(Debug, Default)]
pub struct Arrivals(Vec<(Since, Arrived)>);

/// What came to one table.
#[derive(Debug)]
pub struct Arrived {
    contract: Arc<Contract>,
    /// Local day and moment of each event, microseconds UTC; each once. None of a table whose key has no time.
    pub moments: HashSet<(i32, i64)>,
    /// When the last record that came was taken in, microseconds UTC.
    pub heard: Option<i64>,
    /// The times that hold them all, and the snapshot in which the table has only what is of these times.
    rows: Option<(Times, Arc<Snapshot>)>,
}

impl Arrivals {
    /// What came to `table`.
    ///
    /// # Errors
    /// The rows could not be read.
    pub async fn of(
        &mut self,
        computer: &Computer,
        snapshot: &Arc<Snapshot>,
        table: &str,
        since: &Since,
    ) -> Result<&mut Arrived, Error> {
        let is_it = |(known, arrived): &(Since, Arrived)| known == since && arrived.contract.name() == table;
        let place = match self.0.iter().position(is_it) {
            Some(place) => place,
            None => {
                let contract = computer.contracts.get(table).expect("whoever asks has read its contract").clone();
                let mut arrived = Arrived { contract, moments: HashSet::new(), heard: None, rows: None };
                match since {
                    Since::Offsets(behind) => arrived.read(computer, snapshot, behind).await?,
                    Since::Index(relinking) => arrived.relinked(computer, snapshot, relinking).await?,
                }
                self.0.push((since.clone(), arrived));
                self.0.len() - 1
            }
        };
        Ok(&mut self.0[place].1)
    }
}

impl Arrived {
    /// What lies behind `behind`.
    async fn read(&mut self, computer: &Computer, snapshot: &Arc<Snapshot>, behind: &Positions) -> Result<(), Error> {
        let contract = &*self.contract;
        let [_, partition, offset] = POSITION;
        let version = snapshot.tables.get(&contract.name());
        let batches = match version.and_then(|version| in_memory(version, behind)) {
            Some(batches) => batches,
            None => {
                let is_behind =
                    |(known, next): (&i32, &i64)| col(partition).eq(lit(*known)).and(col(offset).gt_eq(lit(*next)));
                let is_behind = disjunction(behind.iter().map(is_behind)).unwrap_or_else(|| lit(false));
                stored(computer, snapshot, "what came", contract, is_behind, &[]).await?
            }
        };
        let has_times = view::is_day_of_key(contract);
        for batch in &batches {
            let ingested = as_timestamp_microsecond_array(column(batch, INGESTED)?)?;
            let times = if has_times { Some(times_of(batch, contract)?) } else { None };
            let is_behind =
                |(partition, offset): (i32, i64)| behind.get(&partition).is_some_and(|next| offset >= *next);
            for (row, _) in places(batch).enumerate().filter(|(_, place)| is_behind(*place)) {
                self.heard = self.heard.max(value(ingested, row));
                self.moments.extend(times.and_then(|times| moment(times, row)));
            }
        }
        Ok(())
    }

    /// The events that are somebody else's.
    async fn relinked(
        &mut self,
        computer: &Computer,
        snapshot: &Arc<Snapshot>,
        relinking: &Arc<Relinking>,
    ) -> Result<(), Error> {
        let contract = &*self.contract;
        let Some(is_other) = relinking.is_other(PersonBy::of(contract), &contract.event_time) else { return Ok(()) };
        let columns = [BIZ_DATE, &contract.event_time];
        for batch in stored(computer, snapshot, "what is somebody else's", contract, is_other, &columns).await? {
            let times = times_of(&batch, contract)?;
            self.moments.extend((0..batch.num_rows()).filter_map(|row| moment(times, row)));
        }
        Ok(())
    }

    /// The times that hold all that came, and the snapshot in which the table has only what is of these times; none when they are
    /// too many.
    ///
    /// # Errors
    /// The rows could not be read.
    pub async fn rows(
        &mut self,
        computer: &Computer,
        snapshot: &Arc<Snapshot>,
    ) -> Result<Option<&(Times, Arc<Snapshot>)>, Error> {
        if self.rows.is_none()
            && let Some(times) = Times::of(self.moments.iter().copied())
        {
            let contract = &self.contract;
            let (name, event_time) = (contract.name(), contract.event_time.as_str());
            let version = snapshot.tables.get(&name).expect("something came to it");
            let recent = version.recent.as_ref().filter(|recent| !times.may_be_in(recent.spans.as_deref()));
            let mut rows = Vec::new();
            if recent.is_none() && times.may_be_in(version.spans.as_deref()) {
                let lake = TableVersion { tail: Arc::default(), ..version.clone() };
                let lake = Arc::new(snapshot.with_tables(HashMap::from([(name.clone(), lake)])));
                let filter = times.filter(event_time);
                rows = stored(computer, &lake, "what is of the same time", contract, filter, &[]).await?;
            }
            for batch in recent.iter().flat_map(|recent| &*recent.rows).chain(&*version.tail) {
                let (days, ats) = times_of(batch, contract)?;
                let is_of = |(day, at): (Option<i32>, Option<i64>)| Some(times.has(day?, at?));
                let is_of: BooleanArray = days.iter().zip(ats).map(is_of).collect();
                if is_of.has_true() {
                    rows.push(filter_record_batch(batch, &is_of).map_err(DataFusionError::from)?);
                }
            }
            let tables = HashMap::from([(name, TableVersion::held(Arc::new(rows)))]);
            self.rows = Some((times, Arc::new(snapshot.with_tables(tables))));
        }
        Ok(self.rows.as_ref())
    }
}

/// All that came to a table behind `behind`, and more, where the lake is not needed for that.
fn in_memory(version: &TableVersion, behind: &Positions) -> Option<Vec<RecordBatch>> {
    let is_from =
        |from: &Positions| behind.iter().all(|(partition, next)| from.get(partition).is_some_and(|from| from <= next));
    if is_from(&version.landed) {
        return Some(version.tail.to_vec());
    }
    let recent = version.recent.as_ref().filter(|recent| is_from(&recent.from))?;
    Some(recent.rows.iter().chain(&*version.tail).cloned().collect())
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, DataFusionError> {
    batch.column_by_name(name).ok_or_else(|| DataFusionError::Internal(format!("a row without {name}")))
}

/// The local day and the time of each event.
type TimesOf<'a> = (&'a Date32Array, &'a TimestampMicrosecondArray);

fn times_of<'a>(batch: &'a RecordBatch, contract: &Contract) -> Result<TimesOf<'a>, Error> {
    let days = as_date32_array(column(batch, BIZ_DATE)?)?;
    Ok((days, as_timestamp_microsecond_array(column(batch, &contract.event_time)?)?))
}

fn moment((days, ats): TimesOf<'_>, row: usize) -> Option<(i32, i64)> {
    Some((value(days, row)?, value(ats, row)?.div_euclid(MOMENT_US) * MOMENT_US))
}

fn value<T: ArrowPrimitiveType>(column: &PrimitiveArray<T>, row: usize) -> Option<T::Native> {
    column.is_valid(row).then(|| column.value(row))
}

/// The rows of a table, as they are stored, that `filter` holds for: the columns `columns` of them, or all.
async fn stored(
    computer: &Computer,
    snapshot: &Arc<Snapshot>,
    what: &str,
    contract: &Contract,
    filter: Expr,
    columns: &[&str],
) -> Result<Vec<RecordBatch>, Error> {
    let rows = Rows::new(contract.name(), contract.lake_schema());
    let rows = LogicalPlanBuilder::scan(&contract.table, provider_as_source(Arc::new(rows)), None)?.filter(filter)?;
    let plan = if columns.is_empty() { rows } else { rows.project(columns.iter().copied().map(ident))? };
    computer.asker.run(snapshot, what, &plan.build()?).await
}
