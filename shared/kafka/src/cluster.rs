use events::topics::Topics;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext};

use crate::{Error, Result};

/// How to reach the brokers, and the names of this installation's topics.
#[derive(Clone)]
pub struct Cluster {
    /// The topics' names and partition counts.
    pub topics: Topics,
    brokers: String,
    properties: Vec<(String, String)>,
    client_id: String,
    pub(crate) instance: Option<String>,
}

/// What our guarantees stand on: who reads what was aborted, or lets a status arrive after its partition's next owner has
/// read the log, sends twice.
const OURS: [&str; 15] = [
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "message.timeout.ms",
    "partition.assignment.strategy",
    "session.timeout.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

/// Refuses properties that must not be another's to set.
pub fn check_properties(properties: &[(String, String)]) -> Result<()> {
    match properties.iter().find(|(name, _)| OURS.contains(&name.as_str())) {
        Some((name, _)) => Err(Error::Property(name.clone())),
        None => Ok(()),
    }
}

impl Cluster {
    /// `properties` are librdkafka's own and beat ours; `client_id` is what the broker's logs show.
    pub fn new(topics: Topics, brokers: &str, properties: Vec<(String, String)>, client_id: &str) -> Self {
        Self { topics, brokers: brokers.to_owned(), properties, client_id: client_id.to_owned(), instance: None }
    }

    /// Joins groups as this instance (KIP-345). A process that is started again as the same one gets its partitions back at once,
    /// and the broker fences the process that was it before. That one must be dead: the group doesn't wait for what it does.
    pub fn instance(mut self, id: String) -> Self {
        self.instance = Some(id);
        self
    }

    /// What every client of ours has. With librdkafka's default of 10 s between reconnects the first commit after a
    /// broker's restart took 6.3 s, with 500 ms 0.7 s.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .set("socket.nagle.disable", "true")
            .set("topic.metadata.refresh.interval.ms", "60000");
        config
    }

    /// Puts the user's properties on top.
    pub(crate) fn finish(&self, mut config: ClientConfig) -> ClientConfig {
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }
}

/// The context of readers without a group.
pub(crate) struct Reading;

impl ClientContext for Reading {
    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Reading {}

/// Logs what librdkafka tells of its connections: it mends them by itself, so none of it is an error of ours. The end of a
/// partition is no news at all, and that all brokers are down is told again and again.
pub(crate) fn log_error(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::PartitionEOF) => {}
        Some(RDKafkaErrorCode::AllBrokersDown) => tracing::debug!(%error, reason, "librdkafka"),
        _ => tracing::warn!(%error, reason, "librdkafka"),
    }
}
