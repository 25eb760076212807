//! Postgres, the API and the processes' own figures. Everything answers none when it can't be asked now.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::sample::{Answer, Process, Snapshot};

const TIMEOUT: Duration = Duration::from_secs(1);
/// A stopped process must not hold up the look at the others.
const HTTP_TIMEOUT: Duration = Duration::from_millis(500);

/// The live mailings and those that have just ended. One statement is one snapshot.
const SNAPSHOT: &str = "
    WITH live AS (
        SELECT mailing_no FROM mailings
        WHERE state IN ('running', 'paused', 'cancelled') OR finished_at > now() - interval '5 seconds'
    )
    SELECT mailing_no, 'counts', status, sum(n)::bigint FROM live JOIN mailing_counts USING (mailing_no) GROUP BY 1, 3
    UNION ALL
    SELECT mailing_no, 'rows', status, count(*) FROM live JOIN messages USING (mailing_no) GROUP BY 1, 3
    UNION ALL
    SELECT mailing_no, 'held_counts', reason, sum(n)::bigint FROM live JOIN held_counts USING (mailing_no) GROUP BY 1, 3
    UNION ALL
    SELECT mailing_no, 'held', reason, count(*) FROM live JOIN held USING (mailing_no) GROUP BY 1, 3";

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
    let rows: Vec<(i64, String, String, i64)> = sqlx::query_as(SNAPSHOT).fetch_all(db).await?;
    let mut snapshots: BTreeMap<i64, Snapshot> = BTreeMap::new();
    // A counter that went back to 0 stays.
    for (mailing_no, table, word, n) in rows.into_iter().filter(|(_, _, _, n)| *n != 0) {
        let snapshot = snapshots.entry(mailing_no).or_insert_with(|| Snapshot { mailing_no, ..Snapshot::default() });
        let counted = match table.as_str() {
            "counts" => &mut snapshot.counts,
            "rows" => &mut snapshot.rows,
            "held_counts" => &mut snapshot.held_counts,
            _ => &mut snapshot.held,
        };
        counted.insert(word, n);
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
