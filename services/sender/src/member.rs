use std::sync::Arc;
use std::time::Duration;

use events::DecodeError;
use kafka::ledger::Metadata;
use kafka::{Assigned, Commit, Intake, Member, Moment, Record, Start};
use runtime::health::Readiness;
use tokio::runtime::Handle;

use crate::context::SenderContext;
use crate::leaving::Leaving;
use crate::message::Ownership;
use crate::metrics::Metrics;
use crate::partition::Partition;
use crate::replay::Begin;
use crate::takeover::{Partitions, Takeover};

/// The sender as a member of its group.
pub(crate) struct SenderMember {
    context: Arc<SenderContext>,
    leaving: Arc<Leaving>,
    /// How long a revoked partition waits for its calls and their statuses.
    deadline: Duration,
    reading: Readiness,
    runtime: Handle,
    partitions: Arc<Partitions>,
    takeover: Arc<Takeover>,
}

impl SenderMember {
    /// Must be called within the runtime that the messages' tasks are to run on.
    pub(crate) fn new(
        kafka: kafka::Cluster,
        context: Arc<SenderContext>,
        leaving: Arc<Leaving>,
        deadline: Duration,
        partitions: Arc<Partitions>,
        reading: Readiness,
    ) -> Self {
        let takeover = Arc::new(Takeover::new(kafka, Arc::clone(&leaving), deadline, Arc::clone(&partitions)));
        Self { context, leaving, deadline, reading, runtime: Handle::current(), partitions, takeover }
    }

    /// Where each open partition is.
    pub(crate) fn positions(&self) -> Vec<(i32, i64)> {
        let all = self.partitions.all();
        all.iter().filter_map(|owned| Some((owned.partition.number, owned.partition.taken_in_to()?))).collect()
    }

    /// Marks the partitions that end before a position that they had earlier.
    pub(crate) fn compare(&self, positions: &[(i32, i64)], ends: &[i64]) {
        for &(number, position) in positions {
            if ends.get(number as usize).is_some_and(|end| position > *end)
                && let Some(owned) = self.partitions.get(number)
            {
                owned.partition.give_back();
            }
        }
    }

    /// A partition whose log went back.
    pub(crate) fn went_back(&self) -> Option<i32> {
        let all = self.partitions.all();
        all.iter().map(|owned| &owned.partition).find(|partition| partition.is_given_back()).map(|found| found.number)
    }

    /// Owns the partition from now on; it opens once its statuses are read, beside the rebalance.
    fn own(&self, assigned: &Assigned) -> Start {
        let begin = Begin::of(assigned);
        tell_of_skipped(assigned, &self.context.metrics);
        let owned = Arc::new(Ownership {
            partition: Partition::new(assigned.partition, calls(assigned)),
            context: Arc::clone(&self.context),
            tasks: self.leaving.tracker(assigned.partition),
            runtime: self.runtime.clone(),
        });
        self.partitions.insert(Arc::clone(&owned));
        let takeover = Arc::clone(&self.takeover);
        let run = async move { takeover.run(owned, begin).await };
        self.runtime.spawn(self.context.supervise("a takeover", run));
        Start(begin.start())
    }
}

/// Calls of the partition that earlier owners have begun.
fn calls(assigned: &Assigned) -> u64 {
    let metadata = assigned.at.committed.as_ref().and_then(|(_, metadata)| metadata.parse::<Metadata>().ok());
    metadata.map_or(0, |metadata| metadata.calls)
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

impl Member for SenderMember {
    fn assigned(&self, assigned: &[Assigned]) -> Vec<Start> {
        self.context.fence.new_generation();
        let starts = assigned.iter().map(|one| self.own(one)).collect();
        self.partitions.tell_readiness();
        starts
    }

    fn revoked(&self, numbers: &[i32], lost: bool) -> Vec<Commit> {
        let revoked = self.partitions.remove(numbers);
        for owned in &revoked {
            owned.partition.stop.cancel();
        }
        self.partitions.tell_readiness();
        if lost {
            self.context.fence.new_generation();
            return vec![];
        }
        let left = self.leaving.wait_for(revoked.iter().map(|owned| owned.partition.number));
        // The timer needs the runtime's context, which only `block_on` gives.
        let left = async { tokio::time::timeout(self.deadline, left).await };
        if self.runtime.block_on(left).is_err() {
            tracing::warn!("calls or statuses were still under way when their partitions had to be given up");
        }
        let shown = self.context.lanes.shown(self.partitions.all().len() + revoked.len());
        revoked.iter().filter_map(|owned| owned.partition.checkpoint(&shown)).collect()
    }

    fn take(&self, record: Record) -> Result<Intake, DecodeError> {
        let Some(owned) = self.partitions.get(record.partition) else { return Ok(Intake::More) };
        let (intake, opened) = owned.partition.take(&record)?;
        owned.begin(opened);
        Ok(intake)
    }

    fn garbage_skipped(&self, _: i32, _: i64) {}

    fn reading_stopped(&self, why: Option<String>) {
        self.reading.set(why);
    }

    fn has_room(&self, partition: i32) -> bool {
        self.partitions.get(partition).is_none_or(|owned| owned.partition.has_room())
    }

    fn read_to(&self, partition: i32, position: i64) {
        if let Some(owned) = self.partitions.get(partition) {
            owned.partition.read_to(position);
        }
    }

    fn checkpoints(&self) -> Vec<Commit> {
        let all = self.partitions.all();
        let shown = self.context.lanes.shown(all.len());
        let limited = self.context.lanes.all_limited();
        all.iter().for_each(|owned| owned.partition.set_limited(limited));
        let open: usize = all.iter().map(|owned| owned.partition.open_slots()).sum();
        self.context.metrics.open_slots.set(i64::try_from(open).unwrap_or(i64::MAX));
        let mut commits: Vec<Commit> = all.iter().filter_map(|owned| owned.partition.checkpoint(&shown)).collect();
        commits.sort_by_key(|commit| commit.partition);
        commits
    }

    fn commit_acknowledged(&self, sent: Moment) {
        self.context.fence.renew_lease(sent);
    }
}
