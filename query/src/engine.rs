//! Answering questions. SQL, a principal and parameters enter; a stream of batches leaves. Every door comes here, so that
//! policy, limits and the audit are the same behind all of them.
//!
//! A question is prepared once and run as often as one likes, each time on the newest snapshot; one that reads profiles, on the
//! snapshot that the newest profiles were computed from. It holds memory, a place among the running ones and a deadline
//! until its stream ends or is dropped.

pub mod answer;
pub mod ask;
pub mod plan;
pub mod refresh;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::execution::SessionState;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use schemas::Contracts;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use topic::Watermark;

pub use self::answer::Answer;
use self::answer::{Audit, Running};
use self::plan::Plan;
use crate::access::Principal;
use crate::catalog::{self, CATALOG};
use crate::error::{Error, ErrorKind};
use crate::guard;
use crate::metrics::{self, Watch};
use crate::policy::{self, Door};
use crate::profile::table::{self, Of, ProfileTable, Seen};
use crate::profile::{Computer, Profiles, Store};
use crate::settings::Settings;
use crate::snapshot::{Pinned, Snapshot};

/// A snapshot and the session that is bound to it.
#[derive(Debug)]
pub struct Pin {
    pub snapshot: Arc<Snapshot>,
    pub state: Arc<SessionState>,
}

/// The query engine. Cheap to share, safe to use from everywhere.
pub struct Engine {
    ctx: SessionContext,
    contracts: Arc<Contracts>,
    pin: watch::Sender<Arc<Pin>>,
    /// Where the tables of [`table::SCHEMA`] are read from; without it there are none.
    profiles: Option<Arc<Store>>,
    slots: Arc<Semaphore>,
    timeout: Duration,
    queue_timeout: Duration,
    queries_concurrent_max: usize,
    pub watch: Watch,
    /// Questions run on threads of their own: a heavy one never holds up a door. Always there until dropped.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A runtime must not be waited for inside another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("snapshot", &self.pin().snapshot.id).finish_non_exhaustive()
    }
}

/// What a caller asks of an answer beside the question.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// May shorten the limit, never lengthen it.
    pub timeout: Option<Duration>,
    /// Answer only from what reaches to here.
    pub after: Option<Watermark>,
}

/// A question that has been understood.
#[derive(Debug, Clone)]
pub struct Prepared {
    plan: Plan,
    /// The columns of the answer.
    pub schema: SchemaRef,
    /// Where it came in.
    pub door: Door,
    reads_profiles: bool,
    /// `$1`, `$2`, … in order; no type where the question leaves it open.
    pub parameters: Vec<Option<DataType>>,
    /// The first 64 bits of the SHA-256 of the SQL, for the audit: it tells questions apart and says nothing.
    pub sql_hash: String,
}

impl Engine {
    /// An engine over the tables of `contracts`, with an empty snapshot.
    ///
    /// # Errors
    /// See [`catalog::session`].
    pub async fn new(settings: &Settings, contracts: Arc<Contracts>) -> Result<Self, Error> {
        let ctx = catalog::session(settings, &contracts).await?;
        let pin = watch::Sender::new(Arc::new(bind(&ctx, Pinned::default())));
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("quad-query").enable_all().build();
        let runtime = runtime.map_err(|error| Error::settings("could not start threads").with_source(error))?;
        Ok(Self {
            watch: Watch::new(&contracts),
            queries_concurrent_max: settings.queries_concurrent_max,
            ctx,
            contracts,
            pin,
            profiles: None,
            slots: Arc::new(Semaphore::new(settings.queries_concurrent_max)),
            timeout: Duration::from_secs(settings.query_timeout_s),
            queue_timeout: Duration::from_millis(settings.queue_timeout_ms),
            runtime: Some(runtime),
        })
    }

    /// The same, over the profiles of `store`; [`Engine::show_profiles`] makes tables of them.
    pub fn with_profiles(mut self, store: Arc<Store>) -> Self {
        self.profiles = Some(store);
        self
    }

