use rdkafka::error::KafkaError;

/// A failed call to Kafka.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What librdkafka says.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A topic isn't there, or not as `kafka/topics.toml` says.
    #[error("{0}")]
    Topic(String),
    /// A partition has no leader now: its broker is away, or another is being chosen. The topic may be as it should.
    #[error("{0}")]
    NoLeader(String),
    /// A librdkafka property that isn't the user's to set.
    #[error("{name} can't be set: what Herald guarantees stands on its own values; allowed are {allowed}")]
    Property {
        /// The property's.
        name: String,
        /// What may be set.
        allowed: String,
    },
    /// Something didn't come in time.
    #[error("{0} took too long")]
    Timeout(&'static str),
    /// A record was not delivered; it may have been written all the same.
    #[error("delivery failed: {0}")]
    Delivery(String),
    /// Told to stop while waiting.
    #[error("stopped")]
    Stopped,
}

/// This crate's results.
pub type Result<T> = std::result::Result<T, Error>;
