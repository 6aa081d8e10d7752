//! Land: topic → lake, each record exactly once.
//!
//! Records enter, commits leave. `poll` reads the log on a thread of its own and decodes; each table has a `lane`
//! that checks rows, writes Parquet and commits rows and offsets together; `rows` gives rows their place and day.
//!
//! The lake alone says where to start: every start, and every start again after a failure, reads the positions from
//! the tables and seeks there. The consumer group's offsets are never read.

pub mod lane;
pub mod poll;
pub mod rows;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono_tz::Tz;
use lake::Lake;
use schemas::{Contract, Contracts};
use tokio::sync::{Mutex, watch};
use topic::{Log, Position, Subscription};

use crate::error::{Error, ErrorKind};
use crate::letter;
use crate::settings::{Assignment, LandSettings};
use lane::{Lane, LetterBox};

/// All that landing needs to run.
pub struct Land {
    pub settings: LandSettings,
    pub contracts: Arc<Contracts>,
    pub timezone: Tz,
    pub lake: Lake,
    pub log: Arc<dyn Log>,
    pub partitions: i32,
    pub totals: Arc<Totals>,
}

/// What has been landed since the process started.
#[derive(Debug, Default)]
pub struct Totals {
    pub rows: AtomicU64,
    pub letters: AtomicU64,
    pub commits: AtomicU64,
}

impl Land {
    /// Runs until `shutdown` says so; what was read is committed before it returns. A failure of the log or the lake
    /// starts over from the lake's positions, with growing pauses.
    ///
    /// # Errors
    /// `Fenced` when another process lands under the same id; `Settings` when a table or topic cannot be used.
    pub async fn run(self: &Arc<Self>, shutdown: watch::Receiver<bool>) -> Result<(), Error> {
        let mut failures: u32 = 0;
        while !*shutdown.borrow() {
            let commits = self.totals.commits.load(Ordering::Relaxed);
            let error = match self.attempt(shutdown.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if !matches!(error.kind, ErrorKind::Log | ErrorKind::Lake) {
                return Err(error);
            }
            let progressed = self.totals.commits.load(Ordering::Relaxed) > commits;
            failures = if progressed { 1 } else { failures.saturating_add(1) };
            let factor = 1u64 << (failures - 1).min(16);
            let pause_ms = self.settings.retry_ms_min.saturating_mul(factor).min(self.settings.retry_ms_max);
            tracing::warn!(error = %error.chain(), pause_ms, "landing failed, starting over from the lake's positions");
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
        let letters = Arc::new(Mutex::new(LetterBox::open(self).await?));
        let mut inlets = Vec::new();
        let mut lanes = tokio::task::JoinSet::new();
        for contract in self.contracts.iter() {
            self.ensure_topic(contract).await?;
            let (inlet, chunks) = tokio::sync::mpsc::channel(poll::CHUNKS_WAITING_MAX);
            let lane = Lane::open(self.clone(), contract.clone(), letters.clone()).await?;
            lanes.spawn(lane.run(chunks));
            inlets.push(poll::Inlet::new(contract, inlet)?);
        }
        let subscription = self.subscription().await?;
        let log = self.log.clone();
        let stop = shutdown.clone();
        let polling = tokio::task::spawn_blocking(move || {
            let consumer = log.consumer(subscription)?;
            poll::run(consumer, inlets, &stop)
        });
        // A lane that fails closes its channel, which stops the polling thread, which closes the other lanes.
        let mut outcome = Ok(());
        while let Some(ended) = lanes.join_next().await {
            let ended = ended.map_err(|error| Error::internal("run a lane", error))?;
            if outcome.is_ok() {
                outcome = ended;
            }
        }
        let polled = polling.await.map_err(|error| Error::internal("poll the log", error))?;
        outcome.and(polled)
    }

    async fn ensure_topic(&self, contract: &Arc<Contract>) -> Result<i32, Error> {
        let (log, topic, partitions) = (self.log.clone(), contract.topic(), self.partitions);
        let ensured = tokio::task::spawn_blocking(move || log.ensure_topic(&topic, partitions)).await;
        Ok(ensured.map_err(|error| Error::internal("ask for a topic", error))??)
    }

    async fn subscription(self: &Arc<Self>) -> Result<Subscription, Error> {
        let mut positions = Vec::new();
        for contract in self.contracts.iter() {
            positions.extend(self.positions(contract, None).await?);
        }
        if self.settings.assignment == Assignment::All {
            return Ok(Subscription::Assign(positions));
        }
        let (land, handle) = (self.clone(), tokio::runtime::Handle::current());
        let start = move |assigned: &[(String, i32)]| {
            let failed = |error: Error| topic::Error::new(topic::ErrorKind::Other, error.chain());
            let mut positions = Vec::new();
            for contract in land.contracts.iter() {
                let of_topic = assigned.iter().filter(|(topic, _)| topic == &contract.topic());
                let partitions: Vec<i32> = of_topic.map(|(_, partition)| *partition).collect();
                if !partitions.is_empty() {
                    positions.extend(handle.block_on(land.positions(contract, Some(&partitions))).map_err(failed)?);
                }
            }
            Ok(positions)
        };
        Ok(Subscription::Group {
            group: self.settings.id.clone(),
            instance: None,
            topics: self.contracts.iter().map(|contract| contract.topic()).collect(),
            start: Box::new(start),
        })
    }

    /// Where to read each partition of a table's topic: after what the lake has, or from the oldest record.
    async fn positions(&self, contract: &Arc<Contract>, only: Option<&[i32]>) -> Result<Vec<Position>, Error> {
        let topic = contract.topic();
        let (log, name) = (self.log.clone(), topic.clone());
        let extents = tokio::task::spawn_blocking(move || log.extents(&name)).await;
        let extents = extents.map_err(|error| Error::internal("ask for a topic's extent", error))??;
        let table = self.lake.table(contract).await?;
        let mut positions = Vec::new();
        for extent in extents.into_iter().filter(|extent| only.is_none_or(|only| only.contains(&extent.partition))) {
            let landed = table.next_offset(&self.settings.id, &topic, extent.partition).await?;
            let offset = landed.unwrap_or(extent.low);
            if offset < extent.low || offset > extent.high {
                return Err(Error::new(
                    ErrorKind::Settings,
                    format!(
                        "{topic}/{}: the lake is at offset {offset}, the log holds {}..{}. Records between are gone, or \
                         this is another log; nothing is skipped on its own. Land under another land.id to accept it",
                        extent.partition, extent.low, extent.high
                    ),
                ));
            }
            positions.push(Position { topic: topic.clone(), partition: extent.partition, offset });
        }
        Ok(positions)
    }

    /// Whether `contract` is the table of letters itself.
    fn is_letters(&self, contract: &Contract) -> bool {
        contract.name() == letter::CONTRACT
    }
}
