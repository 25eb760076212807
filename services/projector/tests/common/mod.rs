//! A projector on real Kafka and Postgres.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use chrono::{DateTime, TimeDelta};
use clap::Parser;
use domain::ids::{ClientNo, MailingNo, MessageId};
use domain::status::{Reason, Status};
use events::topics::Topic;
use events::{DeadLetter, Kind, Source, StatusEvent};
use kafka::{Cluster, Outgoing};
use projector::Settings;
use sqlx::AssertSqlSafe;
use support::{Installation, Running};
use uuid::Uuid;

pub const PARTITIONS: u32 = 2;

pub async fn installation() -> Installation {
    let installation = Installation::create("projector", PARTITIONS).await;
    installation.record_database().await;
    installation
}

pub fn client(name: &str, properties: &[(&str, &str)]) -> Cluster {
    support::client(name, PARTITIONS, properties)
}

pub fn settings(batch: u32) -> Settings {
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }
    Cli::parse_from(["projector".to_owned(), format!("--projector-batch={batch}")]).settings
}

pub async fn start(installation: &Installation, batch: u32) -> Running {
    start_with(installation, &installation.kafka, batch).await
}

/// Starts a projector that reaches Kafka by another client.
pub async fn start_with(installation: &Installation, client: &Cluster, batch: u32) -> Running {
    let pool = support::database_pool(&installation.name);
    let running = Running::start(async |service| {
        let metrics = kafka::Metrics::register(&service.registry)?;
        projector::start(settings(batch), client, pool, &metrics, service).await
    });
    running.await.unwrap()
}

pub async fn rebuild(installation: &Installation, batch: u32) -> anyhow::Result<Running> {
    rebuild_from(installation, &installation.kafka, batch).await
}

/// Rebuilds from the log of another client.
pub async fn rebuild_from(installation: &Installation, client: &Cluster, batch: u32) -> anyhow::Result<Running> {
    let pool = support::database_pool(&installation.name);
    Running::start(async |service| {
        let metrics = kafka::Metrics::register(&service.registry)?;
        projector::rebuild(settings(batch), client, pool, &metrics, service).await
    })
    .await
}

/// Writes a record as it is and returns its offset.
pub async fn tell_raw(installation: &Installation, partition: i32, payload: &[u8]) -> i64 {
    let topic = installation.topic(Topic::StatusEvents);
    let record = Outgoing { topic: &topic, partition, key: "foreign".to_owned(), payload: payload.to_vec() };
    installation.producer.send(&record).await.unwrap()
}

/// All that the projector writes, to the byte.
pub async fn dump(installation: &Installation) -> Vec<String> {
    let mut dump = Vec::new();
    for table in
        ["messages", "steps", "held", "mailing_counts", "held_counts", "mailing_settled_rounds", "projector_offsets"]
    {
        let rows = format!("SELECT '{table} ' || row::text FROM {table} AS row ORDER BY row");
        dump.extend(sqlx::query_scalar::<_, String>(AssertSqlSafe(rows)).fetch_all(&installation.pool).await.unwrap());
    }
    dump
}

pub async fn dead_letters(installation: &Installation) -> Vec<DeadLetter> {
    let mut letters: Vec<DeadLetter> = installation.events(Topic::DeadLetters).await;
    letters.sort_by_key(|letter| (letter.partition, letter.offset));
    letters
}

pub fn outgoing<'a>(topic: &'a str, status: &StatusEvent) -> Outgoing<'a> {
    support::outgoing(topic, PARTITIONS, status)
}

/// A status of round 1.
pub fn status(mailing_no: i64, mailing_id: Uuid, client_no: i64, status: Status, attempt: i32) -> StatusEvent {
    let planned_at = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
    StatusEvent {
        message_id: MessageId::new(MailingNo::from(mailing_no), ClientNo::from(client_no)).unwrap(),
        mailing_id,
        client_id: Uuid::from_u128(client_no.cast_unsigned().into()),
        round: 1,
        attempt,
        kind: if status.is_settled() { Kind::Settled } else { Kind::Open },
        reason: match status {
            Status::Retrying => Some(Reason::ProviderError),
            Status::Failed => Some(Reason::Exhausted),
            _ => None,
        },
        code: Some(if status == Status::Succeeded { 200 } else { 500 }),
        latency_ms: Some(attempt),
        announced: 0,
        operator_code: None,
        not_before: None,
        detail: (status == Status::Retrying).then(|| "HTTP 500".to_owned()),
        planned_at,
        occurred_at: planned_at + TimeDelta::milliseconds(client_no * 10 + i64::from(attempt)),
        source: Source { partition: ClientNo::from(client_no).partition(PARTITIONS), offset: client_no },
        status,
    }
}

/// What a sender says of clients `1..=n`: of every ten one fails after four attempts, two succeed after a retry and seven at
/// once. Every seventh status is doubled, as after a takeover.
pub fn life(mailing_no: i64, mailing_id: Uuid, clients: std::ops::RangeInclusive<i64>) -> Vec<StatusEvent> {
    let told = |client_no, of, attempt| status(mailing_no, mailing_id, client_no, of, attempt);
    let mut by_attempt: [Vec<StatusEvent>; 4] = Default::default();
    for client_no in clients {
        let attempts = match client_no % 10 {
            0 => 4,
            1 | 2 => 2,
            _ => 1,
        };
        for attempt in 1..attempts {
            by_attempt[attempt as usize - 1].push(told(client_no, Status::Retrying, attempt));
        }
        let last = if attempts == 4 { Status::Failed } else { Status::Succeeded };
        by_attempt[attempts as usize - 1].push(told(client_no, last, attempts));
    }
    let statuses = by_attempt.concat();
    statuses.iter().enumerate().flat_map(|(at, status)| vec![status.clone(); if at % 7 == 6 { 2 } else { 1 }]).collect()
}
