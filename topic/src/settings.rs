//! What a person can set about the log: the `[topic]` section of the settings.
//!
//! Enters: the section as serde reads it; unknown keys fail. Leaves: checked [`Settings`]; every default is here.
//! What never happens: a value of `kafka.properties` is printed, since passwords arrive there from the environment.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};

/// The log: which implementation, and the limits that hold for both.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `"embedded"` (default): on this machine's disk, one process. `"kafka"`: a Kafka cluster, any number of them.
    pub kind: Kind,
    /// Partitions of the topics that Quad creates; 4. A topic that exists keeps its own count.
    pub partitions: i32,
    /// Largest key and value of one message together; 1,000,000, just below what a Kafka broker accepts by default.
    pub message_bytes_max: usize,
    pub embedded: EmbeddedSettings,
    pub kafka: KafkaSettings,
}

/// The implementations of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Embedded,
    Kafka,
}

/// The log on this machine's disk.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedSettings {
    /// Folder of the log; `data/topic`.
    pub path: PathBuf,
    /// Records older than this (by the time they were appended) are removed; 168, a week. 0 keeps them for ever.
    pub retention_h: u64,
    /// Records beyond this size of the whole log (as stored, compressed) are removed, the oldest of all topics first;
    /// 20 GiB. 0 sets no limit.
    pub retention_bytes: u64,
    /// How often retention looks; 30 s.
    pub retention_check_s: u64,
    /// Records are stored in blocks of up to this size before compression; 256 KiB.
    pub block_bytes_max: usize,
    /// Memory for records on their way to table files; 32 MiB.
    pub memtable_bytes: u64,
    /// Appends are refused while the volume has less free space than this; 256 MiB, so that a full disk is an error
    /// that passes and never a damaged log.
    pub free_bytes_min: u64,
}

/// The Kafka cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSettings {
    /// Bootstrap brokers, `HOST:PORT` separated by commas; `127.0.0.1:9092`.
    pub brokers: String,
    /// `lz4` (default), `zstd`, `gzip`, `snappy` or `none`. Quad's records are short and read more often than written,
    /// and lz4 costs the reader the least time; zstd makes them about a third smaller.
    pub compression: String,
    /// Replicas of the topics that Quad creates; -1 (default) takes the broker's own default.
    pub replication: i32,
    /// Settings of the topics that Quad creates, by their Kafka names, e.g. `"retention.ms"`.
    pub topic_properties: BTreeMap<String, String>,
    /// Any other librdkafka property, above all TLS and SASL, e.g. `"security.protocol"`. `_` may stand for `.`, so
    /// that secrets can come from the environment: `QUAD_TOPIC__KAFKA__PROPERTIES__SASL_PASSWORD`.
    pub properties: Properties,
    /// An append that has not been acknowledged after this fails; 60 s.
    pub append_timeout_ms: u64,
    /// A question to the cluster (topics, extents) that has no answer after this fails; 10 s.
    pub request_timeout_ms: u64,
    /// Memory for messages that wait for their acknowledgement; 64 MiB.
    pub append_buffer_bytes: usize,
    /// Memory of each consumer for records that were fetched ahead; 32 MiB.
    pub fetch_buffer_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kind: Kind::Embedded,
            partitions: 4,
            message_bytes_max: 1_000_000,
            embedded: EmbeddedSettings::default(),
            kafka: KafkaSettings::default(),
        }
    }
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data/topic"),
            retention_h: 168,
            retention_bytes: 20 << 30,
            retention_check_s: 30,
            block_bytes_max: 256 << 10,
            memtable_bytes: 32 << 20,
            free_bytes_min: 256 << 20,
        }
    }
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            compression: "lz4".to_owned(),
            replication: -1,
            topic_properties: BTreeMap::new(),
            properties: Properties::default(),
            append_timeout_ms: 60_000,
            request_timeout_ms: 10_000,
            append_buffer_bytes: 64 << 20,
            fetch_buffer_bytes: 32 << 20,
        }
    }
}

