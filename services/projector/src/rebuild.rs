use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use chrono::{DateTime, SubsecRound, Utc};
use domain::mark::{DatabaseMark, check};
use events::topics::Topic;
use events::{StatusEvent, decode};
use kafka::{GroupView, Isolation, TableReader};
use runtime::Service;
use sqlx::PgPool;
use store::mark;
use store::projection::{self, KnownLog};

use crate::Settings;

const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

/// Empties what the projector writes, then [`start`](crate::start)s: everything is written again from the log, to the same
/// bytes. A projector that runs meanwhile notices, and begins anew.
///
/// # Errors
/// The log isn't known to hold all that the rows were made of; nothing is changed then.
pub async fn rebuild(
    settings: Settings,
    kafka: &kafka::Cluster,
    pool: PgPool,
    kafka_metrics: &kafka::Metrics,
    service: &Service,
) -> anyhow::Result<()> {
    let mut transaction = pool.begin().await?;
    let found = mark::read(&mut transaction).await?;
    let known = projection::known_logs(&mut transaction).await?;
    let client = kafka.clone();
    let log = tokio::task::spawn_blocking(move || Log::look_at(&client, known)).await?.context("look at the logs")?;
    check(log.recorded.as_ref(), &found).context("these statuses may belong to another Postgres")?;
    if let Some((partition, doubt)) = &log.doubt {
        bail!("status partition {partition}: {doubt}. The rows can't be rebuilt from it");
    }
    if let Some(complete_from) = log.complete_from {
        ensure!(
            !projection::has_rows_from_before(&mut transaction, complete_from).await?,
            "the status log no longer reaches back before {complete_from}, and there are messages of older mailings: \
             they can't be rebuilt"
        );
    }
    projection::empty(&mut transaction).await?;
    transaction.commit().await?;
    tracing::info!("emptied; rebuilding from the log");
    crate::start(settings, kafka, pool, kafka_metrics, service).await
}

/// What Kafka holds of what Postgres was made of.
struct Log {
    /// The Postgres that Herald runs with.
    recorded: Option<DatabaseMark>,
    /// A partition that isn't known to be the one that its rows came from, and why.
    doubt: Option<(i32, String)>,
    /// No status before this is missing in any partition; none if all of them begin at 0.
    complete_from: Option<DateTime<Utc>>,
}

impl Log {
    /// Blocks.
    fn look_at(client: &kafka::Cluster, known: Vec<KnownLog>) -> anyhow::Result<Self> {
        let recorded = kafka::recorded_mark(client).context("read the topic database")?;
        let view = GroupView::new(client, &client.topics.group("projector"), Topic::StatusEvents)?;
        let mut log = Self { recorded, doubt: None, complete_from: None };
        let partitions = view.partitions(KAFKA_TIMEOUT)?;
        for (partition, at) in (0..).zip(&partitions) {
            if at.low > 0 {
                let first = if at.low == at.end { None } else { read_from(client, partition, at.low)? };
                let first = first.and_then(|record| DateTime::from_timestamp_millis(record.timestamp_ms));
                // An emptied partition, or one that doesn't answer, proves nothing before now.
                log.complete_from = log.complete_from.max(Some(first.unwrap_or_else(Utc::now)));
            }
        }
        for known in known {
            let end = partitions.get(usize::try_from(known.partition)?).map(|at| at.end);
            if let Some(doubt) = doubt(client, &known, end)? {
                log.doubt = Some((known.partition, doubt));
            }
        }
        Ok(log)
    }
}

/// Why the log isn't known to be the one that Postgres has written a partition's rows from.
fn doubt(client: &kafka::Cluster, known: &KnownLog, end: Option<i64>) -> anyhow::Result<Option<String>> {
    let Some(stored) = known.next_offset else {
        return Ok(Some("there are rows, and nothing says which log they came from".to_owned()));
    };
    if known.began_over {
        let doubt = "there were rows before this log was read, which may have come from another one. If all of them came \
                     from this one, set began_over to false in projector_offsets";
        return Ok(Some(doubt.to_owned()));
    }
    let end = end.unwrap_or(0);
    if stored > end {
        return Ok(Some(format!("it ends at {end}, but was written up to {stored}: it was made anew or cut off")));
    }
    let Some(seen) = known.seen else { return Ok(None) };
    let status = read_from(client, known.partition, seen.offset)?
        .filter(|record| record.offset == seen.offset)
        .and_then(|record| decode::<StatusEvent>(record.payload.as_deref()).ok());
    let same = status
        .is_some_and(|status| status.message_id == seen.message && status.occurred_at.trunc_subsecs(6) == seen.at);
    Ok((!same).then(|| format!("it doesn't hold at {} what was written from there: it is another log", seen.offset)))
}

fn read_from(client: &kafka::Cluster, partition: i32, offset: i64) -> anyhow::Result<Option<kafka::Record>> {
    let topic = client.topics.name(Topic::StatusEvents);
    let reader = TableReader::from_offsets(client, &topic, &[(partition, offset)], Isolation::Committed)?;
    let (ends, until) = (reader.ends(KAFKA_TIMEOUT)?, Instant::now() + KAFKA_TIMEOUT);
    // Whatever librdkafka mends in the meantime reads as nothing.
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        if let Some(record) = reader.poll(left)? {
            return Ok(Some(record));
        }
        if reader.has_reached(&ends)? {
            break;
        }
    }
    Ok(None)
}
