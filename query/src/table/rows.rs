//! A table's rows, bound late: a scan enters, the plan of the pinned version leaves.
//!
//! The schema is the contract's, always; a version that lacks a column or stores it in another type is brought to it. Of a
//! version that is seen as of a past moment, what was received later is left out here, of lake and tail alike.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown, col, lit};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, Literal};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::scalar::ScalarValue;

use super::held::HeldExec;
use crate::snapshot::Pinned;
use crate::source::TableVersion;

/// When a row was received.
const RECEIVED: &str = "ingested_at";

/// The rows of one table in whichever snapshot a question has pinned.
#[derive(Debug)]
pub struct Rows {
    /// `<domain>.<table>`.
    name: String,
    schema: SchemaRef,
}

impl Rows {
    pub fn new(name: String, schema: SchemaRef) -> Self {
        Self { name, schema }
    }
}

#[async_trait]
impl TableProvider for Rows {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        let snapshot = Pinned::of(session.config_options())?;
        match snapshot.tables.get(&self.name) {
            None => Ok(Arc::new(EmptyExec::new(wanted))),
            Some(table) if table.is_held() => {
                let rows = table.tail.iter().map(RecordBatch::num_rows).sum();
                Ok(Arc::new(HeldExec::new(self.name.clone(), wanted, rows)))
            }
            Some(table) => match table.received_by {
                None => self.read(table, session, &wanted, filters, limit).await,
                Some(at) => self.read_by(at, table, session, &wanted, filters).await,
            },
        }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // Files and pages are skipped by a filter, single rows are not: the filter stays above as well.
        Ok(filters.iter().map(|_| TableProviderFilterPushDown::Inexact).collect())
    }
}

impl Rows {
    /// The columns `wanted` of lake and tail.
    async fn read(
        &self,
        table: &TableVersion,
        session: &dyn Session,
        wanted: &SchemaRef,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let stored = table.rows.schema();
        let columns: Vec<usize> =
            wanted.fields().iter().filter_map(|field| stored.index_of(field.name()).ok()).collect();
        // A filter on a column this version stores otherwise is left to the question's own filter above.
        let filters: Vec<Expr> = filters.iter().filter(|filter| self.is_stored(filter, &stored)).cloned().collect();
        let limit = limit.filter(|_| filters.is_empty());
        let lake = conform(table.rows.scan(session, Some(&columns), &filters, limit).await?, wanted)?;
        let Some(rows) = table.tail.first() else { return Ok(lake) };
        let stored = rows.schema();
        let columns = wanted.fields().iter().filter_map(|field| stored.index_of(field.name()).ok()).collect();
        let tail = MemorySourceConfig::try_new_exec(&[table.tail.to_vec()], stored, Some(columns))?;
        UnionExec::try_new(vec![lake, conform(tail, wanted)?])
    }

    /// The same, of what had been received by `at`: files that are later as a whole are skipped, then single rows.
    async fn read_by(
        &self,
        at: i64,
        table: &TableVersion,
        session: &dyn Session,
        wanted: &SchemaRef,
        filters: &[Expr],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let at = ScalarValue::TimestampMicrosecond(Some(at), Some("UTC".into()));
        let filters = [filters, &[col(RECEIVED).lt_eq(lit(at.clone()))]].concat();
        let mut columns = wanted.fields().to_vec();
        if wanted.index_of(RECEIVED).is_err() {
            columns.push(Arc::new(self.schema.field_with_name(RECEIVED)?.clone()));
        }
        let rows = self.read(table, session, &Arc::new(Schema::new(columns)), &filters, None).await?;
        let received = Arc::new(Column::new_with_schema(RECEIVED, &rows.schema())?);
        let is_there = BinaryExpr::new(received, Operator::LtEq, Arc::new(Literal::new(at)));
        // Where nothing is known of the times, all rows may be from before.
        let rows = FilterExec::try_new(Arc::new(is_there), rows)?.with_default_selectivity(100)?;
        conform(Arc::new(rows), wanted)
    }

    fn is_stored(&self, filter: &Expr, stored: &Schema) -> bool {
        filter.column_refs().iter().all(|column| {
            let own = self.schema.field_with_name(&column.name).map(|field| field.data_type());
            let theirs = stored.field_with_name(&column.name).map(|field| field.data_type());
            matches!((own, theirs), (Ok(own), Ok(theirs)) if own == theirs)
        })
    }
}

/// Brings a scan to the schema asked for: casts, and nulls for what is not there.
fn conform(plan: Arc<dyn ExecutionPlan>, wanted: &SchemaRef) -> Result<Arc<dyn ExecutionPlan>> {
    let found = plan.schema();
    let same = |(left, right): (&Arc<Field>, &Arc<Field>)| {
        left.name() == right.name() && left.data_type() == right.data_type()
    };
    if found.fields().len() == wanted.fields().len() && found.fields().iter().zip(wanted.fields()).all(same) {
        return Ok(plan);
    }
    let mut columns: Vec<(Arc<dyn PhysicalExpr>, String)> = Vec::with_capacity(wanted.fields().len());
    for field in wanted.fields() {
        let expr: Arc<dyn PhysicalExpr> = match found.index_of(field.name()) {
            Err(_) => Arc::new(Literal::new(ScalarValue::try_from(field.data_type())?)),
            Ok(index) => {
                let column = Arc::new(Column::new(field.name(), index));
                match found.field(index).data_type() == field.data_type() {
                    true => column,
                    false => Arc::new(CastExpr::new(column, field.data_type().clone(), None)),
                }
            }
        };
        columns.push((expr, field.name().clone()));
    }
    Ok(Arc::new(ProjectionExec::try_new(columns, plan)?))
}
