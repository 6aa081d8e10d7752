//! What comes over an open connection. Statements enter, in the simple or the extended protocol; rows leave as they come.

use std::fmt::Debug;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ParamValues;
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, ObjectName, Reset, ResetStatement, Set, Statement};
use datafusion_postgres::QueryHook;
use datafusion_postgres::arrow_pg::datatypes::{arrow_schema_to_pg_fields, df, encode_recordbatch, into_pg_type};
use datafusion_postgres::hooks::HookClient;
use datafusion_postgres::hooks::set_show::SetShowHook;
use datafusion_postgres::hooks::transactions::TransactionStatementHook;
use datafusion_postgres::pgwire::api::portal::{Format, Portal, PortalExecutionState};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler, send_query_response};
use datafusion_postgres::pgwire::api::results::{FieldInfo, QueryResponse, Response, Tag};
use datafusion_postgres::pgwire::api::stmt::QueryParser;
use datafusion_postgres::pgwire::api::store::{Entry, PortalStore};
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState, Type};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::data::DataRow;
use datafusion_postgres::pgwire::messages::extendedquery::Execute;
use datafusion_postgres::pgwire::messages::response::TransactionStatus;
use datafusion_postgres::pgwire::types::format::FormatOptions;
use futures::{Sink, Stream, StreamExt as _, stream};
use topic::Watermark;

use super::interrupt::{Gone, Interrupt};
use crate::access::Principal;
use crate::engine::{Answer, Engine, Prepared, Terms};
use crate::error::{Error, ErrorKind};
use crate::metrics;
use crate::policy::Door;

/// Rows of a portal held in memory at once.
const PORTAL_ROWS_MAX: i32 = 8192;

/// Answers one connection's questions.
pub struct Questions {
    engine: Arc<Engine>,
    gone: Gone,
    parser: Arc<Parser>,
}

impl Questions {
    pub fn new(engine: Arc<Engine>, gone: Gone) -> Self {
        let parser = Arc::new(Parser { engine: engine.clone() });
        Self { engine, gone, parser }
    }

    async fn answer<C: ClientInfo>(
        &self,
        client: &C,
        prepared: &Prepared,
        parameters: Vec<ScalarValue>,
        format: &Format,
    ) -> PgWireResult<Response> {
        let principal = principal(client)?;
        let mut interrupt = Interrupt::new(client, &self.gone).await;
        let terms = Terms { timeout: statement_timeout(client), after: watermark(client)? };
        let answer = tokio::select! {
            answer = self.engine.run(&principal, prepared, parameters, terms) => answer?,
            error = interrupt.wait() => return Err(error.into()),
        };
        let options = Arc::new(FormatOptions::from_client_metadata(client.metadata()));
        let fields = Arc::new(arrow_schema_to_pg_fields(&prepared.schema, format, Some(options))?);
        Ok(Response::Query(QueryResponse::new(fields.clone(), rows(answer, interrupt, fields))))
    }
}

/// The rows of an answer, encoded batch by batch as the client takes them.
fn rows(
    answer: Answer,
    interrupt: Interrupt,
    fields: Arc<Vec<FieldInfo>>,
) -> impl Stream<Item = PgWireResult<DataRow>> + Send + 'static {
    let batches = stream::unfold(Some((answer, interrupt)), async |state| {
        let (mut answer, mut interrupt) = state?;
        let next = tokio::select! {
            next = answer.next() => next?,
            error = interrupt.wait() => Err(error),
        };
        match next {
            Ok(batch) => Some((Ok(batch), Some((answer, interrupt)))),
            Err(error) => Some((Err(error), None)),
        }
    });
    batches.flat_map(move |batch| {
        let rows: Box<dyn Iterator<Item = PgWireResult<DataRow>> + Send> = match batch {
            Ok(batch) => encode_recordbatch(fields.clone(), batch),
            Err(error) => Box::new(std::iter::once(Err(error.into()))),
        };
        stream::iter(rows)
    })
}

fn parse(sql: &str) -> Result<Vec<Statement>, Error> {
    Engine::parse(sql).inspect_err(|error| metrics::refused(Door::Postgres, error.kind))
}

fn principal<C: ClientInfo + ?Sized>(client: &C) -> PgWireResult<Arc<Principal>> {
    let principal = client.session_extensions().get::<Principal>();
    principal.ok_or_else(|| Error::new(ErrorKind::Unauthenticated, "not authenticated").into())
}

/// `SET statement_timeout`, as the hook that answers it keeps it.
fn statement_timeout<C: ClientInfo + ?Sized>(client: &C) -> Option<Duration> {
    client.metadata().get("statement_timeout_ms")?.parse().ok().map(Duration::from_millis)
}

/// The session setting that has answers wait for records.
const WATERMARK: &str = "quad.watermark";

