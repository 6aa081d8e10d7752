//! The other side of the doors, for the command line. A question or a person enters; batches or a profile leave.

mod identity;

use std::time::Duration;

use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{FlightClient, FlightDescriptor};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::stream::{BoxStream, StreamExt as _};
use prost::Message as _;
use proto::profile::v1::profile_admin_service_client::ProfileAdminServiceClient;
use proto::profile::v1::profile_service_client::ProfileServiceClient;
use proto::profile::v1::{
    BatchGetProfilesRequest, DiffProfilesRequest, GetProfileRequest, Profile, ProfileComparison, ProfileResult,
    SwitchProfilesRequest, VerifyProfilesRequest,
};
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::error::{Error, ErrorKind};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A connection to a server's gRPC port.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    token: Option<String>,
    watermark: Option<String>,
}

/// An answer over Flight SQL.
pub struct Batches {
    pub schema: SchemaRef,
    pub stream: BoxStream<'static, Result<RecordBatch, Error>>,
}

impl Client {
    /// Connects to `url`, for example `http://127.0.0.1:50051`.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no URL, `Unavailable` when nobody answers there.
    pub async fn connect(url: &str, token: Option<String>) -> Result<Self, Error> {
        Self::connect_with(url, token, None).await
    }

    /// As [`Client::connect`], encrypted, to a server whose certificate `ca_pem` vouches for.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_tls(url: &str, token: Option<String>, ca_pem: Vec<u8>) -> Result<Self, Error> {
        super::postgres::choose_crypto();
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca_pem));
        Self::connect_with(url, token, Some(tls)).await
    }

    async fn connect_with(url: &str, token: Option<String>, tls: Option<ClientTlsConfig>) -> Result<Self, Error> {
        let wrong = |error: tonic::transport::Error| {
            Error::new(ErrorKind::InvalidArgument, format!("`{url}` is not a URL such as http://127.0.0.1:50051"))
                .with_source(error)
        };
        let mut endpoint = Endpoint::from_shared(url.to_string()).map_err(wrong)?.connect_timeout(CONNECT_TIMEOUT);
        if let Some(tls) = tls {
            endpoint = endpoint.tls_config(tls).map_err(wrong)?;
        }
        let channel = endpoint.connect().await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("could not reach {url}"))
                .with_hint("is `quad up` or `quad query` running?")
                .with_source(error)
        })?;
        Ok(Self { channel, token, watermark: None })
    }

    /// The same, of whose SQL the answers reach to `watermark`.
    pub fn after(self, watermark: Option<String>) -> Self {
        Self { watermark, ..self }
    }

    /// Asks a question.
    ///
    /// # Errors
    /// What the server says.
    pub async fn sql(&self, sql: &str) -> Result<Batches, Error> {
        let inner = arrow_flight::flight_service_client::FlightServiceClient::new(self.channel.clone());
        let mut client = FlightClient::new_from_inner(inner.max_decoding_message_size(MESSAGE_BYTES_MAX));
        if let Some(token) = &self.token {
            client.add_header("authorization", &format!("Bearer {token}")).map_err(from_flight)?;
        }
        if let Some(watermark) = &self.watermark {
            client.add_header("quad-watermark", watermark).map_err(from_flight)?;
        }
        let command = CommandStatementQuery { query: sql.to_string(), transaction_id: None };
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let info = client.get_flight_info(descriptor).await.map_err(from_flight)?;
        let schema = info.clone().try_decode_schema().map_err(|error| from_flight(error.into()))?;
        let ticket = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket);
        let ticket = ticket.ok_or_else(|| Error::new(ErrorKind::Internal, "the server gave no ticket"))?;
        let stream: FlightRecordBatchStream = client.do_get(ticket).await.map_err(from_flight)?;
        let stream = stream.map(|batch| batch.map_err(from_flight)).boxed();
        Ok(Batches { schema: schema.into(), stream })
    }

    /// The cheapest call there is: whether the server serves.
    ///
    /// # Errors
    /// What the server says.
    pub async fn health(&self) -> Result<(), Error> {
        let mut client = tonic_health::pb::health_client::HealthClient::new(self.channel.clone());
        let answer = client.check(HealthCheckRequest::default()).await.map_err(|status| from_status(&status))?;
        match answer.into_inner().status() {
            ServingStatus::Serving => Ok(()),
            _ => Err(Error::new(ErrorKind::Unavailable, "the server does not serve yet")),
        }
    }

    /// One profile.
    ///
    /// # Errors
    /// What the server says.
    pub async fn profile(&self, request: GetProfileRequest) -> Result<Profile, Error> {
        let request = self.request(request)?;
        let mut client = ProfileServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let response = client.get_profile(request).await.map_err(|status| from_status(&status))?;
        response.into_inner().profile.ok_or_else(|| Error::new(ErrorKind::Internal, "the server gave no profile"))
    }

    /// Several profiles, each or why there is none.
    ///
    /// # Errors
    /// What the server says.
    pub async fn profiles(&self, request: BatchGetProfilesRequest) -> Result<Vec<ProfileResult>, Error> {
        let request = self.request(request)?;
        let mut client = ProfileServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let response = client.batch_get_profiles(request).await.map_err(|status| from_status(&status))?;
        Ok(response.into_inner().results)
    }

    /// Has the profiles in use held against others, and perhaps changed.
    ///
    /// # Errors
    /// What the server says.
    pub async fn manage_profiles(&self, what: Manage) -> Result<ProfileComparison, Error> {
        let mut client = ProfileAdminServiceClient::new(self.channel.clone());
        let comparison = match what {
            Manage::Verify => {
                let asked = client.verify_profiles(self.request(VerifyProfilesRequest {})?).await;
                asked.map(|answer| answer.into_inner().comparison)
            }
            Manage::Diff => {
                let asked = client.diff_profiles(self.request(DiffProfilesRequest {})?).await;
                asked.map(|answer| answer.into_inner().comparison)
            }
            Manage::Switch => {
                let asked = client.switch_profiles(self.request(SwitchProfilesRequest {})?).await;
                asked.map(|answer| answer.into_inner().comparison)
            }
        };
        let comparison = comparison.map_err(|status| from_status(&status))?;
        comparison.ok_or_else(|| Error::new(ErrorKind::Internal, "the server gave no comparison"))
    }

    /// A request with the token.
    fn request<T>(&self, message: T) -> Result<Request<T>, Error> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            let header = MetadataValue::try_from(format!("Bearer {token}"));
            let header =
                header.map_err(|_| Error::new(ErrorKind::InvalidArgument, "the token has characters no token has"))?;
            request.metadata_mut().insert("authorization", header);
        }
        Ok(request)
    }
}

/// What may be done with all profiles.
#[derive(Debug, Clone, Copy)]
pub enum Manage {
    Verify,
    Diff,
    Switch,
}

fn from_flight(error: FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => from_status(&status),
        other => Error::new(ErrorKind::Internal, "could not read the answer").with_source(other),
    }
}

/// The server's error, its hint within the message.
fn from_status(status: &Status) -> Error {
    let kind = match status.code() {
        Code::InvalidArgument => ErrorKind::InvalidArgument,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::Denied,
        Code::NotFound => ErrorKind::NotFound,
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::Cancelled => ErrorKind::Canceled,
        Code::ResourceExhausted => ErrorKind::Busy,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::FailedPrecondition => ErrorKind::Settings,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, status.message())
}
