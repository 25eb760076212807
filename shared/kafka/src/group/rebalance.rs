//! What librdkafka calls back with, on the polling thread: partitions given and taken, and statistics.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};

use super::member::{Assigned, Start};
use super::{Context, commit_list, list};
use crate::read::committed_partitions;
use crate::{Result, cluster};

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        cluster::log_error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        let state = self.state.lock().expect("not poisoned");
        for partition in state.assigned.iter().filter_map(|partition| topic.partitions.get(partition)) {
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

impl Context {
    fn assign(
        &self,
        consumer: &BaseConsumer<Self>,
        numbers: &[i32],
        partitions: &mut TopicPartitionList,
    ) -> Result<()> {
        let assigned = self.look_at(consumer, numbers);
        let starts = self.member.assigned(&assigned);
        for (one, Start(offset)) in assigned.iter().zip(starts) {
            partitions.set_partition_offset(&self.topic, one.partition, Offset::Offset(offset))?;
        }
        self.quarantine.assign(numbers);
        consumer.incremental_assign(partitions)?;
        self.count("assigned", numbers.len());
        let mut state = self.state.lock().expect("not poisoned");
        state.assigned.extend(numbers);
        drop(state);
        self.committed.lock().expect("not poisoned").sent = None;
        Ok(())
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, numbers: &[i32], partitions: &TopicPartitionList) -> Result<()> {
        fail::fail_point!("group::revoke", |_| std::process::abort());
        let lost = consumer.assignment_lost();
        self.quarantine.revoke(numbers);
        let commits = self.member.revoked(numbers, lost);
        if !lost && !commits.is_empty() {
            let list = commit_list(&self.topic, &commits)?;
            let _after_any_other = self.committed.lock().expect("not poisoned");
            if let Err(error) = consumer.commit(&list, CommitMode::Sync) {
                tracing::warn!(%error, group = self.group, "the last commit failed; the next owner replays more");
            }
        }
        // librdkafka keeps an application's pause over the assignment: who gets the partition back would never read it.
        let paused = self.forget(numbers, lost);
        if !paused.is_empty() {
            consumer.resume(&list(&self.topic, paused))?;
        }
        consumer.incremental_unassign(partitions)?;
        Ok(())
    }

    /// Everything is another's already, and librdkafka won't say so.
    pub(super) fn lose(&self) {
        let numbers: Vec<i32> = self.state.lock().expect("not poisoned").assigned.iter().copied().collect();
        self.quarantine.revoke(&numbers);
        self.member.revoked(&numbers, true);
        self.forget(&numbers, true);
    }

    /// Answers which of them were paused.
    fn forget(&self, numbers: &[i32], lost: bool) -> Vec<i32> {
        self.count(if lost { "lost" } else { "revoked" }, numbers.len());
        let mut state = self.state.lock().expect("not poisoned");
        for number in numbers {
            state.assigned.remove(number);
            let _ = self.metrics.lag.remove_label_values(&[&self.group, &self.topic, &number.to_string()]);
        }
        numbers.iter().copied().filter(|number| state.paused.remove(number)).collect()
    }

    /// Asks the brokers until they answer: the group has just assigned, so they are there.
    fn look_at(&self, consumer: &BaseConsumer<Self>, numbers: &[i32]) -> Vec<Assigned> {
        if numbers.is_empty() {
            return vec![];
        }
        loop {
            match self.try_look_at(consumer, numbers) {
                Ok(assigned) => return assigned,
                Err(error) => {
                    tracing::warn!(%error, group = self.group, "reading what the group has committed")
                }
            }
            if self.stop.is_cancelled() {
                return vec![];
            }
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
