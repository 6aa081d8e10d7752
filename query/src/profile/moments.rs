//! The profiles of past moments. A moment enters; what every profile would have said then leaves: by the definitions in use and
//! the clock of that moment, from what had been received by then, with the identity that follows from that.
//!
//! Ranks and rooms need everybody, so a moment is computed for all, by the code that computes the newest profiles, one moment
//! at a time, and is kept for those who ask on about it. An answer names the snapshot that it was read from: a record that had
//! been received by the moment and came to the tables after that snapshot is not in it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use chrono::Utc;
use schemas::Sensitive;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use topic::Watermark;

use super::{Computer, Live, Profiles};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::snapshot::Snapshot;

/// Moments that are kept, each as large as the profiles in use: one before and one after what somebody looks into.
const KEPT_MAX: usize = 2;
/// How long they are kept.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// How long after a moment its last records have come to the tables. What was computed sooner counts while there is no newer
/// snapshot.
const SETTLED_AFTER_US: i64 = 300_000_000;
/// Calls that wait for a moment to be computed.
const WAITING_MAX: usize = 16;

/// Computes beside what is read, on the engine's threads.
pub struct Moments {
    engine: Arc<Engine>,
    live: Arc<Live>,
    /// Of the person ids.
    key: Sensitive<Vec<u8>>,
    /// The last computed first.
    kept: Mutex<VecDeque<Kept>>,
    waiting: Semaphore,
    /// Whoever computes holds it.
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct Kept {
    profiles: Arc<Profiles>,
    /// By whose definitions.
    computer: Arc<Computer>,
}

impl Moments {
    pub fn new(engine: Arc<Engine>, live: Arc<Live>, key: Sensitive<Vec<u8>>) -> Self {
        let (kept, waiting, turn) = (Mutex::default(), Semaphore::new(WAITING_MAX), Arc::default());
        Self { engine, live, key, kept, waiting, turn }
    }

    /// The profiles as of `at` (microseconds UTC), from records that reach to `after` at least.
    ///
    /// # Errors
    /// `InvalidArgument` for a moment in the future or before the first record, `Timeout` when the watermark is not reached by
    /// `deadline`, `Busy` when too many wait already, a question that failed.
    pub async fn profiles(
        self: &Arc<Self>,
        at: i64,
        after: Option<&Watermark>,
        deadline: Instant,
    ) -> Result<Arc<Profiles>, Error> {
        if at < 0 {
            return Err(before_everything());
        }
        if at > Utc::now().timestamp_micros() {
            let error = Error::new(ErrorKind::InvalidArgument, "at is in the future");
            return Err(error.with_hint("leave it out for the newest profile"));
        }
        let newest = self.engine.pin_after(after, deadline).await?.snapshot.id;
        if let Some(kept) = self.kept(at, newest, after) {
            return Ok(kept);
        }
        let _place = self.waiting.try_acquire().map_err(|_| {
            let error = Error::new(ErrorKind::Busy, format!("{WAITING_MAX} calls wait for profiles of past moments"));
            error.with_hint("try again in a moment; ask for many persons of one moment in a batch")
        })?;
        let turn = self.turn.clone().lock_owned().await;
        // Whoever had the turn before may have computed this very moment.
        if let Some(kept) = self.kept(at, newest, after) {
            return Ok(kept);
        }
        let moments = self.clone();
        // A caller that goes away does not stop half-way what others wait for.
        let computing = self.engine.spawn(async move {
            let computed = moments.compute(at).await;
            drop(turn);
            computed
        });
        computing.await.expect("a computation does not panic")
    }

    async fn compute(self: &Arc<Self>, at: i64) -> Result<Arc<Profiles>, Error> {
        let (computer, snapshot) = (self.live.computer(), self.engine.pin().snapshot.clone());
        let profiles = as_of(&self.engine, &computer, &snapshot, at, self.key.expose()).await?;
        let profiles = Arc::new(profiles);
        tracing::debug!(persons = profiles.persons.len(), snapshot = snapshot.id, "profiles of a moment computed");
        let mut kept = self.all_kept();
        kept.retain(|kept| kept.profiles.at != Some(at));
        kept.push_front(Kept { profiles: profiles.clone(), computer });
        kept.truncate(KEPT_MAX);
        drop(kept);
        let (moments, forgotten) = (Arc::downgrade(self), Arc::downgrade(&profiles));
        self.engine.spawn(async move {
            tokio::time::sleep(KEPT_FOR).await;
            if let Some(moments) = moments.upgrade() {
                moments.forget(&forgotten);
            }
        });
        Ok(profiles)
    }

    /// What is kept of `at` by the definitions in use, reaches to `after`, and is settled or from the snapshot `newest` or a later one.
    fn kept(&self, at: i64, newest: u64, after: Option<&Watermark>) -> Option<Arc<Profiles>> {
        let computer = self.live.computer();
        let counts = |profiles: &Profiles| {
            let is_settled = profiles.computed_at.saturating_sub(at) >= SETTLED_AFTER_US;
            (is_settled || profiles.snapshot.id >= newest)
                && after.is_none_or(|after| profiles.snapshot.watermark.covers(after))
        };
        let kept = self.all_kept();
        let found = kept.iter().find(|kept| {
            kept.profiles.at == Some(at) && Arc::ptr_eq(&kept.computer, &computer) && counts(&kept.profiles)
        });
        found.map(|kept| kept.profiles.clone())
    }

    fn forget(&self, profiles: &Weak<Profiles>) {
        self.all_kept().retain(|kept| !std::ptr::eq(Arc::as_ptr(&kept.profiles), profiles.as_ptr()));
    }

    fn all_kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().expect("nobody panics with it")
    }
}

/// The profiles of `snapshot` as of `at`, by the definitions of `computer`; `key` keys the person ids.
///
/// # Errors
/// `InvalidArgument` when nothing had been received by then, a question that failed.
pub async fn as_of(
    engine: &Engine,
    computer: &Computer,
    snapshot: &Snapshot,
    at: i64,
    key: &[u8],
) -> Result<Profiles, Error> {
    let computed_at = Utc::now().timestamp_micros();
    let tables = snapshot.received_by(at);
    let identity = Arc::new(engine.identify(&tables, key).await?);
    let then = Snapshot { identity, ..snapshot.with_tables(tables) };
    let profiles = computer.compute(Arc::new(then), at).await?;
    match profiles.have_sources() {
        true => Ok(profiles.of_moment(at, computed_at)),
        false => Err(before_everything()),
    }
}

fn before_everything() -> Error {
    Error::new(ErrorKind::InvalidArgument, "at is before the first record was received")
        .with_hint("ask for a later moment")
}
