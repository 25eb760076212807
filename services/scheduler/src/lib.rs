//! The scheduler: a member of the consumer group on mailing-events that turns due mailings into message events.
//!
//! Owning a partition is owning a shard: the mailings in it are planned by this process and no other ([`shard`]), page by
//! page, each page with its progress in one Kafka transaction ([`page`]). How much may be planned is the conveyor's to
//! say ([`conveyor`]), what is done next `domain::planning`'s. What Kafka has lost is noticed when nothing is under way any more
//! ([`drain`]) and planned again by an operator's verb ([`replan()`]).

mod conveyor;
mod drain;
mod member;
mod metrics;
mod page;
mod planning;
mod progress;
mod replan;
mod shard;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use events::topics::Topic;
use kafka::{GroupConsumer, GroupSettings};
use runtime::Service;
use sqlx::PgPool;
use tokio::sync::watch;

pub use replan::{Replanned, replan};

/// A dead planner stalls every reader of message-events until its successor begins, so its shards move soon.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// Giving a shard up waits for its page: one transaction, at most 10 s, twice over.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(60);

/// Opening the topic and reading it to its end take 30 s at most.
const MARKS_BEAT_LIMIT: Duration = Duration::from_secs(60);

/// Starts the scheduler's tasks. Returns once they are spawned; readiness says when it takes part.
pub async fn start(
    kafka: &kafka::Cluster,
    pool: PgPool,
    kafka_metrics: &kafka::Metrics,
    service: &Service,
) -> anyhow::Result<()> {
    let metrics = metrics::Metrics::register(&service.registry)?;
    let dead_letters = Arc::new(kafka::DeadLetters::new(kafka, kafka_metrics)?);
    let (marks, known) = watch::channel(None);
    let (client, stop) = (kafka.clone(), service.stop.clone());
    let beat = service.health.heartbeat("planning-database-marks", MARKS_BEAT_LIMIT);
    service.tasks.spawn_blocking("planning-database-marks", move || {
        kafka::follow_marks(&client, &marks, &stop, || beat.beat()).context("read the topic database")
    });
    let desk = Arc::new(shard::Desk {
        kafka: kafka.clone(),
        pool,
        conveyor: conveyor::Sampler::new(kafka, metrics.clone(), service.health.readiness("conveyor"))?,
        dead_letters: Arc::clone(&dead_letters),
        metrics,
        health: service.health.clone(),
        planning: service.health.readiness("planning"),
        runtime: tokio::runtime::Handle::current(),
        known,
    });
    let (ready, reading) = (service.health.readiness("scheduler-group"), service.health.readiness("mailing-events"));
    let member = Arc::new(member::SchedulerMember::new(desk, ready, reading)?);
    let group = GroupSettings {
        reader: "scheduler",
        topic: Topic::MailingEvents,
        session_timeout: SESSION_TIMEOUT,
        max_poll_interval: MAX_POLL_INTERVAL,
        fetch_min_bytes: 1,
    };
    let (stop, runtime) = (service.stop.clone(), tokio::runtime::Handle::current());
    let consumer = GroupConsumer::new(kafka, group, kafka_metrics, stop, member, dead_letters, runtime)
        .context("create the scheduler's consumer")?;
    let beat = service.health.heartbeat("scheduler-consumer", MAX_POLL_INTERVAL * 2);
    service.tasks.spawn_blocking("scheduler-consumer", move || Ok(consumer.run(|| beat.beat())?));
    Ok(())
}
