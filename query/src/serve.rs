//! Opening the doors. Checked settings enter; everything runs until shutdown, then ends in order: no new callers, running
//! questions finish within a grace, newer profiles are written to the lake, background work stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lake::{Lake, UpkeepSettings};
use schemas::{Contracts, Sensitive};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::access::Access;
use crate::api::grpc::Grpc;
use crate::api::postgres::Postgres;
use crate::background::{Copier, Profiler, Refresher, Target};
use crate::decide::Decide;
use crate::engine::Engine;
use crate::error::Error;
use crate::profile::{Files, Live, Store};
use crate::settings::Settings;
use crate::source::Source;
use crate::tail::Tail;

/// How long running questions may go on after shutdown began.
const GRACE: Duration = Duration::from_secs(10);

/// Everything checked, both ports bound, nobody served yet.
pub struct Bound {
    engine: Arc<Engine>,
    store: Arc<Store>,
    tail: Option<Arc<Tail>>,
    refresher: Refresher,
    profiler: Profiler,
    /// How often the profile's tables are written at most, where they may be.
    tables_every: Option<Duration>,
    /// The same of the checkpoint.
    checkpoint_every: Option<Duration>,
    copiers: Vec<Copier>,
    grpc: Grpc,
    postgres: Postgres,
    grpc_listener: TcpListener,
    pg_listener: TcpListener,
}

impl Bound {
    /// Checks everything, then binds.
    ///
    /// # Errors
    /// Settings, contracts or definitions that cannot be used, before any port is bound; a port that is taken.
    pub async fn new(
        settings: Settings,
        contracts: Arc<Contracts>,
        source: Source,
        access: Access,
        decide: Arc<dyn Decide>,
    ) -> Result<Self, Error> {
        settings.validate()?;
        let key: Sensitive<Vec<u8>> = settings.person_key()?;
        let (access, store) = (Arc::new(access), Arc::new(Store::default()));
        let engine = Arc::new(Engine::new(&settings, contracts).await?.with_profiles(store.clone()));
        let live = Arc::new(Live::new(&settings, &engine, &store).await?);
        let grpc = Grpc::new(&settings, &engine, &access, &store, &live, decide, key.clone())?;
        let postgres = Postgres::new(&settings, engine.clone(), access)?;
        let grpc_listener = bind("grpc_listen", settings.grpc_listen).await?;
        let pg_listener = bind("pg_listen", settings.pg_listen).await?;
        let every = Duration::from_millis(settings.refresh_ms);
        let tail = source.tail().cloned();
        let refresher = Refresher { engine: engine.clone(), source, key, every };
        let profiler = Profiler {
            engine: engine.clone(),
            live,
            checkpoint: None,
            every: Duration::from_millis(settings.profile_refresh_ms),
            rest_max: Duration::from_millis(settings.profile_rest_ms_max),
            idle: Duration::from_secs(settings.profile_idle_refresh_s),
        };
        let every = |seconds| Some(Duration::from_secs(seconds)).filter(|every| !every.is_zero());
        let tables_every = every(settings.profile_table_every_s);
        let checkpoint_every = every(settings.profile_checkpoint_every_s);
        Ok(Self {
            engine,
            store,
            tail,
            refresher,
            profiler,
            tables_every,
            checkpoint_every,
            copiers: Vec::new(),
            grpc,
            postgres,
            grpc_listener,
            pg_listener,
        })
    }

    /// Has profiles written to `lake`, and those of the last time read from there, unless the settings say never.
    pub fn with_files(mut self, lake: Lake, upkeep: UpkeepSettings) -> Self {
        self.profiler.checkpoint = self.checkpoint_every.map(|_| lake.clone());
        let checkpoint = self.checkpoint_every.map(|every| (Target::Checkpoint(lake.clone()), every));
        let tables = self.tables_every.map(|every| (Target::Tables(Files::new(lake, upkeep)), every));
        let targets = checkpoint.into_iter().chain(tables);
        self.copiers = targets.map(|(to, every)| Copier { store: self.store.clone(), to, every }).collect();
        self
    }

    /// What tells how answering goes, for as long as one likes.
    pub fn watched(&self) -> Watched {
        Watched { engine: self.engine.clone(), store: self.store.clone(), tail: self.tail.clone() }
    }

