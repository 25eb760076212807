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

/// A topic and a partition of it.
pub(crate) type Place<'a> = (&'a str, i32);

/// Where a topic's partitions begin or end now. As [`ends`].
pub(crate) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    end: End,
    timeout: Duration,
) -> Result<Vec<i64>> {
    let places: Vec<Place<'_>> = partitions.iter().map(|partition| (topic, *partition)).collect();
    ends(consumer, &places, end, timeout)
}

/// Where these begin or end now, in one request to each broker. Blocks.
///
/// The broker answers a connection's requests in turn, so one that is fetching answers only when its fetch has waited: ask
/// by a consumer that isn't.
pub(crate) fn ends<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    places: &[Place<'_>],
    end: End,
    timeout: Duration,
) -> Result<Vec<i64>> {
    let asked = ask(consumer, places, end, timeout);
    if asked.is_err() {
        // librdkafka remembers who leads the partitions, and goes on asking a broker that is dead until it is told anew.
        for places in places.chunk_by(|(one, _), (other, _)| one == other) {
            let _ = consumer.fetch_metadata(Some(places[0].0), timeout);
        }
    }
    asked
}

fn ask<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    places: &[Place<'_>],
    end: End,
    timeout: Duration,
) -> Result<Vec<i64>> {
    // librdkafka takes no question without partitions.
    if places.is_empty() {
        return Ok(vec![]);
    }
    // To ListOffsets these logical offsets are timestamps: EARLIEST and LATEST (KIP-79).
    let asked = match end {
        End::Low => Offset::Beginning,
        End::High => Offset::End,
    };
    let mut list = TopicPartitionList::new();
    for &(topic, partition) in places {
        list.add_partition_offset(topic, partition, asked)?;
    }
    let list = consumer.offsets_for_times(list, timeout)?;
    let found = |&(topic, partition): &Place<'_>| {
        let element = list.find_partition(topic, partition);
        match element.as_ref().map(|element| (element.error(), element.offset())) {
            Some((Ok(()), Offset::Offset(offset))) => Ok(offset),
            Some((Err(error), _)) => Err(error.into()),
            _ => Err(Error::Topic(format!("partition {partition} of {topic} has no offsets"))),
        }
    };
    places.iter().map(found).collect()
}
