//! A shard while this process owns it: a thread that plans its mailings.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use domain::database::{DatabaseMark, check};
use events::MailingEvent;
use events::topics::Topic;
use kafka::{Cluster, DeadLetters, Moment, TransactionalProducer};
use runtime::health::{Health, Heartbeat, Readiness};
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::conveyor::Sampler;
use crate::metrics::Metrics;
use crate::planning::{self, Planning, Trouble};
use crate::progress;

const INIT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a wait may not notice the order to stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// What every shard of a scheduler shares.
pub(crate) struct Desk {
    pub(crate) kafka: Cluster,
    pub(crate) pool: PgPool,
    pub(crate) conveyor: Sampler,
    pub(crate) dead_letters: Arc<DeadLetters>,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) planning: Readiness,
    pub(crate) runtime: Handle,
    /// What Kafka says of the Postgres that Herald runs with.
    pub(crate) known: watch::Receiver<Option<DatabaseMark>>,
}

impl Desk {
    /// A connection to plan by: no Postgres that is older than Kafka.
    pub(crate) async fn db(&self) -> Result<PoolConnection<Postgres>, Trouble> {
        let mut db = self.pool.acquire().await?;
        let found = store::database::mark(&mut db).await?;
        check(self.known.borrow().as_ref(), &found)?;
        Ok(db)
    }
}

/// The transactional producer of one shard: its id fences every other owner. Made at start-up, replaced after an error.
pub(crate) struct Planner {
    transactional_id: String,
    producer: Mutex<Option<TransactionalProducer>>,
}

impl Planner {
    pub(crate) fn new(kafka: &Cluster, shard: i32) -> kafka::Result<Self> {
        let transactional_id = kafka.topics.planner_id(shard);
        let producer = TransactionalProducer::new(kafka, &transactional_id)?;
        Ok(Self { transactional_id, producer: Mutex::new(Some(producer)) })
    }

    /// Takes it for an ownership; what is left behind is a new one for the next.
    fn take(&self, kafka: &Cluster) -> kafka::Result<TransactionalProducer> {
        match self.producer.lock().expect("not poisoned").take() {
            Some(producer) => Ok(producer),
            None => TransactionalProducer::new(kafka, &self.transactional_id),
        }
    }

    fn renew(&self, kafka: &Cluster) {
        let producer = TransactionalProducer::new(kafka, &self.transactional_id);
        *self.producer.lock().expect("not poisoned") = producer.ok();
    }
}

/// Fences older owners of the shard and aborts what they left open; then its logs can be read. Blocks.
pub(crate) fn fence(producer: &TransactionalProducer, kafka: &Cluster, shard: i32) -> anyhow::Result<()> {
    producer.init(INIT_TIMEOUT).context("init_transactions")?;
    let progress = kafka.topics.name(Topic::PlanningProgress);
    let messages = kafka.topics.name(Topic::MessageEvents);
    let partitions = 0..kafka.topics.partitions(Topic::MessageEvents).cast_signed();
    let mut written: Vec<(&str, i32)> = partitions.map(|partition| (messages.as_str(), partition)).collect();
    written.push((&progress, shard));
    let (database, partition) = kafka::database_partition(&kafka.topics);
    written.push((&database, partition));
    producer.abort_hanging(&written).context("abort what hangs")
}

/// What the consumer's thread and the shard's thread share.
pub(crate) struct ShardHandle {
    pub(crate) stop: CancellationToken,
    state: Mutex<HandleState>,
    changed: Condvar,
    /// Here and not the thread's own: of a thread that panicked it must go stale, not away.
    beat: Heartbeat,
}

struct HandleState {
    woken: bool,
    position: i64,
    /// Versions whose event was read.
    published: HashMap<Uuid, i64>,
    /// When the newest acknowledged commit was sent.
    confirmed: Option<Moment>,
}

impl ShardHandle {
    /// An event was read: its version is published, and there may be something to do.
    pub(crate) fn published(&self, event: &MailingEvent) {
        self.update(|state| {
            state.published.insert(event.mailing_id, event.version);
            state.woken = true;
        });
    }

    pub(crate) fn read_to(&self, position: i64) {
        self.update(|state| state.position = state.position.max(position));
    }

    pub(crate) fn position(&self) -> i64 {
        self.state.lock().expect("not poisoned").position
    }

    pub(crate) fn confirm(&self, sent: Moment) {
        self.update(|state| state.confirmed = Some(sent));
    }

    pub(crate) fn has_published(&self, mailing: Uuid, version: i64) -> bool {
        let state = self.state.lock().expect("not poisoned");
        state.published.get(&mailing).is_some_and(|published| *published >= version)
    }

