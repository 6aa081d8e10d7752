//! What each output column of a mapping is made of.
//!
//! A plan enters; for each of its columns the input columns that its value is computed from leave, through aliases and
//! subqueries. Where a step cannot be followed, a column counts as made of all that enters the step: never of too little.

use std::collections::BTreeSet;

use datafusion::common::DFSchema;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// The names of input columns.
type Origins = BTreeSet<String>;

/// The origins of each column of `plan`, in their order.
pub(super) fn of(plan: &LogicalPlan) -> Vec<Origins> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            scan.projected_schema.fields().iter().map(|field| Origins::from([field.name().clone()])).collect()
        }
        LogicalPlan::Projection(step) => {
            let below = of(&step.input);
            step.expr.iter().map(|made| of_expression(made, step.input.schema(), &below)).collect()
        }
        LogicalPlan::SubqueryAlias(step) => of(&step.input),
        LogicalPlan::Filter(step) => of(&step.input),
        other => {
            let all: Origins = other.inputs().into_iter().flat_map(of).flatten().collect();
            vec![all; other.schema().fields().len()]
        }
    }
}

fn of_expression(made: &Expr, input: &DFSchema, below: &[Origins]) -> Origins {
    let is_query = |part: &Expr| Ok(matches!(part, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_)));
    if made.exists(is_query).unwrap_or(true) {
        return below.iter().flatten().cloned().collect();
    }
    let places = made.column_refs().into_iter().filter_map(|column| input.maybe_index_of_column(column));
    places.filter_map(|at| below.get(at)).flatten().cloned().collect()
}
