use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use events::topics::Topic;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::hanging::Hanging;
use super::label::{Closing, Label, headers};
use crate::read::Place;
use crate::{Cluster, Error, Outgoing, Result, cluster, database_partition};

/// How long the broker keeps a transaction of ours open: an abandoned one holds up every read-committed reader this long.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// After this long the markers of a transaction that was acknowledged are written, whatever dies then.
const MARKERS: Duration = Duration::from_secs(5);

/// Writes a set of records or none of them. Every call blocks.
///
/// After any error the object is dead: the outcome is open, and a timed-out end of a transaction may hit the next one
/// (librdkafka#5423). Make a new one and [`init`](Self::init) it; then what was committed can be read.
pub struct TransactionalProducer {
    producer: BaseProducer<Events>,
    cluster: Cluster,
    id: String,
    /// Topics and partitions.
    places: Vec<(String, i32)>,
    stop: CancellationToken,
}

/// What librdkafka has told in the meantime.
struct Events {
    /// The first delivery that failed: `flush` answers Ok although every record did.
    failed: Mutex<Option<String>>,
    /// They say when an event that is told only now may have happened.
    times: Mutex<Times>,
    /// A broker went away while the markers of a transaction may not have been written.
    parted: AtomicBool,
}

#[derive(Clone, Copy)]
struct Times {
    /// When the last transaction was under way.
    active: Option<Instant>,
    /// When no event was left untold. librdkafka tells them when it is polled.
    told: Instant,
}

impl ClientContext for Events {
    fn error(&self, error: KafkaError, reason: &str) {
        cluster::log_error(&error, reason);
        let parted = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown)
        );
        let Times { active, told } = *self.times.lock().expect("not poisoned");
        if parted && active.is_some_and(|active| told < active + MARKERS) {
            self.parted.store(true, Ordering::Relaxed);
        }
    }
}

impl ProducerContext for Events {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if let Err((error, _)) = result {
            self.failed.lock().expect("not poisoned").get_or_insert_with(|| error.to_string());
        }
    }
}

impl TransactionalProducer {
    /// That of a shard's planner.
    pub fn planner(cluster: &Cluster, shard: i32) -> Result<Self> {
        let topics = &cluster.topics;
        let partitions = 0..topics.partitions(Topic::MessageEvents).cast_signed();
        let of = |topic| partitions.clone().map(move |partition| (topics.name(topic), partition));
        let own = [(topics.name(Topic::PlanningProgress), shard), database_partition(topics)];
        let places = of(Topic::MessageEvents).chain(of(Topic::StatusEvents)).chain(own).collect();
        Self::new(cluster, &topics.planner_id(shard), places)
    }

    /// That of the relay.
    pub fn relay(cluster: &Cluster) -> Result<Self> {
        let topics = &cluster.topics;
        let shards = (0..topics.shards().cast_signed()).map(|shard| (topics.name(Topic::MailingEvents), shard));
        Self::new(cluster, &topics.relay_id(), shards.chain([database_partition(topics)]).collect())
    }

    /// Creates the client; it connects in the background, so `init` is quick when it comes half a second later. `places` are
    /// the topics and partitions that this id writes to, topic by topic.
    pub fn new(cluster: &Cluster, transactional_id: &str, places: Vec<(String, i32)>) -> Result<Self> {
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
        let times = Mutex::new(Times { active: None, told: Instant::now() });
        let events = Events { failed: Mutex::new(None), times, parted: AtomicBool::new(false) };
        let producer = cluster.finish(config).create_with_context(events)?;
        let (cluster, id) = (cluster.clone(), transactional_id.to_owned());
        Ok(Self { producer, cluster, id, places, stop: CancellationToken::new() })
    }

    /// From now on a call that waits for Kafka gives up with [`Error::Stopped`] soon after the token says so.
    pub fn stopped_by(mut self, stop: &CancellationToken) -> Self {
        self.stop = stop.clone();
        self
    }

    /// Fences every older producer of this id and ends what it left open. Then what was committed can be read.
    pub fn init(&self, timeout: Duration) -> Result<()> {
        resume_until(Instant::now() + timeout, &self.stop, |step| self.producer.init_transactions(step))?;
        // It may have been made while Kafka was away.
        self.check()?;
        self.close()
    }

    /// Ends what a broker may have left hanging, though `init_transactions` should have ended it. Each transaction is ended as
    /// it was meant to be: all of it is seen, or nothing.
    ///
    /// The producer id stays the same from owner to owner, and a marker ends all that is open of it. So a transaction of our
    /// own is committed or aborted, with a record that has no value in each partition; our readers pass it by.
    fn close(&self) -> Result<()> {
        let places: Vec<_> = self.places.iter().map(|(topic, partition)| (topic.as_str(), *partition)).collect();
        let hanging = Hanging::new(&self.cluster, &self.id, &places, &self.stop).find()?;
        for commits in [true, false] {
            let places: Vec<_> = hanging.iter().filter(|(_, it)| *it == commits).map(|(place, _)| *place).collect();
            if !places.is_empty() {
                tracing::warn!(producer = self.id, ?places, commits, "a broker may have left a transaction hanging");
                self.end(&places, commits)?;
            }
        }
        Ok(())
    }

