//! What the senders' group has committed, and how far status-events goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::collect::partitions;
use crate::sample::Committed;

const TIMEOUT: Duration = Duration::from_secs(1);

/// The senders' group, seen by a consumer that never joins it.
pub(super) struct Group {
    consumer: Arc<BaseConsumer>,
    partitions: TopicPartitionList,
    statuses: String,
}

/// What was read, and when the commits had been.
pub(super) struct Offsets {
    pub(super) at: i64,
    pub(super) committed: Option<Vec<Committed>>,
    pub(super) status_ends: Option<BTreeMap<i32, i64>>,
}

impl Group {
    /// Fails if Kafka can't be reached, for then it isn't known what to ask.
    pub(super) fn watch(brokers: &str, prefix: &str) -> anyhow::Result<Self> {
        let topic = format!("{prefix}.message-events.v1");
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", format!("{prefix}.sender"))
            .set("enable.auto.commit", "false")
            // The end of a partition is then the high watermark: all that was acknowledged lies below.
            .set("isolation.level", "read_uncommitted")
            .create()?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions(brokers, &topic)? {
            list.add_partition(&topic, i32::try_from(partition)?);
        }
        Ok(Self { consumer: Arc::new(consumer), partitions: list, statuses: format!("{prefix}.status-events.v1") })
    }

    /// Reads the commits and then the ends: a status that a commit stands on was acknowledged before it, so it lies below.
    pub(super) async fn offsets(&self) -> Offsets {
        let (consumer, list) = (Arc::clone(&self.consumer), self.partitions.clone());
        let statuses = self.statuses.clone();
        let read = tokio::task::spawn_blocking(move || {
            let committed = committed(&consumer, list);
            let at = Utc::now().timestamp_micros();
            let status_ends = committed.as_ref().and_then(|committed| ends(&consumer, &statuses, committed));
            Offsets { at, committed, status_ends }
        });
        let nothing = || Offsets { at: Utc::now().timestamp_micros(), committed: None, status_ends: None };
        read.await.unwrap_or_else(|_| nothing())
    }
}

fn committed(consumer: &BaseConsumer, partitions: TopicPartitionList) -> Option<Vec<Committed>> {
    let list = consumer.committed_offsets(partitions, TIMEOUT).ok()?;
    let each = list.elements().into_iter().map(|element| {
        element.error().ok()?;
        let offset = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        Some(Committed { partition: element.partition(), offset, metadata: element.metadata().to_owned() })
    });
    each.collect()
}

/// The status partitions have the numbers of the message partitions.
fn ends(consumer: &BaseConsumer, topic: &str, committed: &[Committed]) -> Option<BTreeMap<i32, i64>> {
    let end = |commit: &Committed| {
        let (_, end) = consumer.fetch_watermarks(topic, commit.partition, TIMEOUT).ok()?;
        Some((commit.partition, end))
    };
    committed.iter().map(end).collect()
}
