//! One partition of message-events while this sender owns it: which messages are open, which wait for a slot, and what may be
//! committed.
//!
//! It knows neither runtime nor provider: each call hands out the messages that it has opened, and the caller starts them
//! ([`crate::message`]).

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use events::{DecodeError, MessageEvent, decode};
use kafka::ledger::{Checkpoint, MessageOffset, Metadata, Misuse, PartitionLedger, StatusOffset};
use kafka::{Commit, Intake, Record};
use tokio_util::sync::CancellationToken;

use crate::lanes::Shown;
use crate::recovered::{Recovered, Statuses};
use crate::replay::Replayed;
use crate::texts::Texts;

/// Messages taken in and not settled.
const MAX_OPEN: usize = 1_000;
/// Records that wait for a slot; over this the partition is paused until half are gone.
const MAX_STASH: usize = 1_000;

/// Offsets between the frontier and the position. With one message open for long no more is taken in: whoever takes the partition
/// over keeps two bytes for each.
const MAX_SPAN: i64 = 1_000_000;

/// A message that was given a slot.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) offset: MessageOffset,
    pub(crate) event: MessageEvent,
    /// What an earlier owner's statuses say of it.
    pub(crate) recovered: Option<Recovered>,
}

/// Lives from assignment to revocation; a partition that comes back is a new one.
pub(crate) struct Partition {
    pub(crate) number: i32,
    /// The partition is being given up: start nothing more.
    pub(crate) stop: CancellationToken,
    /// Messages that wait for their lane or a limit.
    queued: AtomicUsize,
    /// All that is taken in waits for its turn.
    limited: AtomicBool,
    /// Messages whose call is under way.
    calling: AtomicUsize,
    /// Calls begun, also by earlier owners.
    calls: AtomicU64,
    inner: Mutex<Inner>,
}

