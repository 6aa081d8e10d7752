//! The gates' deliveries, as unreliable platforms make them: repeated, in another order, corrected.
//!
//! The pushes of the campus enter in their order; the webhook gets each of them at least once. Some come twice, some after
//! pushes that were due later, and of some events a correction comes, before or after what it corrects.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use campus::live::Stage;
use campus::random::Random;
use campus::source::gates::Push;
use serde_json::Value;

/// Of 1000 pushes, so many are repeated; so many held back; so many corrected.
const REPEATED_PER_MILLE: u64 = 150;
const HELD_PER_MILLE: u64 = 150;
const CORRECTED_PER_MILLE: u64 = 100;

/// Pushes that wait at most for their turn.
const HELD_MAX: usize = 8;

/// What was done to the deliveries so far.
#[derive(Debug, Default)]
pub struct Disorder {
    pub repeated: AtomicU64,
    pub reordered: AtomicU64,
    pub corrected: AtomicU64,
}

impl Disorder {
    /// All of it.
    pub fn count(&self) -> u64 {
        [&self.repeated, &self.reordered, &self.corrected].map(|count| count.load(Ordering::Relaxed)).iter().sum()
    }
}

/// The way to the webhook.
pub struct Deliveries<'a> {
    random: Random,
    held: Vec<Push>,
    disorder: &'a Disorder,
}

impl<'a> Deliveries<'a> {
    pub fn new(seed: u64, disorder: &'a Disorder) -> Self {
        Self { random: Random::new(seed, "deliveries", 0), held: Vec::new(), disorder }
    }

    /// Delivers a push, or holds it back for a while.
    ///
    /// # Errors
    /// The webhook refuses for good.
    pub fn push(&mut self, stage: &mut Stage, push: Push) -> Result<()> {
        let mut due = vec![push];
        if self.random.chance(CORRECTED_PER_MILLE)
            && let Some(correction) = correction(&due[0])
        {
            self.disorder.corrected.fetch_add(1, Ordering::Relaxed);
            due.insert(self.random.index(2), correction);
        }
        if self.happens(REPEATED_PER_MILLE, &self.disorder.repeated) {
            due.push(due[0].clone());
        }
        for push in due {
            if self.held.len() < HELD_MAX && self.happens(HELD_PER_MILLE, &self.disorder.reordered) {
                self.held.push(push);
                continue;
            }
            stage.push(&push)?;
            if !self.held.is_empty() && self.random.chance(300) {
                let late = self.held.swap_remove(self.random.index(self.held.len()));
                stage.push(&late)?;
            }
        }
        Ok(())
    }

    /// Delivers what is still held back, the youngest first.
    ///
    /// # Errors
    /// The webhook refuses for good.
    pub fn finish(mut self, stage: &mut Stage) -> Result<()> {
        while let Some(late) = self.held.pop() {
            stage.push(&late)?;
        }
        Ok(())
    }

    fn happens(&mut self, per_mille: u64, count: &AtomicU64) -> bool {
        let happens = self.random.chance(per_mille);
        count.fetch_add(u64::from(happens), Ordering::Relaxed);
        happens
    }
}

/// The first event of a push once more: received a second later, and in the other direction. `None` when the push has no
/// events, or its first is one that the contract refuses: such a correction would be refused too, as another letter.
fn correction(push: &Push) -> Option<Push> {
    let mut body: Value = serde_json::from_str(&push.body).ok()?;
    let events = body.pointer_mut("/params/events")?;
    if let Value::Array(many) = events {
        many.truncate(1);
    }
    let event = if events.is_array() { events.get_mut(0)? } else { events };
    let received = event.pointer("/data/ExtReceiveTime")?.as_str()?;
    let is_good = event["srcIndex"] != "" && event["happenTime"].as_str()? <= received;
    let later = chrono::DateTime::parse_from_rfc3339(received).ok()? + chrono::TimeDelta::seconds(1);
    event["data"]["ExtReceiveTime"] = later.to_rfc3339().into();
    event["data"]["ExtEventInOut"] = (1 - event["data"]["ExtEventInOut"].as_i64()?).into();
    is_good.then(|| Push { table: push.table, body: body.to_string(), records: 1 })
}
