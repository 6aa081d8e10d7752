//! Land: topic → lake, each record exactly once.
//!
//! Records enter, commits leave. `poll` reads the log on a thread of its own and decodes; `lanes` is its way to the
//! tables' lanes; a `lane` has records checked by its `sieve`, writes Parquet and commits rows and offsets together;
//! `letters` and `ledger` are tables that landing itself writes, as `own` tables.
//! `reset` and `rebuild` are what a person has done to a partition or a table.
//!
//! The lake alone says where to start: every partition that is taken over, and every start again after a failure, reads
//! the positions from the tables and seeks there. The consumer group's offsets are a hint to monitors, never read.

pub mod lane;
pub mod lanes;
pub mod ledger;
pub mod letters;
pub mod own;
pub mod poll;
pub mod rebuild;
pub mod reset;
pub mod sieve;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono_tz::Tz;
use lake::Lake;
use schemas::{Contract, Contracts, Decoder};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use topic::{Consumer, Log, Subscription};

use crate::error::{Error, ErrorKind};
use crate::landing::Landing;
use crate::letter;
use crate::settings::{Assignment, LandSettings};
use lane::{Lane, Shared};
use lanes::Lanes;
use ledger::Ledger;
use letters::LetterBox;

/// How often the ledger is written.
const LEDGER_EVERY: Duration = Duration::from_secs(3);

/// Times in a row that another process may win before this one gives in, where one process is to have everything.
const FENCED_MAX: u32 = 8;

/// All that landing needs to run.
pub struct Land {
    pub settings: LandSettings,
    pub contracts: Arc<Contracts>,
    pub timezone: Tz,
    pub lake: Lake,
    pub log: Arc<dyn Log>,
    pub partitions: i32,
    pub landing: Arc<Landing>,
}

impl Land {
    /// Runs until `shutdown` says so; what was read is committed before it returns. A failure of the log or the lake, or
    /// another process that has taken over, starts it over from the lake's positions, with growing pauses.
    ///
    /// # Errors
    /// `Settings` when a table or topic cannot be used; `Fenced` when another process, not of a group, lands under the
    /// same id all the time.
    pub async fn run(self: &Arc<Self>, shutdown: watch::Receiver<bool>) -> Result<(), Error> {
        let mut failures: u32 = 0;
        while !*shutdown.borrow() {
            let commits = self.landing.commits.load(Ordering::Relaxed);
            let error = match self.attempt(shutdown.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            self.landing.restarted(error.kind);
            let progressed = self.landing.commits.load(Ordering::Relaxed) > commits;
            failures = if progressed { 1 } else { failures.saturating_add(1) };
            match error.kind {
                ErrorKind::Log | ErrorKind::Lake => {}
                ErrorKind::Fenced if self.settings.assignment == Assignment::Group || failures < FENCED_MAX => {}
                _ => return Err(error),
            }
            let factor = 1u64 << (failures - 1).min(16);
            let pause_ms = self.settings.retry_ms_min.saturating_mul(factor).min(self.settings.retry_ms_max);
            tracing::warn!(error = %error.chain(), pause_ms, "landing starts over from the lake's positions");
            let mut stop = shutdown.clone();
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
        Ok(())
    }

    /// From the lake's positions until shutdown or the first failure.
    async fn attempt(self: &Arc<Self>, shutdown: watch::Receiver<bool>) -> Result<(), Error> {
        let ledger = Arc::new(Ledger::open(self).await?);
        let letters = Arc::new(Mutex::new(LetterBox::open(self).await?));
        let shared = Shared { land: self.clone(), letters, ledger: ledger.clone(), bytes_waiting: Arc::default() };
        let mut lanes = Lanes { log: self.log.clone(), by_topic: Default::default(), landing: self.landing.clone() };
        let mut opening = JoinSet::new();
        for contract in self.contracts.iter() {
            opening.spawn(self.clone().open(shared.clone(), contract.clone()));
        }
        let (mut inlets, mut running) = (Vec::new(), JoinSet::new());
        while let Some(opened) = opening.join_next().await {
            let (contract, lane, decoder) = opened.map_err(|error| Error::internal("open a table", error))??;
            let (channel, orders) = mpsc::channel(poll::CHUNKS_WAITING_MAX);
            running.spawn(lane.run(orders));
            inlets.push(poll::Inlet::new(contract.topic(), decoder, channel.clone()));
            lanes.by_topic.insert(contract.topic(), (contract.name(), channel));
        }
        let (land, stop) = (self.clone(), shutdown.clone());
        let polling = tokio::task::spawn_blocking(move || {
            let mut consumer = land.consumer(&lanes)?;
            land.landing.reading();
            poll::run(&mut *consumer, inlets, &lanes, &stop)
        });
        let outcome = watch_over(running, &ledger).await;
        let polled = polling.await.map_err(|error| Error::internal("poll the log", error))?;
        outcome.and(polled)
    }

    /// What landing one table needs. All tables are opened at once: a store or broker far away then costs the time of one.
    async fn open(
        self: Arc<Self>,
        shared: Shared,
        contract: Arc<Contract>,
    ) -> Result<(Arc<Contract>, Lane, Decoder), Error> {
        self.ensure_topic(&contract).await?;
        let lane = Lane::open(shared, contract.clone()).await?;
        let decoder = self.lake.decoder(&contract).await?;
        Ok((contract, lane, decoder))
    }

    async fn ensure_topic(&self, contract: &Arc<Contract>) -> Result<i32, Error> {
        let (log, topic, partitions) = (self.log.clone(), contract.topic(), self.partitions);
        let ensured = tokio::task::spawn_blocking(move || log.ensure_topic(&topic, partitions)).await;
        Ok(ensured.map_err(|error| Error::internal("ask for a topic", error))??)
    }

    /// A consumer of every partition, or of this process's share. Blocks.
    fn consumer(&self, lanes: &Lanes) -> Result<Box<dyn Consumer>, Error> {
        let subscription = match self.settings.assignment {
            Assignment::All => Subscription::Assign(lanes.take(&lanes.all()?)?),
            Assignment::Group => {
                let of_start = lanes.clone();
                let failed = |error: Error| topic::Error::new(topic::ErrorKind::Other, error.chain());
                Subscription::Group {
                    group: self.settings.id.clone(),
                    instance: self.settings.instance.clone(),
                    topics: lanes.by_topic.keys().cloned().collect(),
                    start: Box::new(move |partitions| of_start.take(partitions).map_err(failed)),
                }
            }
        };
        Ok(self.log.consumer(subscription)?)
    }

    /// Whether `contract` is the table of letters itself.
    fn is_letters(&self, contract: &Contract) -> bool {
        contract.name() == letter::CONTRACT
    }
}

/// Waits for all lanes, writing the ledger meanwhile. A lane that fails closes its channel, which stops the polling
/// thread, which closes the other lanes.
async fn watch_over(mut running: JoinSet<Result<(), Error>>, ledger: &Ledger) -> Result<(), Error> {
    let mut outcome = Ok(());
    let mut writing = tokio::time::interval(LEDGER_EVERY);
    loop {
        tokio::select! {
            ended = running.join_next() => match ended {
                Some(ended) => {
                    let ended = ended.map_err(|error| Error::internal("run a lane", error))?;
                    outcome = outcome.and(ended);
                }
                None if outcome.is_ok() => return ledger.flush().await,
                None => return outcome,
            },
            _ = writing.tick() => if outcome.is_ok() { outcome = ledger.flush().await },
        }
    }
}
