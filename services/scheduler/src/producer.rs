//! The transactional producer of a shard, and the fence that it puts up.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use events::topics::Topic;
use kafka::{Cluster, TransactionalProducer};

const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// A shard's producer, made at start-up so that a takeover doesn't wait for a connection. Its id fences every other owner.
pub(crate) struct ShardProducer {
    transactional_id: String,
    producer: Mutex<Option<TransactionalProducer>>,
}

impl ShardProducer {
    pub(crate) fn new(kafka: &Cluster, shard: i32) -> kafka::Result<Self> {
        let transactional_id = kafka.topics.planner_id(shard);
        let producer = TransactionalProducer::new(kafka, &transactional_id)?;
        Ok(Self { transactional_id, producer: Mutex::new(Some(producer)) })
    }

    /// Hands the producer to an owner. After an error that owner's producer is dead, so each ownership has its own.
    pub(crate) fn take(&self, kafka: &Cluster) -> kafka::Result<TransactionalProducer> {
        match self.producer.lock().expect("not poisoned").take() {
            Some(producer) => Ok(producer),
            None => TransactionalProducer::new(kafka, &self.transactional_id),
        }
    }

    /// Makes a producer for the next ownership.
    pub(crate) fn renew(&self, kafka: &Cluster) {
        let producer = TransactionalProducer::new(kafka, &self.transactional_id);
        *self.producer.lock().expect("not poisoned") = producer.ok();
    }
}

/// Fences older owners of the shard and ends what they left open; then its logs can be read. Blocks.
pub(crate) fn fence(producer: &TransactionalProducer, kafka: &Cluster, shard: i32) -> anyhow::Result<()> {
    producer.init(INIT_TIMEOUT).context("init_transactions")?;
    let progress = kafka.topics.name(Topic::PlanningProgress);
    let messages = kafka.topics.name(Topic::MessageEvents);
    let statuses = kafka.topics.name(Topic::StatusEvents);
    let partitions = 0..kafka.topics.partitions(Topic::MessageEvents).cast_signed();
    let of = |topic| partitions.clone().map(move |partition| (topic, partition));
    let mut written: Vec<(&str, i32)> = of(messages.as_str()).chain(of(statuses.as_str())).collect();
    written.push((&progress, shard));
    let (database, partition) = kafka::database_partition(&kafka.topics);
    written.push((&database, partition));
    producer.close(&written).context("end what hangs")
}
