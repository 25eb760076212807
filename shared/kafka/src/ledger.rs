//! Which offsets of a partition are open, and what may therefore be committed. Pure: no Kafka types, no clock.

mod metadata;

use std::collections::BTreeMap;
use std::fmt;

pub use metadata::{InvalidMetadata, Metadata};

/// An offset of message-events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageOffset(pub i64);

/// An offset of status-events. It is a type of its own because mixing the two logs would lose or double messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusOffset(pub i64);

impl MessageOffset {
    /// The offset behind this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl StatusOffset {
    /// The offset behind this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for MessageOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for StatusOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a sender commits for a partition: the frontier as the offset, the rest as its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The lowest offset still open; with nothing open the position.
    pub frontier: MessageOffset,
    /// Where in the status partition a replay must begin to see all statuses of messages at or above the frontier.
    pub bookmark: StatusOffset,
    /// The next offset to take in.
    pub position: MessageOffset,
    /// How many messages are open.
    pub open: usize,
}

/// A call of the ledger that contradicts what it knows: a defect of the caller, not of the log. The ledger stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// A second slot for the message would call it twice.
    #[error("the message at {0} was taken in before")]
    DeliveredTwice(MessageOffset),
    /// The message was settled before, or never taken in.
    #[error("the message at {0} is settled and isn't open")]
    NotOpen(MessageOffset),
}

/// The open offsets of one partition, from taking it over to giving it up.
#[derive(Debug)]
pub struct PartitionLedger {
    /// Open offset → the acknowledged end of the status partition when it was taken in.
    open: BTreeMap<MessageOffset, StatusOffset>,
    position: MessageOffset,
    status_end: StatusOffset,
    inherited: Option<Inherited>,
}

/// What the old owner left.
#[derive(Clone, Copy, Debug)]
struct Inherited {
    bookmark: StatusOffset,
    /// The frontier must pass this one before the bookmark is given up.
    last_source: MessageOffset,
}

impl PartitionLedger {
    /// A partition that is read from `position` on; the status partition ends at `status_end`.
    pub fn new(position: MessageOffset, status_end: StatusOffset) -> Self {
        Self { open: BTreeMap::new(), position, status_end, inherited: None }
    }

    /// Keeps the old owner's bookmark until the frontier has passed `last_source`, the highest source offset that the
    /// replay saw: statuses of messages up to there may lie behind it.
    pub fn inherit(&mut self, bookmark: StatusOffset, last_source: MessageOffset) {
        self.inherited = Some(Inherited { bookmark, last_source });
    }

    /// Takes a message in.
    pub fn deliver(&mut self, offset: MessageOffset) -> Result<(), Misuse> {
        if offset < self.position {
            return Err(Misuse::DeliveredTwice(offset));
        }
        self.open.insert(offset, self.status_end);
        self.position = offset.next();
        Ok(())
    }

    /// Closes a message: the status at `settled_by` settles it and is acknowledged.
    pub fn settle(&mut self, offset: MessageOffset, settled_by: StatusOffset) -> Result<(), Misuse> {
        self.acknowledge(settled_by);
        self.open.remove(&offset).map(|_| ()).ok_or(Misuse::NotOpen(offset))
    }

    /// Moves the position past records that are no messages (control and aborted ones, or settled before).
    pub fn advance(&mut self, position: MessageOffset) {
        self.position = self.position.max(position);
    }

    /// Notes that a status record that settles nothing is acknowledged.
    pub fn acknowledge(&mut self, status: StatusOffset) {
        self.status_end = self.status_end.max(status.next());
    }

    /// How many messages are open.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// How many offsets lie between frontier and position. A takeover remembers something of each, so it must stay bounded.
    pub fn span(&self) -> i64 {
        self.position.0 - self.frontier().0
    }

    /// What may be committed now.
    pub fn checkpoint(&mut self) -> Checkpoint {
        let frontier = self.frontier();
        if self.inherited.is_some_and(|inherited| frontier > inherited.last_source) {
            self.inherited = None;
        }
        let taken_in_at = self.open.first_key_value().map_or(self.status_end, |(_, &status_end)| status_end);
        let bookmark = self.inherited.map_or(taken_in_at, |inherited| inherited.bookmark);
        Checkpoint { frontier, bookmark, position: self.position, open: self.open.len() }
    }

