use std::sync::Mutex;
use std::time::Duration;

use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use crate::moment::OncePerSecond;
use crate::{Cluster, Error, Outgoing, Result};

/// Between two tries after a failed delivery.
const PAUSE: Duration = Duration::from_millis(200);

/// Writes one record at a time, idempotently, acknowledged by all replicas that are in sync.
pub struct Producer {
    cluster: Cluster,
    message_timeout: Duration,
    current: Mutex<FutureProducer>,
    failures: OncePerSecond,
}

impl Producer {
    /// A message timeout for records that must be written whatever it takes: librdkafka tries that long, in the order in which
    /// they were sent, and no copy of one is written behind a later one.
    pub const LONG: Duration = Duration::from_secs(24 * 3_600);
    /// A message timeout for records that are worth nothing if they come late.
    pub const BRIEF: Duration = Duration::from_secs(5);

    /// Creates the client. A record is tried for `message_timeout` before [`send`](Self::send) fails.
    pub fn new(cluster: &Cluster, message_timeout: Duration) -> Result<Self> {
        let current = Mutex::new(create(cluster, message_timeout)?);
        Ok(Self { cluster: cluster.clone(), message_timeout, current, failures: OncePerSecond::default() })
    }

    /// Writes the record and returns its offset once it is acknowledged. After an error it may have been written all the
    /// same. Dropping the future does not take the record back.
    pub async fn send(&self, record: &Outgoing<'_>) -> Result<i64> {
        let producer = self.current.lock().expect("not poisoned").clone();
        let future =
            FutureRecord::to(record.topic).partition(record.partition).key(&record.key).payload(&record.payload);
        let sent = match producer.send_result(future) {
            Ok(delivery) => delivery.await,
            Err((error, _)) => {
                self.replace_if_dead(&producer)?;
                return Err(error.into());
            }
        };
        match sent {
            Ok(Ok(delivery)) => Ok(delivery.offset),
            Ok(Err((error, _))) => {
                self.replace_if_dead(&producer)?;
                Err(error.into())
            }
            Err(_) => Err(Error::Delivery("the producer was dropped".to_owned())),
        }
    }

    /// Writes the record until it is acknowledged, also by a successor of a producer that died, and returns its offset.
    pub async fn write(&self, record: &Outgoing<'_>) -> i64 {
        loop {
            match self.send(record).await {
                Ok(offset) => return offset,
                Err(error) => {
                    if let Some(held_back) = self.failures.held_back() {
                        tracing::warn!(%error, kafka.topic = record.topic, held_back, "not acknowledged; it is written again");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Waits for what is on its way.
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        let producer = self.current.lock().expect("not poisoned").clone();
        Ok(producer.flush(timeout)?)
    }

    /// An idempotent producer may die (its sequence is lost after an expiry on the wire). Whoever sent the records that it failed
    /// sends them again, so all it needs is a successor.
    fn replace_if_dead(&self, dead: &FutureProducer) -> Result<()> {
        if dead.client().fatal_error().is_none() {
            return Ok(());
        }
        let mut current = self.current.lock().expect("not poisoned");
        if current.client().fatal_error().is_some() {
            tracing::warn!("the producer died; it is replaced");
            *current = create(&self.cluster, self.message_timeout)?;
        }
        Ok(())
    }
}

fn create(cluster: &Cluster, message_timeout: Duration) -> Result<FutureProducer> {
    let mut config = cluster.config();
    config
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", message_timeout.as_millis().to_string())
        // How long a request waits on a connection that has gone silent, before it is sent again on another one.
        .set("socket.timeout.ms", "5000")
        // Delays the row, not the call; the broker's cost is per batch.
        .set("linger.ms", "20")
        .set("compression.type", "lz4");
    Ok(cluster.finish(config).create()?)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use events::topics::Topics;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    const TOPIC: &str = "topic";

    fn producer(message_timeout: Duration) -> (MockCluster<'static, DefaultProducerContext>, Producer) {
        let brokers = MockCluster::new(1).unwrap();
        brokers.create_topic(TOPIC, 1, 1).unwrap();
        let cluster = Cluster::new(Topics::new("mock", Some(1)), &brokers.bootstrap_servers(), vec![], "test");
        let producer = Producer::new(&cluster, message_timeout).unwrap();
        (brokers, producer)
    }

    fn record() -> Outgoing<'static> {
        Outgoing { topic: TOPIC, partition: 0, key: "key".to_owned(), payload: b"payload".to_vec() }
    }

    async fn in_time<T>(call: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(20), call).await.expect("it takes too long")
    }

    #[tokio::test]
    async fn a_record_that_is_given_up_after_its_timeout_is_written_again_until_it_is_acknowledged() {
        let (brokers, producer) = producer(Duration::from_millis(300));
        brokers.broker_down(1).unwrap();
        let begun = Instant::now();
        assert!(in_time(producer.send(&record())).await.is_err(), "nobody can have acknowledged it");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let write = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            brokers.broker_up(1).unwrap();
        };
        let record = record();
        let (offset, ()) = in_time(futures::future::join(producer.write(&record), write)).await;
        assert!(offset >= 0);
    }

    #[tokio::test]
    async fn a_producer_that_dies_has_a_successor_which_writes_what_it_has_failed() {
        let (brokers, producer) = producer(Producer::LONG);
        in_time(producer.send(&record())).await.unwrap();
        let lost = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER];
        brokers.request_errors(RDKafkaApiKey::Produce, &lost);
        let before = producer.current.lock().unwrap().client().native_ptr();
        assert_eq!(in_time(producer.write(&record())).await, 1);
        assert_ne!(producer.current.lock().unwrap().client().native_ptr(), before, "the producer didn't die");
    }
}
