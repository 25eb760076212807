use std::sync::Mutex;
use std::time::Duration;

use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use crate::{Cluster, Error, Outgoing, Result};

/// Writes one record at a time, idempotently, acknowledged by all replicas.
pub struct Producer {
    cluster: Cluster,
    current: Mutex<FutureProducer>,
}

impl Producer {
    /// How long a record is tried for before [`send`](Self::send) fails. With the sender's lease (5 s) it must stay under
    /// the session timeout (12 s): a status must not arrive after its partition's next owner has read the log.
    pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

    /// Creates the client.
    pub fn new(cluster: &Cluster) -> Result<Self> {
        Ok(Self { cluster: cluster.clone(), current: Mutex::new(create(cluster)?) })
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

    /// Waits for what is on its way.
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        let producer = self.current.lock().expect("not poisoned").clone();
        Ok(producer.flush(timeout)?)
    }

    /// An idempotent producer may die (its sequence is lost after an expiry on the wire); the records it failed are
    /// produced again by their senders, so all it needs is a successor.
    fn replace_if_dead(&self, dead: &FutureProducer) -> Result<()> {
        if dead.client().fatal_error().is_none() {
            return Ok(());
        }
        let mut current = self.current.lock().expect("not poisoned");
        if current.client().fatal_error().is_some() {
            tracing::warn!("the producer died; it is replaced");
            *current = create(&self.cluster)?;
        }
        Ok(())
    }
}

fn create(cluster: &Cluster) -> Result<FutureProducer> {
    let mut config = cluster.config();
    config
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", Producer::MESSAGE_TIMEOUT.as_millis().to_string())
        // Delays the row, not the call; the broker's cost is per batch.
        .set("linger.ms", "20")
        .set("compression.type", "lz4");
    Ok(cluster.finish(config).create()?)
}
