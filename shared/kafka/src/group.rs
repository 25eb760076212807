//! A member of a consumer group: one OS thread that polls and nothing else, and one that commits. What is done with the
//! records is the [`Member`]'s, and happens elsewhere.
//!
//! Commits are synchronous and have a thread of their own: rdkafka 0.39 calls `commit_callback` for automatic commits
//! only (librdkafka enqueues no event for a manual asynchronous one), and a lease needs the acknowledgement.

mod cover;
mod member;
mod rebalance;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::cluster;
use crate::garbage::{Quarantine, Reviewer};
use crate::{Cluster, DeadLetters, Error, Metrics, Moment, Record, Result};
use events::topics::Topic;
pub use member::{Assigned, Commit, Intake, Member, Start};

/// How often changed checkpoints are committed; an unchanged one is once a second, to prove membership.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
const PROOF_INTERVAL: Duration = Duration::from_secs(1);
/// A member hears of a rebalance by a heartbeat's answer, and the rebalance waits for each of them.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);
/// How often an instance that has come back looks whether each partition has an owner.
const COVER_INTERVAL: Duration = Duration::from_millis(500);

/// How a member takes part in its group.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// Whose the group is: `{prefix}.<reader>`. Dead letters name it.
    pub reader: &'static str,
    /// What it reads.
    pub topic: Topic,
    /// How long the group waits for a silent member.
    pub session_timeout: Duration,
    /// How long a rebalance callback may block.
    pub max_poll_interval: Duration,
    /// How many bytes the broker gathers before it answers, for up to 50 ms.
    pub fetch_min_bytes: u32,
}

/// A consumer in a group.
pub struct GroupConsumer {
    cluster: Cluster,
    membership: Membership,
    reviewer: Reviewer,
}

/// From a first join to leaving, or to being fenced.
struct Membership {
    consumer: BaseConsumer<Context>,
    topic: String,
}

struct Context {
    member: Arc<dyn Member>,
    settings: GroupSettings,
    group: String,
    topic: String,
    quarantine: Quarantine,
    metrics: Metrics,
    stop: CancellationToken,
    /// How many partitions must have an owner; none to look after if it joins as no instance.
    to_cover: Option<u32>,
    /// It is to leave and join again.
    rejoin: AtomicBool,
    state: Mutex<State>,
    /// Held from asking what may be committed to the answer, so that no older commit can follow a revocation's last one.
    committed: Mutex<Committed>,
}

#[derive(Default)]
struct State {
    assigned: BTreeSet<i32>,
    paused: BTreeSet<i32>,
}

#[derive(Default)]
struct Committed {
    acknowledged: Vec<Commit>,
    sent: Option<Instant>,
}

impl GroupConsumer {
    /// Creates the consumer; [`run`](Self::run) joins the group. `runtime` writes the letters.
    pub fn new(
        cluster: &Cluster,
        settings: GroupSettings,
        metrics: &Metrics,
        stop: CancellationToken,
        member: Arc<dyn Member>,
        dead_letters: Arc<DeadLetters>,
        runtime: Handle,
    ) -> Result<Self> {
        let reviewer = Reviewer {
            cluster: cluster.clone(),
            reader: settings.reader,
            topic: settings.topic,
            dead_letters,
            runtime,
        };
        let membership = Membership::new(cluster, settings, metrics, stop, member)?;
        Ok(Self { cluster: cluster.clone(), membership, reviewer })
    }

    /// Polls until told to stop, then gives its partitions up in good order. `beat` is called at each turn.
    ///
    /// An instance that the group has given to another, or forgotten, loses its partitions and goes on as no instance.
    pub fn run(self, beat: impl Fn()) -> Result<()> {
        let mut membership = self.membership;
        loop {
            match membership.run(&self.reviewer, &beat) {
                Err(Error::Fenced) => {}
                ended => return ended,
            }
            let context = Arc::clone(membership.consumer.context());
            drop(membership);
            context.lose();
            tracing::warn!(
                group = context.group,
                "the group knows another as this instance: it goes on without a state directory. Two processes must not have \
                 one, nor a copy of it"
            );
            let (settings, stop, member) =
                (context.settings.clone(), context.stop.clone(), Arc::clone(&context.member));
            membership =
                Membership::new(&self.cluster.clone().no_instance(), settings, &context.metrics, stop, member)?;
        }
    }
}

