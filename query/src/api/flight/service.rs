//! The calls of Flight SQL, one method each. Requests enter; what they share is in `flight`.

use std::pin::Pin;

use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandPreparedStatementQuery,
    CommandPreparedStatementUpdate, CommandStatementQuery, CommandStatementUpdate, DoPutPreparedStatementResult,
    SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage, SchemaAsIpc, Ticket,
};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::ipc::writer::IpcWriteOptions;
use datafusion::scalar::ScalarValue;
use futures::{Stream, TryStreamExt as _};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};

use super::metadata::Metadata;
use super::{Flight, FlightStream, encode, encode_one, flight_info, internal};
use crate::access::Principal;
use crate::engine::{Prepared, Terms};
use crate::error::{Error, ErrorKind};
use crate::guard;
use crate::policy::Door;

/// ADBC leaves the padding out, JDBC sends it.
const BASIC: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

type Handshake = Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>;

#[tonic::async_trait]
impl FlightSqlService for Flight {
    type FlightService = Self;

    /// A name and a token, as JDBC and ADBC send user and password, for the header of all further calls.
    async fn do_handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Result<Response<Handshake>, Status> {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let basic = header.strip_prefix("Basic ").and_then(|value| BASIC.decode(value).ok());
        let basic = basic.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let (name, token) = basic.split_once(':').unwrap_or_default();
        if self.access.authenticate_named(name, token).is_none() {
            let error = Error::new(ErrorKind::Unauthenticated, "wrong name or token");
            return Err(error.with_hint("the user is the name of a token, the password the token").into());
        }
        let payload = HandshakeResponse { protocol_version: 0, payload: token.to_string().into() };
        let mut response: Response<Handshake> = Response::new(Box::pin(futures::stream::iter([Ok(payload)])));
        let bearer = MetadataValue::try_from(format!("Bearer {token}")).map_err(internal)?;
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let principal = self.authenticate(request.metadata())?;
        let prepared = self.engine.prepare_text(&principal, Door::FlightSql, &query.query).await?;
        let ticket = TicketStatementQuery { statement_handle: query.query.into() };
        flight_info(&prepared.schema, &ticket, request.into_inner())
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<FlightStream>, Status> {
        let principal = self.authenticate(request.metadata())?;
        let sql = std::str::from_utf8(&ticket.statement_handle);
        let sql = sql.map_err(|_| Error::new(ErrorKind::InvalidArgument, "the ticket is not ours"))?;
        let prepared = self.engine.prepare_text(&principal, Door::FlightSql, sql).await?;
        let terms = terms(request.metadata())?;
        self.answer(&principal, &prepared, Vec::new(), terms).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let principal = self.authenticate(request.metadata())?;
        let prepared = self.engine.prepare_text(&principal, Door::FlightSql, &query.query).await?;
        let parameters = prepared.parameters.iter().zip(1..).map(|(data_type, number)| {
            Field::new(format!("${number}"), data_type.clone().unwrap_or(DataType::Utf8), true)
        });
        let parameter_schema = ipc(&Schema::new(parameters.collect::<Vec<_>>()))?;
        let dataset_schema = ipc(&prepared.schema)?;
        let handle = self.handles.keep(&principal, prepared)?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.to_vec().into(),
            dataset_schema: dataset_schema.into(),
            parameter_schema: parameter_schema.into(),
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        let principal = self.authenticate(request.metadata())?;
        self.handles.close(&principal, &query.prepared_statement_handle);
        Ok(())
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let principal = self.authenticate(request.metadata())?;
        let data = request.into_inner().map_err(|status| status.into());
        let batches: Vec<RecordBatch> = FlightRecordBatchStream::new_from_flight_data(data).try_collect().await?;
        self.handles.bind(&principal, &query.prepared_statement_handle, parameters(&batches)?)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: None })
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let principal = self.authenticate(request.metadata())?;
        let kept = self.handles.get(&principal, &query.prepared_statement_handle)?;
        flight_info(&kept.prepared.schema, &query, request.into_inner())
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<FlightStream>, Status> {
        let principal = self.authenticate(request.metadata())?;
        let kept = self.handles.get(&principal, &query.prepared_statement_handle)?;
        let terms = terms(request.metadata())?;
        self.answer(&principal, &kept.prepared, kept.parameters, terms).await
    }

    /// Refused with the reason, which differs for what is no statement at all.
    async fn do_put_statement_update(
        &self,
        update: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        self.authenticate(request.metadata())?;
        for statement in crate::Engine::parse(&update.query)? {
            guard::check(&statement)?;
        }
        Err(not_an_update().into())
    }

