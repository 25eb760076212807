//! Which offsets of a partition are open, and what may therefore be committed. Pure: no Kafka types, no clock.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// What a sender commits for a partition: the frontier as the offset, the rest as its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The lowest offset still open; with nothing open the position.
    pub frontier: i64,
    /// Where in the status partition a replay must begin to see all statuses of messages at or above the frontier.
    pub bookmark: i64,
    /// The next offset to take in.
    pub position: i64,
    /// How many messages are open.
    pub open: usize,
}

impl Checkpoint {
    /// The metadata of the commit.
    pub fn metadata(&self) -> Metadata {
        Metadata { bookmark: self.bookmark, position: self.position, open: self.open as u64 }
    }
}

/// The metadata of a sender's commit; ASCII, well under the broker's 4,096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// See [`Checkpoint::bookmark`].
    pub bookmark: i64,
    /// See [`Checkpoint::position`].
    pub position: i64,
    /// See [`Checkpoint::open`].
    pub open: u64,
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1 bookmark={} position={} open={}", self.bookmark, self.position, self.open)
    }
}

/// Metadata that no sender wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a sender's commit metadata")]
pub struct InvalidMetadata;

impl FromStr for Metadata {
    type Err = InvalidMetadata;

    fn from_str(text: &str) -> Result<Self, InvalidMetadata> {
        let mut words = text.split(' ');
        let mut value = |name: &str| {
            let word = words.next().ok_or(InvalidMetadata)?;
            let number = word.strip_prefix(name).ok_or(InvalidMetadata)?;
            if name == "v1" { Ok(0) } else { number.parse::<i64>().map_err(|_| InvalidMetadata) }
        };
        value("v1")?;
        let (bookmark, position, open) = (value("bookmark=")?, value("position=")?, value("open=")?);
        let open = u64::try_from(open).map_err(|_| InvalidMetadata)?;
        Ok(Self { bookmark, position, open })
    }
}

/// The open offsets of one partition, from taking it over to giving it up.
#[derive(Debug)]
pub struct PartitionLedger {
    /// Open offset → the acknowledged end of the status partition when it was taken in.
    open: BTreeMap<i64, i64>,
    position: i64,
    status_end: i64,
    /// The old owner's bookmark, and the offset that the frontier must pass before it is given up.
    inherited: Option<(i64, i64)>,
}

impl PartitionLedger {
    /// A partition that is read from `position` on; the status partition ends at `status_end`.
    pub fn new(position: i64, status_end: i64) -> Self {
        Self { open: BTreeMap::new(), position, status_end, inherited: None }
    }

    /// Keeps the old owner's bookmark until the frontier has passed `last_source`, the highest source offset that the
    /// replay saw: statuses of messages up to there may lie behind it.
    pub fn inherit(&mut self, bookmark: i64, last_source: i64) {
        self.inherited = Some((bookmark, last_source));
    }

    /// Takes a message in.
    pub fn deliver(&mut self, offset: i64) {
        self.open.insert(offset, self.status_end);
        self.advance(offset + 1);
    }

    /// Closes a message: its settling status is acknowledged.
    pub fn settle(&mut self, offset: i64) {
        self.open.remove(&offset);
    }

    /// Moves the position past records that are no messages (control and aborted ones, or settled before).
    pub fn advance(&mut self, position: i64) {
        self.position = self.position.max(position);
    }

    /// Notes that the status record at `offset` is acknowledged.
    pub fn acknowledge(&mut self, offset: i64) {
        self.status_end = self.status_end.max(offset + 1);
    }