impl Membership {
    fn new(
        cluster: &Cluster,
        settings: GroupSettings,
        metrics: &Metrics,
        stop: CancellationToken,
        member: Arc<dyn Member>,
    ) -> Result<Self> {
        let group = cluster.topics.group(settings.reader);
        let mut config = cluster.group_config(&group);
        config
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Members say where to begin; this is for a log whose start has passed that offset since.
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            // Ends a run of garbage.
            .set("enable.partition.eof", "true")
            .set("session.timeout.ms", settings.session_timeout.as_millis().to_string())
            .set("heartbeat.interval.ms", HEARTBEAT_INTERVAL.as_millis().to_string())
            .set("max.poll.interval.ms", settings.max_poll_interval.as_millis().to_string())
            .set("fetch.min.bytes", settings.fetch_min_bytes.to_string())
            .set("fetch.wait.max.ms", "50")
            .set("fetch.queue.backoff.ms", "50")
            .set("queued.min.messages", "2000")
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.message.max.bytes", "1048576")
            .set("statistics.interval.ms", "5000");
        let topic = cluster.topics.name(settings.topic);
        let quarantine = Quarantine::new(settings.topic, topic.clone(), Arc::clone(&member), metrics.stopped.clone());
        let to_cover = cluster.is_instance().then(|| cluster.topics.partitions(settings.topic));
        let context = Context {
            member,
            settings,
            group,
            topic: topic.clone(),
            quarantine,
            metrics: metrics.clone(),
            stop,
            to_cover,
            rejoin: AtomicBool::new(false),
            state: Mutex::default(),
            committed: Mutex::default(),
        };
        Ok(Self { consumer: cluster.finish(config).create_with_context(context)?, topic })
    }

    fn run(&self, reviewer: &Reviewer, beat: &impl Fn()) -> Result<()> {
        let context = Arc::clone(self.consumer.context());
        let left = CancellationToken::new();
        std::thread::scope(|scope| {
            let committer = std::thread::Builder::new().name("committer".to_owned());
            committer.spawn_scoped(scope, || self.commit_until(&left, &context)).expect("a thread can be made");
            let reviewing = std::thread::Builder::new().name("reviewer".to_owned());
            reviewing.spawn_scoped(scope, || reviewer.run(&context.quarantine, &left)).expect("a thread can be made");
            if let Some(partitions) = context.to_cover {
                let cover = std::thread::Builder::new().name("cover".to_owned());
                let (left, context) = (&left, &context);
                let look = move || self.look_for_owners(partitions, left, context);
                cover.spawn_scoped(scope, look).expect("a thread can be made");
            }
            let polled = self.poll_until_stopped(&context, beat);
            left.cancel();
            context.quarantine.wake();
            polled
        })
    }

    fn poll_until_stopped(&self, context: &Context, beat: &impl Fn()) -> Result<()> {
        self.consumer.subscribe(&[&self.topic])?;
        let mut next_tick = Instant::now();
        while !context.stop.is_cancelled() {
            self.turn(context)?;
            if Instant::now() >= next_tick {
                beat();
                for (partition, position) in self.positions()? {
                    let held = context.quarantine.first(partition);
                    context.member.read_to(partition, held.map_or(position, |held| held.min(position)));
                }
                next_tick = Instant::now() + COMMIT_INTERVAL;
            }
            self.take_passed(context)?;
            self.resume(context)?;
            if context.rejoin.swap(false, Ordering::Relaxed) {
                self.leave(context)?;
                self.consumer.subscribe(&[&self.topic])?;
            }
        }
        self.leave(context)?;
        Ok(())
    }

    /// Until each partition has an owner, which is the first look unless this instance came back in the middle of a rebalance.
    /// Longer than one may last none of them may be nobody's: then it leaves and joins again, so that all are assigned.
    fn look_for_owners(&self, partitions: u32, left: &CancellationToken, context: &Context) {
        let patience = context.settings.session_timeout * 2;
        let mut since: Option<Instant> = None;
        while !left.is_cancelled() {
            std::thread::park_timeout(COVER_INTERVAL);
            match cover::is_covered(&self.consumer, &context.group, &self.topic, partitions) {
                Ok(Some(true)) => return,
                Ok(Some(false)) if since.get_or_insert_with(Instant::now).elapsed() > patience => {
                    tracing::warn!(group = context.group, "a partition has no owner: joining again");
                    context.rejoin.store(true, Ordering::Relaxed);
                    since = None;
                }
                Ok(Some(false)) => {}
                Ok(None) => since = None,
                Err(error) => tracing::debug!(%error, group = context.group, "looking at the group"),
            }
        }
    }

    fn commit_until(&self, left: &CancellationToken, context: &Context) {
        while !left.is_cancelled() {
            std::thread::park_timeout(COMMIT_INTERVAL);
            let sent = Moment::now();
            match self.commit(context) {
                Ok(true) => context.member.commit_acknowledged(sent),
                Ok(false) => {}
                // During a rebalance, or with the coordinator away: the next one repairs it.
                Err(error) => tracing::debug!(%error, group = context.group, "a commit was refused"),
            }
        }
    }

