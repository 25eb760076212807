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

/// Properties that say how brokers are reached, and change nothing that a guarantee stands on. They are listed, rather than those
/// that may not be set, because librdkafka has aliases (of `message.timeout.ms`, for one) and new versions bring more.
const ALLOWED: [&str; 12] = [
    "broker.address.family",
    "broker.address.ttl",
    "client.dns.lookup",
    "client.rack",
    "connections.max.idle.ms",
    "debug",
    "enable.sasl.oauthbearer.unsecure.jwt",
    "enable.ssl.certificate.verification",
    "https.ca.location",
    "https.ca.pem",
    "log_level",
    "statistics.interval.ms",
];
const ALLOWED_PREFIXES: [&str; 4] = ["sasl.", "security.", "socket.", "ssl."];

/// Refuses properties that aren't the user's to set: a sender that reads aborted records, for instance, sends them.
pub fn check_properties(properties: &[(String, String)]) -> Result<()> {
    let is_allowed =
        |name: &str| ALLOWED.contains(&name) || ALLOWED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    match properties.iter().find(|(name, _)| !is_allowed(name)) {
        Some((name, _)) => {
            let prefixes = ALLOWED_PREFIXES.map(|prefix| format!("{prefix}*"));
            let allowed = prefixes.iter().map(String::as_str).chain(ALLOWED).collect::<Vec<_>>().join(", ");
            Err(Error::Property { name: name.clone(), allowed })
        }
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

    /// The settings that every client of ours has. With librdkafka's default of 10 s between reconnects the first commit after a
    /// broker's restart took 6.3 s, with 500 ms 0.7 s.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            // librdkafka's producers have it otherwise: a topic that was deleted would come back with one partition.
            .set("allow.auto.create.topics", "false")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_say_how_brokers_are_reached_and_nothing_else() {
        let check = |name: &str| {
            check_properties(&[("client.rack".to_owned(), "a".to_owned()), (name.to_owned(), "1".to_owned())])
        };
        for name in ["security.protocol", "sasl.password", "ssl.ca.location", "socket.keepalive.enable", "debug"] {
            assert!(check(name).is_ok(), "{name}");
        }
        let guaranteed = ["auto.offset.reset", "enable.idempotence", "isolation.level", "max.poll.interval.ms"];
        let aliases = ["delivery.timeout.ms", "metadata.broker.list", "request.required.acks", "auto.commit.enable"];
        for name in guaranteed.into_iter().chain(aliases).chain(["ssl", "client.rackx", "no.such.property"]) {
            let error = check(name).expect_err(name).to_string();
            assert!(error.starts_with(&format!("{name} can't be set: ")), "{error}");
            assert!(
                error.contains("allowed are sasl.*, security.*, socket.*, ssl.*, broker.address.family, "),
                "{error}"
            );
        }
    }
}
