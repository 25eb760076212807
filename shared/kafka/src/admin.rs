use std::time::{Duration, Instant};

use events::MAX_EVENT_BYTES;
use events::topics::Topic;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::cluster::Reading;
use crate::ledger::Metadata;
use crate::watermarks::{End, watermarks};
use crate::{Cluster, Error, Result};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Creates and checks topics, and reads a group's committed offsets without being in it.
pub struct Admin {
    cluster: Cluster,
    admin: AdminClient<DefaultClientContext>,
}

/// What a topic must be like: retention and so on, by Kafka's names.
fn topic_config(topic: Topic) -> Vec<(&'static str, String)> {
    const HOUR_MS: u64 = 3_600_000;
    let spec = topic.spec();
    // A batch holds many events; one event is capped by the encoder. 1 MiB is Kafka's default and leaves room for both.
    let mut config =
        vec![("cleanup.policy", spec.cleanup.clone()), ("max.message.bytes", (MAX_EVENT_BYTES * 64).to_string())];
    let hours = [
        ("retention.ms", spec.retention_hours),
        ("segment.ms", spec.segment_hours),
        ("min.compaction.lag.ms", spec.compaction_lag_hours),
    ];
    for (name, hours) in hours {
        config.extend(hours.map(|hours| (name, (hours * HOUR_MS).to_string())));
    }
    config
}

/// Checks that each topic is there with its partition count and a leader for each; a service's first step. Asks by a client of
/// its own, which knows nothing yet.
pub async fn check_topics(cluster: &Cluster) -> Result<()> {
    let admin = Admin::new(cluster)?;
    tokio::task::spawn_blocking(move || admin.check_partitions()).await.unwrap_or(Err(Error::Stopped))
}

impl Admin {
    /// Creates the client.
    pub fn new(cluster: &Cluster) -> Result<Self> {
        Ok(Self { cluster: cluster.clone(), admin: cluster.finish(cluster.config()).create()? })
    }

    /// Creates the topics that are missing and returns their names. Changes nothing that exists: a difference is an error.
    pub async fn create_topics(&self, replication: i32) -> Result<Vec<String>> {
        let mut created = Vec::new();
        for topic in Topic::ALL {
            let name = self.cluster.topics.name(topic);
            let partitions = self.cluster.topics.partitions(topic).cast_signed();
            let config = topic_config(topic);
            let mut new = NewTopic::new(&name, partitions, TopicReplication::Fixed(replication));
            for (key, value) in &config {
                new = new.set(key, value);
            }
            let options = AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
            for result in self.admin.create_topics([&new], &options).await? {
                match result {
                    Ok(name) => created.push(name),
                    Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                    Err((name, code)) => {
                        return Err(Error::Topic(format!("topic {name} can't be created: {code}")));
                    }
                }
            }
        }
        // A new topic is known to every part of the broker a moment later.
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let checked = match self.check_partitions() {
                Ok(()) => self.check_configs().await,
                error => error,
            };
            match checked {
                Ok(()) => return Ok(created),
                Err(_) if !created.is_empty() && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                error => return error.map(|()| created),
            }
        }
    }

    /// As [`check_topics`]. Blocks.
    pub fn check_partitions(&self) -> Result<()> {
        let metadata = self.admin.inner().fetch_metadata(None, TIMEOUT)?;
        for topic in Topic::ALL {
            let name = self.cluster.topics.name(topic);
            let expected = self.cluster.topics.partitions(topic) as usize;
            let found = metadata.topics().iter().find(|found| found.name() == name);
            let partitions = found.map_or(&[][..], |found| found.partitions());
            if partitions.is_empty() {
                return Err(Error::Topic(format!("topic {name} is missing: run `herald topics`")));
            }
            if partitions.len() != expected {
                return Err(Error::Topic(format!(
                    "topic {name} has {} partitions instead of {expected}: a count never changes, see HERALD_TOPIC_PARTITIONS",
                    partitions.len()
                )));
            }
            if partitions.iter().any(|partition| partition.leader() < 0) {
                return Err(Error::Topic(format!("topic {name} has a partition without a leader")));
            }
        }
        Ok(())
    }

    async fn check_configs(&self) -> Result<()> {
        for topic in Topic::ALL {
            let name = self.cluster.topics.name(topic);
            let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
            let mut described = self.admin.describe_configs([&ResourceSpecifier::Topic(&name)], &options).await?;
            let Some(Ok(found)) = described.pop() else {
                return Err(Error::Topic(format!("topic {name} can't be described")));
            };
            for (key, expected) in topic_config(topic) {
                let value = found.get(key).and_then(|entry| entry.value.clone()).unwrap_or_default();
                if value != expected {
                    return Err(Error::Topic(format!("topic {name} has {key}={value} instead of {expected}")));
                }
            }
        }
        Ok(())
    }

    /// Deletes this installation's topics and what its groups have committed.
    pub async fn delete_topics(&self) -> Result<()> {
        let names: Vec<String> = Topic::ALL.iter().map(|topic| self.cluster.topics.name(*topic)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.admin.delete_topics(&names, &AdminOptions::new().operation_timeout(Some(TIMEOUT))).await?;
        Ok(())
    }

    /// Deletes a group with what it has committed. It must have no members.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        for result in self.admin.delete_groups(&[group], &AdminOptions::new().request_timeout(Some(TIMEOUT))).await? {
            result.map_err(|(group, code)| Error::Topic(format!("group {group} can't be deleted: {code}")))?;
        }
        Ok(())
    }
}

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
    /// The high watermark.
    pub end: i64,
    /// The committed offset and its metadata, if there is a commit.
    pub committed: Option<(i64, String)>,
}

impl CommittedPartition {
    /// The frontier and what a sender committed beside it. None: nobody has committed, or not a sender, or the log ends before
    /// it and isn't the one that it was; then a sender replays it whole.
    pub fn checkpoint(&self) -> Option<(i64, Metadata)> {
        let (frontier, metadata) = self.committed.as_ref().filter(|_| !self.went_back())?;
        Some((*frontier, metadata.parse().ok()?))
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

    /// How many members the group has: also one that died, until its session is over.
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
