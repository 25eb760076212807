use std::time::Duration;

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use events::topics::Topic;
use kafka::{GroupView, Isolation, TableReader};
use runtime::Service;
use sqlx::PgPool;
use store::projection;

use crate::Settings;

const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

/// Empties what the projector writes, then [`start`](crate::start)s: everything is written again from the log, to the same
/// bytes. A projector that runs meanwhile does no harm.
///
/// # Errors
/// The log no longer holds all that the rows were made of; nothing is changed then.
pub async fn rebuild(
    settings: Settings,
    kafka: &kafka::Cluster,
    pool: PgPool,
    kafka_metrics: &kafka::Metrics,
    service: &Service,
) -> anyhow::Result<()> {
    let client = kafka.clone();
    let log = tokio::task::spawn_blocking(move || Log::look_at(&client)).await?.context("look at the status log")?;
    let mut transaction = pool.begin().await?;
    let partitions: Vec<i32> = (0..).take(log.ends.len()).collect();
    for (partition, stored) in projection::offsets(&mut transaction, &partitions).await? {
        let end = log.ends[usize::try_from(partition)?];
        ensure!(
            stored <= end,
            "status partition {partition} ends at {end}, but was written up to {stored}: it was made anew, and the \
             rows can't be rebuilt from it"
        );
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

struct Log {
    /// By partition.
    ends: Vec<i64>,
    /// No status before this is missing in any partition; none if all of them begin at 0.
    complete_from: Option<DateTime<Utc>>,
}

impl Log {
    fn look_at(client: &kafka::Cluster) -> anyhow::Result<Self> {
        let view = GroupView::new(client, &client.topics.group("projector"), Topic::StatusEvents)?;
        let topic = client.topics.name(Topic::StatusEvents);
        let mut log = Self { ends: vec![], complete_from: None };
        for (partition, at) in (0..).zip(view.partitions(KAFKA_TIMEOUT)?) {
            log.ends.push(at.end);
            if at.low > 0 {
                let reader = TableReader::from_offset(client, &topic, partition, at.low, Isolation::Uncommitted)?;
                let first = if at.low == at.end { None } else { reader.poll(KAFKA_TIMEOUT)? };
                let first = first.and_then(|record| DateTime::from_timestamp_millis(record.timestamp_ms));
                // An emptied partition, or one that doesn't answer, proves nothing before now.
                log.complete_from = log.complete_from.max(Some(first.unwrap_or_else(Utc::now)));
            }
        }
        Ok(log)
    }
}
