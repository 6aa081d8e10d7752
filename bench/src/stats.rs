//! Medians and spreads.

use std::time::Duration;

/// Rates of several rounds, in records a second.
pub struct Rates(Vec<f64>);

impl Rates {
    /// Runs `round` `rounds` times over `records` records.
    ///
    /// # Errors
    /// The first round that fails.
    pub fn measure(
        rounds: usize,
        records: usize,
        mut round: impl FnMut() -> anyhow::Result<Duration>,
    ) -> anyhow::Result<Self> {
        let rate = |took: Duration| records as f64 / took.as_secs_f64();
        let mut rates = (0..rounds).map(|_| round().map(rate)).collect::<anyhow::Result<Vec<_>>>()?;
        rates.sort_by(f64::total_cmp);
        Ok(Self(rates))
    }

    pub fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    /// One line: the median in thousands, the spread, and the ratio to `base`.
    pub fn line(&self, name: &str, base: &Self) -> String {
        let thousands = |rate: f64| rate / 1000.0;
        format!(
            "{name:<34} {:>8.0} k/s  ({:.0} to {:.0})  {:>5.2} x",
            thousands(self.median()),
            thousands(self.0[0]),
            thousands(self.0[self.0.len() - 1]),
            self.median() / base.median()
        )
    }
}
