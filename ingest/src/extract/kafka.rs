//! The `kafka` source: topics that others fill, on whatever cluster.
//!
//! A topic and the offsets to go on from enter; batches of text columns leave, in the order of each partition. A pull reads
//! to where the partitions ended when it began. No consumer group is used and nothing is written to the cluster. `rows`
//! reads the records, rows or Debezium's envelopes, in JSON or with `avro` by a schema registry; one that cannot be read
//! becomes a dead letter.
//!
//! The cursor is the offset to read next in each partition, as `<topic>\t<partition>\t<offset>`. A partition that it does
//! not name is read from its oldest record. What is no longer there is an error, never a silent jump.

mod avro;
mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use serde::Deserialize;
use topic::settings::{KafkaSettings, Kind};
use topic::{Extent, Log, Position, Record, Subscription};

use self::avro::Registry;
use self::rows::Rows;
use super::source::{Coverage, Each, Source, Span, Worker};
use crate::connector::{Spec, TableMapping};
use crate::error::{Error, ErrorKind};
use crate::settings::SourceSettings;

/// Records taken at once; between, the wish to stop is looked at and a batch is closed when it is full.
const POLL_RECORDS_MAX: usize = 64;
const POLL: Duration = Duration::from_millis(200);
/// Polls without a record that end a pull before the partitions' ends: the last offsets of a topic may hold marks of
/// transactions, or records that were compacted away.
const QUIET_POLLS_MAX: usize = 25;
/// Memory for records that were fetched ahead.
const FETCH_BUFFER_BYTES: usize = 16 << 20;

/// The keys of a table that is read from a topic.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    pub topic: String,
    #[serde(default)]
    pub format: Format,
    #[serde(default)]
    pub encoding: Encoding,
    /// Each column's JSON pointer: in the record, or in the row of an envelope.
    pub input: BTreeMap<String, String>,
    /// What to do when the topic no longer holds what comes next.
    #[serde(default)]
    pub out_of_range: OutOfRange,
}

/// What a record's value is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An object a record; without a value it deletes what its key names.
    #[default]
    Json,
    /// Debezium's envelope of a change, with or without its schema.
    Debezium,
}

/// How keys and values are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    #[default]
    Json,
    /// As Confluent's serialisers do, with a schema of the source's `registry`.
    Avro,
}

/// What to do about records that are gone before they were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutOfRange {
    /// The pull fails until a person has decided.
    #[default]
    Stop,
    /// It goes on from the oldest record that is there, and says so.
    Earliest,
}

impl Table {
    /// The table, or what is wrong with it.
    pub(crate) fn checked(self) -> Result<Self, String> {
        if self.topic.is_empty() || self.input.is_empty() {
            return Err("needs `topic` and `[input]`: column = JSON pointer".into());
        }
        match self.input.keys().find(|name| rows::META.contains(&name.as_str())) {
            Some(name) => Err(format!("the input column `{name}` is always there: name yours otherwise")),
            None => Ok(self),
        }
    }

    /// The columns of its batches.
    pub(crate) fn columns(&self) -> Vec<String> {
        self.input.keys().cloned().chain(rows::META.map(str::to_string)).collect()
    }

    fn of(table: &TableMapping) -> Result<&Self, Error> {
        match &table.spec {
            Spec::Kafka(declared) => Ok(declared),
            _ => Err(Error::settings(format!("table `{}` names no topic", table.name))),
        }
    }

    /// Where each partition goes on. What the cursor says of other topics is nothing to this one.
    fn start(&self, after: &[String], extents: &[Extent]) -> Result<Next, Error> {
        let known: BTreeMap<i32, i64> = after.iter().filter_map(|entry| self.entry(entry)).collect();
        if let Some(gone) = known.keys().find(|known| extents.iter().all(|extent| extent.partition != **known)) {
            self.out_of_range(format!("{} has lost its partition {gone}", self.topic))?;
        }
        let mut next = Next::new();
        for &Extent { partition, low, high } in extents {
            let offset = known.get(&partition).copied().unwrap_or(low);
            let is_there = (low..=high).contains(&offset);
            if !is_there {
                let topic = &self.topic;
                self.out_of_range(format!(
                    "{topic}/{partition} holds the offsets {low} to {high}, not {offset}, the next"
                ))?;
            }
            next.insert(partition, if is_there { offset } else { low });
        }
        Ok(next)
    }

