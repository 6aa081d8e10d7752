//! The catalog: every contract's tables, functions, `information_schema` and `pg_catalog`. Contracts and limits enter, a
//! session leaves that plans questions. It never changes after: only the snapshot behind it does.

use std::sync::Arc;

use datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
use datafusion::common::config::Dialect;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::setup_pg_catalog;
use schemas::Contracts;

use crate::error::Error;
use crate::settings::Settings;
use crate::snapshot::Pinned;
use crate::table::identity::{IdentityRows, Of, PERSON_SQL};
use crate::table::latest::Planner;
use crate::table::{time, view};

/// The one catalog's name: the database in `pg_catalog`.
pub const CATALOG: &str = "quad";

/// Suffix of the tables of all versions.
pub const HISTORY: &str = "_history";

/// Schemas that are DataFusion's and PostgreSQL's own.
pub const SYSTEM_SCHEMAS: [&str; 3] = ["information_schema", "pg_catalog", "public"];

/// The session every question is planned in.
///
/// # Errors
/// A contract whose SQL DataFusion refuses, or limits it cannot keep.
pub async fn session(settings: &Settings, contracts: &Contracts) -> Result<SessionContext, Error> {
    let state = SessionStateBuilder::new()
        .with_config(config(settings))
        .with_runtime_env(runtime(settings)?)
        .with_default_features()
        .with_query_planner(Arc::new(Planner { memory_bytes: settings.query_memory_bytes_max }))
        .build();
    let ctx = SessionContext::new_with_state(state);
    for function in time::all(&settings.timezone).into_iter().chain(crate::identity::functions::all()) {
        ctx.register_udf(function);
    }
    let mut student_base = None;
    for contract in contracts.iter() {
        let [current, history] = view::tables(&ctx, contract).await?;
        let current = Arc::new(current);
        if contract.name() == "student_affairs.student_base" {
            student_base = Some(current.clone());
        }
        let schema = schema(&ctx, &contract.domain)?;
        schema.register_table(contract.table.clone(), current)?;
        schema.register_table(format!("{}{HISTORY}", contract.table), Arc::new(history))?;
    }
    let identity = schema(&ctx, "identity")?;
    identity.register_table("identifier_link".to_string(), Arc::new(IdentityRows::new(Of::Links)))?;
    if let Some(student_base) = student_base {
        ctx.register_table("person_rows", Arc::new(IdentityRows::new(Of::Persons)))?;
        ctx.register_table("student_base", student_base)?;
        identity.register_table("person".to_string(), Arc::new(view::View::new(&ctx, PERSON_SQL).await?))?;
        ctx.deregister_table("person_rows")?;
        ctx.deregister_table("student_base")?;
    }
    setup_pg_catalog(&ctx, CATALOG, EmptyContextProvider).map_err(|error| Error::from(*error))?;
    Ok(ctx)
}

/// The schema of a domain, made when it is not there.
fn schema(ctx: &SessionContext, domain: &str) -> Result<Arc<dyn SchemaProvider>, Error> {
    let catalog = ctx.catalog(CATALOG).expect("the default catalog exists");
    if let Some(schema) = catalog.schema(domain) {
        return Ok(schema);
    }
    let schema = Arc::new(MemorySchemaProvider::new());
    catalog.register_schema(domain, schema.clone())?;
    Ok(schema)
}

fn config(settings: &Settings) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, "public")
        .with_information_schema(true)
        .with_batch_size(settings.batch_rows);
    let options = config.options_mut();
    options.sql_parser.dialect = Dialect::PostgreSQL;
    options.sql_parser.map_string_types_to_utf8view = false;
    // Contracts say Utf8; what the lake stores is read as that.
    options.execution.parquet.schema_force_view_types = false;
    // Rows are dropped while decoding, by the key columns of point questions above all.
    options.execution.parquet.pushdown_filters = true;
    options.extensions.insert(Pinned::default());
    config
}

fn runtime(settings: &Settings) -> Result<Arc<RuntimeEnv>, Error> {
    let pool = FairSpillPool::new(settings.query_memory_bytes_max);
    let largest = std::num::NonZeroUsize::new(3).expect("3 is not 0");
    let builder = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(TrackConsumersPool::new(pool, largest)));
    let builder = match settings.query_spill_bytes_max {
        0 => builder.with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled)),
        bytes => builder.with_max_temp_directory_size(bytes),
    };
    Ok(builder.build_arc()?)
}
