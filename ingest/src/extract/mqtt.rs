//! The `mqtt` source: what devices publish to a broker.
//!
//! A table's topic filters enter; batches of text columns leave. Each table has a session at the broker (MQTT 5, QoS 1), which
//! keeps what is published while Quad is away. A message is acknowledged once the log has every record of it; one that was not
//! comes again, and its rows are recognised by key and hash. There is no cursor: the broker holds the place. A message that
//! cannot be read becomes a dead letter.
//!
//! Who only looks (`quad doctor`, a preview) has a session that ends with it, and takes nothing from anyone.

mod messages;
mod session;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use self::messages::Messages;
use self::session::{Broker, Session};
use super::source::{Coverage, Each, Source, Worker};
use crate::connector::{Spec, TableMapping};
use crate::error::Error;
use crate::settings::SourceSettings;

/// Without a message for so long, a pull has what has come.
const QUIET: Duration = Duration::from_millis(200);
/// A preview waits longer: devices publish when they will.
const QUIET_LOOKING: Duration = Duration::from_secs(10);
/// Where messages never pause, a pull ends all the same: other tables of the source wait for it.
const PULL_MAX: Duration = Duration::from_secs(10);

/// The keys of a table that is subscribed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Topic filters, such as `meters/+/reading`.
    pub topics: Vec<String>,
    /// A JSON pointer to the records of a message; "" is the whole message.
    #[serde(default)]
    pub records: String,
    /// Each column's JSON pointer in a record, or what is known of its message: `{topic}`, a level of it such as
    /// `{topic/2}`, `{received}`, `{retained}`.
    pub input: BTreeMap<String, String>,
}

impl Table {
    /// The table, or what is wrong with it.
    pub(crate) fn checked(self) -> Result<Self, String> {
        if self.topics.is_empty() || self.input.is_empty() {
            return Err("needs `topics`, and `[input]`: column = JSON pointer".into());
        }
        if let Some(filter) = self.topics.iter().find(|filter| !is_filter(filter)) {
            let mend =
                "`+` and `#` stand for whole levels, `#` for the last ones; a session is not shared with `$share`";
            return Err(format!("`{filter}` is no topic filter: {mend}"));
        }
        if let Some(name) = self.input.keys().find(|name| messages::META.contains(&name.as_str())) {
            return Err(format!("the input column `{name}` is always there: name yours otherwise"));
        }
        match self.input.values().find(|place| !messages::is_place(place)) {
            Some(place) => Err(format!(
                "`{place}` is neither a JSON pointer such as /value nor {{topic}}, {{topic/2}}, {{received}} or {{retained}}"
            )),
            None => Ok(self),
        }
    }

    /// The columns of its batches.
    pub(crate) fn columns(&self) -> Vec<String> {
        self.input.keys().cloned().chain(messages::META.map(str::to_string)).collect()
    }

    fn of(table: &TableMapping) -> Result<&Self, Error> {
        match &table.spec {
            Spec::Mqtt(declared) => Ok(declared),
            _ => Err(Error::settings(format!("table `{}` names no topics", table.name))),
        }
    }
}

/// MQTT 5, section 4.7.
fn is_filter(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
    let is_level = |(at, level): (usize, &&str)| match *level {
        "#" => at + 1 == levels.len(),
        level => level == "+" || !level.contains(['+', '#', '\0']),
    };
    (1..=usize::from(u16::MAX)).contains(&filter.len())
        && levels[0] != "$share"
        && levels.iter().enumerate().all(is_level)
}

/// A broker, and the sessions there of the tables that were pulled.
pub struct MqttSource {
    broker: Arc<Broker>,
    sessions: BTreeMap<String, Session>,
    worker: Worker,
}

impl Source for MqttSource {
    fn probe(&mut self, table: &TableMapping) -> Result<(), Error> {
        let mut session = Session::open(&self.broker, table, &self.worker)?;
        let mut messages = Messages::new(Table::of(table)?, self.worker.limits);
        self.worker.block_on(session.gather(&mut messages, Duration::ZERO))?.map(|_| ())
    }

    fn pull(&mut self, table: &TableMapping, _after: &[String], each: Each<'_>) -> Result<Coverage, Error> {
        let declared = Table::of(table)?;
        if !self.sessions.contains_key(&table.name) {
            self.sessions.insert(table.name.clone(), Session::open(&self.broker, table, &self.worker)?);
        }
        let session = self.sessions.get_mut(&table.name).expect("it was opened");
        let quiet = if self.worker.source.is_some() { QUIET } else { QUIET_LOOKING };
        let until = Instant::now() + PULL_MAX;
        // An empty pull may not make the rows of the one before be forgotten: they may still come again.
        let mut coverage = Coverage::Part;
        loop {
            let mut messages = Messages::new(declared, self.worker.limits);
            let gathered = self.worker.block_on(session.gather(&mut messages, quiet))?;
            // A broker that is gone may have forgotten what it gave: so that is taken before its error is told.
            if !messages.is_empty() {
                each(messages.take()?, None)?;
                session.acknowledge(&messages)?;
                coverage = Coverage::Whole;
            }
            let is_quiet = gathered?;
            if is_quiet || Instant::now() >= until {
                return Ok(coverage);
            }
        }
    }
}

impl MqttSource {
    /// Reads the settings; the first question connects.
    ///
    /// # Errors
    /// `Settings` when the address is none, or the certificates of the machine cannot be read.
    pub fn connect(settings: &SourceSettings, worker: &Worker) -> Result<Self, Error> {
        Ok(Self { broker: Arc::new(Broker::new(settings)?), sessions: BTreeMap::new(), worker: worker.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_wildcards_for_whole_levels_only() {
        for right in ["a", "/", "+", "#", "电表/+/读数", "a/+/#", "$SYS/#", "a//b"] {
            assert!(is_filter(right), "{right}");
        }
        for wrong in ["", "a#", "a/#/b", "a+", "a/+b/c", "$share/g/a", "a\0"] {
            assert!(!is_filter(wrong), "{wrong}");
        }
    }
}
