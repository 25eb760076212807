//! The transactional producer of a shard.

use std::sync::Mutex;
use std::time::Duration;

use kafka::{Cluster, TransactionalProducer};

pub(crate) const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// A shard's producer, made at start-up so that a takeover doesn't wait for a connection. Its id fences every other owner.
pub(crate) struct ShardProducer {
    shard: i32,
    producer: Mutex<Option<TransactionalProducer>>,
}

impl ShardProducer {
    pub(crate) fn new(kafka: &Cluster, shard: i32) -> kafka::Result<Self> {
        let producer = TransactionalProducer::planner(kafka, shard)?;
        Ok(Self { shard, producer: Mutex::new(Some(producer)) })
    }

    /// Hands the producer to an owner. After an error that owner's producer is dead, so each ownership has its own.
    pub(crate) fn take(&self, kafka: &Cluster) -> kafka::Result<TransactionalProducer> {
        match self.producer.lock().expect("not poisoned").take() {
            Some(producer) => Ok(producer),
            None => TransactionalProducer::planner(kafka, self.shard),
        }
    }

    /// Makes a producer for the next ownership.
    pub(crate) fn renew(&self, kafka: &Cluster) {
        let producer = TransactionalProducer::planner(kafka, self.shard);
        *self.producer.lock().expect("not poisoned") = producer.ok();
    }
}
