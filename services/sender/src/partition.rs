//! One partition of message-events while this sender owns it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use events::{DecodeError, MessageEvent, decode};
use kafka::ledger::PartitionLedger;
use kafka::{Commit, Intake, Record};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::message::{Desk, Slot};
use crate::replay::{Known, Replayed};

/// Messages taken in and not settled.
const MAX_OPEN: usize = 1_000;
/// Records that wait for a slot; over this the partition is paused until half are gone.
const MAX_STASH: usize = 1_000;

/// Lives from assignment to revocation; a partition that comes back is a new one.
pub(crate) struct Partition {
    pub(crate) number: i32,
    pub(crate) desk: Arc<Desk>,
    /// The partition is being given up: start nothing more.
    pub(crate) stop: CancellationToken,
    /// Its messages. They outlive it until the statuses of their calls are acknowledged.
    pub(crate) tasks: TaskTracker,
    runtime: Handle,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// None until the replay is complete: nothing is called or committed before.
    open: Option<Open>,
    /// Messages that wait for a slot, with their offsets.
    stash: VecDeque<(i64, MessageEvent)>,
    /// The lowest offset that may come.
    next: i64,
    /// The log went back: nothing more is taken in, and what is committed leads to a replay of all of it.
    given_back: bool,
}

struct Open {
    ledger: PartitionLedger,
    /// Messages before this offset were settled by an earlier owner.
    frontier: i64,
    /// What the replay found about messages at or above it.
    known: HashMap<i64, Known>,
}

impl Partition {
    pub(crate) fn new(number: i32, desk: Arc<Desk>, runtime: Handle) -> Self {
        Self {
            number,
            desk,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime,
            inner: Mutex::default(),
        }
    }

    /// The replay is complete: what waited is taken in.
    pub(crate) fn open_with(self: &Arc<Self>, replayed: Replayed) {
        let mut ledger = PartitionLedger::new(replayed.frontier, replayed.status_end);
        if let Some(last_source) = replayed.last_source {
            ledger.inherit(replayed.bookmark, last_source);
        }
        let mut inner = self.inner.lock().expect("not poisoned");
        runtime::crash_point!("send::replayed");
        inner.open = Some(Open { ledger, frontier: replayed.frontier, known: replayed.known });
        self.fill(&mut inner);
    }

    /// Takes a record from the consumer.
    pub(crate) fn record(self: &Arc<Self>, record: &Record) -> Result<Intake, DecodeError> {
        let event = decode(record.payload.as_deref())?;
        let mut inner = self.inner.lock().expect("not poisoned");
        if record.offset < inner.next {
            self.stop.cancel();
            inner.given_back = true;
        }
        if inner.given_back {
            return Ok(Intake::More);
        }
        inner.next = record.offset + 1;
        inner.stash.push_back((record.offset, event));
        self.fill(&mut inner);
        Ok(if inner.stash.len() < MAX_STASH { Intake::More } else { Intake::Full })
    }

    /// Whether half the stash is free.
    pub(crate) fn wants(&self) -> bool {
        self.inner.lock().expect("not poisoned").stash.len() <= MAX_STASH / 2
    }

    /// The consumer's position: it counts once all that was read before it is taken in.
    pub(crate) fn position(&self, position: i64) {
        let mut inner = self.inner.lock().expect("not poisoned");
        if inner.stash.is_empty()
            && let Some(open) = &mut inner.open
        {
            open.ledger.advance(position);
        }
    }

    /// What may be committed; nothing before the replay is complete.
    pub(crate) fn commit(&self) -> Option<Commit> {
        let mut inner = self.inner.lock().expect("not poisoned");
        if inner.given_back {
            return Some(Commit { partition: self.number, offset: 0, metadata: String::new() });
        }
        let checkpoint = inner.open.as_mut()?.ledger.checkpoint();
        Some(Commit {
            partition: self.number,
            offset: checkpoint.frontier,
            metadata: checkpoint.metadata().to_string(),
        })
    }

    /// Where it is read to and taken in; none before the replay is complete.
    pub(crate) fn taken_in_to(&self) -> Option<i64> {
        Some(self.inner.lock().expect("not poisoned").open.as_mut()?.ledger.checkpoint().position)
    }

    /// The log went back: what is on the wire is finished, and nothing more is begun.
    pub(crate) fn give_back(&self) {
        self.stop.cancel();
        self.inner.lock().expect("not poisoned").given_back = true;
    }

    /// Whether it did.
    pub(crate) fn is_given_back(&self) -> bool {
        self.inner.lock().expect("not poisoned").given_back
    }

    /// How many messages are open.
    pub(crate) fn open_slots(&self) -> usize {
        self.inner.lock().expect("not poisoned").open.as_ref().map_or(0, |open| open.ledger.open())
    }

    /// A status of this partition is acknowledged.
    pub(crate) fn acknowledge(&self, status_offset: i64) {
        if let Some(open) = &mut self.inner.lock().expect("not poisoned").open {
            open.ledger.acknowledge(status_offset);
        }
    }

    /// A message is settled; the next one takes its place.
    pub(crate) fn close(self: &Arc<Self>, offset: i64) {
        let mut inner = self.inner.lock().expect("not poisoned");
        if let Some(open) = &mut inner.open {
            open.ledger.settle(offset);
        }
        self.fill(&mut inner);
    }

    /// Gives free slots to what waits.
    fn fill(self: &Arc<Self>, inner: &mut Inner) {
        let Some(open) = &mut inner.open else { return };
        while open.ledger.open() < MAX_OPEN && !self.stop.is_cancelled() {
            let Some((offset, event)) = inner.stash.pop_front() else { return };
            self.take_in(open, offset, event);
        }
    }

    fn take_in(self: &Arc<Self>, open: &mut Open, offset: i64, event: MessageEvent) {
        if offset < open.frontier {
            return;
        }
        let known = open.known.remove(&offset).filter(|known| known.is_of(&event));
        if known.as_ref().is_some_and(|known| known.settled) {
            open.ledger.advance(offset + 1);
            return;
        }
        open.ledger.deliver(offset);
        let (attempt, not_before, in_doubt) =
            known.map_or((0, None, false), |known| (known.attempt, known.not_before, known.in_doubt));
        let slot = Slot { partition: Arc::clone(self), offset, event, attempt, not_before, in_doubt };
        self.tasks.spawn_on(slot.run(), &self.runtime);
    }
}
