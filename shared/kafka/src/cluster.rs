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
    instance: Option<String>,
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

    /// Joins groups as this instance (KIP-345): who is started again as the same one gets its partitions back at once, and
    /// the broker fences who was it before. That one must be dead by then: what it still does nobody waits for.
    pub fn instance(mut self, id: String) -> Self {
        self.instance = Some(id);
        self
    }

    /// Joins groups as a member without a name.
    pub(crate) fn no_instance(mut self) -> Self {
        self.instance = None;
        self
    }

    pub(crate) fn is_instance(&self) -> bool {
        self.instance.is_some()
    }

    /// A member's of a group.
    pub(crate) fn group_config(&self, group: &str) -> ClientConfig {
        let mut config = self.config();
        config.set("group.id", group);
        if let Some(instance) = &self.instance {
            config.set("group.instance.id", instance);
        }
        config
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