    /// What was not read is gone, or was never in this topic.
    fn out_of_range(&self, what: String) -> Result<(), Error> {
        match self.out_of_range {
            OutOfRange::Stop => Err(Error::source(format!(
                "{what}: records were removed unread, or the topic was made anew. Set `out_of_range = \"earliest\"` of this \
                 table to go on with what is there"
            ))),
            OutOfRange::Earliest => {
                tracing::warn!("{what}: going on with the earliest records that are there");
                Ok(())
            }
        }
    }

    /// A partition and its next offset from the cursor.
    fn entry(&self, entry: &str) -> Option<(i32, i64)> {
        let (partition, offset) = entry.strip_prefix(&self.topic)?.strip_prefix('\t')?.split_once('\t')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    }

    fn cursor(&self, next: &Next) -> Vec<String> {
        next.iter().map(|(partition, offset)| format!("{}\t{partition}\t{offset}", self.topic)).collect()
    }
}

/// The offset to read next, by partition.
type Next = BTreeMap<i32, i64>;

/// A cluster that is read.
pub struct KafkaSource {
    log: Arc<dyn Log>,
    registry: Option<Registry>,
    worker: Worker,
}

impl Source for KafkaSource {
    fn probe(&mut self, table: &TableMapping) -> Result<(), Error> {
        self.log.extents(&Table::of(table)?.topic).map(|_| ()).map_err(failed)
    }

    fn pull(&mut self, table: &TableMapping, after: &[String], each: Each<'_>) -> Result<Coverage, Error> {
        let declared = Table::of(table)?;
        let extents = self.log.extents(&declared.topic).map_err(failed)?;
        let next = declared.start(after, &extents)?;
        self.read(declared, next, &extents, |_| true, each)?;
        Ok(Coverage::Whole)
    }

    /// The records whose timestamp lies within the span, of all that the topic still holds.
    fn pull_span(&mut self, table: &TableMapping, span: &Span<'_>, each: Each<'_>) -> Result<(), Error> {
        let declared = Table::of(table)?;
        let time = |text: &str| {
            let time = DateTime::parse_from_rfc3339(text).map(|time| time.timestamp_millis());
            time.map_err(|_| Error::settings(format!("`{text}` is no time such as 2026-09-01T00:00:00+08:00")))
        };
        let times = time(span.from)?..time(span.to)?;
        let extents = self.log.extents(&declared.topic).map_err(failed)?;
        let next = declared.start(span.after, &extents)?;
        self.read(declared, next, &extents, |record| times.contains(&record.timestamp_ms), each)
    }

    /// A topic may have got more partitions since, which a new client sees.
    fn is_kept(&self) -> bool {
        false
    }
}

