use std::time::Duration;

use events::topics::Topic;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::{Offset, TopicPartitionList};

use super::watermarks::{End, watermarks};
use crate::cluster::Reading;
use crate::ledger::{MessageOffset, Metadata};
use crate::{Cluster, Result};

/// Looks at a group from outside: what it has committed, and where its topic ends. Every call blocks.
pub struct GroupView {
    consumer: BaseConsumer<Reading>,
    cluster: Cluster,
    group: String,
    topic: String,
    partitions: Vec<i32>,
}

/// A partition as its group left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedPartition {
    /// The first offset there is.
    pub low: i64,
    /// Behind its last record: the high watermark, or the last stable offset for a client that reads committed records only.
    pub end: i64,
    /// The committed offset and its metadata, if there is a commit.
    pub committed: Option<(i64, String)>,
}

impl CommittedPartition {
    /// The frontier and what a sender committed beside it. None: nobody has committed, or not a sender, or the log ends before
    /// it and isn't the one that it was; then a sender replays it whole.
    pub fn checkpoint(&self) -> Option<(MessageOffset, Metadata)> {
        let (frontier, metadata) = self.committed.as_ref().filter(|_| !self.went_back())?;
        Some((MessageOffset(*frontier), metadata.parse().ok()?))
    }

    /// The log ends before what was committed: it was made anew or cut off. The commit is read first, so it can't seem so.
    pub fn went_back(&self) -> bool {
        self.committed.as_ref().is_some_and(|(offset, _)| *offset > self.end)
    }
}

impl GroupView {
    /// Creates the client; it never joins the group.
    pub fn new(cluster: &Cluster, group: &str, topic: Topic) -> Result<Self> {
        let mut config = cluster.config();
        config.set("group.id", group).set("enable.auto.commit", "false").set("isolation.level", "read_uncommitted");
        Ok(Self {
            consumer: cluster.finish(config).create_with_context(Reading)?,
            cluster: cluster.clone(),
            group: group.to_owned(),
            topic: cluster.topics.name(topic),
            partitions: (0..cluster.topics.partitions(topic).cast_signed()).collect(),
        })
    }

    /// All partitions, in order.
    pub fn partitions(&self, timeout: Duration) -> Result<Vec<CommittedPartition>> {
        committed_partitions(&self.consumer, &self.topic, &self.partitions, timeout)
    }

    /// The high watermarks of another topic, in the order of its partitions.
    pub fn ends_of(&self, topic: Topic, timeout: Duration) -> Result<Vec<i64>> {
        let partitions: Vec<i32> = (0..self.cluster.topics.partitions(topic).cast_signed()).collect();
        watermarks(&self.consumer, &self.cluster.topics.name(topic), &partitions, End::High, timeout)
    }

    /// How many members the group has; one that died counts until its session is over.
    pub fn members(&self, timeout: Duration) -> Result<usize> {
        let groups = self.consumer.fetch_group_list(Some(&self.group), timeout)?;
        // A coordinator that can't tell answers without a state.
        let members = |group: &rdkafka::groups::GroupInfo| match group.state() {
            "Empty" | "Dead" => 0,
            _ => group.members().len().max(1),
        };
        Ok(groups.groups().iter().map(members).sum())
    }
}

/// What the consumer's group has committed of each partition, and where it begins and ends.
pub(crate) fn committed_partitions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> Result<Vec<CommittedPartition>> {
    let committed = committed(consumer, topic, partitions, timeout)?;
    let lows = watermarks(consumer, topic, partitions, End::Low, timeout)?;
    let ends = watermarks(consumer, topic, partitions, End::High, timeout)?;
    let one = |((low, end), committed)| CommittedPartition { low, end, committed };
    Ok(lows.into_iter().zip(ends).zip(committed).map(one).collect())
}

/// What the consumer's group has committed, copied to plain values.
pub(crate) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> Result<Vec<Option<(i64, String)>>> {
    let mut list = TopicPartitionList::new();
    for &partition in partitions {
        list.add_partition(topic, partition);
    }
    let list = consumer.committed_offsets(list, timeout)?;
    let one = |&partition| {
        let element = list.find_partition(topic, partition)?;
        match element.offset() {
            // `metadata` panics on what isn't UTF-8; nobody but us commits for this group.
            Offset::Offset(offset) => Some((offset, element.metadata().to_owned())),
            _ => None,
        }
    };
    Ok(partitions.iter().map(one).collect())
}