    /// Where gRPC and the PostgreSQL wire listen.
    ///
    /// # Errors
    /// The system does not say.
    pub fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.grpc_listener.local_addr()?, self.pg_listener.local_addr()?))
    }

    /// Serves until `shutdown` completes. Nobody is answered before the lake has been looked at: an answer from a snapshot of
    /// nothing would be a wrong one.
    ///
    /// # Errors
    /// The gRPC server broke.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        if let Ok((grpc, postgres)) = self.addresses() {
            tracing::info!(%grpc, %postgres, "answering");
        }
        let (stop, stopped) = watch::channel(false);
        let (ready, profiles_ready) = watch::channel(false);
        let (begun, mut has_begun) = watch::channel(false);
        let refresher = tokio::spawn(self.refresher.run(stopped.clone(), begun));
        let mut shutdown = std::pin::pin!(shutdown);
        tokio::select! {
            _ = has_begun.wait_for(|begun| *begun) => {}
            () = &mut shutdown => {
                stop.send_replace(true);
                return Ok(());
            }
        }
        let profiler = tokio::spawn(self.profiler.run(stopped.clone(), ready));
        let (stop_copies, copies_stopped) = watch::channel(false);
        let copiers = self.copiers.into_iter().map(|copier| self.engine.spawn(copier.run(copies_stopped.clone())));
        let mut copiers: Vec<_> = copiers.collect();
        let mut postgres = tokio::spawn(self.postgres.serve(self.pg_listener, stopped.clone()));
        let mut grpc = tokio::spawn(self.grpc.serve(self.grpc_listener, stopped, profiles_ready));
        let early = tokio::select! {
            () = &mut shutdown => None,
            ended = &mut grpc => Some(ended),
        };
        stop.send_replace(true);
        self.engine.close();
        self.store.close();
        let ended = match early {
            Some(ended) => Some(ended),
            None => tokio::time::timeout(GRACE, &mut grpc).await.ok(),
        };
        let _ = tokio::time::timeout(GRACE, &mut postgres).await;
        // Nobody sees newer profiles any more than what is written now.
        stop_copies.send_replace(true);
        for copier in &mut copiers {
            let _ = tokio::time::timeout(GRACE, &mut *copier).await;
            copier.abort();
        }
        for task in [grpc.abort_handle(), postgres.abort_handle(), refresher.abort_handle(), profiler.abort_handle()] {
            task.abort();
        }
        match ended {
            Some(Ok(Err(error))) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Tells how answering goes, from outside.
#[derive(Clone)]
pub struct Watched {
    engine: Arc<Engine>,
    store: Arc<Store>,
    tail: Option<Arc<Tail>>,
}

/// What a health check says of query.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Health {
    /// The ports are bound, the lake has been looked at, and the tail has read what the log held at the start.
    pub ready: bool,
    /// The newest snapshot; 0 while the lake is empty.
    pub snapshot: u64,
    pub refresh_age_s: Option<f64>,
    /// The tail has stopped reading until landing catches up: answers reach to where it was read.
    pub tail_full: bool,
    pub profiles: usize,
}

impl Watched {
    /// Sets the gauges that grow by themselves; called when the metrics are asked for.
    pub fn observe(&self) {
        let profiles_age = self.store.get().map(|profiles| {
            let age_us = chrono::Utc::now().timestamp_micros() - profiles.computed_at;
            Duration::from_micros(u64::try_from(age_us).unwrap_or(0))
        });
        let tail_bytes = self.tail.as_ref().map_or(0, |tail| tail.bytes());
        self.engine.watch.observe(self.engine.running(), profiles_age, tail_bytes);
    }

    pub fn health(&self) -> Health {
        let refresh_age = self.engine.watch.refresh_age();
        Health {
            ready: refresh_age.is_some() && self.tail.as_ref().is_none_or(|tail| tail.has_caught_up()),
            snapshot: self.engine.pin().snapshot.id,
            refresh_age_s: refresh_age.map(|age| age.as_secs_f64()),
            tail_full: self.tail.as_ref().is_some_and(|tail| tail.is_full()),
            profiles: self.store.get().map_or(0, |profiles| profiles.persons.len()),
        }
    }
}

async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::settings(format!("query.{key}: could not listen on {address}"))
            .with_hint("choose another port or stop what uses it")
            .with_source(error)
    })
}