impl Settings {
    /// Refuses what cannot work, naming the key.
    ///
    /// # Errors
    /// `Settings`.
    pub fn check(&self) -> Result<()> {
        let refuse = |key: &str, why: &str| Err(Error::new(ErrorKind::Settings, format!("topic.{key} {why}")));
        let within = |value: u64, low: u64, high: u64| (low..=high).contains(&value);
        if !within(self.partitions.max(0) as u64, 1, crate::log::PARTITIONS_MAX as u64) {
            return refuse("partitions", "must be 1 to 1024");
        }
        if !within(self.message_bytes_max as u64, 1 << 10, 1 << 30) {
            return refuse("message_bytes_max", "must be 1024 to 1 GiB");
        }
        match self.kind {
            Kind::Embedded => {
                if !within(self.embedded.block_bytes_max as u64, 4 << 10, 16 << 20) {
                    return refuse("embedded.block_bytes_max", "must be 4 KiB to 16 MiB");
                }
                if !within(self.embedded.memtable_bytes, 1 << 20, 1 << 30) {
                    return refuse("embedded.memtable_bytes", "must be 1 MiB to 1 GiB");
                }
                if self.embedded.retention_check_s == 0 {
                    return refuse("embedded.retention_check_s", "must be at least 1");
                }
            }
            Kind::Kafka => {
                if self.kafka.brokers.trim().is_empty() {
                    return refuse("kafka.brokers", "must name at least one HOST:PORT");
                }
                if !["none", "gzip", "snappy", "lz4", "zstd"].contains(&self.kafka.compression.as_str()) {
                    return refuse("kafka.compression", "must be none, gzip, snappy, lz4 or zstd");
                }
                if !within(self.kafka.append_buffer_bytes as u64, 1 << 20, 1 << 31) {
                    return refuse("kafka.append_buffer_bytes", "must be 1 MiB to 2 GiB");
                }
                if !within(self.kafka.fetch_buffer_bytes as u64, 1 << 20, 1 << 31) {
                    return refuse("kafka.fetch_buffer_bytes", "must be 1 MiB to 2 GiB");
                }
                if let Some(key) = self.kafka.properties.reserved() {
                    return refuse(&format!("kafka.properties.\"{key}\""), "is set by Quad: its guarantees rest on it");
                }
            }
        }
        Ok(())
    }
}

/// librdkafka properties whose values nobody gets to see.
#[derive(Clone, Default, Deserialize)]
#[serde(from = "BTreeMap<String, String>")]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The first property that would undo a guarantee.
    fn reserved(&self) -> Option<&str> {
        const RESERVED: [&str; 15] = [
            "acks",
            "allow.auto.create.topics",
            "auto.offset.reset",
            "bootstrap.servers",
            "enable.auto.commit",
            "enable.auto.offset.store",
            "enable.idempotence",
            "enable.partition.eof",
            "group.id",
            "group.instance.id",
            "group.protocol",
            "metadata.broker.list",
            "partition.assignment.strategy",
            "partitioner",
            "request.required.acks",
        ];
        self.0.keys().map(String::as_str).find(|key| RESERVED.contains(key))
    }
}

impl<K: Into<String>> FromIterator<(K, String)> for Properties {
    fn from_iter<T: IntoIterator<Item = (K, String)>>(properties: T) -> Self {
        let dotted = |key: K| key.into().to_ascii_lowercase().replace('_', ".");
        Self(properties.into_iter().map(|(key, value)| (dotted(key), value)).collect())
    }
}

impl From<BTreeMap<String, String>> for Properties {
    fn from(properties: BTreeMap<String, String>) -> Self {
        properties.into_iter().collect()
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.0.keys().map(|key| (key, "***"))).finish()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn read(text: &str) -> Settings {
        toml::from_str(text).expect("the settings parse")
    }

    #[test]
    fn an_empty_section_is_the_default_and_works() {
        let settings = read("");
        assert_eq!(settings.kind, Kind::Embedded);
        settings.check().unwrap();
        Settings { kind: Kind::Kafka, ..settings }.check().unwrap();
    }

    #[test]
    fn properties_are_dotted_and_redacted() {
        let settings = read("[kafka.properties]\nSASL_PASSWORD = 'hush'\n\"security.protocol\" = 'SASL_SSL'");
        expect![[r#"{"sasl.password": "***", "security.protocol": "***"}"#]]
            .assert_eq(&format!("{:?}", settings.kafka.properties));
        assert!(!format!("{settings:?}").contains("hush"));
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_key() {
        let check = |text: &str| read(text).check().unwrap_err().to_string();
        expect![["topic.partitions must be 1 to 1024"]].assert_eq(&check("partitions = 0"));
        expect![[r#"topic.kafka.properties."acks" is set by Quad: its guarantees rest on it"#]]
            .assert_eq(&check("kind = 'kafka'\n[kafka.properties]\nacks = '1'"));
        expect![["topic.kafka.compression must be none, gzip, snappy, lz4 or zstd"]]
            .assert_eq(&check("kind = 'kafka'\nkafka.compression = 'brotli'"));
        assert!(toml::from_str::<Settings>("patitions = 3").unwrap_err().to_string().contains("unknown field"));
    }
}