    /// Has the tables of profiles the columns that `computer` computes from now on: also in the place of others, at one instant.
    ///
    /// # Errors
    /// What the catalog refuses: a mistake of ours.
    pub fn show_profiles(&self, computer: &Computer) -> Result<(), Error> {
        let schema = MemorySchemaProvider::new();
        for of in Of::ALL {
            let rows = ProfileTable::new(of, computer.items(), computer.types());
            schema.register_table(of.table().to_string(), Arc::new(rows))?;
        }
        let catalog = self.ctx.catalog(CATALOG).expect("the default catalog exists");
        catalog.register_schema(table::SCHEMA, Arc::new(schema))?;
        Ok(())
    }

    pub fn contracts(&self) -> &Contracts {
        &self.contracts
    }

    /// The newest snapshot. Whoever holds it keeps it.
    pub fn pin(&self) -> Arc<Pin> {
        self.pin.borrow().clone()
    }

    /// The newest snapshot, once it reaches to `watermark`.
    ///
    /// # Errors
    /// `Timeout` when it does not by `deadline`.
    pub async fn pin_after(&self, watermark: Option<&Watermark>, deadline: Instant) -> Result<Arc<Pin>, Error> {
        let Some(watermark) = watermark else { return Ok(self.pin()) };
        let mut pins = self.pin.subscribe();
        let reached = pins.wait_for(|pin| pin.snapshot.watermark.covers(watermark));
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(pin)) => Ok(pin.clone()),
            Ok(Err(_)) => Err(Error::new(ErrorKind::Unavailable, "quad is shutting down")),
            Err(_) => Err(not_reached()),
        }
    }

    /// Answers from `snapshot` from now on.
    pub fn set_snapshot(&self, snapshot: Arc<Snapshot>) {
        self.pin.send_replace(Arc::new(self.bind(snapshot)));
    }

    /// The session bound to another snapshot than the newest.
    pub fn bind(&self, snapshot: Arc<Snapshot>) -> Pin {
        bind(&self.ctx, Pinned::new(snapshot))
    }

    /// The session bound to profiles, as `principal` may see them, and to the snapshot they were computed from.
    fn bind_profiles(&self, profiles: Arc<Profiles>, principal: &Principal) -> Pin {
        bind(&self.ctx, Pinned::with_profiles(Seen::new(profiles, principal)))
    }

    /// The schemas of contracts, ordered: what a tool should show.
    pub fn schemas(&self) -> Vec<String> {
        let catalog = self.ctx.catalog(CATALOG).expect("the default catalog exists");
        let mut names = catalog.schema_names();
        names.retain(|name| !catalog::SYSTEM_SCHEMAS.contains(&name.as_str()));
        names.sort();
        names
    }

    /// Schema, name and columns of every table in [`Engine::schemas`], ordered.
    ///
    /// # Errors
    /// What DataFusion finds.
    pub async fn tables(&self) -> Result<Vec<(String, String, Arc<dyn TableProvider>)>, Error> {
        let catalog = self.ctx.catalog(CATALOG).expect("the default catalog exists");
        let mut tables = Vec::new();
        for schema_name in self.schemas() {
            let Some(schema) = catalog.schema(&schema_name) else { continue };
            let mut names = schema.table_names();
            names.sort();
            for name in names {
                if let Some(table) = schema.table(&name).await? {
                    tables.push((schema_name.clone(), name, table));
                }
            }
        }
        Ok(tables)
    }

    /// The statements of a text, PostgreSQL's dialect; what its clients ask of `pg_catalog` is brought to what we have.
    ///
    /// # Errors
    /// `InvalidSql` with the parser's message.
    pub fn parse(sql: &str) -> Result<Vec<Statement>, Error> {
        // The parser keeps token tables of its own; making one anew costs more than most parsing.
        static PARSER: std::sync::LazyLock<PostgresCompatibilityParser> =
            std::sync::LazyLock::new(PostgresCompatibilityParser::new);
        PARSER.parse(sql).map_err(|error| {
            let message = error.to_string();
            let message = message.trim_start_matches("sql parser error: ");
            Error::new(ErrorKind::InvalidSql, format!("syntax error: {message}"))
        })
    }

    /// Understands a text of exactly one statement.
    ///
    /// # Errors
    /// As [`Engine::prepare`], and `InvalidSql` for none or several statements.
    pub async fn prepare_text(&self, principal: &Principal, door: Door, sql: &str) -> Result<Prepared, Error> {
        let mut statements = Self::parse(sql).inspect_err(|error| metrics::refused(door, error.kind))?;
        let wrong = match (statements.pop(), statements.len()) {
            (Some(statement), 0) => return self.prepare(principal, door, statement).await,
            (None, _) => Error::new(ErrorKind::InvalidSql, "the statement is empty"),
            _ => Error::new(ErrorKind::InvalidSql, "more than one statement").with_hint("send them one by one"),
        };
        metrics::refused(door, wrong.kind);
        Err(wrong)
    }

    /// Understands one statement on behalf of `principal`, who came in by `door`.
    ///
    /// # Errors
    /// What is wrong with it, or what the principal may not ask.
    pub async fn prepare(&self, principal: &Principal, door: Door, statement: Statement) -> Result<Prepared, Error> {
        let prepared = self.understand(principal, door, statement).await;
        prepared.inspect_err(|error| metrics::refused(door, error.kind))
    }

    async fn understand(&self, principal: &Principal, door: Door, statement: Statement) -> Result<Prepared, Error> {
        policy::enter(principal, door)?;
        guard::check(&statement)?;
        let sql_hash = hash(&statement.to_string());
        let statement = DfStatement::Statement(Box::new(statement));
        let state = self.ctx.state();
        let mut reads_profiles = false;
        for table in state.resolve_table_references(&statement)? {
            let table = table.resolve(CATALOG, "public");
            policy::read_table(principal, &table.schema, &table.table)?;
            reads_profiles |= *table.schema == *table::SCHEMA;
        }
        let plan = state.statement_to_plan(statement).await.map_err(|error| self.explain(error))?;
        SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false)
            .verify_plan(&plan)
            .map_err(|error| Error::new(ErrorKind::ReadOnly, "the statement would change something").with_source(error))?;
        let schema = Arc::new(plan.schema().as_arrow().clone());
        let (parameters, plan) = (parameter_types(&plan)?, Plan::new(&state, plan));
        Ok(Prepared { plan, schema, door, reads_profiles, parameters, sql_hash })
    }

    /// Answers a question. `parameters` are `$1`, `$2`, … in order.
    ///
    /// # Errors
    /// `Busy` when there is no place in time, `Timeout` when the watermark of the terms is not reached in time,
    /// `InvalidArgument` for parameters that do not fit, and what planning finds.
    pub async fn run(
        &self,
        principal: &Principal,
        prepared: &Prepared,
        parameters: Vec<ScalarValue>,
        terms: Terms,
    ) -> Result<Answer, Error> {
        let timeout = terms.timeout.map_or(self.timeout, |timeout| timeout.min(self.timeout));
        let mut audit = Audit::new(principal, prepared);
        let started = self.start(principal, prepared, parameters, timeout, terms.after.as_ref(), &mut audit).await;
        match started {
            Ok(running) => Ok(Answer::new(running, audit)),
            Err(error) => {
                audit.failed(error.kind);
                Err(error)
            }
        }
    }

    async fn start(
        &self,
        principal: &Principal,
        prepared: &Prepared,
        parameters: Vec<ScalarValue>,
        timeout: Duration,
        after: Option<&Watermark>,
        audit: &mut Audit,
    ) -> Result<Running, Error> {
        let deadline = Instant::now() + timeout;
        let store = self.profiles.as_ref().filter(|_| prepared.reads_profiles);
        // Whoever waits for records takes nobody's place.
        match (store, after) {
            (Some(store), Some(after)) => drop(store.after(after, deadline).await?),
            (_, after) => drop(self.pin_after(after, deadline).await?),
        }
        let permit = self.place().await?;
        let plan = bind_parameters(prepared, parameters)?;
        let pin = match store {
            Some(store) => Arc::new(self.bind_profiles(store.newest()?.computed()?, principal)),
            None => self.pin(),
        };
        audit.snapshot = pin.snapshot.id;
        let mut running = Running::spawn(self.runtime(), pin.state.clone(), plan, permit, timeout);
        tokio::time::timeout_at(deadline, running.started()).await.map_err(|_| answer::timed_out(timeout))??;
        Ok(running)
    }

    /// A place among the running questions, held until it is dropped.
    async fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        let _queued = self.watch.queue();
        let waiting = tokio::time::timeout(self.queue_timeout, self.slots.clone().acquire_owned());
        let permit = waiting.await.map_err(|_| {
            Error::new(ErrorKind::Busy, "too many questions are running").with_hint("try again in a moment")
        })?;
        permit.map_err(|_| Error::new(ErrorKind::Unavailable, "quad is shutting down"))
    }

    /// Questions that run now.
    pub fn running(&self) -> usize {
        self.queries_concurrent_max.saturating_sub(self.slots.available_permits())
    }

    /// Runs other heavy work on the engine's threads.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime().spawn(work)
    }

    fn runtime(&self) -> &tokio::runtime::Handle {
        self.runtime.as_ref().expect("only dropping takes the runtime").handle()
    }

    /// Refuses every further question; what runs may finish.
    pub fn close(&self) {
        self.slots.close();
    }

    /// Adds to DataFusion's error what the user can do: the names that are near.
    fn explain(&self, error: datafusion::error::DataFusionError) -> Error {
        let error = Error::from(error);
        if error.kind != ErrorKind::UndefinedTable {
            return error;
        }
        let wanted = error.message.split('\'').nth(1).unwrap_or_default().to_string();
        let wanted = TableReference::parse_str(&wanted).resolve(CATALOG, "public");
        let table = wanted.table.trim_end_matches(catalog::HISTORY);
        let wanted = if *wanted.schema == *"public" { table.to_string() } else { format!("{}.{table}", wanted.schema) };
        let hint = match self.contracts.near(&wanted).first() {
            Some(name) => format!("did you mean {name}? `quad tables` lists all"),
            None => "`quad tables` lists all".to_string(),
        };
        error.with_hint(hint)
    }
}

