//! What was read and isn't written yet: filled by the consumer's thread, emptied by the writer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::SubsecRound;
use events::StatusEvent;
use kafka::{Commit, Intake};
use store::projection::{OffsetMove, Seen};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How much may lie in memory; more than half of it must be free before a partition that was full goes on.
const MAX_RECORDS: usize = 20_000;
const MAX_BYTES: usize = 16 << 20;
/// A batch ends when nothing has come for this long, …
const PAUSE: Duration = Duration::from_millis(20);
/// … and this long after it began.
const LONGEST: Duration = Duration::from_millis(250);

/// The queues of the assigned partitions.
pub(crate) struct Inbox {
    batch: usize,
    state: Mutex<State>,
    /// The first record has come, or a batch is full.
    grown: Notify,
    /// A transaction has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<i32, Partition>,
    load: Load,
    /// Assignments so far; the number of one tells it from a later one of the same partition.
    assignments: u64,
    /// Transactions so far.
    transactions: u64,
    writing: bool,
    /// Cancelled to leave the group and join it again.
    membership: CancellationToken,
}

struct Partition {
    assignment: u64,
    /// What Postgres holds.
    stored: Option<i64>,
    /// The next offset to read.
    next: i64,
    queue: VecDeque<Read>,
    /// It is being given up, or left to be looked at again: nothing more is written.
    closing: bool,
}

#[derive(Clone, Copy, Default)]
struct Load {
    records: usize,
    bytes: usize,
}

/// A record as read.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) offset: i64,
    pub(crate) bytes: usize,
    /// None: there is no status, or it is a dead letter by now; only the offset is passed.
    pub(crate) event: Option<StatusEvent>,
}

/// A record on its way into Postgres. Items are sorted by partition and offset.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) assignment: u64,
    /// None: there is no status, or the record was dead-lettered; only the offset is passed.
    pub(crate) event: Option<StatusEvent>,
}

/// A partition whose offset is being read from Postgres.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) number: i32,
    assignment: u64,
}

impl Load {
    fn change(&mut self, read: &Read, by: isize) {
        self.records = self.records.saturating_add_signed(by);
        self.bytes = self.bytes.saturating_add_signed(by * read.bytes.cast_signed());
    }

    fn over(&self, share: usize) -> bool {
        self.records >= MAX_RECORDS / share || self.bytes >= MAX_BYTES / share
    }
}

impl State {
    fn clear(&mut self, partition: i32) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.queue.iter().for_each(|read| self.load.change(read, -1));
            partition.queue.clear();
        }
    }

    /// The partition's offset isn't where it should be: it must be read from another place.
    fn rejoin(&mut self, partition: i32) {
        self.clear(partition);
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.closing = true;
        }
        self.membership.cancel();
    }
}

impl Inbox {
    /// Batches have at most `batch` records.
    pub(crate) fn new(batch: usize) -> Self {
        Self { batch, state: Mutex::default(), grown: Notify::new(), ended: Condvar::new() }
    }

    /// The token that ends the membership which begins now.
    pub(crate) fn joins(&self, membership: CancellationToken) {
        self.state().membership = membership;
    }

    /// Leaves the group, to join it again unless the projector ends.
    pub(crate) fn leave(&self) {
        self.state().membership.cancel();
    }

    /// A partition was assigned; it is read from `start` on.
    pub(crate) fn assign(&self, partition: i32, stored: Option<i64>, start: i64) {
        let mut state = self.state();
        state.clear(partition);
        state.assignments += 1;
        let assignment = state.assignments;
        let assigned = Partition { assignment, stored, next: start, queue: VecDeque::new(), closing: false };
        state.partitions.insert(partition, assigned);
    }

    /// Drops what is queued for the partitions and waits, at most `deadline`, for the transaction under way. Answers what
    /// Postgres holds then.
    pub(crate) fn revoke(&self, partitions: &[i32], deadline: Duration) -> Vec<Commit> {
        let mut state = self.state();
        for &partition in partitions {
            state.clear(partition);
            if let Some(partition) = state.partitions.get_mut(&partition) {
                partition.closing = true;
            }
        }
        let current = state.transactions;
        let under_way = |state: &mut State| state.writing && state.transactions == current;
        let (mut state, _) =
            self.ended.wait_timeout_while(state, deadline, under_way).unwrap_or_else(PoisonError::into_inner);
        let commits = commits(state.partitions.iter().filter(|(partition, _)| partitions.contains(partition)));
        partitions.iter().for_each(|partition| drop(state.partitions.remove(partition)));
        commits
    }

    /// Takes in a record.
    pub(crate) fn push(&self, number: i32, read: Read) -> Intake {
        let mut state = self.state();
        let State { partitions, load, .. } = &mut *state;
        let Some(partition) = partitions.get_mut(&number).filter(|partition| !partition.closing) else {
            return Intake::More;
        };
        if read.offset < partition.next {
            tracing::warn!(kafka.partition = number, "the log went back; it is looked at again");
            state.rejoin(number);
            return Intake::More;
        }
        partition.next = read.offset + 1;
        load.change(&read, 1);
        partition.queue.push_back(read);
        if load.records == 1 || load.records == self.batch {
            self.grown.notify_one();
        }
        if load.over(1) { Intake::Full } else { Intake::More }
    }

    /// Passes offsets at which there is no status.
    pub(crate) fn read_to(&self, number: i32, position: i64) {
        let behind = self.state().partitions.get(&number).is_some_and(|partition| partition.next < position);
        if behind {
            self.push(number, Read { offset: position - 1, bytes: 0, event: None });
        }
    }

