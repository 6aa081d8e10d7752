//! The latest version of each key: the step between what was received and what is true now. A plan of versions enters, a
//! plan of one row a key leaves, deleted keys left out.
//!
//! `Latest` is a node of its own, so that a predicate on key columns goes below it and everything else stays above. It runs
//! as a hash table over the keys; where the versions are too many for memory it becomes a window over sorted rows, which
//! goes to disk. Both give the same.

mod exec;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchemaRef, plan_err};
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNode,
    UserDefinedLogicalNodeCore, col, ident, lit,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

pub use self::exec::LatestExec;

/// Versions that are held in memory at once; beyond, they are sorted with the help of the disk.
const ROWS_IN_MEMORY_MAX: usize = 20_000_000;

/// What counts as the latest version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
pub struct Order {
    /// Columns that make one thing one thing.
    pub key: Vec<String>,
    /// The greatest wins, column by column; null loses.
    pub by: Vec<String>,
}

/// The column that says whether a version is a delete, and what it says then.
const OP: &str = "op";
const DELETE: &str = "D";

/// The logical node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Latest {
    input: LogicalPlan,
    order: Order,
}

impl PartialOrd for Latest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.order.partial_cmp(&other.order)
    }
}

impl Latest {
    /// The latest versions of `input`, which has all columns of `order` and `op`.
    pub fn plan(input: LogicalPlan, order: Order) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(Self { input, order }) })
    }

    fn needed(&self) -> impl Iterator<Item = &str> {
        self.order.key.iter().chain(&self.order.by).map(String::as_str).chain([OP])
    }

    /// The same as a window: number the versions of a key, latest first, and keep the first.
    fn as_window(&self) -> Result<LogicalPlan> {
        const RANK: &str = "version_rank";
        let key = self.order.key.iter().map(ident).collect();
        let by = self.order.by.iter().map(|column| ident(column).sort(false, false)).collect();
        let columns: Vec<Expr> = self.input.schema().columns().into_iter().map(Expr::Column).collect();
        let rank = row_number().partition_by(key).order_by(by).build()?.alias(RANK);
        LogicalPlanBuilder::from(self.input.clone())
            .window(vec![rank])?
            .filter(col(RANK).eq(lit(1_u64)).and(ident(OP).not_eq(lit(DELETE))))?
            .project(columns)?
            .build()
    }
}

impl UserDefinedLogicalNodeCore for Latest {
    fn name(&self) -> &str {
        "Latest"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    /// Only what is the same in all versions of a key may be decided before the latest is known.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let columns = self.input.schema().fields().iter().map(|field| field.name().clone());
        columns.filter(|column| !self.order.key.contains(column)).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Latest: key=[{}], by=[{}]", self.order.key.join(", "), self.order.by.join(", "))
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        match (inputs.pop(), inputs.is_empty()) {
            (Some(input), true) => Ok(Self { input, order: self.order.clone() }),
            _ => plan_err!("Latest has one input"),
        }
    }

    fn necessary_children_exprs(&self, output: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let mut columns: Vec<usize> = output.to_vec();
        for name in self.needed() {
            columns.push(schema.index_of_column_by_name(None, name)?);
        }
        columns.sort_unstable();
        columns.dedup();
        Some(vec![columns])
    }
}

/// DataFusion's planner, which also knows [`Latest`].
#[derive(Debug)]
pub struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(LatestPlanner)]);
        planner.create_physical_plan(plan, session).await
    }
}

struct LatestPlanner;

#[async_trait]
impl ExtensionPlanner for LatestPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        _planning: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let (Some(latest), [input]) = (node.as_any().downcast_ref::<Latest>(), physical_inputs) else {
            return Ok(None);
        };
        if !fits_in_memory(input.as_ref())? {
            let window = latest.as_window()?;
            return Ok(Some(planner.create_physical_plan(&window, session).await?));
        }
        let schema = input.schema();
        let index = |column: &String| schema.index_of(column);
        let key = latest.order.key.iter().map(index).collect::<std::result::Result<_, _>>()?;
        let by = latest.order.by.iter().map(index).collect::<std::result::Result<_, _>>()?;
        let op = schema.index_of(OP)?;
        Ok(Some(Arc::new(LatestExec::new(input.clone(), key, by, op))))
    }
}

/// A table that does not say how many rows it has may have any number.
fn fits_in_memory(input: &dyn ExecutionPlan) -> Result<bool> {
    let statistics = StatisticsContext::new().compute(input, &StatisticsArgs::new())?;
    Ok(match statistics.num_rows {
        Precision::Exact(rows) | Precision::Inexact(rows) => rows <= ROWS_IN_MEMORY_MAX,
        Precision::Absent => false,
    })
}

/// How versions are compared while running: descending, nulls last.
fn sort_options() -> datafusion::arrow::compute::SortOptions {
    datafusion::arrow::compute::SortOptions { descending: true, nulls_first: false }
}