/// Records that a caller waited for have not come.
pub fn not_reached() -> Error {
    Error::new(ErrorKind::Timeout, "the watermark was not reached in time")
        .with_hint("the log or landing is behind, or the token is of another installation: ask again, or without it")
}

fn bind(ctx: &SessionContext, pinned: Pinned) -> Pin {
    let mut state = ctx.state();
    let snapshot = pinned.snapshot.clone();
    state.config_mut().options_mut().extensions.insert(pinned);
    state.mark_start_execution();
    Pin { snapshot, state: Arc::new(state) }
}

/// `$1`, `$2`, … of a plan, in order. A number left out has no type.
fn parameter_types(plan: &LogicalPlan) -> Result<Vec<Option<DataType>>, Error> {
    let found: HashMap<usize, Option<DataType>> = plan
        .get_parameter_types()?
        .into_iter()
        .filter_map(|(name, data_type)| Some((name.strip_prefix('$')?.parse().ok()?, data_type)))
        .collect();
    let last = found.keys().copied().max().unwrap_or(0);
    const PARAMETERS_MAX: usize = 1000;
    if last > PARAMETERS_MAX {
        return Err(Error::new(ErrorKind::InvalidArgument, format!("more than {PARAMETERS_MAX} parameters")));
    }
    Ok((1..=last).map(|number| found.get(&number).cloned().flatten()).collect())
}

fn bind_parameters(prepared: &Prepared, parameters: Vec<ScalarValue>) -> Result<Plan, Error> {
    let expected = prepared.parameters.len();
    if parameters.len() != expected {
        let message = format!("the question has {expected} parameters, {} were given", parameters.len());
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let mut typed = Vec::with_capacity(expected);
    for (number, (value, data_type)) in parameters.into_iter().zip(&prepared.parameters).enumerate() {
        typed.push(match data_type {
            Some(data_type) if value.data_type() != *data_type => value.cast_to(data_type).map_err(|error| {
                Error::new(ErrorKind::InvalidArgument, format!("parameter ${} is not a {data_type}", number + 1))
                    .with_source(error)
            })?,
            _ => value,
        });
    }
    Ok(prepared.plan.bind(typed)?)
}

fn hash(sql: &str) -> String {
    Sha256::digest(sql.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
