//! What runs behind the doors: keeping up with the lake, computing profiles, and writing them to the lake for others. Time and
//! new data enter; a newer snapshot and newer profiles leave. A failure is reported once, tried again, and never takes an
//! answer away.

use std::sync::Arc;
use std::time::Duration;

use lake::Lake;
use schemas::Sensitive;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::Instrument;

use crate::engine::Engine;
use crate::error::Error;
use crate::metrics;
use crate::profile::{Files, Live, Profiles, Store, checkpoint};
use crate::source::Source;
use crate::tail::Tail;

/// Looks for new table versions.
pub struct Refresher {
    pub engine: Arc<Engine>,
    pub source: Source,
    pub key: Sensitive<Vec<u8>>,
    pub every: Duration,
}

/// The longest that a start waits for the tail to reach the end of the log.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);

/// The shortest time between two snapshots: what comes within it is shown together.
const TAIL_EVERY: Duration = Duration::from_millis(5);

impl Refresher {
    /// Begins to follow the log, behind what the lake has.
    fn follow(&self, stop: &watch::Receiver<bool>) {
        if let Some(tail) = self.source.tail().cloned() {
            let stop = stop.clone();
            tokio::task::spawn_blocking(move || tail.run(&stop));
        }
    }

    /// `begun` becomes true when the lake has been looked at and the tail, where there is one, has caught up: whoever saw a
    /// record before a restart sees it in the first answer after.
    pub async fn run(self, mut stop: watch::Receiver<bool>, begun: watch::Sender<bool>) {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trouble = Trouble::new("could not refresh the snapshot");
        let mut followed: Option<Instant> = None;
        // What a refresh that failed has dropped of the tail is in the lake: the next has to look there.
        let mut has_failed = false;
        loop {
            let is_tail_alone = tokio::select! {
                _ = ticks.tick() => false,
                () = arrived(self.source.tail()) => !has_failed,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let began = Instant::now();
            let has_caught_up = self.source.tail().is_none_or(|tail| tail.has_caught_up());
            let refreshed = match is_tail_alone {
                true => self.engine.refresh_tail(&self.source, self.key.expose()).await,
                false => self.engine.refresh(&self.source, self.key.expose()).await,
            };
            has_failed = refreshed.is_err();
            match &refreshed {
                Ok(_) => {
                    let followed = *followed.get_or_insert_with(|| {
                        self.follow(&stop);
                        began
                    });
                    let is_over = has_caught_up || followed.elapsed() >= CATCH_UP_MAX;
                    begun.send_if_modified(|begun| is_over && !std::mem::replace(begun, true));
                }
                Err(_) => metrics::refresh_failed(),
            }
            trouble.note(refreshed.map(|_| ()));
            // At most half of the time: whoever asks comes first.
            tokio::time::sleep(began.elapsed().max(TAIL_EVERY)).await;
        }
    }
}

/// Waits for something to come into the tail; for ever where there is none.
async fn arrived(tail: Option<&Arc<Tail>>) {
    match tail {
        Some(tail) => tail.arrived().await,
        None => std::future::pending().await,
    }
}

/// Computations that take less may fill half of the time.
const QUICK: Duration = Duration::from_millis(250);

/// Computes all profiles when the snapshot has changed, and now and then because time has passed.
pub struct Profiler {
    pub engine: Arc<Engine>,
    pub live: Arc<Live>,
    /// Where the profiles of before the start may be.
    pub checkpoint: Option<Lake>,
    /// The shortest time between two computations.
    pub every: Duration,
    /// The longest rest after one.
    pub rest_max: Duration,
    /// The longest, when nothing changes: states and day counts depend on the time.
    pub idle: Duration,
}

impl Profiler {
    /// Answers with the profiles of before the start until there are others.
    async fn resume(&self, ready: &watch::Sender<bool>) {
        let newest = self.engine.pin().snapshot.clone();
        let Some(lake) = self.checkpoint.as_ref().filter(|_| newest.id > 0) else { return };
        match self.live.resume(lake, &newest, now_us()).await {
            Ok(Some(persons)) => {
                tracing::info!(persons, "answering with the profiles of the last checkpoint until they are computed");
                ready.send_replace(true);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(message = %error.text(), "going on without the checkpoint of profiles"),
        }
    }

    /// `ready` becomes true with the first profiles.
    pub async fn run(self, mut stop: watch::Receiver<bool>, ready: watch::Sender<bool>) {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trouble = Trouble::new("could not compute profiles");
        let mut computed: Option<(u64, i64)> = None;
        let idle_us = i64::try_from(self.idle.as_micros()).unwrap_or(i64::MAX);
        let mut not_before = Instant::now();
        self.resume(&ready).await;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let snapshot = self.engine.pin().snapshot.clone();
            // Before the first refresh there is nothing to compute from.
            if snapshot.id == 0
                || Instant::now() < not_before
                || computed.is_some_and(|(id, at)| id == snapshot.id && now_us() - at < idle_us)
            {
                continue;
            }
            let id = snapshot.id;
            let live = self.live.clone();
            let began = Instant::now();
            let span = tracing::debug_span!(target: "quad::trace", "profiles");
            let computing = async move { live.follow(snapshot, now_us()).await };
            let computing = self.engine.spawn(computing.instrument(span));
            let computed_now = computing.await.expect("a computation does not panic");
            metrics::computed(began.elapsed(), computed_now.as_ref().ok().map(|profiles| profiles.persons.len()));
            match computed_now {
                Ok(profiles) => {
                    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                    tracing::debug!(persons = profiles.persons.len(), snapshot = id, took_ms, "profiles computed");
                    ready.send_if_modified(|ready| !std::mem::replace(ready, true));
                    computed = Some((id, profiles.computed_at));
                    // Half of the time for what is quick, a quarter for what is not: whoever asks comes first. But the more has
                    // come, the more persons are asked for, so what follows must not wait for long.
                    let took = began.elapsed();
                    let rest = if took < QUICK { took } else { 3 * took };
                    not_before = Instant::now() + rest.min(self.rest_max);
                    trouble.note(Ok(()));
                }
                Err(error) => trouble.note(Err(error)),
            }
        }
    }
}

/// As what profiles are written to the lake.
pub enum Target {
    /// As tables for other engines.
    Tables(Files),
    /// For the next start.
    Checkpoint(Lake),
}

impl Target {
    fn trouble(&self) -> &'static str {
        match self {
            Self::Tables(_) => "could not write the profile's tables",
            Self::Checkpoint(_) => "could not write the checkpoint of profiles",
        }
    }

