//! Opening the doors. Checked settings enter; everything runs until shutdown, then ends in order: no new callers, running
//! questions finish within a grace, background work stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::FILE_DESCRIPTOR_SET;
use schemas::{Contracts, Sensitive};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_reflection::server::{v1, v1alpha};

use crate::access::Access;
use crate::api::flight::Flight;
use crate::api::postgres::{self, Postgres};
use crate::api::profiles::ProfilesApi;
use crate::background::{Profiler, Refresher};
use crate::engine::Engine;
use crate::error::Error;
use crate::profile::{Computer, Definitions, Store};
use crate::settings::Settings;
use crate::source::Source;

/// How long running questions may go on after shutdown began.
const GRACE: Duration = Duration::from_secs(10);
/// A client that says nothing for so long is asked whether it is still there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers questions about `lake` until `shutdown` completes.
///
/// # Errors
/// Settings, contracts or definitions that cannot be used, before any port is bound; a port that is taken.
pub async fn serve(
    settings: Settings,
    contracts: Arc<Contracts>,
    lake: lake::Lake,
    access: Access,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let bound = Bound::new(settings, contracts, Source::lake(lake), access).await?;
    bound.run(shutdown).await
}

/// Everything checked, both ports bound, nobody served yet.
pub struct Bound {
    settings: Settings,
    engine: Arc<Engine>,
    store: Arc<Store>,
    access: Arc<Access>,
    refresher: Refresher,
    profiler: Profiler,
    tls: Option<ServerTlsConfig>,
    postgres: Postgres,
    grpc_listener: TcpListener,
    pg_listener: TcpListener,
}

impl Bound {
    /// Checks everything, then binds.
    ///
    /// # Errors
    /// See [`serve`].
    pub async fn new(
        settings: Settings,
        contracts: Arc<Contracts>,
        source: Source,
        access: Access,
    ) -> Result<Self, Error> {
        settings.validate()?;
        let key: Sensitive<Vec<u8>> = settings.person_key()?;
        let definitions = Definitions::load(&settings.profile_dir)?;
        let computer = Computer::new(&settings, &contracts, definitions).await?;
        let engine = Arc::new(Engine::new(&settings, contracts).await?);
        let (access, store) = (Arc::new(access), Arc::new(Store::default()));
        let postgres = Postgres::new(&settings, engine.clone(), access.clone())?;
        let tls = tls(&settings)?;
        let grpc_listener = TcpListener::bind(settings.grpc_listen).await.map_err(|error| {
            Error::settings(format!("query.grpc_listen: could not listen on {}", settings.grpc_listen))
                .with_hint("choose another port or stop what uses it")
                .with_source(error)
        })?;
        let pg_listener = postgres::bind(settings.pg_listen).await?;
        let refresher =
            Refresher { engine: engine.clone(), source, key, every: Duration::from_millis(settings.refresh_ms) };
        let profiler = Profiler {
            engine: engine.clone(),
            computer: Arc::new(computer),
            store: store.clone(),
            every: Duration::from_millis(settings.profile_refresh_ms),
            idle: Duration::from_secs(settings.profile_idle_refresh_s),
        };
        Ok(Self { settings, engine, store, access, refresher, profiler, tls, postgres, grpc_listener, pg_listener })
    }

    /// Where gRPC and the PostgreSQL wire listen.
    ///
    /// # Errors
    /// The system does not say.
    pub fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.grpc_listener.local_addr()?, self.pg_listener.local_addr()?))
    }

    /// Serves until `shutdown` completes.
    ///
    /// # Errors
    /// The gRPC server broke.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        let (stop, stopped) = watch::channel(false);
        let (reporter, health) = tonic_health::server::health_reporter();
        let mut background = JoinSet::new();
        background.spawn(self.refresher.run(stopped.clone()));
        let grpc_address = self.grpc_listener.local_addr().ok();
        let pg_address = self.pg_listener.local_addr().ok();
        let flight = Flight::new(&self.settings, self.engine.clone(), self.access.clone()).into_server();
        let profiles = ProfilesApi::new(self.engine.clone(), self.access.clone(), self.store).into_server();
        set_flight_serving(&reporter, &flight).await;
        background
            .spawn(self.profiler.run(stopped.clone(), async move |serving| set_profiles(&reporter, serving).await));

        let mut server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .concurrency_limit_per_connection(self.settings.connections_max);
        if let Some(tls) = self.tls {
            server = server.tls_config(tls).map_err(unusable_tls)?;
        }
        let mut grpc_stopped = stopped.clone();
        let grpc = server
            .add_service(health)
            .add_service(reflection_v1()?)
            .add_service(reflection_v1alpha()?)
            .add_service(flight)
            .add_service(profiles)
            .serve_with_incoming_shutdown(TcpIncoming::from(self.grpc_listener).with_nodelay(Some(true)), async move {
                let _ = grpc_stopped.wait_for(|stop| *stop).await;
            });
        let postgres = self.postgres.serve(self.pg_listener, stopped);
        tracing::info!(grpc = ?grpc_address, postgres = ?pg_address, "answering");

        let (mut grpc, mut postgres) = (tokio::spawn(grpc), tokio::spawn(postgres));
        let early = tokio::select! {
            () = shutdown => None,
            ended = &mut grpc => Some(ended),
        };
        stop.send_replace(true);
        self.engine.close();
        let ended = match early {
            Some(ended) => Some(ended),
            None => tokio::time::timeout(GRACE, &mut grpc).await.ok(),
        };
        let _ = tokio::time::timeout(GRACE, &mut postgres).await;
        grpc.abort();
        postgres.abort();
        background.shutdown().await;
        match ended {
            Some(Ok(Err(error))) => {
                Err(Error::new(crate::ErrorKind::Unavailable, "the gRPC server broke").with_source(error))
            }
            _ => Ok(()),
        }
    }
}

async fn set_flight_serving<T>(reporter: &tonic_health::server::HealthReporter, _flight: &T)
where
    T: tonic::server::NamedService,
{
    reporter.set_serving::<T>().await;
}

type ProfilesServer = proto::profile::v1::profile_service_server::ProfileServiceServer<ProfilesApi>;

async fn set_profiles(reporter: &tonic_health::server::HealthReporter, serving: bool) {
    match serving {
        true => reporter.set_serving::<ProfilesServer>().await,
        false => reporter.set_not_serving::<ProfilesServer>().await,
    }
}

/// TLS of the gRPC door, tried once so that files that do not fit are found before a port is bound.
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
    Error::settings("query.tls cannot be used")
        .with_hint("both files must be PEM and belong together")
        .with_source(error)
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn reflection_v1() -> Result<v1::ServerReflectionServer<impl v1::ServerReflection>, Error> {
    reflection().build_v1().map_err(|error| Error::new(crate::ErrorKind::Internal, "no reflection").with_source(error))
}

fn reflection_v1alpha() -> Result<v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>, Error> {
    reflection()
        .build_v1alpha()
        .map_err(|error| Error::new(crate::ErrorKind::Internal, "no reflection").with_source(error))
}
