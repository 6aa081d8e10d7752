//! A question's plan, as far ahead as it can be made. A logical plan enters; with parameters bound, a physical one leaves.
//!
//! A plan that depends on nothing but tables and parameters is optimised once, when it is prepared. One that asks for the
//! time or for the snapshot is optimised at each run: optimising puts their values in.

use std::sync::Arc;

use datafusion::common::ParamValues;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;

/// A logical plan, optimised or not.
#[derive(Debug, Clone)]
pub struct Plan {
    logical: LogicalPlan,
    is_optimised: bool,
}

impl Plan {
    /// Optimises `logical` now, if that can be done ahead.
    pub fn new(state: &SessionState, logical: LogicalPlan) -> Self {
        // What cannot be optimised without its parameters may be with them.
        match is_timeless(&logical).then(|| state.optimize(&logical)) {
            Some(Ok(optimised)) => Self { logical: optimised, is_optimised: true },
            _ => Self { logical, is_optimised: false },
        }
    }

    /// Puts values in the place of `$1`, `$2`, ….
    ///
    /// # Errors
    /// A value does not fit.
    pub fn bind(&self, values: Vec<ScalarValue>) -> Result<Self> {
        if values.is_empty() {
            return Ok(self.clone());
        }
        let logical = self.logical.clone().replace_params_with_values(&ParamValues::from(values))?;
        Ok(Self { logical, is_optimised: self.is_optimised })
    }

    /// The plan to run, bound to the session's snapshot.
    ///
    /// # Errors
    /// What planning finds.
    pub async fn physical(&self, state: &SessionState) -> Result<Arc<dyn ExecutionPlan>> {
        if self.is_optimised {
            return state.query_planner().create_physical_plan(&self.logical, state).await;
        }
        let mut state = state.clone();
        state.mark_start_execution();
        state.create_physical_plan(&self.logical).await
    }
}

/// Whether the plan means the same whenever it is optimised.
fn is_timeless(plan: &LogicalPlan) -> bool {
    if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_)) {
        return false;
    }
    let mut timeless = true;
    let walked = plan.apply_with_subqueries(|node| {
        for expr in node.expressions() {
            expr.apply(|expr| {
                timeless &= is_constant_meaning(expr);
                Ok(if timeless { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
            })?;
        }
        Ok(if timeless { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    timeless && walked.is_ok()
}

/// A function of columns is computed row by row while running, whatever its volatility; one of constants only may be
/// computed while optimising, and must then always give the same.
fn is_constant_meaning(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(call) => {
            call.func.signature().volatility == Volatility::Immutable
                || call.func.signature().volatility == Volatility::Stable && !expr.column_refs().is_empty()
        }
        Expr::ScalarVariable(..) => false,
        _ => true,
    }
}
