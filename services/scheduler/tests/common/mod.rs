//! A scheduler on real Kafka and Postgres, with a projector beside it; a test acts as the senders.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use domain::ids::MailingNo;
use domain::status::{Reason, Status};
use events::StatusEvent;
use support::{Installation, Running, Senders, Taken, until};
use uuid::Uuid;

/// One shard, in which mailings meet.
pub const PARTITIONS: u32 = 1;

pub struct Mailing {
    pub no: i64,
    pub id: Uuid,
}

pub async fn installation() -> Installation {
    let installation = Installation::create("scheduler", PARTITIONS).await;
    installation.record_database().await;
    installation
}

pub async fn start(installation: &Installation) -> Running {
    let pool = support::database_pool(&installation.name);
    let running = Running::start(async |service| {
        let metrics = kafka::Metrics::register(&service.registry)?;
        scheduler::start(&installation.kafka, pool, &metrics, service).await
    });
    running.await.unwrap()
}

pub async fn start_projector(installation: &Installation) -> Running {
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        settings: projector::Settings,
    }
    let settings = Cli::parse_from(["projector"]).settings;
    let pool = support::database_pool(&installation.name);
    let running = Running::start(async |service| {
        let metrics = kafka::Metrics::register(&service.registry)?;
        projector::start(settings, &installation.kafka, pool, &metrics, service).await
    });
    running.await.unwrap()
}

/// Adds so many clients with a tag, over the operator codes 900, 901, … 904 in turn.
pub async fn add_clients(installation: &Installation, tag: &str, clients: i64) {
    sqlx::query(
        "INSERT INTO clients (id, phone_number, mobile_operator_code, tag, time_zone, created_at, updated_at)
         SELECT gen_random_uuid(), 79000000000 + n % 5 * 10000000 + n, 900 + n % 5, $1, 'UTC', now(), now()
         FROM generate_series(1, $2) AS n",
    )
    .bind(tag)
    .bind(clients)
    .execute(&installation.pool)
    .await
    .unwrap();
}

/// Adds a mailing for a tag that is due and ends in so long.
pub async fn add_mailing(installation: &Installation, tag: &str, ends_in: TimeDelta) -> Mailing {
    add_later_mailing(installation, tag, TimeDelta::seconds(-1), ends_in).await
}

pub async fn add_later_mailing(
    installation: &Installation,
    tag: &str,
    starts_in: TimeDelta,
    ends_in: TimeDelta,
) -> Mailing {
    let (id, now) = (Uuid::now_v7(), Utc::now());
    let no: i64 = sqlx::query_scalar(
        "INSERT INTO mailings (id, shard, version, text, operator_codes, tags, starts_at, ends_at, state, delivery,
                               created_at, updated_at)
         VALUES ($1, -1, 1, 'hello', '{}', ARRAY[$2], $3, $4, 'scheduled', 'at_least_once', $3, $3)
         RETURNING mailing_no",
    )
    .bind(id)
    .bind(tag)
    .bind(now + starts_in)
    .bind(now + ends_in)
    .fetch_one(&installation.pool)
    .await
    .unwrap();
    // Its shard comes last: until then no scheduler sees it.
    sqlx::query("UPDATE mailings SET shard = $2 WHERE mailing_no = $1")
        .bind(no)
        .bind(MailingNo::from(no).shard(installation.kafka.topics.shards()).get())
        .execute(&installation.pool)
        .await
        .unwrap();
    Mailing { no, id }
}

pub async fn state(installation: &Installation, mailing: &Mailing) -> String {
    sqlx::query_scalar("SELECT state FROM mailings WHERE mailing_no = $1")
        .bind(mailing.no)
        .fetch_one(&installation.pool)
        .await
        .unwrap()
}

pub async fn is_finished(installation: &Installation, mailing: &Mailing) -> bool {
    state(installation, mailing).await == "finished"
}

pub async fn waiting_for(installation: &Installation, mailing: &Mailing) -> Option<String> {
    sqlx::query_scalar("SELECT waiting_for FROM mailing_progress WHERE mailing_no = $1")
        .bind(mailing.no)
        .fetch_optional(&installation.pool)
        .await
        .unwrap()
        .flatten()
}

pub fn succeeded(taken: &Taken) -> StatusEvent {
    taken.settled(Status::Succeeded, None)
}

/// The message waits for a pass.
pub fn held(taken: &Taken, not_before: DateTime<Utc>) -> StatusEvent {
    let settled = taken.settled(Status::Held, Some(Reason::Outage));
    StatusEvent { not_before: Some(not_before), attempt: taken.event.attempts + 1, ..settled }
}

/// Rounds of each client, in the order in which they were planned.
#[derive(Default)]
pub struct Rounds(pub BTreeMap<i64, Vec<i32>>);

impl Rounds {
    pub fn add(&mut self, taken: &[Taken]) {
        for taken in taken {
            self.0.entry(taken.event.message_id.client_no().get()).or_default().push(taken.event.round);
        }
    }

    /// How many messages were planned in this round.
    pub fn planned(&self, round: i32) -> usize {
        self.0.values().filter(|rounds| rounds.contains(&round)).count()
    }

    /// Fails unless each of the first `clients` was planned in exactly these rounds.
    #[track_caller]
    pub fn assert_each(&self, clients: i64, rounds: &[i32]) {
        assert_eq!(self.0.keys().copied().collect::<Vec<_>>(), (1..=clients).collect::<Vec<_>>());
        let other: Vec<_> = self.0.iter().filter(|(_, planned)| *planned != rounds).take(3).collect();
        assert!(other.is_empty(), "{other:?}");
    }
}

/// Plans a mailing of so many clients and holds all of it for an hour.
pub async fn hold_all(installation: &Installation, senders: &mut Senders<'_>, clients: i64) -> Rounds {
    let mut rounds = Rounds::default();
    until("all is planned", async || {
        let not_before = Utc::now() + TimeDelta::hours(1);
        rounds.add(&senders.work(|taken| held(taken, not_before)).await);
        rounds.0.len() as i64 == clients
    })
    .await;
    until("all is held", async || held_rows(installation).await == clients).await;
    rounds
}

/// The hour is over.
pub async fn release(installation: &Installation) {
    sqlx::query("UPDATE held SET not_before = now()").execute(&installation.pool).await.unwrap();
}

/// No call begins any more.
pub async fn end(installation: &Installation, mailing: &Mailing) {
    sqlx::query("UPDATE mailings SET ends_at = now() WHERE mailing_no = $1")
        .bind(mailing.no)
        .execute(&installation.pool)
        .await
        .unwrap();
}

pub async fn held_rows(installation: &Installation) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM held").fetch_one(&installation.pool).await.unwrap()
}

/// Rows by status and reason.
pub async fn reasons(installation: &Installation) -> Vec<(String, Option<String>, i64)> {
    sqlx::query_as("SELECT status, reason, count(*) FROM messages GROUP BY 1, 2 ORDER BY 1, 2")
        .fetch_all(&installation.pool)
        .await
        .unwrap()
}
