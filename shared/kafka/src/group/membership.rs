//! One membership: from joining to leaving, or to being fenced. What is here runs on the polling thread.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::GroupSettings;
use super::committed::Committed;
use super::instance::Instance;
use super::member::{Intake, Member};
use crate::garbage::{Quarantine, Reviewer};
use crate::moment::OncePerSecond;
use crate::write::is_closing;
use crate::{Cluster, Metrics, Moment, Record, Result};

/// How often the member hears of its positions, and changed checkpoints are committed.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// A member hears of a rebalance by a heartbeat's answer, and the rebalance waits for each of them.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

pub(super) struct Membership {
    pub(super) consumer: BaseConsumer<Context>,
    pub(super) topic: String,
}

/// What the polling thread, the committing one and librdkafka's callbacks share.
pub(super) struct Context {
    pub(super) member: Arc<dyn Member>,
    pub(super) settings: GroupSettings,
    pub(super) group: String,
    pub(super) topic: String,
    pub(super) quarantine: Quarantine,
    pub(super) metrics: Metrics,
    pub(super) stop: CancellationToken,
    pub(super) instance: Option<Instance>,
    /// What is revoked now is lost, whatever librdkafka says of it.
    pub(super) forsaken: AtomicBool,
    pub(super) partitions: Mutex<Partitions>,
    pub(super) committed: Mutex<Committed>,
    /// Held from asking what may be committed to the answer, so that no older commit can follow a revocation's last one.
    pub(super) committing: Mutex<()>,
    pub(super) refusals: OncePerSecond,
}

#[derive(Default)]
pub(super) struct Partitions {
    pub(super) assigned: BTreeSet<i32>,
    pub(super) paused: BTreeSet<i32>,
}

impl Membership {
    pub(super) fn new(
        cluster: &Cluster,
        settings: GroupSettings,
        metrics: &Metrics,
        stop: CancellationToken,
        member: Arc<dyn Member>,
    ) -> Result<Self> {
        let group = cluster.topics.group(settings.reader);
        let mut config = cluster.config();
        config
            .set("group.id", &group)
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
            // What a fetch brings of a partition, compressed. An eighth of it means more fetches: measured, a tenth more CPU a
            // message.
            .set("fetch.message.max.bytes", "1048576")
            // What it brings of all partitions together. A burst of statuses unpacks to ten times as much.
            .set("fetch.max.bytes", "1048576")
            .set("statistics.interval.ms", "5000");
        let instance = Instance::of(cluster, settings.topic, &mut config);
        let topic = cluster.topics.name(settings.topic);
        let quarantine = Quarantine::new(settings.topic, topic.clone(), Arc::clone(&member), metrics.stopped.clone());
        let context = Context {
            member,
            committed: Mutex::new(Committed::new(settings.session_timeout)),
            settings,
            group,
            topic: topic.clone(),
            quarantine,
            metrics: metrics.clone(),
            stop,
            instance,
            forsaken: AtomicBool::new(false),
            partitions: Mutex::default(),
            committing: Mutex::default(),
            refusals: OncePerSecond::default(),
        };
        Ok(Self { consumer: cluster.finish(config).create_with_context(context)?, topic })
    }

    /// Polls until told to stop, or until librdkafka gives up.
    pub(super) fn run(&self, reviewer: &Reviewer, beat: &impl Fn()) -> Result<()> {
        let context = Arc::clone(self.consumer.context());
        let left = CancellationToken::new();
        std::thread::scope(|scope| {
            spawn(scope, "committer", || self.commit_until(&left, &context));
            spawn(scope, "reviewer", || reviewer.run(&context.quarantine, &left));
            if let Some(instance) = &context.instance {
                spawn(scope, "owners", || instance.look_for_owners(&self.consumer, &context, &left));
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
                self.tell_positions(context)?;
                next_tick = Instant::now() + TICK;
            }
            self.take_passed(context)?;
            self.resume(context)?;
            if context.committed().is_silent(Moment::now()) {
                tracing::warn!(
                    group = context.group,
                    "no commit was acknowledged for longer than the group waits for a silent member: its partitions count as lost"
                );
                context.forsaken.store(true, Ordering::Relaxed);
                self.rejoin(context)?;
            }
            if context.instance.as_ref().is_some_and(Instance::must_rejoin) {
                self.rejoin(context)?;
            }
        }
        self.leave(context)
    }

    fn turn(&self, context: &Context) -> Result<()> {
        let paused = !context.partitions().paused.is_empty();
        let wait = Duration::from_millis(if paused { 2 } else { 20 });
        match self.consumer.poll(wait) {
            Some(Ok(message)) if is_closing(&message) => {}
            Some(Ok(message)) => self.take(context, Record::detach(&message))?,
            Some(Err(KafkaError::PartitionEOF(partition))) => context.quarantine.end(partition),
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error.into()),
            // A broker that is away, a poll that came late: librdkafka mends it by itself, and tells `ClientContext::error` too.
            Some(Err(error)) => tracing::debug!(%error, group = context.group, "reading"),
            None => {}
        }
        Ok(())
    }

    fn tell_positions(&self, context: &Context) -> Result<()> {
        for (partition, position) in self.positions()? {
            let held = context.quarantine.first(partition);
            context.member.read_to(partition, held.map_or(position, |held| held.min(position)));
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
        let mut partitions = context.partitions();
        if partitions.assigned.contains(&partition) && partitions.paused.insert(partition) {
            self.consumer.pause(&list(&self.topic, [partition]))?;
        }
        Ok(())
    }

    fn resume(&self, context: &Context) -> Result<()> {
        let mut partitions = context.partitions();
        let has_room = |partition| context.quarantine.has_room(partition) && context.member.has_room(partition);
        let ready: Vec<i32> = partitions.paused.iter().copied().filter(|&partition| has_room(partition)).collect();
        if !ready.is_empty() {
            partitions.paused.retain(|partition| !ready.contains(partition));
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

    fn rejoin(&self, context: &Context) -> Result<()> {
        self.leave(context)?;
        context.forsaken.store(false, Ordering::Relaxed);
        Ok(self.consumer.subscribe(&[&self.topic])?)
    }

    /// Leaves the group: the revocation comes through `poll`, but not to a consumer that has died.
    fn leave(&self, context: &Context) -> Result<()> {
        self.consumer.unsubscribe();
        let deadline = Instant::now() + context.settings.max_poll_interval;
        while !context.partitions().assigned.is_empty() && Instant::now() < deadline {
            if let Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) =
                self.consumer.poll(Duration::from_millis(20))
            {
                return Err(error.into());
            }
        }
        Ok(())
    }
}

impl Context {
    pub(super) fn partitions(&self) -> MutexGuard<'_, Partitions> {
        self.partitions.lock().expect("not poisoned")
    }

    pub(super) fn committed(&self) -> MutexGuard<'_, Committed> {
        self.committed.lock().expect("not poisoned")
    }
}

fn spawn<'scope>(scope: &'scope Scope<'scope, '_>, name: &str, run: impl FnOnce() + Send + 'scope) {
    Builder::new().name(name.to_owned()).spawn_scoped(scope, run).expect("a thread can be made");
}

pub(super) fn list(topic: &str, partitions: impl IntoIterator<Item = i32>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, partition);
    }
    list
}
