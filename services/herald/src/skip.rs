//! Lets a reader that has stopped go on: garbage that somebody has looked at may be passed.

use std::time::Duration;

use anyhow::ensure;
use events::garbage;
use kafka::{GroupView, Isolation, Skips, TableReader};

use crate::cli;
use crate::verbs::kafka_client;

const TIMEOUT: Duration = Duration::from_secs(10);
/// A topic is read at some hundred thousand records a second.
const DEADLINE: Duration = Duration::from_secs(600);

/// Says what lies between the reader's position and the offset, then permits the garbage of it.
pub(crate) async fn run(settings: cli::Skip) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || skip(&settings)).await?
}

fn skip(settings: &cli::Skip) -> anyhow::Result<()> {
    let client = kafka_client(&settings.kafka, &settings.topics, "herald-skip")?;
    let (topic, reader) = settings.topic.reader();
    let (name, partition) = (client.topics.name(topic), i32::from(settings.partition));
    let partitions = GroupView::new(&client, &client.topics.group(reader), topic)?.partitions(TIMEOUT)?;
    let found = partitions.get(usize::from(settings.partition));
    ensure!(found.is_some(), "{name} has the partitions 0 to {}", partitions.len() - 1);
    let position = found.map_or(0, |at| at.committed.as_ref().map_or(at.low, |(offset, _)| (*offset).max(at.low)));

    let log = TableReader::from_offsets(&client, &name, &[(partition, position)], Isolation::Committed)?;
    let end = log.ends(TIMEOUT)?[0];
    let before = settings.before.unwrap_or(end);
    ensure!(before <= end, "{name} partition {partition} ends at {end}: nobody can have looked at what comes later");
    let (mut good, mut first, mut bad) = (0u64, None, 0u64);
    log.read_to(&[before], DEADLINE, |record| {
        if record.offset < before {
            match garbage(topic, record.payload.as_deref()) {
                None => good += 1,
                Some(error) => {
                    first.get_or_insert_with(|| format!(", the first at {}: {error}", record.offset));
                    bad += 1;
                }
            }
        }
    })?;
    Skips::new(&client, reader, topic)?.permit(partition, before)?;
    println!("{name} partition {partition}, from the {reader}'s position {position} to before {before}:");
    println!("  {bad} records can't be decoded{}", first.unwrap_or_default());
    println!("  {good} can, and are processed as ever");
    println!("what can't be decoded below {before} becomes dead letters now, and the {reader} goes on");
    Ok(())
}
