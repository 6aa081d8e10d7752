//! Faults: which requests fail, how, and how many have.
//!
//! Rates and a seed enter; for each request a fault leaves, or none. Requests that arrive in the same order with the same
//! seed get the same faults.

use std::sync::Mutex;
use std::time::Duration;

/// How often what goes wrong: rates from 0 to 1, each a share of the requests it can befall. The default is never.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults {
    pub seed: u64,
    /// Answered with 500 or 503; nothing was done. Any request.
    pub error_before: f64,
    /// Answered with 500, although the write was done.
    pub error_after: f64,
    /// The connection ends without an answer, although the write was done.
    pub cut_after: f64,
    /// The connection ends half-way through the body; nothing was done.
    pub torn: f64,
    /// Takes `delay_ms` longer: half of it before it takes effect, half before it is answered. Any request, beside the
    /// other faults.
    pub slow: f64,
    pub delay_ms: u64,
    /// Only requests whose path contains this; empty for all.
    pub only: String,
}

/// Faults so far, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub requests: u64,
    pub error_before: u64,
    pub error_after: u64,
    pub cut_after: u64,
    pub torn: u64,
    pub slow: u64,
}

impl Counts {
    /// All faults together.
    pub fn faults(&self) -> u64 {
        self.error_before + self.error_after + self.cut_after + self.torn + self.slow
    }
}

/// What befalls one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    ErrorBefore,
    ErrorAfter,
    CutAfter,
    Torn,
}

/// Draws faults, and can be told otherwise at any time.
#[derive(Debug)]
pub(crate) struct Dice {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    faults: Faults,
    random: fastrand::Rng,
    counts: Counts,
}

impl Dice {
    pub fn new(faults: Faults) -> Self {
        let random = fastrand::Rng::with_seed(faults.seed);
        Self { state: Mutex::new(State { faults, random, counts: Counts::default() }) }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no one panics while drawing")
    }

    /// From now on these faults, from their seed; the counts go on.
    pub fn set(&self, faults: Faults) {
        let mut state = self.locked();
        state.random = fastrand::Rng::with_seed(faults.seed);
        state.faults = faults;
    }

    pub fn counts(&self) -> Counts {
        self.locked().counts
    }

    /// What befalls a request, and how much longer it takes.
    pub fn draw(&self, path: &str, is_write: bool) -> (Option<Fault>, Duration) {
        let mut state = self.locked();
        state.counts.requests += 1;
        if !path.contains(&state.faults.only) {
            return (None, Duration::ZERO);
        }
        // Both are drawn for every request: a rate that changes does not shift what others get.
        let (place, pace) = (state.random.f64(), state.random.f64());
        let Faults { error_before, error_after, cut_after, torn, slow, delay_ms, .. } = state.faults;
        let delay = if pace < slow { Duration::from_millis(delay_ms) } else { Duration::ZERO };
        state.counts.slow += u64::from(!delay.is_zero());
        let fault = if place < error_before {
            Some(Fault::ErrorBefore)
        } else if is_write && place < error_before + error_after {
            Some(Fault::ErrorAfter)
        } else if is_write && place < error_before + error_after + cut_after {
            Some(Fault::CutAfter)
        } else if is_write && place < error_before + error_after + cut_after + torn {
            Some(Fault::Torn)
        } else {
            None
        };
        (fault, delay)
    }

    /// A fault that did befall a request: one after a write that was refused anyway does not.
    pub fn count(&self, fault: Fault) {
        let counts = &mut self.locked().counts;
        match fault {
            Fault::ErrorBefore => counts.error_before += 1,
            Fault::ErrorAfter => counts.error_after += 1,
            Fault::CutAfter => counts.cut_after += 1,
            Fault::Torn => counts.torn += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_and_rates_hold() {
        let faults =
            Faults { seed: 7, error_before: 0.1, error_after: 0.2, slow: 0.5, delay_ms: 3, ..Faults::default() };
        let draws = |dice: &Dice| (0..2_000).map(|_| dice.draw("/bucket/key", true)).collect::<Vec<_>>();
        let dice = Dice::new(faults.clone());
        let first = draws(&dice);
        dice.set(faults);
        assert_eq!(first, draws(&dice));
        let share = |fault| first.iter().filter(|(drawn, _)| *drawn == Some(fault)).count();
        assert!((100..300).contains(&share(Fault::ErrorBefore)) && (300..500).contains(&share(Fault::ErrorAfter)));
        assert!((1_800..2_200).contains(&dice.counts().slow), "{:?}", dice.counts());
    }

    #[test]
    fn only_writes_fail_after_and_only_where_asked() {
        let dice = Dice::new(Faults { error_after: 1.0, only: "_delta_log".into(), ..Faults::default() });
        assert_eq!(dice.draw("/bucket/t/_delta_log/0.json", false).0, None);
        assert_eq!(dice.draw("/bucket/t/part.parquet", true).0, None);
        assert_eq!(dice.draw("/bucket/t/_delta_log/0.json", true).0, Some(Fault::ErrorAfter));
    }
}
