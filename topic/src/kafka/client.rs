//! What all Kafka clients of Quad share: configuration, logging, and the meaning of errors.
//!
//! Enters: settings, librdkafka's error codes. Leaves: client configurations, [`Error`]s by kind. What never happens:
//! a property's value in a message or a log line.

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode as Code},
};

use crate::{
    error::{Error, ErrorKind},
    settings::{KafkaSettings, Settings},
};

/// The configuration that producers, consumers and admin clients begin with. What Quad relies on is set after it.
pub(crate) fn config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "quad")
        .set("reconnect.backoff.max.ms", "2000")
        // A topic that was just made is known to every broker within seconds.
        .set("topic.metadata.propagation.max.ms", "10000");
    for (key, value) in settings.properties.iter() {
        config.set(key, value);
    }
    config.set("bootstrap.servers", &settings.brokers);
    // Only ensure_topic makes topics; asking about one must not.
    config.set("allow.auto.create.topics", "false");
    config
}

pub(crate) fn producer_config(settings: &Settings) -> ClientConfig {
    let kafka = &settings.kafka;
    let mut config = config(kafka);
    config
        .set("enable.idempotence", "true") // implies acks=all and order through retries
        .set("compression.type", &kafka.compression)
        .set("delivery.timeout.ms", kafka.append_timeout_ms.to_string())
        .set("queue.buffering.max.kbytes", (kafka.append_buffer_bytes >> 10).to_string())
        .set("queue.buffering.max.messages", "1000000")
        // Room for the framing that the broker's limit leaves for one message of message_bytes_max.
        .set("message.max.bytes", (settings.message_bytes_max + 4096).to_string());
    // An append hands over all it has at once; lingering longer would only delay its acknowledgement.
    set_default(&mut config, "linger.ms", "1");
    config
}

pub(crate) fn consumer_config(settings: &Settings, group: &str, instance: Option<&str>) -> ClientConfig {
    let kafka = &settings.kafka;
    let mut config = config(kafka);
    let fetch_bytes = (8 << 20).max(settings.message_bytes_max + (1 << 20));
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.partition.eof", "false")
        .set("queued.max.messages.kbytes", (kafka.fetch_buffer_bytes >> 10).to_string());
    if let Some(instance) = instance {
        config.set("group.instance.id", instance);
    }
    set_default(&mut config, "check.crcs", "true");
    set_default(&mut config, "queued.min.messages", "200000");
    set_default(&mut config, "fetch.message.max.bytes", &(1 << 20).max(settings.message_bytes_max).to_string());
    set_default(&mut config, "fetch.max.bytes", &fetch_bytes.to_string());
    // librdkafka would pause a second whenever its queue has filled up.
    set_default(&mut config, "fetch.queue.backoff.ms", "5");
    set_default(&mut config, "fetch.error.backoff.ms", "100");
    config
}

fn set_default(config: &mut ClientConfig, key: &str, value: &str) {
    if config.get(key).is_none() {
        config.set(key, value);
    }
}

/// Routes librdkafka's log lines into tracing.
pub(crate) struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

pub(crate) fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            // Lost connections are logged here, and reported as errors where they matter.
            tracing::warn!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

pub(crate) fn log_error(error: &KafkaError, reason: &str) {
    tracing::debug!(target: "librdkafka", %error, "{reason}");
}

/// The error for a failed call; `what` says what could not be done.
pub(crate) fn error(what: impl Into<String>, error: KafkaError) -> Error {
    if let KafkaError::ClientConfig(_, description, key, _) = &error {
        // Its source would print the value, which may be a secret.
        let message = format!("topic.kafka.properties.\"{key}\" is not accepted by librdkafka: {description}");
        return Error::new(ErrorKind::Settings, message);
    }
    if matches!(error, KafkaError::ClientCreation(_)) {
        return Error::with_source(ErrorKind::Settings, "could not make a Kafka client with topic.kafka", error);
    }
    let kind = match &error {
        // A consumer fails for good only when another one has taken its name.
        KafkaError::MessageConsumptionFatal(_) => ErrorKind::Fenced,
        // `rdkafka_error_code` does not tell the code of an administrative request that failed as a whole.
        KafkaError::AdminOp(code) => kind(*code),
        _ => error.rdkafka_error_code().map_or(ErrorKind::Other, kind),
    };
    Error::with_source(kind, what, error)
}

/// What a caller can do about an error code.
pub(crate) fn kind(code: Code) -> ErrorKind {
    use Code::*;
    match code {
        AllBrokersDown
        | BrokerTransportFailure
        | Resolve
        | OperationTimedOut
        | MessageTimedOut
        | TimedOutQueue
        | RequestTimedOut
        | NetworkException
        | BrokerNotAvailable
        | LeaderNotAvailable
        | NotLeaderForPartition
        | NotEnoughReplicas
        | NotEnoughReplicasAfterAppend
        | ReplicaNotAvailable
        | CoordinatorLoadInProgress
        | CoordinatorNotAvailable
        | NotCoordinator
        | NotController
        | WaitingForCoordinator
        | ISRInsufficient
        | BrokerDestroy
        | DestroyBroker
        | KafkaStorageError
        | Interrupted
        | Retry
        | FencedLeaderEpoch
        | UnknownLeaderEpoch
        | PollExceeded
        // The brokers that live are fewer than the copies of a topic: they are starting, or one is away.
        | InvalidReplicationFactor => ErrorKind::Unreachable,
        UnknownTopicOrPartition | UnknownTopic | UnknownPartition => ErrorKind::UnknownTopic,
        MessageSizeTooLarge | InvalidMessageSize | MessageBatchTooLarge => ErrorKind::TooLarge,
        Authentication
        | SSL
        | SaslAuthenticationFailed
        | UnsupportedSASLMechanism
        | IllegalSASLState
        | TopicAuthorizationFailed
        | GroupAuthorizationFailed
        | ClusterAuthorizationFailed => ErrorKind::Denied,
        Fatal | Fenced => ErrorKind::Fenced,
        BadMessage | BadCompression | InvalidMessage => ErrorKind::Corrupt,
        InvalidTopic
        | InvalidPartitions
        | InvalidConfig
        | InvalidArgument
        | PolicyViolation
        | InvalidTimestamp => ErrorKind::Settings,
        _ => ErrorKind::Other,
    }
}
