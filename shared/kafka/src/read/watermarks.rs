use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::{Offset, TopicPartitionList};

use crate::{Error, Result};

/// An end of a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// Its first record.
    Low,
    /// Behind its last one, by the consumer's isolation: the high watermark or the last stable offset.
    High,
}

/// Where partitions begin or end now, in one request to each broker. Blocks.
///
/// The broker answers a connection's requests in turn, so one that is fetching answers only when its fetch has waited: ask
/// by a consumer that isn't.
pub(crate) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    end: End,
    timeout: Duration,
) -> Result<Vec<i64>> {
    let asked = ask(consumer, topic, partitions, end, timeout);
    if asked.is_err() {
        // librdkafka remembers who leads the partitions, and goes on asking a broker that is dead until it is told anew.
        let _ = consumer.fetch_metadata(Some(topic), timeout);
    }
    asked
}

fn ask<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    end: End,
    timeout: Duration,
) -> Result<Vec<i64>> {
    // To ListOffsets these logical offsets are timestamps: EARLIEST and LATEST (KIP-79).
    let asked = match end {
        End::Low => Offset::Beginning,
        End::High => Offset::End,
    };
    let mut list = TopicPartitionList::new();
    for &partition in partitions {
        list.add_partition_offset(topic, partition, asked)?;
    }
    let list = consumer.offsets_for_times(list, timeout)?;
    let found = |&partition| {
        let element = list.find_partition(topic, partition);
        match element.as_ref().map(|element| (element.error(), element.offset())) {
            Some((Ok(()), Offset::Offset(offset))) => Ok(offset),
            Some((Err(error), _)) => Err(error.into()),
            _ => Err(Error::Topic(format!("partition {partition} of {topic} has no offsets"))),
        }
    };
    partitions.iter().map(found).collect()
}