/// One message more in a count, until it is dropped.
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn among(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Inner {
    /// None until the replay is complete: nothing is called or committed before.
    open: Option<Open>,
    /// Messages that wait for a slot, with their offsets.
    stash: VecDeque<(i64, MessageEvent)>,
    texts: Texts,
    /// The lowest offset that may come.
    next: i64,
    /// The log went back: nothing more is taken in, and what is committed leads to a replay of all of it.
    given_back: bool,
}

struct Open {
    ledger: PartitionLedger,
    /// Messages before this offset were settled by an earlier owner.
    frontier: MessageOffset,
    /// What the replay found about messages at or above it.
    statuses: Statuses,
}

impl Partition {
    /// `calls` were begun by earlier owners.
    pub(crate) fn new(number: i32, calls: u64) -> Self {
        Self {
            number,
            stop: CancellationToken::new(),
            queued: AtomicUsize::new(0),
            limited: AtomicBool::new(false),
            calling: AtomicUsize::new(0),
            calls: AtomicU64::new(calls),
            inner: Mutex::default(),
        }
    }

    /// Whether one more message may wait for its lane or a limit: half of the slots stay free, so that the partition is read on.
    pub(crate) fn may_queue(&self) -> bool {
        self.queued.load(Ordering::Relaxed) < MAX_OPEN / 2
    }

    /// Notes whether all that is taken in waits for its turn: then nothing more is, while half of the slots do.
    pub(crate) fn set_limited(&self, limited: bool) {
        self.limited.store(limited, Ordering::Relaxed);
    }

    /// Counts a message that does.
    pub(crate) fn queue(&self) -> Counted<'_> {
        Counted::among(&self.queued)
    }

    /// Counts a call that begins, and its message among those that are being called.
    pub(crate) fn begin_call(&self) -> Counted<'_> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Counted::among(&self.calling)
    }

    /// Takes in what waited: the replay is complete.
    pub(crate) fn open_with(&self, replayed: Replayed) -> Vec<Opened> {
        let Replayed { bookmark, status_end, statuses } = replayed;
        let mut ledger = PartitionLedger::new(statuses.frontier(), status_end);
        if let Some(last_source) = statuses.last_source() {
            ledger.inherit(bookmark, last_source);
        }
        let mut inner = self.inner.lock().expect("not poisoned");
        runtime::crash_point!("send::replayed");
        inner.open = Some(Open { ledger, frontier: statuses.frontier(), statuses });
        self.fill(&mut inner)
    }

    /// Takes a record from the consumer.
    pub(crate) fn take(&self, record: &Record) -> Result<(Intake, Vec<Opened>), DecodeError> {
        let mut event = decode(record.payload.as_deref())?;
        let mut inner = self.inner.lock().expect("not poisoned");
        if record.offset < inner.next {
            self.stop.cancel();
            inner.given_back = true;
        }
        if inner.given_back {
            return Ok((Intake::More, vec![]));
        }
        inner.next = record.offset + 1;
        inner.texts.share(&mut event);
        inner.stash.push_back((record.offset, event));
        let opened = self.fill(&mut inner);
        Ok((if inner.stash.len() < MAX_STASH { Intake::More } else { Intake::Full }, opened))
    }

    /// Whether half the stash is free.
    pub(crate) fn has_room(&self) -> bool {
        self.inner.lock().expect("not poisoned").stash.len() <= MAX_STASH / 2
    }

    /// Notes the consumer's position: it counts once all that was read before it is taken in.
    pub(crate) fn read_to(&self, position: i64) {
        let mut inner = self.inner.lock().expect("not poisoned");
        if inner.stash.is_empty()
            && let Some(open) = &mut inner.open
        {
            open.ledger.advance(MessageOffset(position));
        }
    }

    /// What may be committed; nothing before the replay is complete.
    pub(crate) fn checkpoint(&self, shown: &Shown) -> Option<Commit> {
        let mut inner = self.inner.lock().expect("not poisoned");
        if inner.given_back {
            return Some(Commit { partition: self.number, offset: 0, metadata: String::new() });
        }
        let Checkpoint { frontier, bookmark, position, open } = inner.open.as_mut()?.ledger.checkpoint();
        let metadata = Metadata {
            bookmark,
            position,
            open: open as u64,
            calling: self.calling.load(Ordering::Relaxed) as u64,
            calls: self.calls.load(Ordering::Relaxed),
            pace: shown.pace,
            closed: shown.closed.clone(),
        };
        Some(Commit { partition: self.number, offset: frontier.0, metadata: metadata.to_string() })
    }

    /// Whether the replay is complete.
    pub(crate) fn is_open(&self) -> bool {
        self.inner.lock().expect("not poisoned").open.is_some()
    }

    /// Where it is read to and taken in; none before the replay is complete.
    pub(crate) fn taken_in_to(&self) -> Option<i64> {
        Some(self.inner.lock().expect("not poisoned").open.as_mut()?.ledger.checkpoint().position.0)
    }

    /// Begins nothing more: the log went back. What is on the wire is finished.
    pub(crate) fn give_back(&self) {
        self.stop.cancel();
        self.inner.lock().expect("not poisoned").given_back = true;
    }

    /// Whether the log went back.
    pub(crate) fn is_given_back(&self) -> bool {
        self.inner.lock().expect("not poisoned").given_back
    }

    /// How many messages are open.
    pub(crate) fn open_slots(&self) -> usize {
        self.inner.lock().expect("not poisoned").open.as_ref().map_or(0, |open| open.ledger.open())
    }

    /// Notes that a status of this partition is acknowledged.
    pub(crate) fn acknowledge(&self, status: StatusOffset) {
        if let Some(open) = &mut self.inner.lock().expect("not poisoned").open {
            open.ledger.acknowledge(status);
        }
    }

    /// Closes a settled message's slot; the next one takes its place.
    pub(crate) fn close(&self, offset: MessageOffset, settled_by: StatusOffset) -> Vec<Opened> {
        let mut inner = self.inner.lock().expect("not poisoned");
        if let Some(open) = &mut inner.open
            && let Err(misuse) = open.ledger.settle(offset, settled_by)
        {
            self.tell_of(misuse);
        }
        self.fill(&mut inner)
    }

    /// Gives free slots to what waits.
    fn fill(&self, inner: &mut Inner) -> Vec<Opened> {
        let mut opened = vec![];
        let Some(open) = &mut inner.open else { return opened };
        let takes_more = || !self.stop.is_cancelled() && (self.may_queue() || !self.limited.load(Ordering::Relaxed));
        while open.ledger.open() < MAX_OPEN && open.ledger.span() <= MAX_SPAN && takes_more() {
            let Some((offset, event)) = inner.stash.pop_front() else { break };
            match open.take_in(MessageOffset(offset), event) {
                Ok(taken) => opened.extend(taken),
                // A second slot would call the message a second time.
                Err(misuse) => self.tell_of(misuse),
            }
        }
        opened
    }

    fn tell_of(&self, misuse: Misuse) {
        tracing::error!(kafka.partition = self.number, %misuse, "the ledger of open messages is misused");
    }
}

impl Open {
    /// Opens the message, unless an earlier owner has settled it.
    fn take_in(&mut self, offset: MessageOffset, event: MessageEvent) -> Result<Option<Opened>, Misuse> {
        if offset < self.frontier {
            return Ok(None);
        }
        if self.statuses.has_settled(offset, &event) {
            self.ledger.advance(offset.next());
            return Ok(None);
        }
        self.ledger.deliver(offset)?;
        let recovered = self.statuses.take(offset, &event);
        Ok(Some(Opened { offset, event, recovered }))
    }
}
