//! The topics, each read twice: everything, and what is seen read-committed.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde::de::DeserializeOwned;

use crate::evidence::{Evidence, Record};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// With nothing to read and the end not reached.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn read(brokers: &str, prefix: &str, evidence: &mut Evidence) -> anyhow::Result<()> {
    evidence.mailing_events = topic(brokers, &format!("{prefix}.mailing-events.v1"))?;
    evidence.progress = topic(brokers, &format!("{prefix}.planning-progress.v1"))?;
    evidence.message_events = topic(brokers, &format!("{prefix}.message-events.v1"))?;
    evidence.status_events = topic(brokers, &format!("{prefix}.status-events.v1"))?;
    evidence.dead_letters = topic(brokers, &format!("{prefix}.dead-letters.v1"))?;
    evidence.partitions = partitions(brokers, &format!("{prefix}.message-events.v1"))?;
    Ok(())
}

/// How many partitions a topic has. Blocks.
pub(crate) fn partitions(brokers: &str, topic: &str) -> anyhow::Result<usize> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let metadata = consumer.fetch_metadata(Some(topic), CALL_TIMEOUT).context("ask Kafka for its topics")?;
    let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    anyhow::ensure!(count > 0, "there is no topic {topic}");
    Ok(count)
}

/// In partition order.
fn topic<T: DeserializeOwned>(brokers: &str, name: &str) -> anyhow::Result<Vec<Record<T>>> {
    let mut visible = HashSet::new();
    each(brokers, name, "read_committed", |message| {
        visible.insert((message.partition(), message.offset()));
    })?;
    let mut records = Vec::new();
    each(brokers, name, "read_uncommitted", |message| {
        // It says nothing: it ends a transaction that the broker had left hanging.
        if message.payload().is_none() && message.key() == Some(b"closing") {
            return;
        }
        let seen = visible.contains(&(message.partition(), message.offset()));
        records.push(record(message, seen));
    })?;
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

fn record<T: DeserializeOwned>(message: &BorrowedMessage<'_>, visible: bool) -> Record<T> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    Record {
        partition: message.partition(),
        offset: message.offset(),
        at: message.timestamp().to_millis().unwrap_or(0) * 1_000,
        key: text(message.key().unwrap_or_default()),
        headers: headers.map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default()))).collect(),
        visible,
        event: message.payload().and_then(|payload| serde_json::from_slice(payload).ok()),
    }
}

/// Gives every record from the first to the end.
fn each(brokers: &str, topic: &str, isolation: &str, mut take: impl FnMut(&BorrowedMessage<'_>)) -> anyhow::Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        // A consumer without a group can't assign; this one never joins.
        .set("group.id", "judge")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        // The end is told after a fetch that finds nothing.
        .set("fetch.wait.max.ms", "50")
        .set("isolation.level", isolation)
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions(brokers, topic)? {
        let partition = i32::try_from(partition)?;
        // By number: looking a logical offset up takes half a second.
        let (low, _) = consumer.fetch_watermarks(topic, partition, CALL_TIMEOUT)?;
        list.add_partition_offset(topic, partition, Offset::Offset(low))?;
    }
    consumer.assign(&list)?;
    let mut ended = HashSet::new();
    while ended.len() < list.count() {
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) => take(&message),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) => eprintln!("reading {topic}: {error}"),
            None => anyhow::bail!("{topic} can't be read to its end"),
        }
    }
    Ok(())
}
