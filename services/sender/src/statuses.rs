use events::topics::Topic;
use events::{StatusEvent, encode};
use kafka::ledger::StatusOffset;
use kafka::{Outgoing, Producer};
use series::prometheus::IntGauge;

use crate::timing::HELD_TIMEOUT;

/// Writes status events.
pub(crate) struct Statuses {
    evidence: Producer,
    held: Producer,
    topic: String,
    unacknowledged: IntGauge,
}

impl Statuses {
    pub(crate) fn new(kafka: &kafka::Cluster, unacknowledged: IntGauge) -> kafka::Result<Self> {
        Ok(Self {
            evidence: Producer::new(kafka, Producer::LONG)?,
            held: Producer::new(kafka, HELD_TIMEOUT)?,
            topic: kafka.topics.name(Topic::StatusEvents),
            unacknowledged,
        })
    }

    /// Writes the event and returns its offset once Kafka has acknowledged it, however long that takes. Also when the partition
    /// is another's by now: a late status is evidence, and without it the message is called again.
    pub(crate) async fn publish(&self, event: &StatusEvent) -> StatusOffset {
        self.unacknowledged.inc();
        let offset = self.evidence.write(&self.record(event)).await;
        self.unacknowledged.dec();
        StatusOffset(offset)
    }

    /// Writes a `held` and returns its offset once it is acknowledged. None: it wasn't in time, and may stand in the log all the
    /// same. It has a producer of its own, for librdkafka can't take a record back: one that isn't acknowledged within the
    /// producer's timeout never arrives later.
    pub(crate) async fn publish_held(&self, event: &StatusEvent) -> Option<StatusOffset> {
        self.unacknowledged.inc();
        let sent = self.held.send(&self.record(event)).await;
        self.unacknowledged.dec();
        sent.inspect_err(|error| tracing::debug!(%error, message.id = %event.message_id, "a held was not acknowledged"))
            .ok()
            .map(StatusOffset)
    }

    fn record(&self, event: &StatusEvent) -> Outgoing<'_> {
        Outgoing {
            topic: &self.topic,
            partition: event.source.partition,
            key: event.message_id.to_string(),
            payload: encode(event).expect("a status event is under the cap: its detail is"),
        }
    }
}