impl KafkaSource {
    /// Gives `each` what is `wanted` of the records from `next` to the ends of `extents`.
    fn read(
        &mut self,
        declared: &Table,
        mut next: Next,
        extents: &[Extent],
        wanted: impl Fn(&Record<'_>) -> bool,
        each: Each<'_>,
    ) -> Result<(), Error> {
        let is_behind = |next: &Next| extents.iter().any(|extent| next[&extent.partition] < extent.high);
        if !is_behind(&next) {
            return Ok(());
        }
        let position = |(&partition, &offset)| Position { topic: declared.topic.clone(), partition, offset };
        let positions = next.iter().map(position).collect();
        let mut consumer = self.log.consumer(Subscription::Assign(positions)).map_err(failed)?;
        let registry = match (declared.encoding, &mut self.registry) {
            (Encoding::Json, _) => None,
            (Encoding::Avro, Some(registry)) => Some(registry),
            (Encoding::Avro, None) => return Err(Error::settings("Avro needs `registry`, the schema registry's URL")),
        };
        let mut rows = Rows::new(declared, registry, self.worker.limits);
        let mut quiet_polls = 0;
        while is_behind(&next) && quiet_polls < QUIET_POLLS_MAX {
            self.worker.check()?;
            let mut pushed = Ok(());
            let polled = consumer.poll(POLL_RECORDS_MAX, POLL, &mut |record| {
                if pushed.is_err() {
                    return;
                }
                next.insert(record.partition, record.offset + 1);
                if wanted(&record) {
                    pushed = rows.push(&record);
                }
            });
            quiet_polls = if polled.map_err(failed)? == 0 { quiet_polls + 1 } else { 0 };
            pushed?;
            if rows.is_full() {
                each(rows.take()?, Some(declared.cursor(&next)))?;
            }
        }
        each(rows.take()?, Some(declared.cursor(&next)))
    }

    /// Makes the client; the first question connects.
    ///
    /// # Errors
    /// `Settings` when librdkafka does not take a property, or it is one that Quad sets.
    pub fn connect(settings: &SourceSettings, worker: &Worker) -> Result<Self, Error> {
        let given = settings.properties.iter().map(|(name, value)| (name.clone(), value.expose().clone()));
        let user = settings.user.clone().map(|user| ("sasl.username".to_string(), user));
        let password =
            settings.password.as_ref().map(|password| ("sasl.password".to_string(), password.expose().clone()));
        let kafka = KafkaSettings {
            brokers: settings.connection.clone().unwrap_or_default(),
            properties: given.chain(user).chain(password).collect(),
            fetch_buffer_bytes: FETCH_BUFFER_BYTES,
            ..KafkaSettings::default()
        };
        let registry = settings.registry.as_ref().map(|url| Registry::new(url, worker));
        let settings = topic::Settings { kind: Kind::Kafka, kafka, ..topic::Settings::default() };
        Ok(Self {
            log: topic::open(&settings).map_err(failed)?,
            registry: registry.transpose()?,
            worker: worker.clone(),
        })
    }
}

/// An error of someone else's cluster; the settings it names are the source's, not those of Quad's own log.
fn failed(error: topic::Error) -> Error {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let message =
        format!("{error}{cause}").replace("topic.kafka.properties.", "properties.").replace("topic.kafka.", "");
    match error.kind {
        topic::ErrorKind::Settings => Error::settings(message),
        _ => Error::new(ErrorKind::Source, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_cursor_that_the_topic_does_not_hold_is_told() {
        let check = |out_of_range, after: &[&str]| {
            let input = [("a".to_string(), "/a".to_string())].into();
            let table =
                Table { topic: "t".into(), format: Format::Json, encoding: Encoding::Json, input, out_of_range };
            let extents = [Extent { partition: 0, low: 4, high: 9 }, Extent { partition: 1, low: 0, high: 0 }];
            let after: Vec<String> = after.iter().map(|entry| entry.to_string()).collect();
            match table.start(&after, &extents) {
                Ok(next) => format!("{next:?}\n"),
                Err(error) => format!("{error}\n"),
            }
        };
        let told = [
            check(OutOfRange::Stop, &[]),
            check(OutOfRange::Stop, &["t\t0\t9", "other\t1\t7", "a.csv\t1"]),
            check(OutOfRange::Stop, &["t\t0\t3"]),
            check(OutOfRange::Stop, &["t\t0\t10"]),
            check(OutOfRange::Earliest, &["t\t0\t10", "t\t1\t1"]),
            check(OutOfRange::Stop, &["t\t2\t0"]),
        ];
        expect![[r#"
            {0: 4, 1: 0}
            {0: 9, 1: 0}
            t/0 holds the offsets 4 to 9, not 3, the next: records were removed unread, or the topic was made anew. Set `out_of_range = "earliest"` of this table to go on with what is there
            t/0 holds the offsets 4 to 9, not 10, the next: records were removed unread, or the topic was made anew. Set `out_of_range = "earliest"` of this table to go on with what is there
            {0: 4, 1: 0}
            t has lost its partition 2: records were removed unread, or the topic was made anew. Set `out_of_range = "earliest"` of this table to go on with what is there
        "#]].assert_eq(&told.concat());
    }
}
