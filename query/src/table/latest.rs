//! The latest version of each key: the step between what was received and what is true now. A plan of versions enters, a
//! plan of one row a key leaves, deleted keys left out.
//!
//! `Latest` is a node of its own, so that a predicate on key columns goes below it and everything else stays above. It runs
//! as a hash table over the keys. Versions that are too many for memory are taken some days after others, where a key has its
//! day; otherwise it becomes a window over sorted rows, which goes to disk. All give the same.

mod exec;
#[cfg(test)]
mod tests;
mod turns;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::Schema;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef, plan_err};
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, Extension, LogicalPlan, LogicalPlanBuilder, Operator, UserDefinedLogicalNode,
    UserDefinedLogicalNodeCore, col, ident, lit,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion::scalar::ScalarValue;
use schemas::record::BIZ_DATE;

pub use self::exec::LatestExec;
use self::turns::TurnsExec;

/// The part of all memory that the versions of one table may take: others are read beside it, and joined with it.
const MEMORY_SHARE: usize = 4;

/// Bytes of a text or a list, about.
const TEXT_BYTES: usize = 32;

/// Bytes of a place in the hash table, of the ends of an encoded key and order, and of what is reserved beyond need.
const ENTRY_BYTES: usize = 64;

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
    /// Of some days of a table alone.
    is_part: bool,
}

impl PartialOrd for Latest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.order.partial_cmp(&other.order)
    }
}

impl Latest {
    /// The latest versions of `input`, which has all columns of `order` and `op`.
    pub fn plan(input: LogicalPlan, order: Order) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(Self { input, order, is_part: false }) })
    }

    fn needed(&self) -> impl Iterator<Item = &str> {
        self.order.key.iter().chain(&self.order.by).map(String::as_str).chain([OP])
    }

    /// The same, some of `days` after others, in `count` parts at most.
    fn in_parts(&self, (first, last): (i32, i32), count: usize) -> Result<Vec<LogicalPlan>> {
        let days = usize::try_from(i64::from(last) - i64::from(first) + 1).unwrap_or(1);
        let length = days.div_ceil(count.clamp(1, days));
        let cuts: Vec<i32> = (first..=last).step_by(length).skip(1).collect();
        let day = |day: i32| lit(ScalarValue::Date32(Some(day)));
        let of = |place: usize, column: Expr| {
            let from = place.checked_sub(1).map(|place| column.clone().gt_eq(day(cuts[place])));
            let to = cuts.get(place).map(|cut| column.clone().lt(day(*cut)));
            // Rows that nothing is known of may lie before and behind, or have no day.
            match (from, to) {
                (None, Some(to)) => Some(to.or(column.is_null())),
                (from, to) => from.into_iter().chain(to).reduce(Expr::and),
            }
        };
        let part = |place: usize| {
            let input = self.input.clone().transform_down(|plan| {
                let LogicalPlan::TableScan(mut scan) = plan else { return Ok(Transformed::no(plan)) };
                let column = Expr::Column(Column::new(Some(scan.table_name.clone()), BIZ_DATE));
                let Some(days) = of(place, column) else { return Ok(Transformed::no(LogicalPlan::TableScan(scan))) };
                scan.filters.push(days.clone());
                let rows = LogicalPlanBuilder::from(LogicalPlan::TableScan(scan)).filter(days)?.build()?;
                Ok(Transformed::new(rows, true, TreeNodeRecursion::Jump))
            })?;
            let latest = Self { input: input.data, order: self.order.clone(), is_part: true };
            Ok(LogicalPlan::Extension(Extension { node: Arc::new(latest) }))
        };
        (0..=cuts.len()).map(part).collect()
    }

    /// Whether single keys are looked for: that leaves few rows, which one sort takes sooner than many scans.
    fn is_look_up(&self) -> Result<bool> {
        let is_one = |expr: &Expr| match expr {
            Expr::BinaryExpr(compared) => compared.op == Operator::Eq,
            Expr::InList(list) => !list.negated,
            _ => false,
        };
        let is_of_key = |expr: &Expr| expr.column_refs().iter().any(|column| column.name != BIZ_DATE);
        self.input.exists(|plan| {
            Ok(match plan {
                LogicalPlan::Filter(filter) => {
                    split_conjunction(&filter.predicate).into_iter().any(|expr| is_one(expr) && is_of_key(expr))
                }
                LogicalPlan::TableScan(scan) => scan.filters.iter().any(|expr| is_one(expr) && is_of_key(expr)),
                _ => false,
            })
        })
    }

    /// Bytes that a version takes while the latest is looked for: itself, its key and order encoded, and its place.
    fn row_bytes(&self, schema: &Schema) -> usize {
        let width = |column: &str| {
            let field = schema.field_with_name(column).ok();
            field.and_then(|field| field.data_type().primitive_width()).unwrap_or(TEXT_BYTES)
        };
        let columns = schema.fields().iter().map(|field| field.name());
        let encoded = self.order.key.iter().chain(&self.order.by);
        columns.chain(encoded).map(|column| width(column)).sum::<usize>() + ENTRY_BYTES
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
            (Some(input), true) => Ok(Self { input, ..self.clone() }),
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
pub struct Planner {
    /// What all questions together may use.
    pub memory_bytes: usize,
}

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let latest = LatestPlanner { memory_bytes: self.memory_bytes };
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(latest)]);
        planner.create_physical_plan(plan, session).await
    }
}

