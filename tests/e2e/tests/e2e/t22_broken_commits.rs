//! Guarantee 4: a page is planned whole or not at all, also when the broker dies while it commits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use e2e::{Options, Servers, World};
use events::topics::Topic;
use kafka::{Cluster, Isolation, Outgoing, TableReader, TransactionalProducer};

const PARTITIONS: i32 = 12;
/// How often the broker is killed.
const KILLS: usize = 3;

/// Commits one transaction after the other, each with a record in every partition, until one fails. Returns the number of
/// the last that was acknowledged.
fn commit_until_it_breaks(producer: &TransactionalProducer, kafka: &Cluster, first: u64) -> u64 {
    let (progress, messages) = (kafka.topics.name(Topic::PlanningProgress), kafka.topics.name(Topic::MessageEvents));
    for number in first.. {
        let record = |topic, partition| Outgoing {
            topic,
            partition,
            key: "key".to_owned(),
            payload: number.to_string().into_bytes(),
        };
        let records = (0..PARTITIONS).map(|partition| record(messages.as_str(), partition));
        if producer.publish(records.chain([record(progress.as_str(), 0)])).is_err() {
            return number - 1;
        }
    }
    unreachable!("numbers don't end")
}

/// Begins anew as the producer's next owner does: again, until the broker knows its topics.
fn take_over(kafka: &Cluster) -> TransactionalProducer {
    loop {
        match try_take_over(kafka) {
            Ok(producer) => return producer,
            Err(error) => println!("not taken over yet: {error}"),
        }
    }
}

fn try_take_over(kafka: &Cluster) -> kafka::Result<TransactionalProducer> {
    let producer = TransactionalProducer::planner(kafka, 0)?;
    producer.init(Duration::from_secs(30))?;
    Ok(producer)
}

/// In how many partitions each transaction is seen.
fn seen(kafka: &Cluster) -> BTreeMap<u64, usize> {
    let mut seen = BTreeMap::new();
    for (topic, partitions) in [(Topic::PlanningProgress, 1), (Topic::MessageEvents, PARTITIONS)] {
        let (topic, partitions) = (kafka.topics.name(topic), (0..partitions).collect::<Vec<i32>>());
        let ends = kafka::high_watermarks(kafka, &topic, &partitions, Duration::from_secs(5)).unwrap();
        let table = TableReader::from_start(kafka, &topic, &partitions, Isolation::Committed).unwrap();
        table
            .read_to(&ends, Duration::from_secs(30), |record| {
                let number = String::from_utf8(record.payload.unwrap()).unwrap().parse().unwrap();
                *seen.entry(number).or_default() += 1;
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
    let mut first = 1;
    let mut acknowledged = BTreeSet::new();
    for _ in 0..KILLS {
        let kafka = world.kafka.clone();
        let writer = tokio::task::spawn_blocking(move || {
            let producer = take_over(&kafka);
            commit_until_it_breaks(&producer, &kafka, first)
        });
        tokio::time::sleep(Duration::from_millis(world.random(2_000..4_000))).await;
        servers.kill_kafka().await;
        servers.start_kafka().await;
        let last = writer.await.unwrap();
        acknowledged.extend(first..=last);
        first = last + 2;
        let kafka = world.kafka.clone();
        let read = move || {
            drop(take_over(&kafka));
            seen(&kafka)
        };
        let seen = tokio::task::spawn_blocking(read).await.unwrap();
        println!("{last} are acknowledged at most");
        let broken: Vec<_> = seen.iter().filter(|(_, records)| **records != PARTITIONS as usize + 1).collect();
        assert!(broken.is_empty(), "seen in part: {broken:?}");
        let lost: Vec<_> = acknowledged.iter().filter(|number| !seen.contains_key(number)).collect();
        assert!(lost.is_empty(), "acknowledged and not seen: {lost:?}");
    }
    world.clean_up().await;
}
