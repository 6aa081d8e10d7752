//! Questions of a computation. A snapshot and SQL or a plan enter, rows leave. What has been planned is kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::RecordBatch;
use datafusion::execution::config::SessionConfig;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;
use tokio::sync::Mutex;

use crate::engine::plan::Plan;
use crate::error::Error;
use crate::identity::Index;
use crate::snapshot::{Pinned, Snapshot};
use crate::source::TableVersion;

/// Asks by plans that it keeps, by what is asked.
pub struct Asker {
    ctx: SessionContext,
    plans: Mutex<HashMap<String, Logical>>,
    of_little: Mutex<Physical>,
}

/// Serves the same text on any snapshot.
struct Logical {
    sql: String,
    plan: Plan,
}

/// Serve the same text on any snapshot that holds in memory all that is asked for.
#[derive(Default)]
struct Physical {
    /// What the functions of the identity in the plans are bound to.
    identity: Arc<Index>,
    /// Never run themselves: a plan that has been run is spent.
    plans: HashMap<String, (String, Arc<dyn ExecutionPlan>)>,
}

impl Asker {
    pub fn new(ctx: SessionContext) -> Self {
        Self { ctx, plans: Mutex::default(), of_little: Mutex::default() }
    }

    /// What `sql` gives of `snapshot`; `what` names the question, in the log too.
    ///
    /// # Errors
    /// What DataFusion finds.
    pub async fn ask(&self, snapshot: &Arc<Snapshot>, what: &str, sql: String) -> Result<Vec<RecordBatch>, Error> {
        let (began, state) = (Instant::now(), self.state(snapshot));
        let plan = self.logical(&state, what, sql).await?.physical(&state).await?;
        collected(began, what, plan, state.task_ctx()).await
    }

    /// The same of few rows, where planning would cost more than the answer: if `snapshot` holds them all in memory, the plan is
    /// kept as it runs.
    ///
    /// # Errors
    /// What DataFusion finds.
    pub async fn ask_little(
        &self,
        snapshot: &Arc<Snapshot>,
        what: &str,
        sql: String,
    ) -> Result<Vec<RecordBatch>, Error> {
        if !snapshot.tables.values().all(TableVersion::is_held) {
            return self.ask(snapshot, what, sql).await;
        }
        let began = Instant::now();
        let plan = self.physical(snapshot, what, sql).await?;
        let config = config_of_little(self.ctx.copied_config(), snapshot);
        // The plan has its functions already.
        let (scalar, higher, aggregate, window) = (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
        let (id, runtime) = (self.ctx.session_id(), self.ctx.runtime_env());
        let task = TaskContext::new(None, id, config, scalar, higher, aggregate, window, runtime);
        collected(began, what, plan, Arc::new(task)).await
    }

    /// What `plan` gives of `snapshot`.
    ///
    /// # Errors
    /// What DataFusion finds.
    pub async fn run(
        &self,
        snapshot: &Arc<Snapshot>,
        what: &str,
        plan: &LogicalPlan,
    ) -> Result<Vec<RecordBatch>, Error> {
        let (began, state) = (Instant::now(), self.state(snapshot));
        let plan = state.create_physical_plan(plan).await?;
        collected(began, what, plan, state.task_ctx()).await
    }

    fn state(&self, snapshot: &Arc<Snapshot>) -> SessionState {
        let mut state = self.ctx.state();
        state.config_mut().options_mut().extensions.insert(Pinned::new(snapshot.clone()));
        state.mark_start_execution();
        state
    }

    async fn logical(&self, state: &SessionState, what: &str, sql: String) -> Result<Plan, Error> {
        let mut plans = self.plans.lock().await;
        if let Some(known) = plans.get(what).filter(|known| known.sql == sql) {
            return Ok(known.plan.clone());
        }
        let plan = Plan::new(state, state.create_logical_plan(&sql).await?);
        plans.insert(what.to_string(), Logical { sql, plan: plan.clone() });
        Ok(plan)
    }

    /// A plan to run once.
    async fn physical(
        &self,
        snapshot: &Arc<Snapshot>,
        what: &str,
        sql: String,
    ) -> Result<Arc<dyn ExecutionPlan>, Error> {
        let mut known = self.of_little.lock().await;
        if !Arc::ptr_eq(&known.identity, &snapshot.identity) {
            *known = Physical { identity: snapshot.identity.clone(), ..Physical::default() };
        }
        if let Some((_, plan)) = known.plans.get(what).filter(|(text, _)| *text == sql) {
            return Ok(reset_plan_states(plan.clone())?);
        }
        let mut state = self.state(snapshot);
        *state.config_mut() = config_of_little(state.config().clone(), snapshot);
        let plan = self.logical(&state, what, sql.clone()).await?.physical(&state).await?;
        known.plans.insert(what.to_string(), (sql, plan.clone()));
        Ok(reset_plan_states(plan)?)
    }
}

/// One thread does little faster than several, and a filter that a run finds out would outlive it in a plan that is kept.
fn config_of_little(config: SessionConfig, snapshot: &Arc<Snapshot>) -> SessionConfig {
    let mut config = config.with_target_partitions(1);
    let options = config.options_mut();
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    options.extensions.insert(Pinned::new(snapshot.clone()));
    config
}

async fn collected(
    began: Instant,
    what: &str,
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
) -> Result<Vec<RecordBatch>, Error> {
    let planned = began.elapsed();
    let batches = collect(plan, task).await?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    tracing::trace!(what, rows, ?planned, took = ?began.elapsed(), "asked");
    Ok(batches)
}
