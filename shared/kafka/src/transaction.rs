use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use crate::{Client, Error, Outgoing, Result};

/// How long the broker keeps a transaction of ours open: an abandoned one holds up every read-committed reader this long.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes a set of records or none of them. Every call blocks.
///
/// After any error the object is dead: the outcome is open, and a timed-out end of a transaction may hit the next one
/// (librdkafka#5423). Make a new one and [`init`](Self::init) it; then what was committed can be read.
pub struct TransactionalProducer {
    producer: BaseProducer<DeliveryErrors>,
}

/// Remembers the first delivery that failed: `flush` answers Ok although every record did.
#[derive(Default)]
struct DeliveryErrors(Mutex<Option<String>>);

impl ClientContext for DeliveryErrors {}

impl ProducerContext for DeliveryErrors {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if let Err((error, _)) = result {
            self.0.lock().expect("not poisoned").get_or_insert_with(|| error.to_string());
        }
    }
}

impl TransactionalProducer {
    /// Creates the client; it connects in the background, so `init` is quick when it comes half a second later.
    pub fn new(client: &Client, transactional_id: &str) -> Result<Self> {
        let mut config = client.config();
        config
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
            .set("message.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
            // A page fills its batches by itself.
            .set("linger.ms", "5")
            .set("batch.size", "262144")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", "20000");
        let producer = client.finish(config).create_with_context(DeliveryErrors::default())?;
        Ok(Self { producer })
    }

    /// Fences every older producer of this id and aborts what it left open.
    pub fn init(&self, timeout: Duration) -> Result<()> {
        Ok(self.producer.init_transactions(timeout)?)
    }

    /// Writes all records in one transaction. Ok means committed; an error leaves the outcome open.
    pub fn publish<'a>(&self, records: impl IntoIterator<Item = Outgoing<'a>>) -> Result<()> {
        self.producer.begin_transaction()?;
        for record in records {
            let base =
                BaseRecord::to(record.topic).partition(record.partition).key(&record.key).payload(&record.payload);
            self.producer.send(base).map_err(|(error, _)| error)?;
        }
        self.drain()?;
        fail::fail_point!("transaction::written", |_| std::process::abort());
        Ok(self.producer.commit_transaction(TRANSACTION_TIMEOUT)?)
    }

    /// Waits for the deliveries. `commit_transaction` would do so too, but its flush takes at least 100 ms while
    /// anything is in flight.
    fn drain(&self) -> Result<()> {
        let deadline = Instant::now() + TRANSACTION_TIMEOUT;
        while self.producer.in_flight_count() > 0 {
            if Instant::now() > deadline {
                return Err(Error::Timeout("delivering a transaction's records"));
            }
            self.producer.poll(Duration::from_millis(1));
        }
        match self.producer.context().0.lock().expect("not poisoned").take() {
            Some(error) => Err(Error::Delivery(error)),
            None => Ok(()),
        }
    }
}