    async fn do_put_prepared_statement_update(
        &self,
        _update: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        self.authenticate(request.metadata())?;
        Err(not_an_update().into())
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.authenticate(request.metadata())?;
        flight_info(&query.into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<Ticket>,
    ) -> Result<Response<FlightStream>, Status> {
        self.authenticate(request.metadata())?;
        Ok(encode_one(self.metadata.catalogs(query).map_err(internal)?))
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.authenticate(request.metadata())?;
        flight_info(&query.clone().into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<Ticket>,
    ) -> Result<Response<FlightStream>, Status> {
        self.authenticate(request.metadata())?;
        Ok(encode_one(self.metadata.schemas(query, &self.engine.schemas()).map_err(internal)?))
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.authenticate(request.metadata())?;
        flight_info(&query.clone().into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_tables(
        &self,
        query: CommandGetTables,
        request: Request<Ticket>,
    ) -> Result<Response<FlightStream>, Status> {
        self.authenticate(request.metadata())?;
        let tables = self.engine.tables().await?;
        Ok(encode_one(self.metadata.tables(query, &tables).map_err(internal)?))
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.authenticate(request.metadata())?;
        flight_info(&self.metadata.table_types().map_err(internal)?.schema(), &query, request.into_inner())
    }

    async fn do_get_table_types(
        &self,
        _query: CommandGetTableTypes,
        request: Request<Ticket>,
    ) -> Result<Response<FlightStream>, Status> {
        self.authenticate(request.metadata())?;
        Ok(encode_one(self.metadata.table_types().map_err(internal)?))
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.authenticate(request.metadata())?;
        let schema = query.clone().into_builder(self.metadata.sql_info()).schema();
        flight_info(&schema, &query, request.into_inner())
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<Ticket>,
    ) -> Result<Response<FlightStream>, Status> {
        self.authenticate(request.metadata())?;
        Ok(encode_one(query.into_builder(self.metadata.sql_info()).build().map_err(internal)?))
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.authenticate(request.metadata())?;
        flight_info(&Metadata::primary_keys_schema(), &query, request.into_inner())
    }

    async fn do_get_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<Ticket>,
    ) -> Result<Response<FlightStream>, Status> {
        self.authenticate(request.metadata())?;
        Ok(encode_one(self.metadata.primary_keys(&query).map_err(internal)?))
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.authenticate(request.metadata())?;
        flight_info(&Metadata::no_foreign_keys().schema(), &query, request.into_inner())
    }

    async fn do_get_exported_keys(
        &self,
        _query: CommandGetExportedKeys,
        request: Request<Ticket>,
    ) -> Result<Response<FlightStream>, Status> {
        self.authenticate(request.metadata())?;
        Ok(encode_one(Metadata::no_foreign_keys()))
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.authenticate(request.metadata())?;
        flight_info(&Metadata::no_foreign_keys().schema(), &query, request.into_inner())
    }

    async fn do_get_imported_keys(
        &self,
        _query: CommandGetImportedKeys,
        request: Request<Ticket>,
    ) -> Result<Response<FlightStream>, Status> {
        self.authenticate(request.metadata())?;
        Ok(encode_one(Metadata::no_foreign_keys()))
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.authenticate(request.metadata())?;
        flight_info(&Metadata::no_foreign_keys().schema(), &query, request.into_inner())
    }

    async fn do_get_cross_reference(
        &self,
        _query: CommandGetCrossReference,
        request: Request<Ticket>,
    ) -> Result<Response<FlightStream>, Status> {
        self.authenticate(request.metadata())?;
        Ok(encode_one(Metadata::no_foreign_keys()))
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}

impl Flight {
    async fn answer(
        &self,
        principal: &Principal,
        prepared: &Prepared,
        parameters: Vec<ScalarValue>,
        terms: Terms,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let answer = self.engine.run(principal, prepared, parameters, terms).await?;
        Ok(encode(prepared.schema.clone(), answer))
    }
}

/// What a call asks of its answer: the header `quad-watermark` has it wait for records.
fn terms(metadata: &MetadataMap) -> Result<Terms, Error> {
    let token = metadata.get("quad-watermark").and_then(|value| value.to_str().ok());
    Ok(Terms { timeout: None, after: token.map(str::parse).transpose()? })
}

fn not_an_update() -> Error {
    Error::new(ErrorKind::ReadOnly, "nothing can be changed here").with_hint("ask with a query, not an update")
}

/// The one row of parameters that a query takes.
fn parameters(batches: &[RecordBatch]) -> Result<Vec<ScalarValue>, Error> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0).filter(|_| rows == 1) else {
        let message = format!("a query takes one row of parameters, {rows} were sent");
        return Err(Error::new(ErrorKind::InvalidArgument, message).with_hint("run it once a row"));
    };
    let values = batch.columns().iter().map(|column| ScalarValue::try_from_array(column, 0));
    Ok(values.collect::<Result<_, _>>()?)
}

/// A schema as an encapsulated IPC message.
fn ipc(schema: &Schema) -> Result<Vec<u8>, Status> {
    let message: IpcMessage = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into().map_err(internal)?;
    Ok(message.0.to_vec())
}