    fn frontier(&self) -> MessageOffset {
        self.open.first_key_value().map_or(self.position, |(&offset, _)| offset)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ledger(position: i64, status_end: i64) -> PartitionLedger {
        PartitionLedger::new(MessageOffset(position), StatusOffset(status_end))
    }

    fn deliver(ledger: &mut PartitionLedger, offset: i64) {
        ledger.deliver(MessageOffset(offset)).unwrap();
    }

    /// By a status that the ledger knows the end of already.
    fn settle(ledger: &mut PartitionLedger, offset: i64) {
        ledger.settle(MessageOffset(offset), StatusOffset(-1)).unwrap();
    }

    fn frontier_and_bookmark(ledger: &mut PartitionLedger) -> (i64, i64) {
        let checkpoint = ledger.checkpoint();
        (checkpoint.frontier.0, checkpoint.bookmark.0)
    }

    #[test]
    fn the_frontier_is_the_lowest_open_offset() {
        let mut ledger = ledger(10, 100);
        assert_eq!(frontier_and_bookmark(&mut ledger), (10, 100));
        deliver(&mut ledger, 10);
        deliver(&mut ledger, 11);
        settle(&mut ledger, 11);
        assert_eq!(
            ledger.checkpoint(),
            Checkpoint {
                frontier: MessageOffset(10),
                bookmark: StatusOffset(100),
                position: MessageOffset(12),
                open: 1
            }
        );
        settle(&mut ledger, 10);
        assert_eq!(ledger.checkpoint().frontier, MessageOffset(12));
    }

    #[test]
    fn with_nothing_open_records_that_are_no_messages_are_passed() {
        let mut ledger = ledger(0, 0);
        deliver(&mut ledger, 4);
        ledger.advance(MessageOffset(9));
        assert_eq!(ledger.checkpoint().frontier, MessageOffset(4));
        settle(&mut ledger, 4);
        assert_eq!(ledger.checkpoint().frontier, MessageOffset(9));
        ledger.advance(MessageOffset(3));
        assert_eq!(ledger.checkpoint().frontier, MessageOffset(9));
    }

    #[test]
    fn the_bookmark_is_the_status_end_when_the_frontiers_message_was_taken_in() {
        let mut ledger = ledger(0, 50);
        deliver(&mut ledger, 0);
        ledger.acknowledge(StatusOffset(70));
        deliver(&mut ledger, 1);
        assert_eq!(frontier_and_bookmark(&mut ledger), (0, 50));
        settle(&mut ledger, 0);
        assert_eq!(frontier_and_bookmark(&mut ledger), (1, 71));
        ledger.acknowledge(StatusOffset(90));
        settle(&mut ledger, 1);
        assert_eq!(frontier_and_bookmark(&mut ledger), (2, 91));
    }

    #[test]
    fn the_old_owners_bookmark_stays_until_the_frontier_has_passed_what_it_left() {
        let mut ledger = ledger(5, 200);
        ledger.inherit(StatusOffset(120), MessageOffset(7));
        for offset in 5..=8 {
            deliver(&mut ledger, offset);
        }
        settle(&mut ledger, 5);
        settle(&mut ledger, 6);
        assert_eq!(frontier_and_bookmark(&mut ledger), (7, 120));
        settle(&mut ledger, 7);
        assert_eq!(frontier_and_bookmark(&mut ledger), (8, 200));
    }

    /// A partition, its status partition, and what a perfect memory knows of both.
    #[derive(Default)]
    struct Model {
        /// The messages are the offsets below.
        end: i64,
        /// The source of each status, and whether it settles.
        statuses: Vec<(i64, bool)>,
        settled: std::collections::BTreeSet<i64>,
        committed: Option<Checkpoint>,
    }

    impl Model {
        fn open(&self) -> Vec<i64> {
            (0..self.end).filter(|offset| !self.settled.contains(offset)).collect()
        }

        fn tell(&mut self, ledger: &mut PartitionLedger, source: i64, settles: bool) {
            let status = StatusOffset(self.statuses.len() as i64);
            self.statuses.push((source, settles));
            if settles {
                self.settled.insert(source);
                ledger.settle(MessageOffset(source), status).unwrap();
            } else {
                ledger.acknowledge(status);
            }
        }

        /// The next owner has the commit and the statuses from its bookmark on, and reads the messages from the frontier on.
        fn take_over(&self) -> PartitionLedger {
            let (frontier, bookmark) =
                self.committed.map_or((0, 0), |committed| (committed.frontier.0, committed.bookmark.0));
            let replayed = self.statuses[bookmark as usize..].iter().filter(|(source, _)| *source >= frontier);
            let mut ledger = ledger(frontier, self.statuses.len() as i64);
            if let Some(last_source) = replayed.clone().map(|(source, _)| *source).max() {
                ledger.inherit(StatusOffset(bookmark), MessageOffset(last_source));
            }
            for offset in frontier..self.end {
                if replayed.clone().any(|status| *status == (offset, true)) {
                    ledger.advance(MessageOffset(offset + 1));
                } else {
                    deliver(&mut ledger, offset);
                }
            }
            ledger
        }
    }

    proptest! {
        /// The frontier is the lowest open offset, every status of a message at or above it lies at or behind the bookmark,
        /// and whoever takes over, after whatever commit, has exactly those messages open that aren't settled.
        #[test]
        fn whoever_takes_over_opens_what_is_not_settled_and_nothing_else(
            steps in prop::collection::vec((0u8..8, any::<prop::sample::Index>()), 1..120),
        ) {
            let mut model = Model::default();
            let mut ledger = model.take_over();
            for (step, index) in steps {
                let open = model.open();
                match step {
                    0..=2 => { deliver(&mut ledger, model.end); model.end += 1; }
                    3..=5 if !open.is_empty() => model.tell(&mut ledger, *index.get(&open), step > 3),
                    6 => model.committed = Some(ledger.checkpoint()),
                    7 => ledger = model.take_over(),
                    _ => {}
                }
                let checkpoint = ledger.checkpoint();
                let open = model.open();
                prop_assert_eq!(checkpoint.frontier.0, open.first().copied().unwrap_or(model.end));
                prop_assert_eq!(checkpoint.open, open.len());
                let before = &model.statuses[..checkpoint.bookmark.0 as usize];
                prop_assert!(before.iter().all(|(source, _)| *source < checkpoint.frontier.0));
            }
        }
    }
}
