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
