//! The progress of a shard's mailings, as planning-progress says.

use std::collections::HashMap;
use std::time::Duration;

use events::topics::Topic;
use events::{DeadLetter, ProgressRecord, decode};
use kafka::{DeadLetters, Isolation, Record, TableReader, high_watermarks};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(60);

/// Reads the shard's progress to its end. Must come after `init_transactions`: then nobody else can append any more, and
/// what an older owner left open is aborted. Blocks.
pub(crate) fn read(
    kafka: &kafka::Cluster,
    shard: i32,
    mut refuse: impl FnMut(&Record, String),
) -> kafka::Result<HashMap<Uuid, ProgressRecord>> {
    let topic = kafka.topics.name(Topic::PlanningProgress);
    let ends = high_watermarks(kafka, &topic, &[shard], Duration::from_secs(5))?;
    let table = TableReader::from_start(kafka, &topic, &[shard], Isolation::Committed)?;
    let mut progress = HashMap::new();
    table.read_to(&ends, DEADLINE, |record| {
        if record.payload.is_none() {
            return;
        }
        match decode::<ProgressRecord>(record.payload.as_deref()) {
            Ok(one) => {
                progress.insert(one.mailing_id, one);
            }
            Err(error) => refuse(&record, error.to_string()),
        }
    })?;
    Ok(progress)
}

/// Dead-letters a record that the scheduler can't take. Blocks until the letter is acknowledged.
pub(crate) fn refuse(
    dead_letters: &DeadLetters,
    runtime: &tokio::runtime::Handle,
    topic: &str,
    record: &Record,
    reason: String,
) {
    let letter = DeadLetter {
        topic: topic.to_owned(),
        partition: record.partition,
        offset: record.offset,
        reader: "scheduler".to_owned(),
        reason,
        occurred_at: chrono::Utc::now(),
    };
    runtime.block_on(dead_letters.write(&letter));
}
