//! Running services: one, or all in one process.
//!
//! Checked settings enter. Everything that can be wrong is found before a port is bound; then the parts run until an
//! interrupt or until one of them fails, and all of them finish what they have begun.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ingest::extract::run::Extract;
use ingest::land::Land;
use ingest::landing::Landing;
use lake::{Lake, Upkeep};
use query::serve::Bound;
use query::{Access, Source, Tail};
use schemas::Contracts;
use tokio::sync::watch;
use tokio::task::JoinSet;
use topic::settings::Kind;

use crate::identity::Poster;
use crate::observe::{self, Recorder};
use crate::settings::Settings;
use crate::traces::Exporter;

/// Which parts a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    extract: bool,
    land: bool,
    query: bool,
}

impl Parts {
    pub const ALL: Self = Self { extract: true, land: true, query: true };
    pub const EXTRACT: Self = Self { extract: true, land: false, query: false };
    pub const LAND: Self = Self { extract: false, land: true, query: false };
    pub const QUERY: Self = Self { extract: false, land: false, query: true };
}

/// How a service is run.
#[derive(clap::Args)]
pub struct Service {
    /// Only check the settings; bind, connect and open nothing.
    #[arg(long)]
    pub check: bool,
}

/// How often a running process says how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// Runs `parts` until an interrupt; with `only_check`, says whether they would start.
///
/// # Errors
/// Whatever stopped a part, or kept it from starting.
pub async fn run(settings: Settings, parts: Parts, only_check: bool, exporter: Option<Exporter>) -> Result<ExitCode> {
    let contracts = Arc::new(settings.contracts()?);
    let access = if parts.query { Some(Access::new(&settings.access)?) } else { None };
    let alone = (parts.extract != parts.land) && settings.topic.kind == Kind::Embedded;
    if alone {
        bail!(crate::usage("the embedded log serves one process: use `quad up`, or set topic.kind = \"kafka\""));
    }
    if only_check {
        println!("the settings are valid");
        return Ok(ExitCode::SUCCESS);
    }
    let recorder = settings.observe.http_listen.map(|_| Recorder::install()).transpose()?;
    let started = Started::prepare(&settings, parts, contracts, access).await?;
    let page = match (recorder, settings.observe.http_listen) {
        (Some(recorder), Some(address)) => Some(tokio::spawn(recorder.bind(address).await?.serve(started.observed()))),
        _ => None,
    };
    let flush = exporter.as_ref().map(Exporter::flush);
    exporter.map(|exporter| tokio::spawn(exporter.run()));
    let outcome = run_parts(started).await;
    if let Some(page) = page {
        page.abort();
    }
    if let Some(flush) = flush {
        flush.run().await;
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Runs what was prepared until an interrupt or until one part fails.
async fn run_parts(started: Started) -> Result<()> {
    let (stop, shutdown) = watch::channel(false);
    let mut running = JoinSet::new();
    let pulse = Pulse { extract: started.extract.clone(), land: started.landing.clone() };
    let stopped = |mut shutdown: watch::Receiver<bool>| async move {
        let _ = shutdown.wait_for(|stop| *stop).await;
    };
    if let Some(query) = started.query {
        let stopped = stopped(shutdown.clone());
        running.spawn(async move { query.run(stopped).await.context("query stopped") });
    }
    if let Some(upkeep) = started.upkeep {
        let shutdown = shutdown.clone();
        running.spawn(async move {
            upkeep.run(shutdown).await;
            Ok(())
        });
    }
    if let Some(land) = started.land {
        let shutdown = shutdown.clone();
        running.spawn(async move { land.run(shutdown).await.context("land stopped") });
    }
    if let Some(extract) = started.extract {
        running.spawn(async move { extract.run(shutdown).await.context("extract stopped") });
    }
    until_stopped(running, &stop, pulse).await
}

/// Landing, opened and not running: for what is done to it by hand.
///
/// # Errors
/// The log or the lake cannot be opened.
pub async fn prepare_land(settings: &Settings, contracts: Arc<Contracts>) -> Result<Arc<Land>> {
    let started = Started::prepare(settings, Parts::LAND, contracts, None).await;
    started?.land.context("landing was asked for")
}

/// The parts of a process, checked and opened; none of them runs yet.
struct Started {
    extract: Option<Arc<Extract>>,
    land: Option<Arc<Land>>,
    upkeep: Option<Upkeep>,
    landing: Option<Arc<Landing>>,
    query: Option<Bound>,
}

impl Started {
    /// What the metrics page looks at.
    fn observed(&self) -> observe::Parts {
        let query = self.query.as_ref().map(Bound::watched);
        observe::Parts { extract: self.extract.clone(), landing: self.landing.clone(), query }
    }

    async fn prepare(
        settings: &Settings,
        parts: Parts,
        contracts: Arc<Contracts>,
        access: Option<Access>,
    ) -> Result<Self> {
        let mut started = Self { extract: None, land: None, landing: None, upkeep: None, query: None };
        let lake = reached(settings).await?;
        let (timezone, partitions) = (settings.timezone, settings.topic.partitions);
        // The embedded log is its process's own: a query service beside it answers from the lake.
        let reads_tail = parts.query && settings.query.tail_bytes_max > 0;
        let mut tail = None;
        if parts.extract || parts.land || (reads_tail && settings.topic.kind == Kind::Kafka) {
            let topic = settings.topic.clone();
            let log =
                tokio::task::spawn_blocking(move || topic::open(&topic)).await?.context("could not open the log")?;
            if reads_tail {
                let (landing, bytes_max) = (settings.land.id.clone(), settings.query.tail_bytes_max);
                let (log, lake, contracts) = (log.clone(), lake.clone(), contracts.clone());
                tail = Some(Arc::new(Tail::new(log, lake, contracts, landing, timezone, bytes_max)));
            }
            if parts.extract {
                let (extract, sources) = (settings.extract.clone(), settings.sources.clone());
                let extract = Extract::prepare(extract, sources, &contracts, timezone, log.clone(), partitions, &lake);
                started.extract = Some(extract.await?);
            }
            if parts.land {
                let upkeep = settings.lake.upkeep.clone();
                started.upkeep = upkeep.enabled.then(|| Upkeep::new(lake.clone(), &contracts, upkeep));
                let (settings, contracts, lake) = (settings.land.clone(), contracts.clone(), lake.clone());
                let landing = Arc::new(Landing::new(&contracts));
                tokio::spawn(landing.clone().watch_lag(log.clone(), contracts.clone()));
                started.landing = Some(landing.clone());
                started.land = Some(Arc::new(Land { settings, contracts, timezone, lake, log, partitions, landing }));
            }
        }
        if let Some(access) = access {
            let decide = Arc::new(Poster::new(settings));
            let source = Source::lake(lake.clone(), tail);
            let bound = Bound::new(settings.query.clone(), contracts, source, access, decide).await?;
            started.query = Some(bound.with_files(lake, settings.lake.upkeep.clone()));
        }
        Ok(started)
    }
}

/// The lake. What settings can mend stops a start; a store that does not answer is waited for by those who use it.
async fn reached(settings: &Settings) -> Result<Lake> {
    let lake = Lake::open(&settings.lake)?;
    match lake.reach().await {
        Err(error) if error.kind == lake::ErrorKind::Settings => return Err(error.into()),
        Err(error) => tracing::warn!(error = %format!("{:#}", anyhow::Error::from(error)), "going on without the lake"),
        Ok(()) => {}
    }
    Ok(lake)
}

/// Waits for an interrupt or the first part that ends, then for all of them.
async fn until_stopped(mut running: JoinSet<Result<()>>, stop: &watch::Sender<bool>, pulse: Pulse) -> Result<()> {
    let mut outcome = Ok(());
    let mut report = tokio::time::interval(REPORT_EVERY);
    report.tick().await;
    loop {
        tokio::select! {
            ended = running.join_next() => match ended {
                None => return outcome,
                Some(ended) => {
                    let ended = ended.context("a part has panicked").and_then(|result| result);
                    if let Err(error) = &ended {
                        tracing::error!(error = %format!("{error:#}"), "stopping");
                    }
                    outcome = outcome.and(ended);
                    stop.send_replace(true);
                }
            },
            () = interrupt() => {
                if stop.send_replace(true) {
                    tracing::warn!("interrupted again, leaving at once; nothing that was acknowledged is lost");
                    std::process::exit(130);
                }
                tracing::info!("stopping: finishing what has begun");
            }
            _ = report.tick() => pulse.say(),
        }
    }
}

async fn interrupt() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// What a running process tells of itself.
#[derive(Default)]
struct Pulse {
    extract: Option<Arc<Extract>>,
    land: Option<Arc<Landing>>,
}

impl Pulse {
    fn say(&self) {
        if let Some(extract) = &self.extract {
            let report = extract.board.report();
            let sum = |get: fn(&ingest::extract::status::TableStatus) -> u64| report.values().map(get).sum::<u64>();
            let failing = report.values().filter(|status| status.failures > 0).count();
            let (records, dead_letters) = (sum(|status| status.records), sum(|status| status.dead_letters));
            tracing::info!(records, dead_letters, tables = report.len(), failing, "extracted");
        }
        if let Some(totals) = &self.land {
            let (rows, commits) = (totals.rows.load(Ordering::Relaxed), totals.commits.load(Ordering::Relaxed));
            tracing::info!(rows, dead_letters = totals.letters.load(Ordering::Relaxed), commits, "landed");
        }
    }
}
