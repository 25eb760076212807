use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use events::DecodeError;
use kafka::{Assigned, Commit, Intake, Member, Moment, Record, Start};
use runtime::health::Readiness;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::context::SenderContext;
use crate::leaving::Leaving;
use crate::message::Ownership;
use crate::metrics::Metrics;
use crate::partition::Partition;
use crate::replay::Begin;

/// The sender as a member of its group.
pub(crate) struct SenderMember {
    kafka: kafka::Cluster,
    context: Arc<SenderContext>,
    leaving: Arc<Leaving>,
    revoke_deadline: Duration,
    ready: Readiness,
    reading: Readiness,
    runtime: Handle,
    partitions: Mutex<HashMap<i32, Arc<Ownership>>>,
    replays: Arc<Semaphore>,
}

/// Each holds two librdkafka clients and what they have fetched.
const REPLAYS_AT_ONCE: usize = 3;
/// Before a replay that failed begins again.
const REPLAY_PAUSE: Duration = Duration::from_millis(500);

impl SenderMember {
    /// Must be called within the runtime that the messages' tasks are to run on.
    pub(crate) fn new(
        kafka: kafka::Cluster,
        context: Arc<SenderContext>,
        leaving: Arc<Leaving>,
        revoke_deadline: Duration,
        ready: Readiness,
        reading: Readiness,
    ) -> Self {
        Self {
            kafka,
            context,
            leaving,
            revoke_deadline,
            ready,
            reading,
            runtime: Handle::current(),
            partitions: Mutex::default(),
            replays: Arc::new(Semaphore::new(REPLAYS_AT_ONCE)),
        }
    }

    fn owned(&self, number: i32) -> Option<Arc<Ownership>> {
        self.partitions.lock().expect("not poisoned").get(&number).cloned()
    }

    fn all(&self) -> Vec<Arc<Ownership>> {
        self.partitions.lock().expect("not poisoned").values().cloned().collect()
    }

    /// Where each open partition is.
    pub(crate) fn positions(&self) -> Vec<(i32, i64)> {
        let all = self.all();
        all.iter().filter_map(|owned| Some((owned.partition.number, owned.partition.taken_in_to()?))).collect()
    }

    /// Marks the partitions that end before a position that they had earlier.
    pub(crate) fn compare(&self, positions: &[(i32, i64)], ends: &[i64]) {
        for &(number, position) in positions {
            if ends.get(number as usize).is_some_and(|end| position > *end)
                && let Some(owned) = self.owned(number)
            {
                owned.partition.give_back();
            }
        }
    }

    /// A partition whose log went back.
    pub(crate) fn went_back(&self) -> Option<i32> {
        let all = self.all();
        all.iter().map(|owned| &owned.partition).find(|partition| partition.is_given_back()).map(|found| found.number)
    }

    /// Reads the partition's statuses beside the rebalance, then opens it.
    fn replay(&self, owned: Arc<Ownership>, begin: Begin) {
        let (kafka, runtime, replays) = (self.kafka.clone(), self.runtime.clone(), Arc::clone(&self.replays));
        let (leaving, deadline, ready) = (Arc::clone(&self.leaving), self.revoke_deadline, self.ready.clone());
        self.runtime.spawn(async move {
            let partition = &owned.partition;
            // What this process called before it lost the partition must be in what the replay reads.
            let left = tokio::time::timeout(deadline, leaving.wait_for([partition.number]));
            let _ = partition.stop.run_until_cancelled(left).await;
            let Some(Ok(_permit)) = partition.stop.run_until_cancelled(replays.acquire()).await else { return };
            let taken = Arc::clone(&owned);
            let _ = runtime.spawn_blocking(move || take_over(&kafka, &taken, begin, &ready)).await;
        });
    }
}

/// Tells of messages that were deleted before anybody read them.
fn tell_of_skipped(assigned: &Assigned, metrics: &Metrics) {
    let Some((frontier, _)) = assigned.at.checkpoint() else { return };
    let skipped = assigned.at.low - frontier.0;
    if skipped > 0 {
        metrics.skipped.inc_by(skipped.cast_unsigned());
        tracing::error!(
            kafka.partition = assigned.partition,
            %frontier,
            low = assigned.at.low,
            "retention has passed the frontier: the messages between are lost, see `herald replan`"
        );
    }
}

