//! Guarantee 4: a page is planned whole or not at all, also when the broker dies while it commits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use e2e::{Options, Servers, World};
use events::topics::Topic;
use kafka::{Cluster, Isolation, Outgoing, TableReader, TransactionalProducer};

const PARTITIONS: i32 = 12;
/// Each of them holds up what the readers of the others' partitions see.
const SHARDS: [i32; 2] = [0, 1];
/// A transaction writes so many to each partition of message-events.
const RECORDS: i32 = 2;
/// How often the broker is killed.
const KILLS: usize = 3;

/// A shard and a number of its own.
type Transaction = (i32, u64);

/// Commits one transaction after the other, each with records in every partition, until one fails. Returns the number of
/// the last that was acknowledged.
fn commit_until_it_breaks(producer: &TransactionalProducer, kafka: &Cluster, shard: i32, first: u64) -> u64 {
    let (progress, messages) = (kafka.topics.name(Topic::PlanningProgress), kafka.topics.name(Topic::MessageEvents));
    for number in first.. {
        let record = |topic, partition| Outgoing {
            topic,
            partition,
            key: "key".to_owned(),
            payload: format!("{shard} {number}").into_bytes(),
        };
        let records = (0..PARTITIONS * RECORDS).map(|index| record(messages.as_str(), index % PARTITIONS));
        if producer.publish(records.chain([record(progress.as_str(), shard)])).is_err() {
            return number - 1;
        }
    }
    unreachable!("numbers don't end")
}

/// Begins anew as the producer's next owner does: with the one it has kept at the ready, then with others, until the broker
/// knows its topics.
fn take_over(kafka: &Cluster, shard: i32, kept: Option<TransactionalProducer>) -> TransactionalProducer {
    let mut kept = kept;
    loop {
        match try_take_over(kafka, shard, kept.take()) {
            Ok(producer) => return producer,
            Err(error) => println!("not taken over yet: {error}"),
        }
    }
}

fn try_take_over(
    kafka: &Cluster,
    shard: i32,
    kept: Option<TransactionalProducer>,
) -> kafka::Result<TransactionalProducer> {
    let producer = kept.map_or_else(|| TransactionalProducer::planner(kafka, shard), Ok)?;
    producer.init(Duration::from_secs(30))?;
    Ok(producer)
}

/// How many records of each transaction are seen.
fn seen(kafka: &Cluster) -> BTreeMap<Transaction, i32> {
    let mut seen = BTreeMap::new();
    for (topic, partitions) in [(Topic::PlanningProgress, SHARDS.len() as i32), (Topic::MessageEvents, PARTITIONS)] {
        let (topic, partitions) = (kafka.topics.name(topic), (0..partitions).collect::<Vec<i32>>());
        let ends = kafka::high_watermarks(kafka, &topic, &partitions, Duration::from_secs(5)).unwrap();
        let table = TableReader::from_start(kafka, &topic, &partitions, Isolation::Committed).unwrap();
        table
            .read_to(&ends, Duration::from_secs(30), |record| {
                let payload = String::from_utf8(record.payload.unwrap()).unwrap();
                let (shard, number) = payload.split_once(' ').unwrap();
                *seen.entry((shard.parse().unwrap(), number.parse().unwrap())).or_default() += 1;
            })
            .unwrap();
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_seen_whole_or_not_at_all_although_the_broker_dies_in_its_commit() {
    let mut servers = Servers::start().await;
    let options =
        Options { brokers: Some(servers.brokers()), partitions: Some(PARTITIONS as u32), ..Options::default() };
    let world = World::new("t22_commits", options).await;
    let mut first = SHARDS.map(|_| 1);
    let mut acknowledged = BTreeSet::new();
    for _ in 0..KILLS {
        let writers = SHARDS.map(|shard| {
            let (kafka, first) = (world.kafka.clone(), first[shard as usize]);
            tokio::task::spawn_blocking(move || {
                let producer = take_over(&kafka, shard, None);
                commit_until_it_breaks(&producer, &kafka, shard, first)
            })
        });
        let kept = SHARDS.map(|shard| TransactionalProducer::planner(&world.kafka, shard).unwrap());
        tokio::time::sleep(Duration::from_millis(world.random(2_000..4_000))).await;
        servers.kill_kafka().await;
        servers.start_kafka().await;
        for (shard, writer) in SHARDS.into_iter().zip(writers) {
            let last = writer.await.unwrap();
            println!("of shard {shard} {last} are acknowledged at most");
            acknowledged.extend((first[shard as usize]..=last).map(|number| (shard, number)));
            first[shard as usize] = last + 2;
        }
        let kafka = world.kafka.clone();
        let read = move || {
            for (shard, kept) in SHARDS.into_iter().zip(kept) {
                drop(take_over(&kafka, shard, Some(kept)));
            }
            seen(&kafka)
        };
        let seen = tokio::task::spawn_blocking(read).await.unwrap();
        let broken: Vec<_> = seen.iter().filter(|(_, records)| **records != PARTITIONS * RECORDS + 1).collect();
        assert!(broken.is_empty(), "seen in part: {broken:?}");
        let lost: Vec<_> = acknowledged.iter().filter(|transaction| !seen.contains_key(transaction)).collect();
        assert!(lost.is_empty(), "acknowledged and not seen: {lost:?}");
    }
    world.clean_up().await;
}