/// `SET quad.watermark`, as it was checked when it was set.
fn watermark<C: ClientInfo + ?Sized>(client: &C) -> PgWireResult<Option<Watermark>> {
    let token = client.metadata().get(WATERMARK).filter(|token| !token.is_empty());
    Ok(token.map(|token| token.parse()).transpose().map_err(Error::from)?)
}

/// Keeps the token of a `SET quad.watermark`; an empty one, or RESET, waits for nothing.
fn set_watermark(client: &mut dyn HookClient, statement: &Statement) -> Option<Result<(), Error>> {
    let token = match statement {
        Statement::Set(Set::SingleAssignment { variable, values, .. }) if is_watermark(variable) => {
            match values.as_slice() {
                [SqlExpr::Value(value)] => value.value.clone().into_string().unwrap_or_default(),
                [SqlExpr::Identifier(name)] if name.value.eq_ignore_ascii_case("default") => String::new(),
                _ => return Some(Err(Error::new(ErrorKind::InvalidArgument, "quad.watermark is one text in quotes"))),
            }
        }
        Statement::Reset(ResetStatement { reset: Reset::ConfigurationParameter(variable) })
            if is_watermark(variable) =>
        {
            String::new()
        }
        _ => return None,
    };
    Some(token.parse::<Watermark>().map_err(Error::from).map(|_| {
        client.metadata_mut().insert(WATERMARK.to_string(), token);
    }))
}

fn is_watermark(variable: &ObjectName) -> bool {
    variable.to_string().eq_ignore_ascii_case(WATERMARK)
}

/// A statement that is not a question but expected by clients: `SET`, `SHOW`, transactions, `DISCARD`. `None` for questions.
async fn command(client: &mut dyn HookClient, statement: &Statement) -> Option<PgWireResult<Response>> {
    // The hooks want a session; this one is nobody's, so that nothing they set has an effect on others.
    static NOBODYS: LazyLock<SessionContext> = LazyLock::new(SessionContext::new);
    if let Some(set) = set_watermark(client, statement) {
        return Some(set.map(|()| Response::Execution(Tag::new("SET"))).map_err(PgWireError::from));
    }
    if let Some(error) = refused_setting(statement) {
        return Some(Err(error.into()));
    }
    let ends_transaction = matches!(statement, Statement::Commit { .. } | Statement::Rollback { .. });
    if client.transaction_status() == TransactionStatus::Error && !ends_transaction {
        let message = "current transaction is aborted, commands ignored until end of transaction block";
        let info = ErrorInfo::new("ERROR".to_string(), "25P02".to_string(), message.to_string());
        return Some(Err(PgWireError::UserError(Box::new(info))));
    }
    let tag = match statement {
        Statement::Discard { .. } => Some("DISCARD ALL"),
        Statement::Deallocate { .. } => Some("DEALLOCATE"),
        Statement::Reset(_) => Some("RESET"),
        _ => None,
    };
    if let Some(tag) = tag {
        return Some(Ok(Response::Execution(Tag::new(tag))));
    }
    if let Some(response) = TransactionStatementHook.handle_simple_query(statement, &NOBODYS, client).await {
        return Some(response);
    }
    SetShowHook.handle_simple_query(statement, &NOBODYS, client).await
}

fn is_command(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Set { .. }
            | Statement::ShowVariable { .. }
            | Statement::ShowStatus { .. }
            | Statement::StartTransaction { .. }
            | Statement::Commit { .. }
            | Statement::Rollback { .. }
            | Statement::Discard { .. }
            | Statement::Deallocate { .. }
            | Statement::Reset(_)
    )
}

/// Settings of the engine are the operator's.
fn refused_setting(statement: &Statement) -> Option<Error> {
    let Statement::Set(set) = statement else { return None };
    let variable = match set {
        Set::SingleAssignment { variable, .. } => variable.to_string().to_lowercase(),
        Set::SetRole { .. } | Set::SetSessionAuthorization(_) => "role".to_string(),
        _ => return None,
    };
    let is_ours = ["datafusion.", "quad.", "role", "session_authorization", "default_transaction_read_only"]
        .iter()
        .any(|prefix| variable.starts_with(prefix));
    is_ours.then(|| Error::new(ErrorKind::Denied, format!("permission denied to set parameter \"{variable}\"")))
}

#[async_trait]
impl SimpleQueryHandler for Questions {
    async fn do_query<C>(&self, client: &mut C, sql: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut responses = Vec::new();
        for statement in parse(sql)? {
            if let Some(response) = command(client, &statement).await {
                responses.push(response?);
                continue;
            }
            let principal = principal(client)?;
            let prepared = self.engine.prepare(&principal, Door::Postgres, statement).await?;
            responses.push(self.answer(client, &prepared, Vec::new(), &Format::UnifiedText).await?);
        }
        if responses.is_empty() {
            responses.push(Response::EmptyQuery);
        }
        Ok(responses)
    }
}

