//! The scheduler turns due mailings into message events. It is a member of the consumer group on mailing-events.
//!
//! # Dramatis Personae
//!
//! - A **shard** is a partition of mailing-events and all mailings in it. This process alone plans the mailings of a shard
//!   that it owns.
//! - [`SchedulerMember`](member) takes shards over and gives them up as the group says, on the consumer's thread. An event
//!   only wakes its shard: the row is the truth.
//! - [`Shard`](shard) is a thread. It fences older owners, reads the progress, and sweeps over its mailings until it is told
//!   to stop.
//! - [`ShardHandle`](handle) is what those two threads share.
//! - [`ShardProducer`](producer) holds the shard's transactional producer. Its id is the fence.
//! - [`Planner`](planning) takes the steps that `domain::planning` decides, one mailing after the other.
//! - [`Page`](page) holds the next clients of an audience, [`PassPage`](pass) the held messages that are due, either encoded
//!   as [`Records`](records) beside the progress that they make; [`progress`] reads that progress back.
//! - [`Sampler`](conveyor) says how large a page may be, from what the senders have committed.
//! - [`Drain`](drain) proves that nothing of a mailing is under way any more. What isn't settled then is lost, and
//!   [`replan()`], an operator's verb, plans it again.
//! - [`SchedulerContext`](context) is what all shards share: the pool, the conveyor, the metrics.

mod context;
mod conveyor;
mod drain;
mod handle;
mod member;
mod metrics;
mod pace;
mod page;
mod pass;
mod planning;
mod producer;
mod progress;
mod records;
mod recovery;
mod shard;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use events::topics::Topic;
use kafka::{GroupConsumer, GroupSettings};
use runtime::Service;
use sqlx::PgPool;
use tokio::sync::watch;

pub use recovery::{Recovered, Replanned, recover, replan};

/// A dead planner stalls every reader of message-events until its successor begins, so its shards move soon.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// A shard is given up when its page is committed: one transaction, at most 10 s, twice over.
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
    let context = Arc::new(context::SchedulerContext {
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
    let member = Arc::new(member::SchedulerMember::new(context, ready, reading)?);
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
