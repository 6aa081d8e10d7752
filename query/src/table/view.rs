//! The SQL behind every table. A contract enters; the plans of `<table>` and `<table>_history` leave.
//!
//! The truth now is the latest version of each key, unless that is a delete. A predicate on key columns goes below that
//! step, so that it reaches the files; one on the day does as well where the key fixes the day.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use schemas::record::{BIZ_DATE, ENVELOPE, POSITION};
use schemas::{Contract, FieldType};

use super::latest::{Latest, Order};
use super::rows::Rows;
use crate::identity::columns::PersonBy;

/// A table that is a question itself.
#[derive(Debug)]
pub struct View {
    plan: LogicalPlan,
    schema: SchemaRef,
}

impl View {
    /// The view of `sql` over the tables of `ctx`.
    ///
    /// # Errors
    /// The SQL does not fit the tables.
    pub async fn new(ctx: &SessionContext, sql: &str) -> Result<Self> {
        Ok(Self::of(ctx.state().create_logical_plan(sql).await?))
    }

    fn of(plan: LogicalPlan) -> Self {
        Self { schema: Arc::new(plan.schema().as_arrow().clone()), plan }
    }
}

#[async_trait]
impl TableProvider for View {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        // Whoever asks need not know that it is a view.
        TableType::Base
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // Plans hold the view's plan in its place; only a reader of the catalog comes here.
        let mut builder = LogicalPlanBuilder::from(self.plan.clone());
        if let Some(columns) = projection {
            builder = builder.select(columns.iter().copied())?;
        }
        let plan = builder.limit(0, limit)?.build()?;
        session.create_physical_plan(&plan).await
    }
}

/// The two tables of a contract: the truth now, and the history. `ctx` has the functions and no tables.
///
/// # Errors
/// The contract's SQL is not valid: a mistake of ours.
pub async fn tables(ctx: &SessionContext, contract: &Contract) -> Result<[View; 2]> {
    let (base, latest) = (format!("{}_rows", contract.table), format!("{}_latest", contract.table));
    let rows = provider_as_source(Arc::new(Rows::new(contract.name(), contract.lake_schema())));
    let rows = LogicalPlanBuilder::scan(base.as_str(), rows, None)?.build()?;
    let columns = columns(contract).join(", ");
    let current = View::of(Latest::plan(rows.clone(), order(contract)));
    ctx.register_table(base.as_str(), Arc::new(View::of(rows)))?;
    ctx.register_table(latest.as_str(), Arc::new(current))?;
    let current = View::new(ctx, &format!("SELECT {columns} FROM {latest}")).await?;
    let history = View::new(ctx, &format!("SELECT {columns} FROM {base}")).await?;
    ctx.deregister_table(base.as_str())?;
    ctx.deregister_table(latest.as_str())?;
    Ok([current, history])
}

/// What makes rows of a contract versions of one thing, and which of them is the latest.
fn order(contract: &Contract) -> Order {
    let mut key = contract.key.clone();
    if is_day_of_key(contract) && !key.iter().any(|column| column == BIZ_DATE) {
        key.push(BIZ_DATE.to_string());
    }
    let mut by = contract.ordering.clone();
    by.push("kafka_offset".to_string());
    Order { key, by }
}

/// Whether all versions of a key lie in one partition of the lake: then the day is as good as a key column.
pub fn is_day_of_key(contract: &Contract) -> bool {
    contract.is_partitioned() && contract.key.contains(&contract.event_time)
}

/// The columns of both tables: the contract's fields, what is derived, the envelope, the position.
fn columns(contract: &Contract) -> Vec<String> {
    let mut columns: Vec<String> = contract.fields.iter().map(|field| field.name.clone()).collect();
    let has = |name: &str| contract.field(name).is_some();
    let at = event_time(contract);
    if !has("event_time") {
        columns.push(format!("{at} AS event_time"));
    }
    columns.push(format!("local_time({at}) AS local_ts"));
    if contract.is_partitioned() {
        columns.push(BIZ_DATE.to_string());
    } else if !has(BIZ_DATE) {
        columns.push(format!("CAST(local_time({at}) AS DATE) AS {BIZ_DATE}"));
    }
    let [person, link] = PersonBy::of(contract).sql(&at);
    columns.push(format!("{person} AS person_id"));
    columns.push(format!("{link} AS link_status"));
    columns.extend(ENVELOPE.iter().chain(&POSITION).map(ToString::to_string));
    columns
}

/// The moment a row is about, as a timestamp: a date is its local midnight.
fn event_time(contract: &Contract) -> String {
    match contract.field(&contract.event_time).map(|field| field.field_type) {
        Some(FieldType::Date) => format!("local_midnight({})", contract.event_time),
        _ => contract.event_time.clone(),
    }
}
