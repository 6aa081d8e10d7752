//! The log in a Kafka cluster, through librdkafka. Only this file and its folder know about rdkafka.
//!
//! Enters: messages, subscriptions. Leaves: records. Topics are made and asked about here; [`producer`] appends,
//! [`consumer`] reads, [`client`] configures them all and sorts their errors. What never happens: a topic made by
//! accident (only `ensure_topic` makes one), or a connection before the first call needs it.

mod client;
mod consumer;
mod producer;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{OnceLock, RwLock},
    time::{Duration, Instant},
};

use futures::executor::block_on;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::Client,
    config::FromClientConfigAndContext,
    error::RDKafkaErrorCode,
    metadata::{MetadataPartition, MetadataTopic},
};

use crate::{
    error::{Error, ErrorKind, Result},
    kafka::{client::Context, consumer::KafkaConsumer, producer::Producer},
    log::{Consumer, Extent, Log, Message, Subscription, check_positions, check_sizes, check_topic},
    settings::Settings,
    watermark::Watermark,
};

/// How long to wait before asking again about a topic whose leaders are not known yet.
const READY_WAIT: Duration = Duration::from_millis(20);
/// Offsets are committed under a group only by group consumers; librdkafka wants a name for the others too.
const NO_GROUP: &str = "quad-assigned";

/// A Kafka cluster.
pub(crate) struct Kafka {
    settings: Settings,
    request_timeout: Duration,
    admin: OnceLock<AdminClient<Context>>,
    producer: Producer,
    /// Partition counts, asked for once: a topic's count does not change (see [`Log::ensure_topic`]).
    partitions: RwLock<HashMap<String, i32>>,
}

impl Kafka {
    /// Prepares clients of the cluster that the settings name, without speaking to it.
    ///
    /// # Errors
    /// `Settings`: librdkafka does not accept a property.
    pub fn open(settings: &Settings) -> Result<Self> {
        let kafka = &settings.kafka;
        // Finds a bad property now, not at the first append.
        for config in [client::producer_config(settings), client::consumer_config(settings, NO_GROUP, None)] {
            config.create_native_config().map_err(|error| client::error("could not use topic.kafka", error))?;
        }
        Ok(Self {
            settings: settings.clone(),
            request_timeout: Duration::from_millis(kafka.request_timeout_ms),
            admin: OnceLock::new(),
            producer: Producer::new(client::producer_config(settings), Duration::from_millis(kafka.append_timeout_ms)),
            partitions: RwLock::default(),
        })
    }

    fn admin(&self) -> Result<&AdminClient<Context>> {
        if let Some(admin) = self.admin.get() {
            return Ok(admin);
        }
        let admin = AdminClient::from_config_and_context(&client::config(&self.settings.kafka), Context)
            .map_err(|error| client::error("could not make a Kafka client", error))?;
        Ok(self.admin.get_or_init(|| admin))
    }

    fn client(&self) -> Result<&Client<Context>> {
        Ok(self.admin()?.inner())
    }

    /// The topic's partition count as the cluster tells it now; `None` if there is no such topic. `Unreachable` while
    /// a partition has no leader.
    fn ask_partitions(&self, topic: &str) -> Result<Option<i32>> {
        let metadata = self
            .client()?
            .fetch_metadata(Some(topic), self.request_timeout)
            .map_err(|error| client::error(format!("could not ask Kafka about topic {topic}"), error))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
        let error = found.error().or_else(|| found.partitions().iter().find_map(MetadataPartition::error));
        if let Some(code) = error.map(RDKafkaErrorCode::from) {
            return match client::kind(code) {
                ErrorKind::UnknownTopic => Ok(None),
                kind => Err(Error::new(kind, format!("could not ask Kafka about topic {topic}: {code}"))),
            };
        }
        let count = found.partitions().len() as i32;
        Ok((count > 0).then_some(count))
    }

    /// The topic's partition count, remembered.
    fn partitions(&self, topic: &str) -> Result<i32> {
        if let Some(count) = self.partitions.read().expect("no thread panics with the counts").get(topic) {
            return Ok(*count);
        }
        let count = self.ask_partitions(topic)?.ok_or_else(|| Error::unknown_topic(topic))?;
        self.partitions.write().expect("no thread panics with the counts").insert(topic.to_owned(), count);
        Ok(count)
    }