    /// Commits what may be committed, if it has changed or membership is to be proved. Answers whether it did.
    fn commit(&self, context: &Context) -> Result<bool> {
        let mut committed = context.committed.lock().expect("not poisoned");
        let commits = context.member.checkpoints();
        let recent = committed.sent.is_some_and(|sent| sent.elapsed() < PROOF_INTERVAL);
        if commits.is_empty() || (commits == committed.acknowledged && recent) {
            return Ok(false);
        }
        committed.sent = Some(Instant::now());
        fail::fail_point!("group::commit", |_| std::process::abort());
        self.consumer.commit(&commit_list(&self.topic, &commits)?, CommitMode::Sync)?;
        committed.acknowledged = commits;
        Ok(true)
    }

    fn turn(&self, context: &Context) -> Result<()> {
        let paused = !context.state.lock().expect("not poisoned").paused.is_empty();
        let wait = Duration::from_millis(if paused { 2 } else { 20 });
        match self.consumer.poll(wait) {
            Some(Ok(message)) => self.take(context, Record::detach(&message))?,
            Some(Err(KafkaError::PartitionEOF(partition))) => context.quarantine.end(partition),
            Some(Err(KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::FencedInstanceId))) => {
                return Err(Error::Fenced);
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error.into()),
            // librdkafka mends these by itself: a broker that is away, a poll that came late.
            Some(Err(error)) => cluster::log_error(&error, "reading"),
            None => {}
        }
        Ok(())
    }

    fn take(&self, context: &Context, record: Record) -> Result<()> {
        let (partition, offset) = (record.partition, record.offset);
        let intake = match context.quarantine.hold(record) {
            Ok(intake) => intake,
            Err(record) => context.member.take(record).unwrap_or_else(|error| {
                context.quarantine.begin(partition, offset, &error);
                Intake::More
            }),
        };
        if intake == Intake::Full { self.pause(context, partition) } else { Ok(()) }
    }

    /// Goes on behind runs of garbage that were passed.
    fn take_passed(&self, context: &Context) -> Result<()> {
        for passed in context.quarantine.passed() {
            context.member.garbage_skipped(passed.partition, passed.offset);
            for record in passed.waiting {
                self.take(context, record)?;
            }
            if passed.at_end {
                context.quarantine.end(passed.partition);
            }
        }
        Ok(())
    }

    /// Pausing throws away what was prefetched, so it is done once a fill, and undone when half is free.
    fn pause(&self, context: &Context, partition: i32) -> Result<()> {
        let mut state = context.state.lock().expect("not poisoned");
        if state.assigned.contains(&partition) && state.paused.insert(partition) {
            self.consumer.pause(&list(&self.topic, [partition]))?;
        }
        Ok(())
    }

    fn resume(&self, context: &Context) -> Result<()> {
        let mut state = context.state.lock().expect("not poisoned");
        let has_room = |partition| context.quarantine.has_room(partition) && context.member.has_room(partition);
        let ready: Vec<i32> = state.paused.iter().copied().filter(|&partition| has_room(partition)).collect();
        if !ready.is_empty() {
            state.paused.retain(|partition| !ready.contains(partition));
            self.consumer.resume(&list(&self.topic, ready))?;
        }
        Ok(())
    }

    /// Copied to plain values at once: dropping the consumer hangs while rdkafka's list is alive.
    fn positions(&self) -> Result<Vec<(i32, i64)>> {
        let list = self.consumer.position()?;
        let positions = list.elements().into_iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        });
        Ok(positions.collect())
    }

    /// Leaves the group: the revocation comes through `poll`, but not to a consumer that has died.
    fn leave(&self, context: &Context) -> Result<()> {
        self.consumer.unsubscribe();
        let deadline = Instant::now() + context.settings.max_poll_interval;
        while !context.state.lock().expect("not poisoned").assigned.is_empty() && Instant::now() < deadline {
            if let Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) =
                self.consumer.poll(Duration::from_millis(20))
            {
                return Err(error.into());
            }
        }
        Ok(())
    }
}

fn list(topic: &str, partitions: impl IntoIterator<Item = i32>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, partition);
    }
    list
}

/// A fresh list each time: setting an element's metadata twice leaks the first.
fn commit_list(topic: &str, commits: &[Commit]) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for commit in commits {
        let mut element = list.add_partition(topic, commit.partition);
        element.set_offset(Offset::Offset(commit.offset))?;
        element.set_metadata(&commit.metadata);
    }
    Ok(list)
}
