use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use events::DecodeError;
use kafka::{Assigned, Commit, Intake, Member, Moment, Record, Start};
use runtime::health::Readiness;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::message::Desk;
use crate::metrics::Metrics;
use crate::partition::Partition;
use crate::replay::Begin;

/// The sender as a member of its group.
pub(crate) struct SenderMember {
    kafka: kafka::Cluster,
    desk: Arc<Desk>,
    revoke_deadline: Duration,
    ready: Readiness,
    reading: Readiness,
    runtime: Handle,
    partitions: Mutex<HashMap<i32, Arc<Partition>>>,
    /// Messages of partitions that were taken away, whose last statuses may still be on their way.
    leaving: Mutex<HashMap<i32, TaskTracker>>,
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
        desk: Arc<Desk>,
        revoke_deadline: Duration,
        ready: Readiness,
        reading: Readiness,
    ) -> Self {
        Self {
            kafka,
            desk,
            revoke_deadline,
            ready,
            reading,
            runtime: Handle::current(),
            partitions: Mutex::default(),
            leaving: Mutex::default(),
            replays: Arc::new(Semaphore::new(REPLAYS_AT_ONCE)),
        }
    }

    fn partition(&self, number: i32) -> Option<Arc<Partition>> {
        self.partitions.lock().expect("not poisoned").get(&number).cloned()
    }

    fn all(&self) -> Vec<Arc<Partition>> {
        self.partitions.lock().expect("not poisoned").values().cloned().collect()
    }

    /// Where each open partition is.
    pub(crate) fn positions(&self) -> Vec<(i32, i64)> {
        self.all().iter().filter_map(|partition| Some((partition.number, partition.taken_in_to()?))).collect()
    }

    /// Marks the partitions that end before a position that they had earlier.
    pub(crate) fn compare(&self, positions: &[(i32, i64)], ends: &[i64]) {
        for &(number, position) in positions {
            if ends.get(number as usize).is_some_and(|end| position > *end)
                && let Some(partition) = self.partition(number)
            {
                partition.give_back();
            }
        }
    }

    /// A partition whose log went back.
    pub(crate) fn went_back(&self) -> Option<i32> {
        self.all().iter().find(|partition| partition.is_given_back()).map(|partition| partition.number)
    }

    /// Reads the partition's statuses beside the rebalance, then opens it.
    fn replay(&self, partition: Arc<Partition>, begin: Begin) {
        let (kafka, runtime, replays) = (self.kafka.clone(), self.runtime.clone(), Arc::clone(&self.replays));
        let leaving = self.leaving.lock().expect("not poisoned").remove(&partition.number);
        let (deadline, ready) = (self.revoke_deadline, self.ready.clone());
        self.runtime.spawn(async move {
            // What this process called before it lost the partition must be in what the replay reads.
            if let Some(leaving) = leaving {
                let left = tokio::time::timeout(deadline, leaving.wait());
                let _ = partition.stop.run_until_cancelled(left).await;
            }
            let Some(Ok(_permit)) = partition.stop.run_until_cancelled(replays.acquire()).await else { return };
            let _ = runtime.spawn_blocking(move || take_over(&kafka, &partition, begin, &ready)).await;
        });
    }
}

/// Tells of messages that were deleted before anybody read them.
fn tell_of_skipped(assigned: &Assigned, metrics: &Metrics) {
    let Some((frontier, _)) = assigned.at.checkpoint() else { return };
    let skipped = assigned.at.low - frontier;
    if skipped > 0 {
        metrics.skipped.inc_by(skipped.cast_unsigned());
        tracing::error!(
            kafka.partition = assigned.partition,
            frontier,
            low = assigned.at.low,
            "retention has passed the frontier: the messages between are lost, see `herald replan`"
        );
    }
}

/// Replays until it succeeds or the partition is taken away.
fn take_over(kafka: &kafka::Cluster, partition: &Arc<Partition>, begin: Begin, ready: &Readiness) {
    while !partition.stop.is_cancelled() {
        match begin.replay(kafka, partition.number, &partition.stop) {
            Ok(replayed) => {
                let settled = replayed.known.values().filter(|known| known.settled).count();
                tracing::info!(
                    kafka.partition = partition.number,
                    ?begin,
                    frontier = replayed.frontier,
                    known = replayed.known.len(),
                    settled,
                    "partition taken over"
                );
                partition.desk.metrics.replayed.inc_by(replayed.known.len() as u64);
                ready.ready();
                return partition.open_with(replayed);
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
        self.desk.fence.new_generation();
        self.ready.ready();
        assigned
            .iter()
            .map(|one| {
                let begin = Begin::of(one);
                tell_of_skipped(one, &self.desk.metrics);
                let partition = Arc::new(Partition::new(one.partition, Arc::clone(&self.desk), self.runtime.clone()));
                self.partitions.lock().expect("not poisoned").insert(one.partition, Arc::clone(&partition));
                self.replay(partition, begin);
                Start(begin.start())
            })
            .collect()
    }

    fn revoked(&self, numbers: &[i32], lost: bool) -> Vec<Commit> {
        let revoked: Vec<Arc<Partition>> = {
            let mut partitions = self.partitions.lock().expect("not poisoned");
            numbers.iter().filter_map(|number| partitions.remove(number)).collect()
        };
        for partition in &revoked {
            partition.stop.cancel();
            partition.tasks.close();
        }
        let leaving = revoked.iter().map(|partition| (partition.number, partition.tasks.clone()));
        self.leaving.lock().expect("not poisoned").extend(leaving);
        if lost {
            self.desk.fence.new_generation();
            return vec![];
        }
        let drained = async {
            for partition in &revoked {
                partition.tasks.wait().await;
            }
        };
        // The timer needs the runtime's context, which only `block_on` gives.
        let drained = async { tokio::time::timeout(self.revoke_deadline, drained).await };
        if self.runtime.block_on(drained).is_err() {
            tracing::warn!("calls or statuses were still under way when their partitions had to be given up");
        }
        revoked.iter().filter_map(|partition| partition.commit()).collect()
    }

    fn take(&self, record: Record) -> Result<Intake, DecodeError> {
        self.partition(record.partition).map_or(Ok(Intake::More), |partition| partition.record(&record))
    }

    fn garbage_skipped(&self, _: i32, _: i64) {}

    fn reading_stopped(&self, why: Option<String>) {
        self.reading.set(why);
    }

    fn has_room(&self, partition: i32) -> bool {
        self.partition(partition).is_none_or(|partition| partition.wants())
    }

    fn read_to(&self, partition: i32, position: i64) {
        if let Some(partition) = self.partition(partition) {
            partition.position(position);
        }
    }

    fn checkpoints(&self) -> Vec<Commit> {
        let partitions = self.all();
        let open: usize = partitions.iter().map(|partition| partition.open_slots()).sum();
        self.desk.metrics.open_slots.set(i64::try_from(open).unwrap_or(i64::MAX));
        let mut commits: Vec<Commit> = partitions.iter().filter_map(|partition| partition.commit()).collect();
        commits.sort_by_key(|commit| commit.partition);
        commits
    }

    fn commit_acknowledged(&self, sent: Moment) {
        self.desk.fence.renew_lease(sent);
    }
}