    /// The extent of one partition. A broker that does not know yet that it leads the partition is asked again.
    fn extent(&self, topic: &str, partition: i32) -> Result<Extent> {
        let deadline = Instant::now() + self.request_timeout;
        loop {
            let error = match self.client()?.fetch_watermarks(topic, partition, self.request_timeout) {
                Ok((low, high)) => return Ok(Extent { partition, low, high }),
                Err(error) => client::error(format!("could not ask for the extent of {topic}/{partition}"), error),
            };
            let may_pass = matches!(error.kind, ErrorKind::Unreachable | ErrorKind::UnknownTopic);
            if !may_pass || Instant::now() >= deadline {
                return Err(error);
            }
            std::thread::sleep(READY_WAIT);
            // So that the next try knows who leads; what it answers does not matter here.
            let _ = self.ask_partitions(topic);
        }
    }

    fn create(&self, topic: &str, partitions: i32) -> Result<()> {
        let kafka = &self.settings.kafka;
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(kafka.replication));
        for (key, value) in &kafka.topic_properties {
            new = new.set(key, value);
        }
        let options = AdminOptions::new()
            .request_timeout(Some(self.request_timeout))
            .operation_timeout(Some(self.request_timeout));
        let results = block_on(self.admin()?.create_topics([&new], &options))
            .map_err(|error| client::error(format!("could not create topic {topic}"), error))?;
        match results.into_iter().next() {
            Some(Ok(_)) | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | None => Ok(()),
            Some(Err((_, code))) => {
                Err(Error::new(client::kind(code), format!("could not create topic {topic}: {code}")))
            }
        }
    }
}

impl Log for Kafka {
    fn ensure_topic(&self, topic: &str, partitions: i32) -> Result<i32> {
        check_topic(topic, partitions)?;
        if self.ask_partitions(topic)?.is_none() {
            self.create(topic, partitions)?;
        }
        let deadline = Instant::now() + self.request_timeout;
        loop {
            match self.ask_partitions(topic) {
                Ok(Some(count)) => {
                    // Whoever makes a topic wants to use it now.
                    (0..count).try_for_each(|partition| self.extent(topic, partition).map(|_| ()))?;
                    self.partitions.write().expect("no thread panics with the counts").insert(topic.to_owned(), count);
                    return Ok(count);
                }
                Err(error) if error.kind != ErrorKind::Unreachable => return Err(error),
                Ok(None) if Instant::now() >= deadline => {
                    let message = format!("topic {topic} was made, but the cluster does not tell of it yet");
                    return Err(Error::new(ErrorKind::Unreachable, message));
                }
                Err(error) if Instant::now() >= deadline => return Err(error),
                Ok(None) | Err(_) => std::thread::sleep(READY_WAIT),
            }
        }
    }

    fn append(&self, topic: &str, messages: Vec<Message>) -> Result<Watermark> {
        check_sizes(topic, &messages, self.settings.message_bytes_max)?;
        let partitions = self.partitions(topic)?;
        self.producer.append(topic, partitions, messages)
    }

    fn extents(&self, topic: &str) -> Result<Vec<Extent>> {
        (0..self.partitions(topic)?).map(|partition| self.extent(topic, partition)).collect()
    }

    fn topics(&self) -> Result<Vec<String>> {
        let metadata = self
            .client()?
            .fetch_metadata(None, self.request_timeout)
            .map_err(|error| client::error("could not ask Kafka for its topics", error))?;
        let own = |name: &&str| !name.starts_with("__");
        let mut names: Vec<String> =
            metadata.topics().iter().map(MetadataTopic::name).filter(own).map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    fn consumer(&self, subscription: Subscription) -> Result<Box<dyn Consumer>> {
        Ok(Box::new(match subscription {
            Subscription::Assign(positions) => {
                check_positions(&positions)?;
                for position in &positions {
                    if !(0..self.partitions(&position.topic)?).contains(&position.partition) {
                        let message = format!("topic {} has no partition {}", position.topic, position.partition);
                        return Err(Error::new(ErrorKind::UnknownTopic, message));
                    }
                }
                let config = client::consumer_config(&self.settings, NO_GROUP, None);
                KafkaConsumer::assign(&config, self.request_timeout, &positions)?
            }
            Subscription::Group { group, instance, topics, start } => {
                for topic in &topics {
                    self.partitions(topic)?;
                }
                let config = client::consumer_config(&self.settings, &group, instance.as_deref());
                KafkaConsumer::group(&config, self.request_timeout, &topics, start)?
            }
        }))
    }
}