    /// The mailing is finished.
    pub(crate) fn forget(&self, mailing: Uuid) {
        self.state.lock().expect("not poisoned").published.remove(&mailing);
    }

    fn update(&self, change: impl FnOnce(&mut HandleState)) {
        change(&mut self.state.lock().expect("not poisoned"));
        self.changed.notify_all();
    }

    /// Waits until `done`, told to stop, or for `timeout`.
    fn wait(&self, timeout: Duration, mut done: impl FnMut(&mut HandleState) -> bool) {
        let until = Instant::now() + timeout;
        let mut state = self.state.lock().expect("not poisoned");
        while !done(&mut state) && !self.stop.is_cancelled() {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            // The stop token doesn't notify: it is looked at often enough for a rebalance not to wait.
            state = self.changed.wait_timeout(state, left.min(STOP_CHECK)).expect("not poisoned").0;
        }
    }
}

/// An owned shard.
pub(crate) struct Shard {
    pub(crate) handle: Arc<ShardHandle>,
    thread: JoinHandle<()>,
}

impl Shard {
    pub(crate) fn take_over(number: i32, position: i64, desk: Arc<Desk>, planner: Arc<Planner>) -> Self {
        let state = HandleState { woken: false, position, published: HashMap::new(), confirmed: None };
        let handle = Arc::new(ShardHandle {
            stop: CancellationToken::new(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            beat: desk.health.heartbeat(format!("shard-{number}"), Duration::from_secs(120)),
        });
        let shard = Owned { number, desk, planner, handle: Arc::clone(&handle) };
        let thread = std::thread::Builder::new()
            .name(format!("shard-{number}"))
            .spawn(move || shard.run())
            .expect("a thread can be made");
        Self { handle, thread }
    }

    /// Waits for the page under way; returns where the shard's events are read to.
    pub(crate) fn give_up(self) -> i64 {
        self.handle.stop.cancel();
        if self.thread.join().is_err() {
            tracing::error!("a shard's thread panicked");
        }
        self.handle.position()
    }
}

/// What the shard's thread holds.
pub(crate) struct Owned {
    pub(crate) number: i32,
    pub(crate) desk: Arc<Desk>,
    pub(crate) handle: Arc<ShardHandle>,
    planner: Arc<Planner>,
}

impl Owned {
    fn run(self) {
        let mut confirmed = false;
        while !self.handle.stop.is_cancelled() {
            match self.own(confirmed) {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(shard = self.number, error = format!("{error:#}"), "planning begins again");
                    self.desk.planning.not_ready(format!("shard {}: {error:#}", self.number));
                    self.confirm();
                    confirmed = true;
                }
            }
        }
        self.planner.renew(&self.desk.kafka);
    }

    /// After an error the shard may be another's: only a commit that is acknowledged now proves that it is still ours.
    fn confirm(&self) {
        let failed = Moment::now();
        while !self.handle.stop.is_cancelled() {
            self.handle.beat.beat();
            let mut confirmed = false;
            self.handle.wait(Duration::from_secs(10), |state| {
                confirmed = state.confirmed.is_some_and(|sent| sent.age() < failed.age());
                confirmed
            });
            if confirmed {
                return;
            }
        }
    }

    /// Fences older owners, reads what is planned, and plans until told to stop or an outcome is open.
    fn own(&self, confirmed: bool) -> anyhow::Result<()> {
        let producer = self.planner.take(&self.desk.kafka)?.stopped_by(&self.handle.stop);
        fence(&producer, &self.desk.kafka, self.number)?;
        let topic = self.desk.kafka.topics.name(Topic::PlanningProgress);
        let progress = progress::read(&self.desk.kafka, self.number, |record, reason| {
            progress::refuse(&self.desk.dead_letters, &self.desk.runtime, &topic, record, reason);
        })
        .context("read planning-progress")?;
        tracing::info!(shard = self.number, mailings = progress.len(), "shard taken over");
        let mut planning = Planning::new(self, producer, progress, confirmed);
        while !self.handle.stop.is_cancelled() {
            self.handle.beat.beat();
            let pause = match planning.round() {
                Ok(pause) => {
                    self.desk.planning.ready();
                    pause
                }
                Err(Trouble::Postgres(error)) => {
                    tracing::warn!(shard = self.number, %error, "planning waits for Postgres");
                    self.desk.planning.not_ready(format!("Postgres: {error}"));
                    planning::IDLE
                }
                Err(Trouble::Doubt(doubt)) => {
                    self.desk.planning.not_ready(doubt.to_string());
                    planning::IDLE
                }
                Err(Trouble::Other(error)) => return Err(error),
            };
            self.handle.wait(pause, |state| std::mem::take(&mut state.woken));
        }
        Ok(())
    }
}
