//! Stages measured side by side: rounds in turns, so that a slow minute of the machine falls on all of them alike.

use std::time::Duration;

use anyhow::Result;

/// One way through the records, and what its rounds took.
pub struct Stage<'a> {
    name: &'static str,
    run: Box<dyn FnMut() -> Result<Duration> + 'a>,
    /// Rounds after which it is left out.
    rounds_max: usize,
    rounds: Vec<Round>,
}

#[derive(Clone, Copy)]
struct Round {
    records_per_s: f64,
    /// Processor time of this process.
    cpu_s: f64,
    peak_memory_mb: u64,
}

impl<'a> Stage<'a> {
    pub fn new(name: &'static str, run: impl FnMut() -> Result<Duration> + 'a) -> Self {
        Self { name, run: Box::new(run), rounds_max: usize::MAX, rounds: Vec::new() }
    }

    pub fn at_most(self, rounds_max: usize) -> Self {
        Self { rounds_max, ..self }
    }

    fn round(&mut self, records: usize) -> Result<()> {
        reset_peak_memory();
        let before = cpu_s();
        let took = (self.run)()?;
        self.rounds.push(Round {
            records_per_s: records as f64 / took.as_secs_f64(),
            cpu_s: cpu_s() - before,
            peak_memory_mb: peak_memory_mb(),
        });
        Ok(())
    }

    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        let mut values: Vec<f64> = self.rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    fn line(&self, records: usize, base: f64) -> String {
        let rates = self.rounds.iter().map(|round| round.records_per_s);
        let (low, high) = rates.fold((f64::MAX, 0.0f64), |(low, high), rate| (low.min(rate), high.max(rate)));
        let median = self.median(|round| round.records_per_s);
        let cpu_us = self.median(|round| round.cpu_s) / records as f64 * 1e6;
        let peak = self.rounds.iter().map(|round| round.peak_memory_mb).max().unwrap_or(0);
        format!(
            "{:<38} {:>6.0} k/s  ({:.0} to {:.0})  {:>5.2} x  {cpu_us:>5.2} µs  {peak:>5} MB",
            self.name,
            median / 1000.0,
            low / 1000.0,
            high / 1000.0,
            median / base
        )
    }
}

/// Runs all stages `rounds` times in turns and prints a line for each, with ratios to the first.
///
/// # Errors
/// The first round that fails.
pub fn compare(stages: &mut [Stage<'_>], rounds: usize, records: usize) -> Result<()> {
    for round in 0..rounds {
        for stage in stages.iter_mut().filter(|stage| round < stage.rounds_max) {
            stage.round(records)?;
        }
    }
    let base = stages[0].median(|round| round.records_per_s);
    for stage in stages.iter() {
        println!("{}", stage.line(records, base));
    }
    Ok(())
}

/// Processor time of this process so far. Linux counts in hundredths of a second.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, may hold spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn reset_peak_memory() {
    // Where that is not allowed, peaks are those since the start.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak_memory_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}
