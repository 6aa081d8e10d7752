//! What can go wrong with a log, sorted by what the caller should do about it.
//!
//! Enters: a failure of either implementation. Leaves: an [`Error`] whose kind decides (retry, stop the partition, mend
//! the settings) and whose message says what was tried. Never in a message: a record's key or value, a secret.

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A failed operation on a log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Decides what the caller does next.
    pub kind: ErrorKind,
    /// What could not be done, lowercase, without what to do about it (that is [`Error::hint`]).
    pub message: String,
    #[source]
    source: Option<Source>,
}

/// The reasons, each with one fitting reaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The log does not answer now; nothing is wrong with the request. Retry with backoff.
    Unreachable,
    /// The volume of the embedded log is full. Retry once there is space; nothing was written.
    Full,
    /// A consumer asked for an offset that the log does not hold: `low..=high` are possible. The partition stays
    /// stopped and the consumer's other partitions go on; a person decides where it starts again.
    OffsetOutOfRange { topic: String, partition: i32, offset: i64, low: i64, high: i64 },
    /// The topic or partition does not exist: `ensure_topic` first.
    UnknownTopic,
    /// One message is larger than `message_bytes_max`. Nothing of the append was written.
    TooLarge,
    /// Bytes in the log are not what was written there.
    Corrupt,
    /// Another process has the embedded log open.
    Locked,
    /// The broker refused the credentials or the operation.
    Denied,
    /// Another member took this one's place in the group. Open a new consumer.
    Fenced,
    /// The settings or the arguments of a call cannot work.
    Settings,
    /// Anything else; the message and its source tell.
    Other,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub fn with_source(kind: ErrorKind, message: impl Into<String>, source: impl Into<Source>) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    /// The error of a consumer position that the log does not hold.
    pub(crate) fn out_of_range(topic: &str, partition: i32, offset: i64, low: i64, high: i64) -> Self {
        Self::new(
            ErrorKind::OffsetOutOfRange { topic: topic.to_owned(), partition, offset, low, high },
            format!("offset {offset} of {topic}/{partition} is not in the log, which holds {low} to {high}"),
        )
    }

    pub(crate) fn unknown_topic(topic: &str) -> Self {
        Self::new(ErrorKind::UnknownTopic, format!("topic {topic} does not exist"))
    }

    pub(crate) fn too_large(topic: &str, bytes: usize, bytes_max: usize) -> Self {
        Self::new(
            ErrorKind::TooLarge,
            format!("a message of {bytes} bytes for {topic} is larger than message_bytes_max ({bytes_max})"),
        )
    }

    /// Whether the same call can succeed later without anyone's help.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Unreachable | ErrorKind::Full)
    }

    /// What a person can do about it, if anything is known to help.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self.kind {
            ErrorKind::Unreachable => "check that the brokers run and that topic.kafka.brokers names them",
            ErrorKind::Full => {
                "free space on the volume of topic.embedded.path, or lower topic.embedded.retention_bytes"
            }
            ErrorKind::OffsetOutOfRange { .. } => {
                "records were removed before they were read, or the topic was made anew; decide where to start again"
            }
            ErrorKind::UnknownTopic => "create the topic first, or check its name",
            ErrorKind::TooLarge => "raise topic.message_bytes_max (for Kafka also the topic's max.message.bytes)",
            ErrorKind::Corrupt => {
                "check the disk; restore the log from a copy, or start it anew and pull the sources again"
            }
            ErrorKind::Locked => {
                "only one process can open an embedded log: stop the other one, or use kind = \"kafka\""
            }
            ErrorKind::Denied => "check the SASL and TLS properties under topic.kafka.properties and the broker's ACLs",
            ErrorKind::Fenced => "another process uses the same group instance id: give each its own",
            ErrorKind::Settings | ErrorKind::Other => return None,
        })
    }
}

/// The result of an operation on a log.
pub type Result<T> = std::result::Result<T, Error>;
