//! When a source is asked.
//!
//! Settings and the time enter, pauses leave. A source is asked every so many seconds or by a cron expression, and only
//! within its hours, all by the campus clock.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, NaiveTime, Utc};
use chrono_tz::Tz;
use croner::Cron;

use crate::error::Error;
use crate::settings::SourceSettings;

/// When one source is asked.
#[derive(Debug, Clone)]
pub struct Schedule {
    every: Duration,
    cron: Option<Cron>,
    /// From the first up to the second, which may be on the next day.
    hours: Option<(NaiveTime, NaiveTime)>,
    timezone: Tz,
}

impl Schedule {
    /// # Errors
    /// `Settings` when the expression or the hours cannot be read.
    pub fn new(settings: &SourceSettings, timezone: Tz) -> Result<Self, Error> {
        let cron = settings.schedule.as_deref().map(|text| {
            let hint = "minute, hour, day, month and weekday, such as \"30 2 * * *\"";
            Cron::from_str(text).map_err(|error| Error::settings(format!("schedule `{text}`: {error}; it is {hint}")))
        });
        let hours = settings.hours.as_deref().map(|text| {
            hours(text).ok_or_else(|| Error::settings(format!("hours `{text}`: they are such as \"22:00-06:00\"")))
        });
        let every = Duration::from_secs(settings.poll_s);
        Ok(Self { every, cron: cron.transpose()?, hours: hours.transpose()?, timezone })
    }

    /// From now until it is asked for the first time since the start.
    pub fn first(&self, now: DateTime<Utc>) -> Duration {
        match self.cron {
            Some(_) => self.next(now),
            None => Duration::ZERO,
        }
    }

    /// From a pull that went well until the next one.
    pub fn next(&self, now: DateTime<Utc>) -> Duration {
        let Some(cron) = &self.cron else { return self.every };
        let local = now.with_timezone(&self.timezone);
        // An expression may have no time that is to come, such as the 30th of February.
        let next = cron.find_next_occurrence(&local, false).ok();
        next.and_then(|next| (next - local).to_std().ok()).unwrap_or(Duration::from_secs(86_400))
    }

    /// Whether it may be asked.
    pub fn is_open(&self, now: DateTime<Utc>) -> bool {
        self.closed_for(now).is_zero()
    }

    /// How long it may not be asked yet.
    pub fn closed_for(&self, now: DateTime<Utc>) -> Duration {
        let Some((from, to)) = self.hours else { return Duration::ZERO };
        let time = now.with_timezone(&self.timezone).time();
        let is_open = if from < to { from <= time && time < to } else { from <= time || time < to };
        if is_open {
            return Duration::ZERO;
        }
        let wait = from.signed_duration_since(time);
        let wait = if wait < chrono::Duration::zero() { wait + chrono::Duration::days(1) } else { wait };
        wait.to_std().unwrap_or_default()
    }
}

fn hours(text: &str) -> Option<(NaiveTime, NaiveTime)> {
    let (from, to) = text.split_once('-')?;
    let time = |text: &str| NaiveTime::parse_from_str(text.trim(), "%H:%M").ok();
    Some((time(from)?, time(to)?)).filter(|(from, to)| from != to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(schedule: Option<&str>, hours: Option<&str>) -> Result<Schedule, Error> {
        let text = |text: Option<&str>| text.map(str::to_string);
        let settings =
            SourceSettings { schedule: text(schedule), hours: text(hours), poll_s: 60, ..SourceSettings::of("x") };
        Schedule::new(&settings, Tz::Asia__Shanghai)
    }

    /// A time by the clock of the campus.
    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(&format!("{text}+08:00")).expect("a time").to_utc()
    }

    #[test]
    fn hours_may_pass_midnight() {
        let night = schedule(None, Some("22:00-06:00")).expect("valid");
        let waits = ["2026-11-24T21:59:00", "2026-11-24T22:00:00", "2026-11-25T05:59:59", "2026-11-25T06:00:00"]
            .map(|time| night.closed_for(at(time)).as_secs());
        assert_eq!(waits, [60, 0, 0, 16 * 3600]);
        let day = schedule(None, Some("08:00 - 12:00")).expect("valid");
        let waits = ["2026-11-24T07:00:00", "2026-11-24T08:00:00", "2026-11-24T12:00:00"]
            .map(|time| day.closed_for(at(time)).as_secs());
        assert_eq!(waits, [3600, 0, 20 * 3600]);
    }

    #[test]
    fn a_cron_expression_is_by_the_clock_of_the_campus() {
        let nightly = schedule(Some("30 2 * * *"), None).expect("valid");
        assert_eq!(nightly.next(at("2026-11-24T02:00:00")).as_secs(), 1800);
        assert_eq!(nightly.first(at("2026-11-24T02:30:00")).as_secs(), 86_400);
        let often = schedule(None, None).expect("valid");
        assert_eq!((often.first(at("2026-11-24T02:00:00")).as_secs(), often.next(Utc::now()).as_secs()), (0, 60));
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for (cron, hours, expected) in [
            (Some("every day"), None, "schedule `every day`: "),
            (None, Some("22-6"), "hours `22-6`: they are such as \"22:00-06:00\""),
            (None, Some("06:00-06:00"), "hours `06:00-06:00`: they are such as"),
        ] {
            let error = schedule(cron, hours).expect_err("a mistake").to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
