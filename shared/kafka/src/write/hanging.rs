//! Finds out what became of a transaction that the broker has left hanging.
//!
//! A broker (4.3.1) that starts after a kill may end transactions before it knows who leads their partitions. It then takes
//! those for deleted ("Couldn't find leader endpoint … can be skipped"), writes them no marker, and calls the transaction
//! complete: one that it had committed, and whose producer was told so, as well as one that it rolls back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::label::{Closing, Label};
use crate::cluster::Reading;
use crate::read::{End, asking, watermarks};
use crate::{Cluster, Error, Isolation, Result, TableReader};

const TIMEOUT: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(30);
/// A marker is seen some milliseconds after it was written, and not before those of transactions that began earlier.
const SETTLING: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);

/// A topic and a partition of it.
pub(super) type Place<'a> = (&'a str, i32);

/// The partitions that a producer id writes to.
pub(super) struct Hanging<'a> {
    cluster: &'a Cluster,
    producer: &'a str,
    places: &'a [Place<'a>],
    stop: &'a CancellationToken,
    committed: BaseConsumer<Reading>,
    all: BaseConsumer<Reading>,
}

/// What may hang in a partition.
#[derive(Default)]
struct Found {
    /// By id, with their timestamps.
    transactions: BTreeMap<Uuid, (Label, i64)>,
    /// A try to end all that came before.
    closing: Option<Closing>,
}

impl<'a> Hanging<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        producer: &'a str,
        places: &'a [Place<'a>],
        stop: &'a CancellationToken,
    ) -> Result<Self> {
        let (committed, all) = (asking(cluster, Isolation::Committed)?, asking(cluster, Isolation::Uncommitted)?);
        Ok(Self { cluster, producer, places, stop, committed, all })
    }

    /// Where something of this id hangs, and whether it is to be committed.
    pub(super) fn find(&self) -> Result<Vec<(Place<'a>, bool)>> {
        let (ends, stable) = (self.ends(&self.all)?, self.ends(&self.committed)?);
        let open: Vec<(Place<'a>, i64, i64)> = self
            .places
            .iter()
            .map(|place| (*place, stable[place], ends[place]))
            .filter(|(_, from, to)| from < to)
            .collect();
        let mut found: BTreeMap<Place<'a>, Found> = BTreeMap::new();
        self.scan(&open, Isolation::Uncommitted, |place, message| {
            if let Some(label) = Label::of(message).filter(|label| label.producer == self.producer) {
                let found = found.entry(place).or_default();
                found.closing = None;
                found.transactions.insert(label.id, (label, message.timestamp().to_millis().unwrap_or(0)));
            } else if let Some(closing) = Closing::of(message).filter(|closing| closing.producer == self.producer) {
                found.insert(place, Found { closing: Some(closing), ..Found::default() });
            }
        })?;
        let mut committed = BTreeMap::new();
        for (id, (label, timestamp)) in found.values().flat_map(|found| &found.transactions) {
            if !committed.contains_key(id) {
                committed.insert(*id, self.was_committed(label, *timestamp)?);
            }
        }
        // One marker ends all that hangs in a partition. What must not be seen is worse than what can be planned again.
        let commits = |found: &Found| match &found.closing {
            Some(closing) => closing.commits,
            None => found.transactions.keys().all(|id| committed[id]),
        };
        Ok(found.iter().map(|(place, found)| (*place, commits(found))).collect())
    }

    /// Whether the transaction is one that was committed.
    ///
    /// A marker anywhere tells. Without one its producer may have been told that it is committed if all of its labels are
    /// there; then it is committed now, which nobody can tell from a commit that came late.
    fn was_committed(&self, label: &Label, timestamp: i64) -> Result<bool> {
        let records = self.records(label, timestamp)?;
        let until = Instant::now() + SETTLING;
        loop {
            let stable = self.ends(&self.committed)?;
            if let Some((place, offset)) = records.iter().find(|(place, offset)| *offset < stable[place]) {
                return self.is_visible(*place, *offset);
            }
            if Instant::now() > until {
                return Ok(records.len() == label.records as usize);
            }
            if self.stop.is_cancelled() {
                return Err(Error::Stopped);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Where the transaction's labels are. Its records have one timestamp.
    fn records(&self, label: &Label, timestamp: i64) -> Result<Vec<(Place<'a>, i64)>> {
        let ends = self.ends(&self.all)?;
        let mut list = TopicPartitionList::new();
        for &(topic, partition) in self.places {
            list.add_partition_offset(topic, partition, Offset::Offset(timestamp))?;
        }
        let starts = self.all.offsets_for_times(list, TIMEOUT)?;
        let start = |&place: &Place<'a>| match starts.find_partition(place.0, place.1).map(|start| start.offset()) {
            Some(Offset::Offset(start)) => Some((place, start, ends[&place])),
            _ => None,
        };
        let ranges: Vec<(Place<'a>, i64, i64)> = self.places.iter().filter_map(start).collect();
        let mut records = vec![];
        self.scan(&ranges, Isolation::Uncommitted, |place, message| {
            if Label::of(message).is_some_and(|it| it.id == label.id) {
                records.push((place, message.offset()));
            }
        })?;
        Ok(records)
    }

    fn is_visible(&self, place: Place<'a>, offset: i64) -> Result<bool> {
        let mut visible = false;
        let range = [(place, offset, offset + 1)];
        self.scan(&range, Isolation::Committed, |_, message| visible |= message.offset() == offset)?;
        Ok(visible)
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

    fn ends(&self, consumer: &BaseConsumer<Reading>) -> Result<BTreeMap<Place<'a>, i64>> {
        let mut ends = BTreeMap::new();
        for places in self.places.chunk_by(|(one, _), (other, _)| one == other) {
            let partitions: Vec<i32> = places.iter().map(|(_, partition)| *partition).collect();
            let found = watermarks(consumer, places[0].0, &partitions, End::High, TIMEOUT)?;
            ends.extend(places.iter().copied().zip(found));
        }
        Ok(ends)
    }
}
