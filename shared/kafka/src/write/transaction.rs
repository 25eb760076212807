use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use tokio_util::sync::CancellationToken;

use crate::{Cluster, Error, Outgoing, Result};

/// How long the broker keeps a transaction of ours open: an abandoned one holds up every read-committed reader this long.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes a set of records or none of them. Every call blocks.
///
/// After any error the object is dead: the outcome is open, and a timed-out end of a transaction may hit the next one
/// (librdkafka#5423). Make a new one and [`init`](Self::init) it; then what was committed can be read.
pub struct TransactionalProducer {
    producer: BaseProducer<DeliveryErrors>,
    stop: CancellationToken,
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
    pub fn new(cluster: &Cluster, transactional_id: &str) -> Result<Self> {
        let mut config = cluster.config();
        config
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
            .set("message.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
            // A page fills its batches by itself.
            .set("linger.ms", "5")
            .set("batch.size", "262144")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", "20000");
        let producer = cluster.finish(config).create_with_context(DeliveryErrors::default())?;
        Ok(Self { producer, stop: CancellationToken::new() })
    }

    /// From now on a call that waits for Kafka gives up with [`Error::Stopped`] soon after the token says so.
    pub fn stopped_by(mut self, stop: &CancellationToken) -> Self {
        self.stop = stop.clone();
        self
    }

    /// Fences every older producer of this id and aborts what it left open.
    pub fn init(&self, timeout: Duration) -> Result<()> {
        resume_until(Instant::now() + timeout, &self.stop, |step| self.producer.init_transactions(step))
    }

    /// Aborts what an earlier owner may have left hanging in these partitions, by a transaction of its own that is aborted.
    /// Comes after [`init`](Self::init), which should have done it and sometimes hasn't.
    ///
    /// A broker (4.3.1) that starts after a kill may roll an overdue transaction back before it knows who leads its
    /// partitions. It then takes them for deleted ("Couldn't find leader endpoint … can be skipped") and writes them no
    /// marker: the records hang there, and the next commit of the same producer id makes them visible. The marker of a
    /// transaction that is aborted does the opposite.
    pub fn abort_hanging(&self, partitions: &[(&str, i32)]) -> Result<()> {
        self.producer.begin_transaction()?;
        for &(topic, partition) in partitions {
            // A compacted topic takes no record without a key.
            let nothing = BaseRecord::<str, ()>::to(topic).partition(partition).key("aborted");
            self.producer.send(nothing).map_err(|(error, _)| error)?;
        }
        let deadline = Instant::now() + TRANSACTION_TIMEOUT;
        self.drain(deadline)?;
        resume_until(deadline, &self.stop, |step| self.producer.abort_transaction(step))
    }

    /// Writes all records in one transaction. Ok means committed; an error leaves the outcome open, also the one that says
    /// that it was told to stop while Kafka was away.
    pub fn publish<'a>(&self, records: impl IntoIterator<Item = Outgoing<'a>>) -> Result<()> {
        let deadline = Instant::now() + TRANSACTION_TIMEOUT;
        self.producer.begin_transaction()?;
        for record in records {
            let base =
                BaseRecord::to(record.topic).partition(record.partition).key(&record.key).payload(&record.payload);
            self.producer.send(base).map_err(|(error, _)| error)?;
        }
        self.drain(deadline)?;
        fail::fail_point!("transaction::written", |_| std::process::abort());
        resume_until(Instant::now() + TRANSACTION_TIMEOUT, &self.stop, |step| self.producer.commit_transaction(step))
    }

    /// Waits for the deliveries. `commit_transaction` would do so too, but its flush takes at least 100 ms while
    /// anything is in flight.
    fn drain(&self, deadline: Instant) -> Result<()> {
        let mut stopped = None;
        while self.producer.in_flight_count() > 0 {
            if Instant::now() > deadline {
                return Err(Error::Timeout("delivering a transaction's records"));
            }
            if is_over(&mut stopped, &self.stop) {
                return Err(Error::Stopped);
            }
            self.producer.poll(Duration::from_millis(1));
        }
        match self.producer.context().0.lock().expect("not poisoned").take() {
            Some(error) => Err(Error::Delivery(error)),
            None => Ok(()),
        }
    }
}

/// Calls that block are made in steps, between which an order to stop is heard.
const STEP: Duration = Duration::from_millis(500);
/// How long what is under way may take after that order.
const GRACE: Duration = Duration::from_secs(3);

/// Whether the order to stop came longer ago than [`GRACE`]; `since` remembers when it was heard.
fn is_over(since: &mut Option<Instant>, stop: &CancellationToken) -> bool {
    stop.is_cancelled() && since.get_or_insert_with(Instant::now).elapsed() > GRACE
}

/// Makes a call that librdkafka resumes when it is made again after it has timed out (KIP-98's calls all are).
fn resume_until(deadline: Instant, stop: &CancellationToken, call: impl Fn(Duration) -> KafkaResult<()>) -> Result<()> {
    let mut stopped = None;
    loop {
        match call(STEP) {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && !error.is_fatal() => {
                if Instant::now() > deadline {
                    return Err(KafkaError::Transaction(error).into());
                }
                if is_over(&mut stopped, stop) {
                    return Err(Error::Stopped);
                }
            }
            done => return Ok(done?),
        }
    }
}