struct LatestPlanner {
    memory_bytes: usize,
}

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
        let known = Known::of(input.as_ref())?;
        // Rows of the tail are counted with each part: it may have twice as many.
        let share = if latest.is_part { MEMORY_SHARE / 2 } else { MEMORY_SHARE };
        let rows_max = self.memory_bytes / share / latest.row_bytes(&input.schema());
        if known.rows.is_none_or(|rows| rows > rows_max) {
            let has_day = latest.order.key.iter().any(|column| column == BIZ_DATE);
            let is_whole = !latest.is_part && has_day && !latest.is_look_up()?;
            if let (true, Some(rows), Some(days)) = (is_whole, known.rows, known.days) {
                let parts = latest.in_parts(days, 2 * rows.div_ceil(rows_max.max(1)))?;
                let mut inputs = Vec::with_capacity(parts.len());
                for part in &parts {
                    inputs.push(planner.create_physical_plan(part, session).await?);
                }
                return Ok(Some(Arc::new(TurnsExec::new(inputs))));
            }
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

/// What is known of the rows below a plan before it runs.
#[derive(Debug, Default)]
struct Known {
    /// How many at most. A table that does not say how many rows it has may have any number.
    rows: Option<usize>,
    /// The first and the last day of those that say.
    days: Option<(i32, i32)>,
}

impl Known {
    /// Of what is read: what a filter leaves of it nobody knows.
    fn of(plan: &dyn ExecutionPlan) -> Result<Self> {
        let statistics = StatisticsContext::new().compute(plan, &StatisticsArgs::new())?;
        let days = plan.schema().index_of(BIZ_DATE).ok().and_then(|place| {
            let day = &statistics.column_statistics[place];
            match (day.min_value.get_value()?, day.max_value.get_value()?) {
                (ScalarValue::Date32(first), ScalarValue::Date32(last)) => first.zip(*last),
                _ => None,
            }
        });
        let children = plan.children();
        if children.is_empty() {
            return Ok(Self { rows: statistics.num_rows.get_value().copied(), days });
        }
        let mut all = Self { rows: Some(0), days };
        for child in children {
            let below = Self::of(child.as_ref())?;
            all.rows = all.rows.zip(below.rows).map(|(rows, more)| rows + more);
            all.days = all.days.or(below.days);
        }
        Ok(all)
    }
}

/// How versions are compared while running: descending, nulls last.
fn sort_options() -> datafusion::arrow::compute::SortOptions {
    datafusion::arrow::compute::SortOptions { descending: true, nulls_first: false }
}
