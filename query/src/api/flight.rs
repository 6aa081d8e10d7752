//! Flight SQL. Calls enter; each is authenticated, prepared and answered as a stream of Arrow batches.
//!
//! A ticket of a statement is its SQL: nothing is kept for whoever asks and never fetches. A prepared statement is kept by
//! a handle of 128 random bits, for its owner only, in a bounded store. `metadata` tells tools what there is.
//! Protocol: <https://arrow.apache.org/docs/format/FlightSql.html>

mod handles;
mod metadata;
mod service;

use std::pin::Pin;
use std::sync::Arc;

use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightServiceServer;
use arrow_flight::sql::ProstMessageExt;
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

use self::handles::Handles;
use self::metadata::Metadata;
use crate::access::{Access, Principal};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::metrics;
use crate::policy::Door;
use crate::settings::Settings;

/// The largest request: a statement with its parameters.
const REQUEST_BYTES_MAX: usize = 4 << 20;

type FlightStream = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

/// The Flight SQL service.
pub struct Flight {
    engine: Arc<Engine>,
    access: Arc<Access>,
    handles: Handles,
    metadata: Metadata,
}

impl Flight {
    pub fn new(settings: &Settings, engine: Arc<Engine>, access: Arc<Access>) -> Self {
        Self {
            metadata: Metadata::new(engine.contracts()),
            engine,
            access,
            handles: Handles::new(settings.handles_max),
        }
    }

    /// Ready to be added to a server.
    pub fn into_server(self) -> FlightServiceServer<Self> {
        FlightServiceServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    fn authenticate(&self, metadata: &MetadataMap) -> Result<Principal, Status> {
        let principal = authenticate(&self.access, metadata);
        Ok(principal.inspect_err(|error| metrics::refused(Door::FlightSql, error.kind))?)
    }
}

/// The caller of a gRPC request, by its `authorization: Bearer …`.
pub(super) fn authenticate(access: &Access, metadata: &MetadataMap) -> Result<Principal, Error> {
    let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer ")));
    access.authenticate(token).ok_or_else(|| {
        tracing::warn!(target: "quad::audit", door = "grpc", "refused a wrong token");
        let message = if header.is_none() { "no token given" } else { "wrong token" };
        Error::new(ErrorKind::Unauthenticated, message).with_hint("send `authorization: Bearer TOKEN`")
    })
}

/// What a client needs to fetch an answer: its columns and the ticket, which is `command`.
fn flight_info(
    schema: &SchemaRef,
    command: &impl ProstMessageExt,
    descriptor: FlightDescriptor,
) -> Result<Response<FlightInfo>, Status> {
    let ticket = Ticket { ticket: command.as_any().encode_to_vec().into() };
    let info = FlightInfo::new()
        .try_with_schema(schema)
        .map_err(internal)?
        .with_descriptor(descriptor)
        .with_endpoint(FlightEndpoint::new().with_ticket(ticket));
    Ok(Response::new(info))
}

/// Batches as Flight data, each message at most 2 MiB.
fn encode(
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, Error>> + Send + 'static,
) -> Response<FlightStream> {
    let declared = schema.clone();
    let batches = batches.map(move |batch| {
        let batch = batch.map_err(|error| FlightError::Tonic(Box::new(error.into())))?;
        // The plan may know better than the question that a column has no nulls; clients were told the question's word.
        RecordBatch::try_new(declared.clone(), batch.columns().to_vec()).map_err(FlightError::Arrow)
    });
    let data = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
    Response::new(Box::pin(data.map_err(Status::from)))
}

/// One batch as an answer.
fn encode_one(batch: RecordBatch) -> Response<FlightStream> {
    encode(batch.schema(), futures::stream::once(async { Ok(batch) }))
}

fn internal(error: impl std::fmt::Display) -> Status {
    Error::new(ErrorKind::Internal, error.to_string()).into()
}
