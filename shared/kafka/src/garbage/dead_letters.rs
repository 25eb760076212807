use events::topics::Topic;
use events::{DeadLetter, encode};

use crate::{Cluster, Metrics, Outgoing, Producer, Result};

/// Tells people of records that a reader could not take.
pub struct DeadLetters {
    producer: Producer,
    topic: String,
    partitions: u32,
    metrics: Metrics,
}

impl DeadLetters {
    /// Creates its producer.
    pub fn new(cluster: &Cluster, metrics: &Metrics) -> Result<Self> {
        Ok(Self {
            producer: Producer::new(cluster, Producer::LONG)?,
            topic: cluster.topics.name(Topic::DeadLetters),
            partitions: cluster.topics.partitions(Topic::DeadLetters),
            metrics: metrics.clone(),
        })
    }

    /// Writes the letter and returns once it is acknowledged: only then may the reader pass the record. Tries until then.
    pub async fn write(&self, letter: &DeadLetter) {
        let payload = encode(letter).expect("a dead letter holds no value of its record");
        let outgoing = Outgoing {
            topic: &self.topic,
            partition: letter.partition % self.partitions.cast_signed(),
            key: format!("{}/{}/{}", letter.topic, letter.partition, letter.offset),
            payload,
        };
        tracing::error!(
            kafka.topic = letter.topic,
            kafka.partition = letter.partition,
            kafka.offset = letter.offset,
            reason = letter.reason,
            "a record could not be taken"
        );
        self.producer.write(&outgoing).await;
        self.metrics.dead_letters.with_label_values(&[letter.reader.as_str(), letter.topic.as_str()]).inc();
    }
}
