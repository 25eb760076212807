use std::time::{Duration, Instant};

use events::MAX_EVENT_BYTES;
use events::topics::Topic;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode;

use crate::{Cluster, Error, Result};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Creates and checks topics, and reads a group's committed offsets without being in it.
pub struct Admin {
    cluster: Cluster,
    admin: AdminClient<DefaultClientContext>,
}

/// What a topic must be like, by Kafka's names: retention and so on, and that what is acknowledged survives a broker.
fn topic_config(topic: Topic, replication: i32) -> Vec<(&'static str, String)> {
    const HOUR_MS: u64 = 3_600_000;
    let spec = topic.spec();
    // A batch holds many events; one event is capped by the encoder. 1 MiB is Kafka's default and leaves room for both.
    let mut config = vec![
        ("cleanup.policy", spec.cleanup.clone()),
        ("max.message.bytes", (MAX_EVENT_BYTES * 64).to_string()),
        ("min.insync.replicas", (replication - 1).max(1).to_string()),
        ("unclean.leader.election.enable", "false".to_owned()),
    ];
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

/// Checks that each topic is there with its partition count and a leader for each: a service's first step. It asks by a client
/// of its own, which knows nothing yet.
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
            let config = topic_config(topic, replication);
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
            let checked = match self.replications() {
                Ok(replications) => self.check_configs(&replications).await,
                Err(error) => Err(error),
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

    /// Does what [`check_topics`] does, with this client. Blocks.
    pub fn check_partitions(&self) -> Result<()> {
        self.replications().map(|_| ())
    }

    /// How often each topic is replicated, in the order of [`Topic::ALL`]. An error says what is wrong for good before it says
    /// which partition has no leader at the moment.
    fn replications(&self) -> Result<Vec<i32>> {
        let metadata = self.admin.inner().fetch_metadata(None, TIMEOUT)?;
        let (mut replications, mut leaderless) = (Vec::new(), None);
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
            if let Some(partition) = partitions.iter().find(|partition| partition.leader() < 0) {
                leaderless.get_or_insert_with(|| format!("{name} partition {} has no leader", partition.id()));
            }
            let replicas = partitions.iter().map(|partition| partition.replicas().len()).min();
            replications.push(i32::try_from(replicas.unwrap_or(0)).unwrap_or(i32::MAX));
        }
        match leaderless {
            Some(leaderless) => Err(Error::NoLeader(leaderless)),
            None => Ok(replications),
        }
    }

    async fn check_configs(&self, replications: &[i32]) -> Result<()> {
        for (topic, &replication) in Topic::ALL.into_iter().zip(replications) {
            let name = self.cluster.topics.name(topic);
            let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
            let mut described = self.admin.describe_configs([&ResourceSpecifier::Topic(&name)], &options).await?;
            let Some(Ok(found)) = described.pop() else {
                return Err(Error::Topic(format!("topic {name} can't be described")));
            };
            for (key, expected) in topic_config(topic, replication) {
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

#[cfg(test)]
mod tests {
    use events::topics::Topics;
    use rdkafka::mocking::MockCluster;

    use super::*;

    #[test]
    fn what_is_acknowledged_survives_the_loss_of_any_broker_but_the_last() {
        for (replication, in_sync) in [(1, "1"), (2, "1"), (3, "2"), (5, "4")] {
            let config = topic_config(Topic::StatusEvents, replication);
            let value = |key| config.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str());
            assert_eq!(value("min.insync.replicas"), Some(in_sync), "{replication}");
            assert_eq!(value("unclean.leader.election.enable"), Some("false"));
        }
    }

    #[test]
    fn a_partition_without_a_leader_is_told_from_a_topic_that_is_wrong() {
        let brokers = MockCluster::new(1).unwrap();
        let cluster = Cluster::new(Topics::new("mock", Some(2)), &brokers.bootstrap_servers(), vec![], "test");
        let create = |topic: Topic, partitions: u32| {
            brokers.create_topic(&cluster.topics.name(topic), partitions.cast_signed(), 1).unwrap();
        };
        for topic in Topic::ALL {
            create(topic, cluster.topics.partitions(topic));
        }
        let status_events = cluster.topics.name(Topic::StatusEvents);
        let check = || Admin::new(&cluster).unwrap().check_partitions();
        assert!(check().is_ok(), "{:?}", check());
        brokers.partition_leader(&status_events, 1, None).unwrap();
        let error = check().unwrap_err();
        assert!(matches!(error, Error::NoLeader(_)), "{error:?}");
        assert_eq!(error.to_string(), format!("{status_events} partition 1 has no leader"));
    }
}
