use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::watermarks::{End, watermarks};
use crate::cluster::Reading;
use crate::write::is_closing;
use crate::{Cluster, Error, Record, Result};

/// What a reader sees of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// All records; the end is the high watermark.
    Uncommitted,
    /// Records of committed transactions; the end is the last stable offset.
    Committed,
}

/// Reads partitions of one topic from an offset, without a group. Every call blocks.
pub struct TableReader {
    consumer: BaseConsumer<Reading>,
    /// Fetches nothing: where a partition ends is asked over a connection on which no fetch waits.
    asking: BaseConsumer<Reading>,
    topic: String,
    partitions: Vec<i32>,
    /// Where each is read from.
    from: Vec<i64>,
    stop: CancellationToken,
}

const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Records between two looks at the position, which is an allocation a partition.
const STRIDE: usize = 256;

impl TableReader {
    /// Reads the partitions from their first records on.
    pub fn from_start(cluster: &Cluster, topic: &str, partitions: &[i32], isolation: Isolation) -> Result<Self> {
        // Reading from the low watermark takes 14 ms, from `Beginning` 512.
        let from: Vec<(i32, i64)> = partitions.iter().map(|partition| (*partition, i64::MIN)).collect();
        Self::from_offsets(cluster, topic, &from, isolation)
    }

    /// Reads each of these partitions from this offset on, or from its first record if that is later.
    pub fn from_offsets(cluster: &Cluster, topic: &str, from: &[(i32, i64)], isolation: Isolation) -> Result<Self> {
        let asking = asking(cluster, isolation)?;
        let partitions: Vec<i32> = from.iter().map(|(partition, _)| *partition).collect();
        let lows = watermarks(&asking, topic, &partitions, End::Low, CALL_TIMEOUT)?;
        let from: Vec<i64> = lows.into_iter().zip(from).map(|(low, (_, from))| low.max(*from)).collect();

        let consumer: BaseConsumer<Reading> = config(cluster, isolation).create_with_context(Reading)?;
        let mut list = TopicPartitionList::new();
        for (&partition, &from) in partitions.iter().zip(&from) {
            list.add_partition_offset(topic, partition, Offset::Offset(from))?;
        }
        consumer.assign(&list)?;
        Ok(Self { consumer, asking, topic: topic.to_owned(), partitions, from, stop: CancellationToken::new() })
    }

    /// From now on reading to an end stops with [`Error::Stopped`] when the token says so.
    pub fn stopped_by(mut self, stop: &CancellationToken) -> Self {
        self.stop = stop.clone();
        self
    }

    /// The next record, or none within `timeout`. Transport errors are librdkafka's to mend and count as none. A
    /// record that only ends what hung is passed by.
    pub fn poll(&self, timeout: Duration) -> Result<Option<Record>> {
        let until = Instant::now() + timeout;
        let mut message = self.next(timeout)?;
        while message.as_ref().is_some_and(is_closing) {
            message = self.next(until.saturating_duration_since(Instant::now()))?;
        }
        Ok(message.map(|message| Record::detach(&message)))
    }

    fn next(&self, timeout: Duration) -> Result<Option<BorrowedMessage<'_>>> {
        match self.consumer.poll(timeout) {
            Some(Ok(message)) => Ok(Some(message)),
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => Err(error.into()),
            Some(Err(KafkaError::PartitionEOF(_))) | None => Ok(None),
            Some(Err(error)) => {
                tracing::debug!(%error, topic = self.topic, "reading");
                Ok(None)
            }
        }
    }

    /// Where each partition ends now, in the order given when it was opened, by this reader's isolation.
    pub fn ends(&self, timeout: Duration) -> Result<Vec<i64>> {
        watermarks(&self.asking, &self.topic, &self.partitions, End::High, timeout)
    }

    /// Whether all records before `ends` have been read, control records and aborted ones included.
    pub fn has_reached(&self, ends: &[i64]) -> Result<bool> {
        let positions = self.positions()?;
        for (index, &end) in ends.iter().enumerate() {
            let reached = match positions[index] {
                Some(position) => position >= end,
                // Nothing was ever read here: there was nothing behind the start, or it is gone by now.
                None => {
                    let low = || {
                        watermarks(&self.asking, &self.topic, &self.partitions[index..=index], End::Low, CALL_TIMEOUT)
                    };
                    end <= self.from[index] || end <= low()?[0]
                }
            };
            if !reached {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads on to the ends as they are now, giving each record to `take`. Returns those ends.
    pub fn read_to_end(&self, deadline: Duration, mut take: impl FnMut(Record)) -> Result<Vec<i64>> {
        let ends = self.ends(CALL_TIMEOUT)?;
        self.read_to(&ends, deadline, &mut take)?;
        Ok(ends)
    }

    /// Reads on to `ends`, and up to 255 records further.
    pub fn read_to(&self, ends: &[i64], deadline: Duration, mut take: impl FnMut(Record)) -> Result<()> {
        self.scan(ends, deadline, |message| {
            if !is_closing(message) {
                take(Record::detach(message));
            }
        })
    }

    /// The same, with librdkafka's own records, also those that only end what hung.
    pub(crate) fn scan(
        &self,
        ends: &[i64],
        deadline: Duration,
        mut take: impl FnMut(&BorrowedMessage<'_>),
    ) -> Result<()> {
        let started = Instant::now();
        while !self.has_reached(ends)? {
            if self.stop.is_cancelled() {
                return Err(Error::Stopped);
            }
            if started.elapsed() > deadline {
                return Err(Error::Timeout("reading a partition to its end"));
            }
            let mut wait = Duration::from_millis(20);
            for _ in 0..STRIDE {
                let Some(message) = self.next(wait)? else { break };
                take(&message);
                wait = Duration::ZERO;
            }
        }
        Ok(())
    }

    /// Copied to plain values at once: dropping the consumer hangs while rdkafka's list is alive.
    fn positions(&self) -> Result<Vec<Option<i64>>> {
        let list = self.consumer.position()?;
        let position = |partition| match list.find_partition(&self.topic, partition).map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => Some(offset),
            _ => None,
        };
        Ok(self.partitions.iter().map(|&partition| position(partition)).collect())
    }
}

/// Where partitions end now for a reader that sees all. A reader that must miss nothing that was committed reads to there,
/// since the last stable offset trails a commit by up to 29 ms. Blocks.
pub fn high_watermarks(cluster: &Cluster, topic: &str, partitions: &[i32], timeout: Duration) -> Result<Vec<i64>> {
    watermarks(&asking(cluster, Isolation::Uncommitted)?, topic, partitions, End::High, timeout)
}

/// A client to ask where partitions end, by this isolation.
pub(crate) fn asking(cluster: &Cluster, isolation: Isolation) -> Result<BaseConsumer<Reading>> {
    Ok(config(cluster, isolation).create_with_context(Reading)?)
}

fn config(cluster: &Cluster, isolation: Isolation) -> ClientConfig {
    let mut config = cluster.config();
    config
        // A consumer without a group can't assign.
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", "8192")
        .set("isolation.level", if isolation == Isolation::Committed { "read_committed" } else { "read_uncommitted" });
    cluster.finish(config)
}