    /// An error leaves the outcome open. Until it is told to commit, an interrupted one is aborted, and what hangs with it: so
    /// neither an order to stop nor a broker that goes away interrupts it.
    fn end(&self, places: &[Place<'_>], commits: bool) -> Result<()> {
        let headers = headers(&Closing { producer: self.id.clone() }.header());
        let (deadline, whatever_comes) = (Instant::now() + TRANSACTION_TIMEOUT, CancellationToken::new());
        self.begin()?;
        for &(topic, partition) in places {
            let nothing = BaseRecord::<str, ()>::to(topic).partition(partition).key(Closing::KEY);
            self.producer.send(nothing.headers(headers.clone())).map_err(|(error, _)| error)?;
        }
        self.drain(deadline, &whatever_comes)?;
        resume_until(deadline, &whatever_comes, |step| {
            if commits { self.producer.commit_transaction(step) } else { self.producer.abort_transaction(step) }
        })?;
        self.ended()
    }

    /// Writes all records in one transaction. Ok means committed; an error leaves the outcome open, also the one that says
    /// that it was told to stop while Kafka was away.
    pub fn publish<'a>(&self, records: impl IntoIterator<Item = Outgoing<'a>>) -> Result<()> {
        let records: Vec<Outgoing<'a>> = records.into_iter().collect();
        let labelled = edges(&records);
        let label = Label {
            id: Uuid::now_v7(),
            records: u32::try_from(labelled.len()).unwrap_or(u32::MAX),
            producer: self.id.clone(),
        };
        let (headers, timestamp) = (headers(&label.header()), chrono::Utc::now().timestamp_millis());
        let deadline = Instant::now() + TRANSACTION_TIMEOUT;
        self.check()?;
        self.begin()?;
        for (index, record) in records.iter().enumerate() {
            let mut base = BaseRecord::to(record.topic)
                .partition(record.partition)
                .key(&record.key)
                .payload(&record.payload)
                .timestamp(timestamp);
            if labelled.contains(&index) {
                base = base.headers(headers.clone());
            }
            self.producer.send(base).map_err(|(error, _)| error)?;
        }
        self.drain(deadline, &self.stop)?;
        self.parted()?;
        fail::fail_point!("transaction::written", |_| std::process::abort());
        resume_until(Instant::now() + TRANSACTION_TIMEOUT, &self.stop, |step| self.producer.commit_transaction(step))?;
        self.ended()
    }

    /// An error if a broker went away when the last transaction was hardly committed: it may hang in some of its partitions,
    /// and the next one must not be mixed up with it. Ask it often: what happens between two calls counts as early.
    pub fn check(&self) -> Result<()> {
        let now = Instant::now();
        // A poll tells one event, and nothing is under way.
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(Duration::ZERO);
        }
        self.producer.context().times.lock().expect("not poisoned").told = now;
        self.parted()
    }

    fn parted(&self) -> Result<()> {
        if self.producer.context().parted.load(Ordering::Relaxed) {
            return Err(Error::Delivery("a broker went away during a transaction".to_owned()));
        }
        Ok(())
    }

    /// Call [`check`](Self::check) first: what is told from here on counts against this transaction.
    fn begin(&self) -> Result<()> {
        self.producer.begin_transaction()?;
        self.is_active();
        Ok(())
    }

    fn ended(&self) -> Result<()> {
        self.is_active();
        self.check()
    }

    fn is_active(&self) {
        self.producer.context().times.lock().expect("not poisoned").active = Some(Instant::now());
    }

    /// Waits for the deliveries. `commit_transaction` would do so too, but its flush takes at least 100 ms while
    /// anything is in flight.
    fn drain(&self, deadline: Instant, stop: &CancellationToken) -> Result<()> {
        let mut stopped = None;
        while self.producer.in_flight_count() > 0 {
            if Instant::now() > deadline {
                return Err(Error::Timeout("delivering a transaction's records"));
            }
            if is_over(&mut stopped, stop) {
                return Err(Error::Stopped);
            }
            self.producer.poll(Duration::from_millis(1));
        }
        match self.producer.context().failed.lock().expect("not poisoned").take() {
            Some(error) => Err(Error::Delivery(error)),
            None => Ok(()),
        }
    }
}

/// The first and the last record of each partition. With the last all of the partition's are there.
fn edges(records: &[Outgoing<'_>]) -> BTreeSet<usize> {
    let mut edges: BTreeMap<(&str, i32), (usize, usize)> = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        edges.entry((record.topic, record.partition)).or_insert((index, index)).1 = index;
    }
    edges.into_values().flat_map(|(first, last)| [first, last]).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_record_of_each_partition_are_labelled() {
        let records = [("a", 0), ("a", 1), ("a", 0), ("b", 0), ("a", 0), ("a", 1)].map(|(topic, partition)| Outgoing {
            topic,
            partition,
            key: String::new(),
            payload: vec![],
        });
        assert_eq!(edges(&records), BTreeSet::from([0, 1, 3, 4, 5]));
    }
}