/// A statement of the extended protocol.
#[derive(Debug, Clone)]
pub enum Parsed {
    Question(Arc<Prepared>),
    Command(Arc<Statement>),
}

/// Parses for one connection.
pub struct Parser {
    engine: Arc<Engine>,
}

#[async_trait]
impl QueryParser for Parser {
    type Statement = Parsed;

    async fn parse_sql<C>(&self, client: &C, sql: &str, _types: &[Option<Type>]) -> PgWireResult<Option<Parsed>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut statements = parse(sql)?;
        if statements.len() > 1 {
            let error = Error::new(ErrorKind::InvalidSql, "cannot insert multiple commands into a prepared statement");
            return Err(error.into());
        }
        let Some(statement) = statements.pop() else { return Ok(None) };
        if is_command(&statement) {
            return Ok(Some(Parsed::Command(Arc::new(statement))));
        }
        let principal = principal(client)?;
        Ok(Some(Parsed::Question(Arc::new(self.engine.prepare(&principal, Door::Postgres, statement).await?))))
    }

    fn get_parameter_types(&self, statement: &Parsed) -> PgWireResult<Vec<Type>> {
        match statement {
            Parsed::Question(prepared) => {
                prepared.parameters.iter().map(|data_type| wire_type(data_type.as_ref())).collect()
            }
            Parsed::Command(_) => Ok(Vec::new()),
        }
    }

    fn get_result_schema(&self, statement: &Parsed, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        match statement {
            Parsed::Question(prepared) => {
                arrow_schema_to_pg_fields(&prepared.schema, format.unwrap_or(&Format::UnifiedText), None)
            }
            Parsed::Command(statement) if matches!(**statement, Statement::ShowVariable { .. }) => {
                let format = format.unwrap_or(&Format::UnifiedText).format_for(0);
                Ok(vec![FieldInfo::new("setting".to_string(), None, None, Type::VARCHAR, format)])
            }
            Parsed::Command(_) => Ok(Vec::new()),
        }
    }
}

/// A parameter whose type the question leaves open is a text, as in PostgreSQL.
fn wire_type(data_type: Option<&DataType>) -> PgWireResult<Type> {
    data_type.map_or(Ok(Type::TEXT), into_pg_type)
}

#[async_trait]
impl ExtendedQueryHandler for Questions {
    type Statement = Parsed;
    type QueryParser = Parser;

    fn query_parser(&self) -> Arc<Parser> {
        self.parser.clone()
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Parsed>, _rows_max: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Parsed>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match &portal.statement.statement {
            Parsed::Command(statement) => command(client, statement).await.unwrap_or(Ok(Response::EmptyQuery)),
            Parsed::Question(prepared) => {
                let types: Vec<Type> = prepared
                    .parameters
                    .iter()
                    .map(|data_type| wire_type(data_type.as_ref()))
                    .collect::<Result<_, _>>()?;
                let inferred: Vec<Option<&DataType>> = prepared.parameters.iter().map(Option::as_ref).collect();
                let types: Vec<Option<&Type>> = types.iter().map(Some).collect();
                let parameters = df::deserialize_parameters_with_server_types(portal, &inferred, &types)?;
                self.answer(client, prepared, values(parameters), &portal.result_column_format).await
            }
        }
    }

    /// A portal read to its end is streamed; the default would hold the whole answer in memory first.
    async fn on_execute<C>(&self, client: &mut C, mut message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Parsed>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        // A client that wants more at once gets it in parts, as it must expect of a suspended portal.
        message.max_rows = message.max_rows.clamp(0, PORTAL_ROWS_MAX);
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let portal = match client.portal_store().get_portal(name) {
            Some(Entry::Value(portal)) if message.max_rows == 0 => portal,
            _ => return self._on_execute(client, message).await,
        };
        let is_new = matches!(*portal.state().lock().await, PortalExecutionState::Initial);
        let is_question = matches!(portal.statement.statement, Parsed::Question(_));
        if !is_new || !is_question || !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return self._on_execute(client, message).await;
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        *portal.state().lock().await = PortalExecutionState::Finished;
        if let Response::Query(response) = ExtendedQueryHandler::do_query(self, client, portal.as_ref(), 0).await? {
            send_query_response(client, response, false).await?;
        }
        client.set_state(PgWireConnectionState::ReadyForQuery);
        Ok(())
    }
}

fn values(parameters: ParamValues) -> Vec<ScalarValue> {
    match parameters {
        ParamValues::List(values) => values.into_iter().map(|value| value.value).collect(),
        ParamValues::Map(values) => values.into_values().map(|value| value.value).collect(),
    }
}
