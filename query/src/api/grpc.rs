//! The gRPC port: Flight SQL, the profile and identity services, health and reflection behind one listener. Services enter, a server
//! leaves, encrypted where the settings say so.

use std::sync::Arc;
use std::time::Duration;

use proto::FILE_DESCRIPTOR_SET;
use schemas::Sensitive;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_health::server::HealthReporter;
use tonic_reflection::server::{v1, v1alpha};

use super::flight::Flight;
use super::identity::IdentityApi;
use super::postgres;
use super::profiles::ProfilesApi;
use super::profiles::admin::AdminApi;
use crate::access::Access;
use crate::decide::Decide;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::profile::{Live, Moments, Store};
use crate::settings::Settings;

/// A client that says nothing for so long is asked whether it is still there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

type FlightServer = arrow_flight::flight_service_server::FlightServiceServer<Flight>;
type ProfilesServer = proto::profile::server::profile_service_server::ProfileServiceServer<ProfilesApi>;
type AdminServer = proto::profile::server::profile_admin_service_server::ProfileAdminServiceServer<AdminApi>;
type IdentityServer = proto::identity::v1::identity_service_server::IdentityServiceServer<IdentityApi>;

/// The door, before it opens.
pub struct Grpc {
    flight: FlightServer,
    profiles: ProfilesServer,
    admin: AdminServer,
    identity: IdentityServer,
    tls: Option<ServerTlsConfig>,
    connections_max: usize,
}

impl Grpc {
    /// # Errors
    /// TLS files that cannot be used.
    pub fn new(
        settings: &Settings,
        engine: &Arc<Engine>,
        access: &Arc<Access>,
        store: &Arc<Store>,
        live: &Arc<Live>,
        decide: Arc<dyn Decide>,
        key: Sensitive<Vec<u8>>,
    ) -> Result<Self, Error> {
        let moments = Arc::new(Moments::new(engine.clone(), live.clone(), key.clone()));
        Ok(Self {
            flight: Flight::new(settings, engine.clone(), access.clone()).into_server(),
            profiles: ProfilesApi::new(engine.clone(), access.clone(), store.clone(), live.clone(), moments)
                .into_server(),
            admin: AdminApi::new(engine.clone(), access.clone(), live.clone()).into_server(),
            identity: IdentityApi::new(engine.clone(), access.clone(), decide, key).into_server(),
            tls: tls(settings)?,
            connections_max: settings.connections_max,
        })
    }

    /// Serves until `shutdown` is true; then running calls may finish. The profile service is reported as serving while
    /// `profiles_ready` is true, everything else as long as the door is open.
    ///
    /// # Errors
    /// The server broke.
    pub async fn serve(
        self,
        listener: TcpListener,
        mut shutdown: watch::Receiver<bool>,
        profiles_ready: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<FlightServer>().await;
        reporter.set_serving::<IdentityServer>().await;
        let mut server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .concurrency_limit_per_connection(self.connections_max);
        if let Some(tls) = self.tls {
            server = server.tls_config(tls).map_err(unusable_tls)?;
        }
        let served = server
            .add_service(health)
            .add_service(reflection_v1()?)
            .add_service(reflection_v1alpha()?)
            .add_service(self.flight)
            .add_service(self.profiles)
            .add_service(self.admin)
            .add_service(self.identity)
            .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async move {
                let _ = shutdown.wait_for(|stop| *stop).await;
            });
        tokio::select! {
            served = served => {
                served.map_err(|error| Error::new(ErrorKind::Unavailable, "the gRPC server broke").with_source(error))
            }
            never = report(reporter, profiles_ready) => match never {},
        }
    }
}

async fn report(reporter: HealthReporter, mut profiles_ready: watch::Receiver<bool>) -> std::convert::Infallible {
    loop {
        let is_ready = *profiles_ready.borrow_and_update();
        match is_ready {
            true => reporter.set_serving::<ProfilesServer>().await,
            false => reporter.set_not_serving::<ProfilesServer>().await,
        }
        if profiles_ready.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// TLS, tried once so that files that do not fit are found before a port is bound.
fn tls(settings: &Settings) -> Result<Option<ServerTlsConfig>, Error> {
    let Some(files) = &settings.tls else { return Ok(None) };
    let read = |key: &str, file: &std::path::Path| {
        let unreadable = || Error::settings(format!("query.tls.{key}: could not read {}", file.display()));
        std::fs::read(file).map_err(|error| unreadable().with_source(error))
    };
    let identity = Identity::from_pem(read("certificate", &files.certificate)?, read("key", &files.key)?);
    let config = ServerTlsConfig::new().identity(identity);
    postgres::choose_crypto();
    Server::builder().tls_config(config.clone()).map_err(unusable_tls)?;
    Ok(Some(config))
}

fn unusable_tls(error: tonic::transport::Error) -> Error {
    let error = Error::settings("query.tls cannot be used").with_source(error);
    error.with_hint("both files must be PEM and belong together")
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn reflection_v1() -> Result<v1::ServerReflectionServer<impl v1::ServerReflection>, Error> {
    reflection().build_v1().map_err(|error| Error::new(ErrorKind::Internal, "no reflection").with_source(error))
}

/// Older tools (grpcurl, grpcio) ask by this name.
fn reflection_v1alpha() -> Result<v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>, Error> {
    reflection().build_v1alpha().map_err(|error| Error::new(ErrorKind::Internal, "no reflection").with_source(error))
}
