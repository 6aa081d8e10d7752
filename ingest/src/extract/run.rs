//! Running all sources: one thread a pulled source, one HTTP listener for those that push.
//!
//! Settings, contracts and a log enter; records and letters leave to the log until shutdown is told. A source that
//! fails is tried again with growing pauses; the others do not notice.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use lake::Lake;
use schemas::{Contract, Contracts};
use tokio::runtime::Handle;
use tokio::sync::watch;
use topic::{Log, Watermark};

use super::decisions;
use super::pipeline::Pipeline;
use super::pull::TablePull;
use super::schedule::Schedule;
use super::source::{self, Source, Worker};
use super::state::State;
use super::status::{Board, WRITE_EVERY};
use super::webhook;
use crate::connector::Connector;
use crate::error::{Error, ErrorKind};
use crate::functions::{Surroundings, UnknownCodes};
use crate::letter;
use crate::metrics;
use crate::refine::Refiner;
use crate::settings::{ExtractSettings, SourceSettings};

/// All that extract needs to run.
pub struct Extract {
    settings: ExtractSettings,
    timezone: Tz,
    state: State,
    pub board: Board,
    sources: Vec<PreparedSource>,
    pub(super) contracts: Contracts,
    pub(super) log: Arc<dyn Log>,
    pub(super) lake: Lake,
    /// Writes what becomes of letters.
    pub(super) letters: Refiner,
    /// Writes decisions about identity.
    pub(super) decisions: Refiner,
    /// Held by the one replay or discard under way.
    pub(super) replaying: tokio::sync::Mutex<()>,
    pub(super) replay_pace: DefaultDirectRateLimiter,
    is_listening: AtomicBool,
}

/// A source whose connector was read and whose mappings were checked.
pub struct PreparedSource {
    pub id: String,
    pub connector: Connector,
    pub settings: SourceSettings,
    pub schedule: Schedule,
    pub pipelines: Vec<Pipeline>,
    pub codes_unknown: Arc<UnknownCodes>,
}

impl PreparedSource {
    /// How many connections share its tables, each in a thread of its own.
    fn lanes(&self) -> usize {
        (self.settings.connections_max.unwrap_or(1) as usize).clamp(1, self.pipelines.len().max(1))
    }

    /// # Errors
    /// `Source` when its hours are over.
    pub(super) fn check_open(&self, now: DateTime<Utc>) -> Result<(), Error> {
        match self.schedule.is_open(now) {
            true => Ok(()),
            false => Err(Error::source("its hours are over; the rest comes when they begin again")),
        }
    }
}