    /// Whether more than half of the room is free.
    pub(crate) fn has_room(&self) -> bool {
        !self.state().load.over(2)
    }

    /// What Postgres holds.
    pub(crate) fn commits(&self) -> Vec<Commit> {
        commits(self.state().partitions.iter().filter(|(_, partition)| !partition.closing))
    }

    /// Waits for a batch: until it is full, or the input pauses, or it has taken long enough. Nothing is taken when the
    /// future is dropped.
    pub(crate) async fn gather(&self) {
        while self.queued() == 0 {
            self.grown.notified().await;
        }
        let began = Instant::now();
        loop {
            let queued = self.queued();
            if queued >= self.batch || began.elapsed() >= LONGEST {
                return;
            }
            let paused = tokio::time::timeout(PAUSE, self.grown.notified()).await.is_err();
            if paused && self.queued() == queued {
                return;
            }
        }
    }

    /// Takes a batch: of each partition its share, so that a long queue holds none of the others up.
    pub(crate) fn take(&self) -> Vec<Item> {
        let mut state = self.state();
        let State { partitions, load, .. } = &mut *state;
        let waiting = partitions.values().filter(|partition| !partition.queue.is_empty()).count();
        let share = self.batch.div_ceil(waiting.max(1));
        let mut batch = Vec::new();
        for (&number, partition) in partitions {
            let (take, assignment) =
                (share.min(partition.queue.len()).min(self.batch - batch.len()), partition.assignment);
            for read in partition.queue.drain(..take) {
                load.change(&read, -1);
                batch.push(Item { partition: number, offset: read.offset, assignment, event: read.event });
            }
        }
        batch
    }

    /// A transaction begins. Drops the items whose partition is no longer ours, or that Postgres already has, and answers
    /// how far the offsets move. None: nothing is left to write.
    pub(crate) fn begin(&self, items: &mut Vec<Item>) -> Option<Vec<OffsetMove>> {
        let mut state = self.state();
        let current = |item: &Item| {
            let partition = state.partitions.get(&item.partition)?;
            let ours = partition.assignment == item.assignment && !partition.closing;
            (ours && partition.stored.is_none_or(|stored| item.offset >= stored)).then_some(partition.stored)
        };
        items.retain(|item| current(item).is_some());
        let mut moves: Vec<OffsetMove> = Vec::new();
        for item in items.iter() {
            let (partition, to) = (item.partition, item.offset + 1);
            if moves.last().is_none_or(|step| step.partition != partition) {
                moves.push(OffsetMove { partition, from: current(item).flatten(), to, seen: None });
            }
            if let Some(step) = moves.last_mut() {
                step.to = to;
                step.seen = item.event.as_ref().map(|event| seen(item.offset, event)).or(step.seen);
            }
        }
        if moves.is_empty() {
            return None;
        }
        state.writing = true;
        state.transactions += 1;
        Some(moves)
    }

    /// The transaction has ended; `moved` are the offsets that it is known to have moved. `items` are still those of
    /// [`begin`](Self::begin).
    pub(crate) fn end(&self, items: &[Item], moved: &[OffsetMove]) {
        let mut state = self.state();
        for step in moved {
            let assignment = items.iter().find(|item| item.partition == step.partition).map(|item| item.assignment);
            if let Some(partition) = state.partitions.get_mut(&step.partition)
                && Some(partition.assignment) == assignment
            {
                partition.stored = Some(step.to);
            }
        }
        state.writing = false;
        self.ended.notify_all();
    }

    /// The offsets weren't where they should have been; this is where they are. Further on: another projector, or a
    /// transaction whose commit we didn't see acknowledged, has written that, and it is skipped. Further back: Postgres
    /// holds an older state, and the partition is read again from there. Answers whether one is.
    pub(crate) fn found(&self, asked: &[Asked], stored: &BTreeMap<i32, i64>) -> bool {
        let mut state = self.state();
        let mut went_back = false;
        for &Asked { number, assignment } in asked {
            let Some(partition) = state.partitions.get_mut(&number).filter(|it| it.assignment == assignment) else {
                continue;
            };
            let found = stored.get(&number).copied();
            if found >= partition.stored {
                partition.stored = found;
            } else {
                tracing::warn!(kafka.partition = number, "the stored offset went back; the partition is read again");
                state.rejoin(number);
                went_back = true;
            }
        }
        went_back
    }

    /// The partitions to look at in Postgres. While one stays assigned only the writer moves what is known of it.
    pub(crate) fn ask(&self) -> Vec<Asked> {
        let state = self.state();
        let ours = state.partitions.iter().filter(|(_, partition)| !partition.closing);
        ours.map(|(&number, partition)| Asked { number, assignment: partition.assignment }).collect()
    }

    fn queued(&self) -> usize {
        self.state().load.records
    }

    /// Every value is whole between two statements, so a panic elsewhere spoils nothing.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seen(offset: i64, event: &StatusEvent) -> Seen {
    // Postgres keeps microseconds.
    Seen { offset, message: event.message_id, at: event.occurred_at.trunc_subsecs(6) }
}

fn commits<'a>(partitions: impl Iterator<Item = (&'a i32, &'a Partition)>) -> Vec<Commit> {
    partitions
        .filter_map(|(&partition, state)| Some(Commit { partition, offset: state.stored?, metadata: String::new() }))
        .collect()
}

#[cfg(test)]
mod tests;