    /// What took longer is not begun at a stop: the next start needs a checkpoint, and tables can wait for it.
    fn last_max(&self) -> Duration {
        match self {
            Self::Tables(_) => Duration::from_secs(2),
            Self::Checkpoint(_) => Duration::from_secs(8),
        }
    }

    async fn write(&mut self, profiles: &Arc<Profiles>) -> Result<(), Error> {
        match self {
            Self::Tables(files) => files.write(profiles).await,
            Self::Checkpoint(lake) => checkpoint::write(lake, profiles).await,
        }
    }
}

/// Writes profiles to the lake when there are newer ones.
pub struct Copier {
    pub store: Arc<Store>,
    pub to: Target,
    /// The shortest time between two writings.
    pub every: Duration,
}

impl Copier {
    /// Ends when told to, after what has been begun; what is not written yet is written before, if that is quick.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut trouble = Trouble::new(self.to.trouble());
        let (mut not_before, mut took, mut written) = (Instant::now(), Duration::ZERO, None);
        let mut is_over = false;
        while !is_over {
            let newer = async {
                tokio::time::sleep_until(not_before).await;
                self.store.newer_than(written).await
            };
            // A store that is closed may still get what was being computed: that is for the last time.
            is_over = tokio::select! {
                Some(_) = newer => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            if is_over && took > self.to.last_max() {
                return;
            }
            let Some(profiles) = self.store.get().filter(|profiles| written != Some(profiles.revision)) else {
                continue;
            };
            // What has been read from there is there.
            if profiles.is_checkpoint {
                written = Some(profiles.revision);
                continue;
            }
            let began = Instant::now();
            let outcome = self.to.write(&profiles).await;
            (not_before, took) = (Instant::now() + self.every, began.elapsed());
            match &outcome {
                Ok(()) => {
                    written = Some(profiles.revision);
                    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    tracing::debug!(persons = profiles.persons.len(), took_ms, "profiles are written to the lake");
                }
                Err(_) => metrics::files_failed(),
            }
            trouble.note(outcome);
        }
    }
}

fn now_us() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

/// Says when something begins to fail and when it works again, and is silent in between.
struct Trouble {
    what: &'static str,
    failures: u64,
}

impl Trouble {
    fn new(what: &'static str) -> Self {
        Self { what, failures: 0 }
    }

    fn note(&mut self, outcome: Result<(), Error>) {
        match outcome {
            Ok(()) if self.failures > 0 => {
                tracing::info!(what = self.what, failures = self.failures, "works again");
                self.failures = 0;
            }
            Ok(()) => {}
            Err(error) => {
                if self.failures == 0 {
                    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(kind = ?error.kind, message = %error.text(), source, "{}; trying again", self.what);
                }
                self.failures += 1;
            }
        }
    }
}