impl Extract {
    /// Reads connectors, checks mappings, makes the topics it will write to and registers in `lake` the schemas it will
    /// write with. Nothing is pulled yet.
    ///
    /// # Errors
    /// `Settings` for whatever is wrong with the settings, a connector or a mapping, and for a contract that cannot read
    /// what was written before; `Log` and `Lake` when they refuse. While they are away they are waited for.
    pub async fn prepare(
        settings: ExtractSettings,
        sources: BTreeMap<String, SourceSettings>,
        contracts: &Contracts,
        timezone: Tz,
        log: Arc<dyn Log>,
        partitions: i32,
        lake: &Lake,
    ) -> Result<Arc<Self>, Error> {
        let mut prepared = Vec::new();
        for (id, source) in sources {
            prepared.push(prepare_source(&settings, id, source, contracts, timezone, &log).await?);
        }
        let written = written(&prepared, contracts)?;
        make_topics(&written, &log, partitions).await?;
        register_schemas(&written, lake).await?;
        if let Some(parent) = settings.state_path.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|error| Error::settings(format!("could not create {}: {error}", parent.display())))?;
        }
        let state = State::open(&settings.state_path)?;
        let board = Board::new(&settings.state_path);
        for source in &prepared {
            for pipeline in &source.pipelines {
                board.register(&source.id, &source.settings.connector, &pipeline.table);
            }
        }
        board.keep_up();
        let pace = Quota::per_second(NonZeroU32::new(settings.replay_rate_max).unwrap_or(NonZeroU32::MIN));
        Ok(Arc::new(Self {
            settings,
            timezone,
            state,
            board,
            sources: prepared,
            letters: Refiner::new(letter::contract(contracts)?)?,
            decisions: Refiner::new(decisions::contract(contracts)?)?,
            contracts: contracts.clone(),
            log,
            lake: lake.clone(),
            replaying: tokio::sync::Mutex::default(),
            replay_pace: RateLimiter::direct(pace),
            is_listening: AtomicBool::new(false),
        }))
    }

    pub fn settings(&self) -> &ExtractSettings {
        &self.settings
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub fn sources(&self) -> &[PreparedSource] {
        &self.sources
    }

    /// How far the topics of all contracts are. Blocks.
    ///
    /// # Errors
    /// `Log` when it does not answer.
    pub(super) fn watermark(&self) -> Result<Watermark, Error> {
        let mut watermark = Watermark::default();
        for topic in self.contracts.iter().map(|contract| contract.topic()) {
            match self.log.extents(&topic) {
                Ok(extents) => {
                    extents.iter().for_each(|extent| watermark.advance(&topic, extent.partition, extent.high));
                }
                Err(error) if error.kind == topic::ErrorKind::UnknownTopic => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(watermark)
    }

    /// Whether pushes are taken.
    pub fn is_listening(&self) -> bool {
        self.is_listening.load(Ordering::Relaxed)
    }

    /// Runs until `shutdown` says so.
    ///
    /// # Errors
    /// `Settings` when the HTTP address cannot be bound.
    pub async fn run(self: &Arc<Self>, shutdown: watch::Receiver<bool>) -> Result<(), Error> {
        let listener = webhook::bind(self).await?;
        let worker = Worker::new(&self.settings, Handle::current(), shutdown.clone()).in_timezone(self.timezone);
        let mut threads = Vec::new();
        let pulled = self.sources.iter().enumerate().filter(|(_, source)| source.connector.kind.is_pulled());
        for (at, source, lane) in
            pulled.flat_map(|(at, source)| (0..source.lanes()).map(move |lane| (at, source, lane)))
        {
            let (extract, worker) = (self.clone(), worker.pulling(&source.id));
            let thread = std::thread::Builder::new().name(format!("pull-{}", source.id));
            let run = move || extract.poll_source(at, lane, &worker);
            threads.push(thread.spawn(run).map_err(|error| Error::internal("start a thread", error))?);
        }
        let extract = self.clone();
        let thread = std::thread::Builder::new().name("backfill".to_string());
        let run = move || extract.run_backfills(&worker);
        threads.push(thread.spawn(run).map_err(|error| Error::internal("start a thread", error))?);
        let extract = self.clone();
        let keeping_up = tokio::spawn(async move {
            loop {
                tokio::time::sleep(WRITE_EVERY).await;
                extract.board.keep_up();
            }
        });
        self.is_listening.store(true, Ordering::Relaxed);
        let served = webhook::serve(self.clone(), listener, shutdown).await;
        self.is_listening.store(false, Ordering::Relaxed);
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().try_for_each(std::thread::JoinHandle::join));
        let joined = joined.await;
        // Awaited: it holds the state's folder, which whoever called may open again as soon as this has returned.
        keeping_up.abort();
        let _ = keeping_up.await;
        self.board.keep_up();
        served?;
        match joined {
            Ok(Ok(())) => Ok(()),
            _ => Err(Error::new(ErrorKind::Internal, "a source's thread has panicked")),
        }
    }

    /// Pulls the tables of one lane of a source, again and again.
    fn poll_source(&self, at: usize, lane: usize, worker: &Worker) {
        let source = &self.sources[at];
        let mut connection = None;
        let mut failures: u32 = 0;
        let mut pause = source.schedule.first(Utc::now());
        while worker.wait(pause).is_ok() && worker.wait(source.schedule.closed_for(Utc::now())).is_ok() {
            let is_well = self.pull_all(source, lane, &mut connection, worker);
            failures = if is_well { 0 } else { failures.saturating_add(1) };
            connection = connection.filter(|source| is_well && source.is_kept());
            pause = match failures {
                0 => source.schedule.next(Utc::now()),
                n => self.backoff(n),
            };
        }
    }

    pub(super) fn backoff(&self, failures: u32) -> Duration {
        let factor = 1u64 << (failures - 1).min(16);
        Duration::from_millis(self.settings.retry_ms_min.saturating_mul(factor).min(self.settings.retry_ms_max))
    }

    /// Pulls every table of a lane once, over the connection that was kept or a new one; whether all went well.
    fn pull_all(
        &self,
        source: &PreparedSource,
        lane: usize,
        kept: &mut Option<Box<dyn Source>>,
        worker: &Worker,
    ) -> bool {
        let pipelines = || source.pipelines.iter().skip(lane).step_by(source.lanes());
        let connected = match kept.take() {
            Some(connection) => Ok(connection),
            None => source::connect(&source.connector, &source.settings, worker),
        };
        let connection = match connected {
            Ok(connection) => kept.insert(connection),
            Err(error) => {
                tracing::warn!(source = source.id, error = %error.chain(), "source is not reachable, trying again");
                for pipeline in pipelines() {
                    metrics::pulled(&source.id, &pipeline.table.name, Duration::ZERO, false);
                    self.board.failed(&source.id, &pipeline.table.name, &error.chain());
                }
                return false;
            }
        };
        let mut all_well = true;
        for pipeline in pipelines() {
            if worker.is_stopped() {
                return all_well;
            }
            let table = &pipeline.table.name;
            let span = metrics::span("pull", &source.id, table);
            let _entered = span.enter();
            let began = Instant::now();
            let mut pull = TablePull::new(source, pipeline, self.state.table(&source.id, table), worker);
            let outcome = pull.run(connection.as_mut());
            metrics::pulled(&source.id, table, began.elapsed(), outcome.is_ok());
            let failed = outcome.as_ref().err().map(|error| error.kind);
            metrics::end_span(&span, pull.sent().records, pull.sent().letters, failed);
            match outcome {
                Ok(()) => {
                    let unknown = source.codes_unknown.count();
                    self.board.succeeded(&source.id, table, pull.sent(), unknown, Utc::now());
                    tracing::debug!(source = source.id, table, records = pull.sent().records, "pulled");
                }
                // It goes on from its cursor with the next start.
                Err(_) if worker.is_stopped() => return all_well,
                Err(error) => {
                    all_well = false;
                    tracing::warn!(source = source.id, table, error = %error.chain(), "pull failed, trying again");
                    self.board.failed(&source.id, table, &error.chain());
                }
            }
        }
        all_well
    }
}

/// The contracts of what `sources` write, dead letters and decisions among them, each once.
fn written(sources: &[PreparedSource], contracts: &Contracts) -> Result<Vec<Arc<Contract>>, Error> {
    let pipelines = sources.iter().flat_map(|source| &source.pipelines);
    let mut written: BTreeMap<String, Arc<Contract>> =
        pipelines.map(|pipeline| (pipeline.contract().name(), pipeline.contract().clone())).collect();
    for own in [letter::contract(contracts)?, decisions::contract(contracts)?] {
        written.insert(own.name(), own);
    }
    Ok(written.into_values().collect())
}

/// Between two tries to reach a log or a lake that is away at the start: sources lose nothing by the wait.
const START_EVERY: Duration = Duration::from_secs(1);

async fn make_topics(written: &[Arc<Contract>], log: &Arc<dyn Log>, partitions: i32) -> Result<(), Error> {
    for contract in written {
        loop {
            let (log, topic) = (log.clone(), contract.topic());
            let made = tokio::task::spawn_blocking(move || log.ensure_topic(&topic, partitions)).await;
            match made.map_err(|error| Error::internal("make a topic", error))? {
                Ok(_) => break,
                Err(error) if error.kind == topic::ErrorKind::Unreachable => {
                    tracing::warn!(error = %Error::from(error).chain(), "the log does not answer, trying again");
                    tokio::time::sleep(START_EVERY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Makes the schemas known that this process will write with, before it writes.
async fn register_schemas(written: &[Arc<Contract>], lake: &Lake) -> Result<(), Error> {
    for contract in written {
        while let Err(error) = lake.register_schema(contract).await {
            if error.kind != lake::ErrorKind::Store {
                return Err(error.into());
            }
            let error = Error::from(error);
            tracing::warn!(error = %error.chain(), "the lake does not keep a schema, trying again");
            tokio::time::sleep(START_EVERY).await;
        }
    }
    Ok(())
}

async fn prepare_source(
    extract: &ExtractSettings,
    id: String,
    settings: SourceSettings,
    contracts: &Contracts,
    timezone: Tz,
    log: &Arc<dyn Log>,
) -> Result<PreparedSource, Error> {
    let connector = Connector::load(&extract.connectors_path, &settings.connector, contracts)?;
    let schedule = connector.check_source(&id, &settings, extract, timezone)?;
    let surroundings = Surroundings::of(&connector, extract, timezone);
    let mut pipelines = Vec::new();
    for table in &connector.tables {
        pipelines.push(Pipeline::new(&id, &connector, table, contracts, &surroundings, log.clone()).await?);
    }
    Ok(PreparedSource { id, connector, settings, schedule, pipelines, codes_unknown: surroundings.codes_unknown })
}
