//! From the outbox to mailing-events, in the outbox's order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use domain::ids::MailingNo;
use domain::mark::{DatabaseMark, Mismatch, check};
use events::topics::Topic;
use events::{DatabaseRecord, MailingEvent, decode};
use kafka::{Isolation, Outgoing, TableReader, TransactionalProducer};
use runtime::config::Secret;
use runtime::health::{Health, Heartbeat, Readiness};
use sqlx::postgres::{PgConnectOptions, PgListener};
use sqlx::{Connection, PgConnection};
use store::mark;
use store::outbox::{self, OutboxRow};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::within;

/// A notification may be lost with its connection, so the outbox is looked at anyhow.
const POLL: Duration = Duration::from_millis(250);
const BATCH: i64 = 500;
/// How often it asks for topics that aren't there, or a Kafka that doesn't answer.
const TOPICS_POLL: Duration = Duration::from_secs(1);
const INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Fencing and publishing take at most 20 s each when nothing hangs, and each turn of the loop is one of them.
const BEAT_LIMIT: Duration = Duration::from_secs(60);
/// How often it asks whether `herald recover` has run.
const DOUBT_POLL: Duration = Duration::from_millis(500);
/// For reading mailing-events whole, before the first record is written.
const READ_DEADLINE: Duration = Duration::from_secs(40);
/// The key of its records of the database.
const WRITER: &str = "relay";

/// Publishes the outbox. Of several only the one that holds the advisory lock does.
pub(crate) struct Relay {
    kafka: kafka::Cluster,
    database_url: Secret,
    topic: String,
    known: watch::Receiver<Option<DatabaseMark>>,
    heartbeat: Heartbeat,
    readiness: Readiness,
}

impl Relay {
    pub(crate) fn new(
        kafka: kafka::Cluster,
        database_url: Secret,
        known: watch::Receiver<Option<DatabaseMark>>,
        health: &Health,
    ) -> Self {
        let topic = kafka.topics.name(Topic::MailingEvents);
        let heartbeat = health.heartbeat("relay", BEAT_LIMIT);
        Self { kafka, database_url, topic, known, heartbeat, readiness: health.readiness("relay") }
    }

