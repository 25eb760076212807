use std::time::Duration;

use events::topics::Topic;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::cluster::Reading;
use crate::read::committed;
use crate::{Cluster, Result};

const TIMEOUT: Duration = Duration::from_secs(5);

/// What people permit a reader: to pass garbage below an offset, a partition each. Kept as what the group
/// `{prefix}.<reader>-skip`, which nobody joins, has committed: it needs no topic and no database, and is there for whoever
/// reads the partition. Every call blocks.
pub struct Skips {
    consumer: BaseConsumer<Reading>,
    topic: String,
}

impl Skips {
    /// Creates the client.
    pub fn new(cluster: &Cluster, reader: &str, topic: Topic) -> Result<Self> {
        let mut config = cluster.config();
        config.set("group.id", cluster.topics.group(&format!("{reader}-skip"))).set("enable.auto.commit", "false");
        Ok(Self { consumer: cluster.finish(config).create_with_context(Reading)?, topic: cluster.topics.name(topic) })
    }

    /// Garbage below this offset may be passed; 0 if nothing was said.
    pub fn permitted(&self, partition: i32) -> Result<i64> {
        let found = committed(&self.consumer, &self.topic, &[partition], TIMEOUT)?;
        Ok(found.into_iter().flatten().next().map_or(0, |(offset, _)| offset))
    }

    /// Permits it, in place of what was said before. A running reader that has stopped sees it within about a second.
    pub fn permit(&self, partition: i32, before: i64) -> Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(before))?;
        Ok(self.consumer.commit(&list, CommitMode::Sync)?)
    }
}
