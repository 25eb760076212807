//! What librdkafka calls back with, on the polling thread: partitions given and taken, and statistics.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};

use super::committer::commit_list;
use super::member::{Assigned, Start};
use super::membership::{Context, list};
use crate::moment::OncePerSecond;
use crate::read::committed_partitions;
use crate::{Moment, Result, cluster};

/// Between two tries to ask the brokers about partitions that were given.
const PAUSE: Duration = Duration::from_millis(200);

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        cluster::log_error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        for partition in self.partitions().assigned.iter().filter_map(|partition| topic.partitions.get(partition)) {
            if partition.consumer_lag >= 0 {
                self.lag(partition.partition).set(partition.consumer_lag);
            }
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let numbers: Vec<i32> = partitions.elements().iter().map(|element| element.partition()).collect();
        let done = if kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assign(consumer, &numbers, partitions)
        } else {
            self.revoke(consumer, &numbers, partitions)
        };
        if let Err(error) = done {
            tracing::error!(%error, group = self.group, "a rebalance failed");
        }
    }
}

/// librdkafka waits until the assignment was changed as it has asked, so both of these do that whatever else fails.
impl Context {
    fn assign(
        &self,
        consumer: &BaseConsumer<Self>,
        numbers: &[i32],
        partitions: &mut TopicPartitionList,
    ) -> Result<()> {
        let assigned = self.look_at(consumer, numbers);
        let starts = self.member.assigned(&assigned);
        let placed = assigned.iter().zip(starts).try_for_each(|(one, Start(offset))| {
            partitions.set_partition_offset(&self.topic, one.partition, Offset::Offset(offset))
        });
        self.quarantine.assign(numbers);
        let done = consumer.incremental_assign(partitions);
        self.count("assigned", numbers.len());
        self.partitions().assigned.extend(numbers);
        self.committed().assign(numbers, Moment::now());
        placed?;
        Ok(done?)
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, numbers: &[i32], partitions: &TopicPartitionList) -> Result<()> {
        fail::fail_point!("group::revoke", |_| std::process::abort());
        let lost = consumer.assignment_lost() || self.forsaken.load(Ordering::Relaxed);
        self.quarantine.revoke(numbers);
        let commits = self.member.revoked(numbers, lost);
        if !lost && !commits.is_empty() {
            let _after_any_other = self.committing.lock().expect("not poisoned");
            let sent = Moment::now();
            let committed = commit_list(&self.topic, &commits)
                .and_then(|list| Ok(consumer.commit(&list, CommitMode::Sync)?))
                .map(|()| self.acknowledged(&commits, sent));
            if let Err(error) = committed {
                tracing::warn!(%error, group = self.group, "the last commit failed; the next owner replays more");
            }
        }
        // librdkafka keeps an application's pause over the assignment: a member that gets the partition back would never read it.
        let paused = self.forget(numbers, lost);
        let resumed = if paused.is_empty() { Ok(()) } else { consumer.resume(&list(&self.topic, paused)) };
        consumer.incremental_unassign(partitions)?;
        Ok(resumed?)
    }

    /// Takes all partitions from the member: they are another's already, and librdkafka won't say so.
    pub(super) fn lose(&self) {
        let numbers: Vec<i32> = self.partitions().assigned.iter().copied().collect();
        self.quarantine.revoke(&numbers);
        self.member.revoked(&numbers, true);
        self.forget(&numbers, true);
    }

    /// Answers which of them were paused.
    fn forget(&self, numbers: &[i32], lost: bool) -> Vec<i32> {
        self.count(if lost { "lost" } else { "revoked" }, numbers.len());
        let mut partitions = self.partitions();
        for number in numbers {
            partitions.assigned.remove(number);
            let _ = self.metrics.lag.remove_label_values(&[&self.group, &self.topic, &number.to_string()]);
        }
        self.committed().revoke(numbers, partitions.assigned.is_empty());
        numbers.iter().copied().filter(|number| partitions.paused.remove(number)).collect()
    }

    /// Asks the brokers until they answer: the group has just assigned, so they are there.
    fn look_at(&self, consumer: &BaseConsumer<Self>, numbers: &[i32]) -> Vec<Assigned> {
        if numbers.is_empty() {
            return vec![];
        }
        let failures = OncePerSecond::default();
        loop {
            match self.try_look_at(consumer, numbers) {
                Ok(assigned) => return assigned,
                Err(error) => {
                    if let Some(held_back) = failures.held_back() {
                        tracing::warn!(%error, group = self.group, held_back, "reading what the group has committed");
                    }
                }
            }
            if self.stop.is_cancelled() {
                return vec![];
            }
            // An error may come at once: a partition without a leader, a missing right.
            std::thread::sleep(PAUSE);
        }
    }

    fn try_look_at(&self, consumer: &BaseConsumer<Self>, numbers: &[i32]) -> Result<Vec<Assigned>> {
        let found = committed_partitions(consumer, &self.topic, numbers, Duration::from_secs(5))?;
        Ok(numbers.iter().zip(found).map(|(&partition, at)| Assigned { partition, at }).collect())
    }

    fn count(&self, event: &str, partitions: usize) {
        self.metrics.rebalances.with_label_values(&[self.group.as_str(), event]).inc_by(partitions as u64);
    }

    fn lag(&self, partition: i32) -> prometheus::IntGauge {
        self.metrics.lag.with_label_values(&[self.group.as_str(), &self.topic, &partition.to_string()])
    }
}