    /// Runs until told to stop. What fails is begun anew: lock, producer, and what the outbox holds. It is ready while it or
    /// another one publishes: an outbox that only grows must not look well.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        stop.run_until_cancelled(self.wait_for_topics()).await;
        while !stop.is_cancelled() {
            self.heartbeat.beat();
            match stop.run_until_cancelled(self.lead(&stop)).await {
                None => break,
                Some(Ok(())) => {}
                Some(Err(error)) => self.readiness.not_ready(format!("{error:#}")),
            }
            let _ = stop.run_until_cancelled(tokio::time::sleep(POLL)).await;
        }
        Ok(())
    }

    /// The api takes mailings without Kafka, so it may have started without a look at the topics. An event in the wrong
    /// partition would be in another shard's order: nothing is published before their counts are known to be right.
    async fn wait_for_topics(&self) {
        loop {
            self.heartbeat.beat();
            match kafka::check_topics(&self.kafka).await {
                Ok(()) => return,
                Err(error) => self.readiness.not_ready(format!("check the topics: {error}")),
            }
            tokio::time::sleep(TOPICS_POLL).await;
        }
    }

    /// Takes the lock, fences whoever had it, and publishes for as long as nothing fails. The connection is a direct one
    /// and holds the lock: when it is lost, so is the lock, and the next read fails.
    async fn lead(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut db = within(PgConnection::connect_with(&self.options()?)).await.context("connect to Postgres")?;
        // Before the lock, which `herald recover` takes.
        self.wait_for_recovery(&mut db).await?;
        while !within(outbox::try_lead(&mut db)).await? {
            self.heartbeat.beat();
            // Another one leads.
            self.readiness.ready();
            tokio::time::sleep(POLL).await;
        }
        let mut listener =
            within(PgListener::connect(self.database_url.expose())).await.context("listen to Postgres")?;
        within(listener.listen(outbox::CHANNEL)).await?;

        // Before the outbox is read: an older relay that lost the lock can append nothing from here on.
        let producer = Arc::new(self.fence(stop).await?);
        let recorded = self.recorded(&producer, &mut db).await?;
        tracing::info!("this relay leads");
        loop {
            self.heartbeat.beat();
            let rows = within(outbox::oldest(&mut db, BATCH)).await?;
            if rows.is_empty() {
                producer.check()?;
                self.readiness.ready();
                if let Ok(notified) = tokio::time::timeout(POLL, listener.try_recv()).await {
                    notified.context("listen to Postgres")?;
                }
                continue;
            }
            runtime::crash_point!("relay::read");
            let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
            // Behind the rows, and on disk before they are published: a state without them has a lower mark.
            let mark = within(mark::next(&mut db)).await?;
            check(Some(&recorded), &mark)?;
            self.publish(&producer, rows, mark).await?;
            runtime::crash_point!("relay::published");
            within(outbox::delete(&mut db, &ids)).await?;
            self.readiness.ready();
        }
    }

    /// Returns at once if nothing is known, for then it may be this relay's to write the first record. What holds for a
    /// connection holds until it ends.
    async fn wait_for_recovery(&self, db: &mut PgConnection) -> anyhow::Result<()> {
        let mut told = None;
        loop {
            self.heartbeat.beat();
            let found = within(mark::read(db)).await?;
            let mismatch = match check(self.known.borrow().as_ref(), &found) {
                Ok(()) | Err(Mismatch::Unknown) => return Ok(()),
                Err(mismatch) => mismatch,
            };
            if told.replace(mismatch) != Some(mismatch) {
                tracing::error!(%mismatch, "nothing is published");
                self.readiness.not_ready(mismatch.to_string());
            }
            tokio::time::sleep(DOUBT_POLL).await;
        }
    }

    /// What is recorded of this database, which nobody can change unseen by now. The first record is written if there is
    /// none and all numbers in mailing-events are this database's.
    async fn recorded(
        &self,
        producer: &Arc<TransactionalProducer>,
        db: &mut PgConnection,
    ) -> anyhow::Result<DatabaseMark> {
        let kafka = self.kafka.clone();
        let recorded = tokio::task::spawn_blocking(move || kafka::recorded_mark(&kafka)).await?;
        if let Some(recorded) = recorded.context("read the topic database")? {
            check(Some(&recorded), &within(mark::read(db)).await?)?;
            return Ok(recorded);
        }
        let kafka = self.kafka.clone();
        let highest = tokio::task::spawn_blocking(move || highest_published(&kafka)).await?;
        let highest = highest.context("read mailing-events")?;
        let first = within(mark::next(db)).await?;
        if first.mailing_no < highest {
            return Err(Mismatch::Older.into());
        }
        self.publish(producer, vec![], first.clone()).await?;
        tracing::info!("the database is recorded");
        Ok(first)
    }

    /// The lock must be free soon after this machine has gone: the server asks every few seconds whether it is there.
    fn options(&self) -> sqlx::Result<PgConnectOptions> {
        Ok(self.database_url.expose().parse::<PgConnectOptions>()?.application_name("herald-relay").options([
            ("tcp_keepalives_idle", "5"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
            // Of a process that was stopped the machine goes on answering. It asks every 250 ms, but for a transaction.
            ("idle_session_timeout", "30s"),
        ]))
    }

    async fn fence(&self, stop: &CancellationToken) -> anyhow::Result<TransactionalProducer> {
        let (kafka, stop) = (self.kafka.clone(), stop.clone());
        tokio::task::spawn_blocking(move || {
            let producer = TransactionalProducer::relay(&kafka)?.stopped_by(&stop);
            producer.init(INIT_TIMEOUT)?;
            kafka::Result::Ok(producer)
        })
        .await?
        .context("fence older relays")
    }

    async fn publish(
        &self,
        producer: &Arc<TransactionalProducer>,
        rows: Vec<OutboxRow>,
        mark: DatabaseMark,
    ) -> anyhow::Result<()> {
        let (producer, topic) = (Arc::clone(producer), self.topic.clone());
        let database = self.kafka.topics.name(Topic::Database);
        let record = DatabaseRecord::of(mark, Utc::now());
        tokio::task::spawn_blocking(move || {
            let record = kafka::database_record(&database, WRITER, &record)?;
            let events = rows.into_iter().map(|row| Outgoing {
                topic: &topic,
                partition: row.shard.get(),
                key: row.key,
                payload: row.payload.into_bytes(),
            });
            producer.publish(events.chain([record]))?;
            anyhow::Ok(())
        })
        .await?
        .context("publish the outbox")
    }
}

/// The highest mailing number in mailing-events. Blocks.
fn highest_published(kafka: &kafka::Cluster) -> kafka::Result<MailingNo> {
    let partitions: Vec<i32> = (0..kafka.topics.shards().cast_signed()).collect();
    let topic = kafka.topics.name(Topic::MailingEvents);
    let mut highest = MailingNo::default();
    TableReader::from_start(kafka, &topic, &partitions, Isolation::Committed)?.read_to_end(
        READ_DEADLINE,
        |record| {
            let event = decode::<MailingEvent>(record.payload.as_deref());
            highest = event.map_or(highest, |event| highest.max(event.mailing_no));
        },
    )?;
    Ok(highest)
}
