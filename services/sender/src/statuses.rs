use std::time::Duration;

use events::topics::Topic;
use events::{StatusEvent, encode};
use kafka::{Outgoing, Producer};
use tokio_util::sync::CancellationToken;

/// Writes status events.
pub(crate) struct Statuses {
    producer: Producer,
    topic: String,
}

impl Statuses {
    pub(crate) fn new(kafka: &kafka::Client) -> kafka::Result<Self> {
        Ok(Self { producer: Producer::new(kafka)?, topic: kafka.topics.name(Topic::StatusEvents) })
    }

    /// Writes the event and returns its offset once Kafka has acknowledged it. One whose delivery failed is written
    /// again; None once `lost` says that the partition is another's.
    pub(crate) async fn publish(&self, event: &StatusEvent, lost: &CancellationToken) -> Option<i64> {
        let record = Outgoing {
            topic: &self.topic,
            partition: event.source.partition,
            key: event.message_id.to_string(),
            payload: encode(event).expect("a status event is under the cap: its detail is"),
        };
        loop {
            match self.producer.send(&record).await {
                Ok(offset) => return Some(offset),
                Err(_) if lost.is_cancelled() => return None,
                Err(error) => {
                    tracing::warn!(%error, message.id = %event.message_id, "a status was not acknowledged; it is written again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}
