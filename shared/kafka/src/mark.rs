//! The topic `database`: which Postgres Herald last ran with.

use std::time::Duration;

use domain::mark::DatabaseMark;
use events::topics::{Topic, Topics};
use events::{DatabaseRecord, EncodeError, decode, encode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Cluster, Isolation, Outgoing, Record, Result, TableReader, high_watermarks};

/// The one partition that is written, also where a configuration gives the topic more.
const PARTITION: i32 = 0;
/// Longer than a transaction that an older writer may have left open.
const DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(500);

/// The topic's name, and the one partition that holds its records.
pub fn database_partition(topics: &Topics) -> (String, i32) {
    (topics.name(Topic::Database), PARTITION)
}

/// A record for the transaction that tells of what lies in the database. Each writer has a key of its own: of one that was
/// drawn earlier and written later compaction would keep the lower mark.
pub fn database_record<'a>(
    topic: &'a str,
    writer: &str,
    record: &DatabaseRecord,
) -> std::result::Result<Outgoing<'a>, EncodeError> {
    Ok(Outgoing { topic, partition: PARTITION, key: writer.to_owned(), payload: encode(record)? })
}

/// Reads the newest mark, if any was ever recorded. Waits for transactions that are open. Blocks.
pub fn recorded_mark(cluster: &Cluster) -> Result<Option<DatabaseMark>> {
    Ok(read(cluster, &CancellationToken::new())?.1)
}

/// Keeps `known` as the topic says until told to stop. What is known stays so while Kafka is away. Blocks.
pub fn follow_marks(
    cluster: &Cluster,
    known: &watch::Sender<Option<DatabaseMark>>,
    stop: &CancellationToken,
    mut turned: impl FnMut(),
) -> Result<()> {
    let (table, mut newest) = loop {
        turned();
        match read(cluster, stop) {
            Ok(read) => break read,
            Err(_) if stop.is_cancelled() => return Ok(()),
            Err(error) => {
                tracing::debug!(%error, "the topic database can't be read yet");
                std::thread::sleep(PAUSE);
            }
        }
    };
    known.send_replace(newest.clone());
    while !stop.is_cancelled() {
        turned();
        if let Some(record) = table.poll(POLL)? {
            take(&mut newest, &record);
            known.send_if_modified(|known| {
                let changed = *known != newest;
                known.clone_from(&newest);
                changed
            });
        }
    }
    Ok(())
}

fn read(cluster: &Cluster, stop: &CancellationToken) -> Result<(TableReader, Option<DatabaseMark>)> {
    let topic = cluster.topics.name(Topic::Database);
    let ends = high_watermarks(cluster, &topic, &[PARTITION], DEADLINE)?;
    let table = TableReader::from_start(cluster, &topic, &[PARTITION], Isolation::Committed)?.stopped_by(stop);
    let mut newest = None;
    table.read_to(&ends, DEADLINE, |record| take(&mut newest, &record))?;
    Ok((table, newest))
}

fn take(newest: &mut Option<DatabaseMark>, record: &Record) {
    match decode::<DatabaseRecord>(record.payload.as_deref()) {
        Ok(record) if newest.as_ref().is_none_or(|newest| newest.mark < record.mark) => *newest = Some(record.mark()),
        Ok(_) => {}
        Err(error) => {
            tracing::error!(kafka.offset = record.offset, %error, "a record of the database can't be decoded")
        }
    }
}