    /// How many messages are open.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// What may be committed now.
    pub fn checkpoint(&mut self) -> Checkpoint {
        let (frontier, taken_in_at) = match self.open.first_key_value() {
            Some((&offset, &status_end)) => (offset, status_end),
            None => (self.position, self.status_end),
        };
        if self.inherited.is_some_and(|(_, last_source)| frontier > last_source) {
            self.inherited = None;
        }
        let bookmark = self.inherited.map_or(taken_in_at, |(bookmark, _)| bookmark);
        Checkpoint { frontier, bookmark, position: self.position, open: self.open.len() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frontier_and_bookmark(ledger: &mut PartitionLedger) -> (i64, i64) {
        let checkpoint = ledger.checkpoint();
        (checkpoint.frontier, checkpoint.bookmark)
    }

    #[test]
    fn the_frontier_is_the_lowest_open_offset() {
        let mut ledger = PartitionLedger::new(10, 100);
        assert_eq!(frontier_and_bookmark(&mut ledger), (10, 100));
        ledger.deliver(10);
        ledger.deliver(11);
        ledger.settle(11);
        assert_eq!(ledger.checkpoint(), Checkpoint { frontier: 10, bookmark: 100, position: 12, open: 1 });
        ledger.settle(10);
        assert_eq!(ledger.checkpoint().frontier, 12);
    }

    #[test]
    fn with_nothing_open_records_that_are_no_messages_are_passed() {
        let mut ledger = PartitionLedger::new(0, 0);
        ledger.deliver(4);
        ledger.advance(9);
        assert_eq!(ledger.checkpoint().frontier, 4);
        ledger.settle(4);
        assert_eq!(ledger.checkpoint().frontier, 9);
        ledger.advance(3);
        assert_eq!(ledger.checkpoint().frontier, 9);
    }

    #[test]
    fn the_bookmark_is_the_status_end_when_the_frontiers_message_was_taken_in() {
        let mut ledger = PartitionLedger::new(0, 50);
        ledger.deliver(0);
        ledger.acknowledge(70);
        ledger.deliver(1);
        assert_eq!(frontier_and_bookmark(&mut ledger), (0, 50));
        ledger.settle(0);
        assert_eq!(frontier_and_bookmark(&mut ledger), (1, 71));
        ledger.acknowledge(90);
        ledger.settle(1);
        assert_eq!(frontier_and_bookmark(&mut ledger), (2, 91));
    }

    #[test]
    fn the_old_owners_bookmark_stays_until_the_frontier_has_passed_what_it_left() {
        let mut ledger = PartitionLedger::new(5, 200);
        ledger.inherit(120, 7);
        for offset in 5..=8 {
            ledger.deliver(offset);
        }
        ledger.settle(5);
        ledger.settle(6);
        assert_eq!(frontier_and_bookmark(&mut ledger), (7, 120));
        ledger.settle(7);
        assert_eq!(frontier_and_bookmark(&mut ledger), (8, 200));
    }

    #[test]
    fn metadata_is_read_as_written_and_nothing_else_is() {
        let metadata = Metadata { bookmark: 1, position: 22, open: 333 };
        assert_eq!(metadata.to_string(), "v1 bookmark=1 position=22 open=333");
        assert_eq!(metadata.to_string().parse(), Ok(metadata));
        for text in ["", "v1", "v1 bookmark=1", "v2 bookmark=1 position=2 open=3", "v1 bookmark=x position=2 open=3"] {
            assert_eq!(text.parse::<Metadata>(), Err(InvalidMetadata), "{text:?}");
        }
    }

    /// A partition, its status partition, and what a perfect memory knows of both.
    #[derive(Default)]
    struct Model {
        /// The messages are the offsets below.
        end: i64,
        /// The source of each status, and whether it settles.
        statuses: Vec<(i64, bool)>,
        settled: std::collections::BTreeSet<i64>,
        committed: Option<(i64, Metadata)>,
    }

    impl Model {
        fn open(&self) -> Vec<i64> {
            (0..self.end).filter(|offset| !self.settled.contains(offset)).collect()
        }

        fn tell(&mut self, ledger: &mut PartitionLedger, source: i64, settles: bool) {
            self.statuses.push((source, settles));
            ledger.acknowledge(self.statuses.len() as i64 - 1);
            if settles {
                self.settled.insert(source);
                ledger.settle(source);
            }
        }

        /// The next owner has the commit and the statuses from its bookmark on, and reads the messages from the frontier on.
        fn take_over(&self) -> PartitionLedger {
            let (frontier, bookmark) =
                self.committed.map_or((0, 0), |(frontier, metadata)| (frontier, metadata.bookmark));
            let replayed = self.statuses[bookmark as usize..].iter().filter(|(source, _)| *source >= frontier);
            let mut ledger = PartitionLedger::new(frontier, self.statuses.len() as i64);
            if let Some(last_source) = replayed.clone().map(|(source, _)| *source).max() {
                ledger.inherit(bookmark, last_source);
            }
            for offset in frontier..self.end {
                if replayed.clone().any(|status| *status == (offset, true)) {
                    ledger.advance(offset + 1);
                } else {
                    ledger.deliver(offset);
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
                    0..=2 => { ledger.deliver(model.end); model.end += 1; }
                    3..=5 if !open.is_empty() => model.tell(&mut ledger, *index.get(&open), step > 3),
                    6 => {
                        let checkpoint = ledger.checkpoint();
                        model.committed = Some((checkpoint.frontier, checkpoint.metadata()));
                    }
                    7 => ledger = model.take_over(),
                    _ => {}
                }
                let checkpoint = ledger.checkpoint();
                let open = model.open();
                prop_assert_eq!(checkpoint.frontier, open.first().copied().unwrap_or(model.end));
                prop_assert_eq!(checkpoint.open, open.len());
                let before = &model.statuses[..checkpoint.bookmark as usize];
                prop_assert!(before.iter().all(|(source, _)| *source < checkpoint.frontier));
            }
        }
    }
}
