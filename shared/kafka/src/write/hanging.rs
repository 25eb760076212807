//! Finds out what became of a transaction that the broker has left hanging.
//!
//! A broker (4.3.1) that starts after a kill may end transactions before it knows who leads their partitions. It then takes
//! those for deleted ("Couldn't find leader endpoint … can be skipped"), writes them no marker, and calls the transaction
//! complete: one that it had committed, and whose producer was told so, as well as one that it rolls back.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::label::{Closing, Label};
use crate::cluster::Reading;
use crate::read::{End, Place, asking, ends};
use crate::{Cluster, Error, Isolation, Result, TableReader};

const TIMEOUT: Duration = Duration::from_secs(5);
/// For reading what came behind a transaction that hangs: some millions of records.
const DEADLINE: Duration = Duration::from_secs(60);
/// A transaction of another producer that is under way is over in this time, and its markers are seen.
const SETTLING: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);
/// A transaction's records have one timestamp, or those at which a broker got them, if it stamps them itself.
const SPREAD_MS: i64 = 30_000;

/// The partitions that a producer id writes to.
pub(super) struct Hanging<'a> {
    cluster: &'a Cluster,
    producer: &'a str,
    places: &'a [Place<'a>],
    stop: &'a CancellationToken,
}

/// Where each place ends.
type Ends<'a> = BTreeMap<Place<'a>, i64>;

/// A transaction that may hang, and the timestamp of one of its records.
struct Suspect {
    label: Label,
    timestamp: i64,
}

impl<'a> Hanging<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        producer: &'a str,
        places: &'a [Place<'a>],
        stop: &'a CancellationToken,
    ) -> Self {
        Self { cluster, producer, places, stop }
    }

    /// Where something of this id may hang, and whether it is to be committed.
    ///
    /// A transaction of another id that stays open hides whether one behind it is ended. To end that one again as it was
    /// ended does no harm.
    pub(super) fn find(&self) -> Result<Vec<(Place<'a>, bool)>> {
        let all = asking(self.cluster, Isolation::Uncommitted)?;
        let ends = self.ends(&all)?;
        let stable = self.settled(&ends)?;
        let open: Vec<_> = self.ranges(|place| stable[&place], &ends);
        // What is no label only ends what hung, and hangs itself. The last transaction of a place decides: none is begun
        // behind one that may hang.
        let mut found: BTreeMap<Place<'a>, Option<Suspect>> = BTreeMap::new();
        self.scan(&open, Isolation::Uncommitted, |place, message| {
            if let Some(label) = Label::of(message).filter(|label| label.producer == self.producer) {
                let timestamp = message.timestamp().to_millis().unwrap_or(0);
                found.insert(place, Some(Suspect { label, timestamp }));
            } else if Closing::of(message).is_some_and(|closing| closing.producer == self.producer) {
                found.entry(place).or_default();
            }
        })?;
        let mut committed: BTreeMap<Uuid, bool> = BTreeMap::new();
        for suspect in found.values().flatten() {
            if let Entry::Vacant(entry) = committed.entry(suspect.label.id) {
                entry.insert(self.was_committed(&all, suspect, &ends, &stable)?);
            }
        }
        let commits = |suspect: &Option<Suspect>| suspect.as_ref().is_some_and(|it| committed[&it.label.id]);
        Ok(found.iter().map(|(place, suspect)| (*place, commits(suspect))).collect())
    }

    /// The last stable offsets, when all are at these ends or no longer get there by themselves.
    fn settled(&self, ends: &Ends<'a>) -> Result<Ends<'a>> {
        let committed = asking(self.cluster, Isolation::Committed)?;
        let until = Instant::now() + SETTLING;
        loop {
            let stable = self.ends(&committed)?;
            if Instant::now() > until || ends.iter().all(|(place, end)| stable[place] >= *end) {
                return Ok(stable);
            }
            if self.stop.is_cancelled() {
                return Err(Error::Stopped);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether the transaction is one that was committed.
    ///
    /// A marker anywhere tells. Without one its producer may have been told that it is committed if all of its labels are
    /// there; then it is committed now, which nobody can tell from a commit that came late.
    fn was_committed(
        &self,
        all: &BaseConsumer<Reading>,
        suspect: &Suspect,
        ends: &Ends<'a>,
        stable: &Ends<'a>,
    ) -> Result<bool> {
        let labels = self.labels(all, suspect, ends)?;
        match labels.iter().find(|(place, offset)| *offset < stable[place]) {
            Some((place, offset)) => self.is_visible(*place, *offset),
            None => Ok(labels.len() == suspect.label.records as usize),
        }
    }

    /// Where the transaction's labels are.
    fn labels(&self, all: &BaseConsumer<Reading>, suspect: &Suspect, ends: &Ends<'a>) -> Result<Vec<(Place<'a>, i64)>> {
        let mut list = TopicPartitionList::new();
        for &(topic, partition) in self.places {
            list.add_partition_offset(topic, partition, Offset::Offset((suspect.timestamp - SPREAD_MS).max(0)))?;
        }
        let mut starts = Ends::new();
        let found = all.offsets_for_times(list, TIMEOUT)?;
        for &place in self.places {
            let start = found.find_partition(place.0, place.1);
            let start =
                start.ok_or_else(|| Error::Topic(format!("partition {} of {} is missing", place.1, place.0)))?;
            start.error()?;
            // Without an offset nothing is as young as that.
            if let Offset::Offset(start) = start.offset() {
                starts.insert(place, start);
            }
        }
        let ranges = self.ranges(|place| starts.get(&place).copied().unwrap_or(i64::MAX), ends);
        let mut labels = vec![];
        self.scan(&ranges, Isolation::Uncommitted, |place, message| {
            if Label::of(message).is_some_and(|it| it.id == suspect.label.id) {
                labels.push((place, message.offset()));
            }
        })?;
        Ok(labels)
    }

    fn is_visible(&self, place: Place<'a>, offset: i64) -> Result<bool> {
        let mut visible = false;
        let range = [(place, offset, offset + 1)];
        self.scan(&range, Isolation::Committed, |_, message| visible |= message.offset() == offset)?;
        Ok(visible)
    }

    /// The places that have anything between the offset that `from` tells and their end.
    fn ranges(&self, from: impl Fn(Place<'a>) -> i64, ends: &Ends<'a>) -> Vec<(Place<'a>, i64, i64)> {
        let ranges = self.places.iter().map(|&place| (place, from(place), ends[&place]));
        ranges.filter(|(_, from, to)| from < to).collect()
    }

    /// Reads from the first offset of each to the second, and perhaps further.
    fn scan(
        &self,
        ranges: &[(Place<'a>, i64, i64)],
        isolation: Isolation,
        mut take: impl FnMut(Place<'a>, &BorrowedMessage<'_>),
    ) -> Result<()> {
        for ranges in ranges.chunk_by(|((one, _), ..), ((other, _), ..)| one == other) {
            let topic = ranges[0].0.0;
            let from: Vec<(i32, i64)> = ranges.iter().map(|((_, partition), from, _)| (*partition, *from)).collect();
            let to: Vec<i64> = ranges.iter().map(|(.., to)| *to).collect();
            let table = TableReader::from_offsets(self.cluster, topic, &from, isolation)?;
            table.stopped_by(self.stop).scan(&to, DEADLINE, |message| take((topic, message.partition()), message))?;
        }
        Ok(())
    }

    fn ends(&self, consumer: &BaseConsumer<Reading>) -> Result<Ends<'a>> {
        Ok(self.places.iter().copied().zip(ends(consumer, self.places, End::High, TIMEOUT)?).collect())
    }
}
