//! The polling thread's way to the lanes: taking partitions over, giving them up, and what became of each.
//!
//! Partitions enter; positions leave. Every call blocks until the lanes have answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use topic::{Log, Position};

use super::lane::Order;
use crate::error::{Error, ErrorKind};
use crate::landing::Landing;

/// The channels of all lanes, by topic.
#[derive(Clone)]
pub struct Lanes {
    pub log: Arc<dyn Log>,
    /// The table of each, and its channel.
    pub by_topic: BTreeMap<String, (String, mpsc::Sender<Order>)>,
    pub landing: Arc<Landing>,
}

impl Lanes {
    /// Every partition of every topic.
    ///
    /// # Errors
    /// `Log` when the log does not answer.
    pub fn all(&self) -> Result<Vec<(String, i32)>, Error> {
        let mut partitions = Vec::new();
        for topic in self.by_topic.keys() {
            let extents = self.log.extents(topic)?;
            partitions.extend(extents.into_iter().map(|extent| (topic.clone(), extent.partition)));
        }
        Ok(partitions)
    }

    /// Takes partitions over: where to read each, after what the lake has, or from the oldest record.
    ///
    /// # Errors
    /// `Log` when the log does not answer; `Internal` when a lane has ended.
    pub fn take(&self, partitions: &[(String, i32)]) -> Result<Vec<Position>, Error> {
        let mut answers = Vec::new();
        for (topic, partitions) in by_topic(partitions) {
            let extents = self.log.extents(topic)?.into_iter().filter(|extent| partitions.contains(&extent.partition));
            let oldest = extents.map(|extent| (extent.partition, extent.low)).collect();
            answers.push((topic, self.order(topic, |reply| Order::Take(oldest, reply))?));
        }
        let mut positions = Vec::new();
        for (topic, answer) in answers {
            let taken = answer.blocking_recv().map_err(|_| ended(topic))?;
            let position = |(partition, offset)| Position { topic: topic.to_string(), partition, offset };
            positions.extend(taken.into_iter().map(position));
        }
        Ok(positions)
    }

    /// Has what was read committed, and gives partitions up.
    ///
    /// # Errors
    /// `Internal` when a lane has ended.
    pub fn give_up(&self, partitions: &[(String, i32)]) -> Result<(), Error> {
        let mut answers = Vec::new();
        for (topic, partitions) in by_topic(partitions) {
            answers.push((topic, self.order(topic, |reply| Order::GiveUp(partitions, reply))?));
        }
        answers.into_iter().try_for_each(|(topic, answer)| answer.blocking_recv().map_err(|_| ended(topic)))
    }

    /// What the lake has of each partition that is held.
    pub fn landed(&self) -> Vec<Position> {
        let positions = self.landing.positions();
        let of_table = |(topic, (table, _)): (&String, &(String, _))| {
            let (topic, table) = (topic.clone(), table.clone());
            let first = (table.clone(), i32::MIN);
            let held = positions.range(first..).take_while(move |((other, _), _)| *other == table);
            held.map(move |((_, partition), offset)| Position {
                topic: topic.clone(),
                partition: *partition,
                offset: *offset,
            })
        };
        self.by_topic.iter().flat_map(of_table).collect()
    }

    /// A partition whose next record is gone from the log: it stops, the others go on.
    pub fn stopped(&self, error: &topic::Error) {
        let topic::ErrorKind::OffsetOutOfRange { topic, partition, offset, low, high } = &error.kind else { return };
        tracing::error!(
            topic,
            partition,
            offset,
            low,
            high,
            "the lake is at an offset that the log does not hold: records between are gone, or this is another log. The \
             partition stops; accept the gap with `quad land reset {topic}/{partition} --to OFFSET`"
        );
        if let Some((table, _)) = self.by_topic.get(topic) {
            self.landing.stop(table, *partition);
        }
    }

    /// Looks whether a stopped partition has been reset, which ends its lane and starts over.
    ///
    /// # Errors
    /// `Internal` when a lane has ended.
    pub fn look(&self) -> Result<(), Error> {
        let stopped = self.landing.stopped();
        let is_stopped = |table: &String| stopped.iter().any(|(other, _)| other == table);
        for topic in self.by_topic.iter().filter(|(_, (table, _))| is_stopped(table)).map(|(topic, _)| topic) {
            let answer = self.order(topic, |reply| Order::Take(BTreeMap::new(), reply))?;
            answer.blocking_recv().map_err(|_| ended(topic))?;
        }
        Ok(())
    }

    fn order<T>(
        &self,
        topic: &str,
        order: impl FnOnce(oneshot::Sender<T>) -> Order,
    ) -> Result<oneshot::Receiver<T>, Error> {
        let (reply, answer) = oneshot::channel();
        let (_, lane) = self.by_topic.get(topic).ok_or_else(|| ended(topic))?;
        lane.blocking_send(order(reply)).map_err(|_| ended(topic))?;
        Ok(answer)
    }
}

fn by_topic(partitions: &[(String, i32)]) -> BTreeMap<&str, Vec<i32>> {
    let mut grouped: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        grouped.entry(topic).or_default().push(*partition);
    }
    grouped
}

fn ended(topic: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("the lane of {topic} has ended"))
}
