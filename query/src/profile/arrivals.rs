//! What came to the tables since the computation before. Offsets enter; the moments of what lies behind them leave, and all that
//! a table has of these moments.
//!
//! Rows are read as they are stored, all versions of them: what a question makes of them is the question's.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::catalog::MemTable;
use datafusion::common::cast::{as_date32_array, as_timestamp_microsecond_array};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::utils::disjunction;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, col, lit};
use schemas::Contract;
use schemas::record::{BIZ_DATE, POSITION};

use super::compute::Computer;
use super::times::Times;
use crate::error::Error;
use crate::snapshot::Snapshot;
use crate::source::TableVersion;
use crate::table::rows::Rows;
use crate::table::view;
use crate::tail::Positions;

/// When a record was taken in.
const INGESTED: &str = "ingested_at";

const SECOND_US: i64 = 1_000_000;

/// What came, by table and offsets.
#[derive(Debug, Default)]
pub struct Arrivals(Vec<(Arc<Positions>, Arrived)>);

/// What came to one table.
#[derive(Debug)]
pub struct Arrived {
    contract: Arc<Contract>,
    /// Local day and second of each event, microseconds UTC; each once. None of a table whose key has no time.
    pub moments: HashSet<(i32, i64)>,
    /// When the last of them was taken in, microseconds UTC.
    pub heard: Option<i64>,
    /// The times that hold them all, and the snapshot in which the table has only what is of these times.
    rows: Option<(Times, Arc<Snapshot>)>,
}

impl Arrivals {
    /// What came to `table` behind the offsets `behind`.
    ///
    /// # Errors
    /// The rows could not be read.
    pub async fn of(
        &mut self,
        computer: &Computer,
        snapshot: &Arc<Snapshot>,
        table: &str,
        behind: &Arc<Positions>,
    ) -> Result<&mut Arrived, Error> {
        let is_it =
            |(offsets, arrived): &(Arc<Positions>, Arrived)| offsets == behind && arrived.contract.name() == table;
        let place = match self.0.iter().position(is_it) {
            Some(place) => place,
            None => {
                self.0.push((behind.clone(), Arrived::read(computer, snapshot, table, behind).await?));
                self.0.len() - 1
            }
        };
        Ok(&mut self.0[place].1)
    }
}

impl Arrived {
    async fn read(
        computer: &Computer,
        snapshot: &Arc<Snapshot>,
        table: &str,
        behind: &Positions,
    ) -> Result<Self, Error> {
        let contract = computer.contracts.get(table).expect("whoever asks has read its contract").clone();
        let [_, partition, offset] = POSITION;
        let is_behind = |(known, next): (&i32, &i64)| col(partition).eq(lit(*known)).and(col(offset).gt_eq(lit(*next)));
        let is_behind = disjunction(behind.iter().map(is_behind)).unwrap_or_else(|| lit(false));
        let has_times = view::is_day_of_key(&contract);
        let columns = if has_times { vec![INGESTED, BIZ_DATE, &contract.event_time] } else { vec![INGESTED] };
        let (mut moments, mut heard) = (HashSet::new(), None);
        let snapshot = &in_the_tail(snapshot, table, behind);
        for batch in stored(computer, snapshot, "what came", &contract, Some(&columns), is_behind).await? {
            heard = heard.max(as_timestamp_microsecond_array(batch.column(0))?.iter().flatten().max());
            if has_times {
                let (days, ats) = (as_date32_array(batch.column(1))?, as_timestamp_microsecond_array(batch.column(2))?);
                let moment =
                    |(day, at): (Option<i32>, Option<i64>)| Some((day?, at?.div_euclid(SECOND_US) * SECOND_US));
                moments.extend(days.iter().zip(ats).filter_map(moment));
            }
        }
        Ok(Self { contract, moments, heard, rows: None })
    }

    /// The times that hold all that came, and the snapshot in which the table has only what is of these times; none when they lie
    /// too far apart.
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
            let is_of = times.filter(&contract.event_time);
            let batches = stored(computer, snapshot, "what is of the same time", contract, None, is_of).await?;
            let rows = MemTable::try_new(contract.lake_schema(), vec![batches])?;
            let mut tables = snapshot.tables.clone();
            tables.insert(contract.name(), TableVersion::new(None, Arc::new(rows)));
            self.rows = Some((times, Arc::new(snapshot.with_tables(tables))));
        }
        Ok(self.rows.as_ref())
    }
}

/// The same snapshot, without what the lake has of a table if nothing of that lies behind `behind`: then it is not looked at.
fn in_the_tail(snapshot: &Arc<Snapshot>, table: &str, behind: &Positions) -> Arc<Snapshot> {
    let is_before = |version: &&TableVersion| {
        behind.iter().all(|(partition, next)| version.landed.get(partition).is_some_and(|landed| landed <= next))
    };
    let Some(version) = snapshot.tables.get(table).filter(is_before) else { return snapshot.clone() };
    let rows = Arc::new(EmptyTable::new(version.rows.schema()));
    let mut tables = snapshot.tables.clone();
    tables.insert(table.to_string(), TableVersion { rows, ..version.clone() });
    Arc::new(snapshot.with_tables(tables))
}

/// The rows of a table, as they are stored, that `filter` holds for.
async fn stored(
    computer: &Computer,
    snapshot: &Arc<Snapshot>,
    what: &str,
    contract: &Contract,
    columns: Option<&[&str]>,
    filter: Expr,
) -> Result<Vec<RecordBatch>, Error> {
    let rows = Rows::new(contract.name(), contract.lake_schema());
    let plan = LogicalPlanBuilder::scan(&contract.table, provider_as_source(Arc::new(rows)), None)?.filter(filter)?;
    let plan = match columns {
        Some(columns) => plan.project(columns.iter().map(|column| col(*column)))?,
        None => plan,
    };
    computer.run(snapshot, what, plan.build()?).await
}
