//! Who is asked what. Everything answers none when it can't be asked now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::Deserialize;
use sqlx::{Connection, Executor, PgConnection};
use uuid::Uuid;

use crate::collect::partitions;
use crate::sample::{Answer, Committed, Process, Snapshot};

const TIMEOUT: Duration = Duration::from_secs(1);
/// A stopped process must not hold up the look at the others.
const HTTP_TIMEOUT: Duration = Duration::from_millis(500);

/// Of the live mailings and those that have just ended.
const SNAPSHOT: &str = "
    WITH live AS (
        SELECT mailing_no FROM mailings
        WHERE state IN ('running', 'paused', 'cancelled') OR finished_at > now() - interval '5 seconds'
    ),
    counts AS (SELECT mailing_no, status, sum(n)::bigint AS n FROM mailing_counts GROUP BY 1, 2),
    rows AS (SELECT mailing_no, status, count(*) AS n FROM live JOIN messages USING (mailing_no) GROUP BY 1, 2)
    SELECT mailing_no, status, COALESCE(counts.n, 0), COALESCE(rows.n, 0)
    FROM counts FULL JOIN rows USING (mailing_no, status)
    WHERE mailing_no IN (SELECT mailing_no FROM live)";

/// The senders' group, seen by a consumer that never joins it.
pub(super) struct Group {
    consumer: Arc<BaseConsumer>,
    partitions: TopicPartitionList,
}

impl Group {
    /// Fails if Kafka can't be reached, for then it isn't known what to ask.
    pub(super) fn watch(brokers: &str, prefix: &str) -> anyhow::Result<Self> {
        let topic = format!("{prefix}.message-events.v1");
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", format!("{prefix}.sender"))
            .set("enable.auto.commit", "false")
            .create()?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions(brokers, &topic)? {
            list.add_partition(&topic, i32::try_from(partition)?);
        }
        Ok(Self { consumer: Arc::new(consumer), partitions: list })
    }

    /// When it was read, and what.
    pub(super) async fn committed(&self) -> (i64, Option<Vec<Committed>>) {
        let (consumer, list) = (Arc::clone(&self.consumer), self.partitions.clone());
        let read = tokio::task::spawn_blocking(move || consumer.committed_offsets(list, TIMEOUT)).await;
        let list = read.ok().and_then(Result::ok);
        let committed = list.and_then(|list| {
            let each = list.elements().into_iter().map(|element| {
                element.error().ok()?;
                let offset = match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                };
                Some(Committed { partition: element.partition(), offset, metadata: element.metadata().to_owned() })
            });
            each.collect()
        });
        (Utc::now().timestamp_micros(), committed)
    }
}

/// Herald's database; connected anew when it was away.
pub(super) struct Database {
    url: String,
    connection: Option<PgConnection>,
}

impl Database {
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), connection: None }
    }

    pub(super) async fn snapshot(&mut self) -> Option<Vec<Snapshot>> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => tokio::time::timeout(TIMEOUT, PgConnection::connect(&self.url)).await.ok()?.ok()?,
        };
        // A count of many rows takes its time; a server that was stopped gives no sign.
        let snapshot = tokio::time::timeout(3 * TIMEOUT, read(&mut connection)).await.ok()?.ok()?;
        self.connection = Some(connection);
        Some(snapshot)
    }
}

async fn read(db: &mut PgConnection) -> sqlx::Result<Vec<Snapshot>> {
    // One statement is one snapshot; the isolation says so to whoever adds a second.
    db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let rows: Vec<(i64, String, i64, i64)> = sqlx::query_as(SNAPSHOT).fetch_all(&mut *db).await?;
    db.execute("COMMIT").await?;
    let mut snapshots: BTreeMap<i64, Snapshot> = BTreeMap::new();
    for (mailing_no, status, counted, rows) in rows {
        let empty = || Snapshot { mailing_no, counts: BTreeMap::new(), rows: BTreeMap::new() };
        let snapshot = snapshots.entry(mailing_no).or_insert_with(empty);
        if counted != 0 {
            snapshot.counts.insert(status.clone(), counted);
        }
        if rows != 0 {
            snapshot.rows.insert(status, rows);
        }
    }
    Ok(snapshots.into_values().collect())
}

/// The API and the processes' ops ports.
pub(super) struct Http(reqwest::Client);

#[derive(Deserialize)]
struct Mailings {
    items: Vec<MailingAnswer>,
}

#[derive(Deserialize)]
struct MailingAnswer {
    id: Uuid,
    counts: BTreeMap<String, Option<i64>>,
}

impl Http {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self(reqwest::Client::builder().no_proxy().timeout(HTTP_TIMEOUT).build()?))
    }

    async fn get(&self, url: &str) -> Option<String> {
        let answer = self.0.get(url).send().await.ok()?;
        if answer.status().is_success() { answer.text().await.ok() } else { None }
    }

    pub(super) async fn answers(&self, api: Option<&String>) -> Option<Vec<Answer>> {
        let body = self.get(&format!("{}/api/v1/mailings", api?)).await?;
        let mailings: Mailings = serde_json::from_str(&body).ok()?;
        Some(mailings.items.into_iter().map(|item| Answer { mailing: item.id, counts: item.counts }).collect())
    }

    pub(super) async fn processes(&self, ops: &[String], with_metrics: bool) -> Vec<Process> {
        let mut asked = tokio::task::JoinSet::new();
        for ops in ops.iter().cloned() {
            let http = Self(self.0.clone());
            asked.spawn(async move {
                let metrics = http.get(&format!("http://{ops}/metrics")).await?;
                Some(Process {
                    ops,
                    open_slots: gauge(&metrics, "herald_sender_open_slots"),
                    unacknowledged: gauge(&metrics, "herald_sender_unacknowledged_statuses"),
                    memory: gauge(&metrics, "process_resident_memory_bytes"),
                    metrics: with_metrics.then_some(metrics),
                })
            });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }
}

fn gauge(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}