/// Replays until it succeeds or the partition is taken away.
fn take_over(kafka: &kafka::Cluster, owned: &Arc<Ownership>, begin: Begin, ready: &Readiness) {
    let partition = &owned.partition;
    while !partition.stop.is_cancelled() {
        match begin.replay(kafka, partition.number, &partition.stop) {
            Ok(replayed) => {
                let (open, settled) = (replayed.statuses.open(), replayed.statuses.settled());
                tracing::info!(
                    kafka.partition = partition.number,
                    ?begin,
                    frontier = %replayed.statuses.frontier(),
                    open,
                    settled,
                    "partition taken over"
                );
                owned.context.metrics.replayed.inc_by((open + settled) as u64);
                ready.ready();
                return owned.begin(partition.open_with(replayed));
            }
            Err(kafka::Error::Stopped) => return,
            Err(error) => {
                ready.not_ready(format!("partition {}: {error}", partition.number));
                std::thread::sleep(REPLAY_PAUSE);
            }
        }
    }
}

impl Member for SenderMember {
    fn assigned(&self, assigned: &[Assigned]) -> Vec<Start> {
        self.context.fence.new_generation();
        self.ready.ready();
        assigned
            .iter()
            .map(|one| {
                let begin = Begin::of(one);
                tell_of_skipped(one, &self.context.metrics);
                let owned = Arc::new(Ownership {
                    partition: Partition::new(one.partition),
                    context: Arc::clone(&self.context),
                    tasks: self.leaving.tracker(one.partition),
                    runtime: self.runtime.clone(),
                });
                self.partitions.lock().expect("not poisoned").insert(one.partition, Arc::clone(&owned));
                self.replay(owned, begin);
                Start(begin.start())
            })
            .collect()
    }

    fn revoked(&self, numbers: &[i32], lost: bool) -> Vec<Commit> {
        let revoked: Vec<Arc<Ownership>> = {
            let mut partitions = self.partitions.lock().expect("not poisoned");
            numbers.iter().filter_map(|number| partitions.remove(number)).collect()
        };
        for owned in &revoked {
            owned.partition.stop.cancel();
        }
        if lost {
            self.context.fence.new_generation();
            return vec![];
        }
        let left = self.leaving.wait_for(revoked.iter().map(|owned| owned.partition.number));
        // The timer needs the runtime's context, which only `block_on` gives.
        let left = async { tokio::time::timeout(self.revoke_deadline, left).await };
        if self.runtime.block_on(left).is_err() {
            tracing::warn!("calls or statuses were still under way when their partitions had to be given up");
        }
        revoked.iter().filter_map(|owned| owned.partition.checkpoint()).collect()
    }

    fn take(&self, record: Record) -> Result<Intake, DecodeError> {
        let Some(owned) = self.owned(record.partition) else { return Ok(Intake::More) };
        let (flow, opened) = owned.partition.take(&record)?;
        owned.begin(opened);
        Ok(flow)
    }

    fn garbage_skipped(&self, _: i32, _: i64) {}

    fn reading_stopped(&self, why: Option<String>) {
        self.reading.set(why);
    }

    fn has_room(&self, partition: i32) -> bool {
        self.owned(partition).is_none_or(|owned| owned.partition.has_room())
    }

    fn read_to(&self, partition: i32, position: i64) {
        if let Some(owned) = self.owned(partition) {
            owned.partition.read_to(position);
        }
    }

    fn checkpoints(&self) -> Vec<Commit> {
        let all = self.all();
        let open: usize = all.iter().map(|owned| owned.partition.open_slots()).sum();
        self.context.metrics.open_slots.set(i64::try_from(open).unwrap_or(i64::MAX));
        let mut commits: Vec<Commit> = all.iter().filter_map(|owned| owned.partition.checkpoint()).collect();
        commits.sort_by_key(|commit| commit.partition);
        commits
    }

    fn commit_acknowledged(&self, sent: Moment) {
        self.context.fence.renew_lease(sent);
    }
}
