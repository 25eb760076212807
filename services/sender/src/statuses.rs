use events::topics::Topic;
use events::{StatusEvent, encode};
use kafka::ledger::StatusOffset;
use kafka::{Outgoing, Producer};
use prometheus::IntGauge;

/// Writes status events.
pub(crate) struct Statuses {
    producer: Producer,
    topic: String,
    unacknowledged: IntGauge,
}

impl Statuses {
    pub(crate) fn new(kafka: &kafka::Cluster, unacknowledged: IntGauge) -> kafka::Result<Self> {
        let producer = Producer::new(kafka, Producer::LONG)?;
        Ok(Self { producer, topic: kafka.topics.name(Topic::StatusEvents), unacknowledged })
    }

    /// Writes the event and returns its offset once Kafka has acknowledged it, however long that takes. Also when the partition
    /// is another's by now: a late status is evidence, and without it the message is called again.
    pub(crate) async fn publish(&self, event: &StatusEvent) -> StatusOffset {
        let record = Outgoing {
            topic: &self.topic,
            partition: event.source.partition,
            key: event.message_id.to_string(),
            payload: encode(event).expect("a status event is under the cap: its detail is"),
        };
        self.unacknowledged.inc();
        let offset = self.producer.write(&record).await;
        self.unacknowledged.dec();
        StatusOffset(offset)
    }
}
