//! The projector: a member of the consumer group on status-events that keeps `messages`, `steps` and the counts.
//!
//! The consumer's thread queues records ([`inbox`]); the writer takes batches of them ([`writer`]), folds them into one row
//! a message ([`fold`]) and writes that in one Postgres transaction, which first moves the offsets by compare-and-set. So
//! each status counts exactly once, whatever dies and when, and the rows can be rebuilt from the log ([`rebuild()`]).

mod fold;
mod inbox;
mod member;
mod metrics;
mod rebuild;
mod settings;
mod writer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::bail;
use events::topics::Topic;
use kafka::{DeadLetters, GroupConsumer, GroupSettings};
use runtime::Service;
use sqlx::PgPool;
use tokio::runtime::Handle;

use inbox::Inbox;
use member::ProjectorMember;
use writer::Writer;

pub use rebuild::rebuild;
pub use settings::Settings;

/// How long the group waits for a silent projector; the rows are behind for as long.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts the projector's tasks. Returns once they are spawned; readiness says when it takes part.
///
/// Several projectors share the partitions. The pool needs two connections for each.
pub async fn start(
    settings: Settings,
    kafka: &kafka::Cluster,
    pool: PgPool,
    kafka_metrics: &kafka::Metrics,
    service: &Service,
) -> anyhow::Result<()> {
    let metrics = metrics::Metrics::register(&service.registry)?;
    let inbox = Arc::new(Inbox::new(settings.projector_batch as usize));
    let postgres = service.health.readiness("projector-postgres");

    let dead_letters = Arc::new(DeadLetters::new(kafka, kafka_metrics)?);
    let writer = Writer {
        inbox: Arc::clone(&inbox),
        pool: pool.clone(),
        dead_letters: Arc::clone(&dead_letters),
        topic: kafka.topics.name(Topic::StatusEvents),
        mailings: HashMap::new(),
        postgres: postgres.clone(),
        // A statement is cut off by the server after 60 s; a transaction has seven.
        beat: service.health.heartbeat("projector-writer", Duration::from_secs(480)),
        metrics,
        stop: service.stop.clone(),
    };
    service.tasks.spawn("projector-writer", writer.run());

    let longest_turn = settings.projector_max_poll_interval + Duration::from_secs(30);
    let member = Arc::new(ProjectorMember {
        inbox,
        pool,
        handle: Handle::current(),
        postgres,
        group: service.health.readiness("projector-group"),
        reading: service.health.readiness("status-events"),
        beat: service.health.heartbeat("projector-consumer", longest_turn),
        stop: service.stop.clone(),
        failure: Mutex::default(),
    });
    let group = GroupSettings {
        reader: "projector",
        topic: Topic::StatusEvents,
        session_timeout: SESSION_TIMEOUT,
        max_poll_interval: settings.projector_max_poll_interval,
        // 50 ms don't matter here, and the broker's cost is per answer.
        fetch_min_bytes: 65_536,
    };
    let (kafka, kafka_metrics) = (kafka.clone(), kafka_metrics.clone());
    service
        .tasks
        .spawn_blocking("projector-consumer", move || consume(&kafka, &group, &kafka_metrics, &member, &dead_letters));
    Ok(())
}

/// Takes part in the group, again each time that what Postgres holds must be looked at anew.
fn consume(
    kafka: &kafka::Cluster,
    group: &GroupSettings,
    metrics: &kafka::Metrics,
    member: &Arc<ProjectorMember>,
    dead_letters: &Arc<DeadLetters>,
) -> anyhow::Result<()> {
    while !member.stop.is_cancelled() {
        let membership = member.stop.child_token();
        member.inbox.joins(membership.clone());
        let consumer = GroupConsumer::new(
            kafka,
            group.clone(),
            metrics,
            membership,
            Arc::clone(member) as Arc<dyn kafka::Member>,
            Arc::clone(dead_letters),
            member.handle.clone(),
        )?;
        consumer.run(|| member.beat.beat())?;
        if let Some(reason) = member.failure.lock().expect("not poisoned").take() {
            bail!(reason);
        }
    }
    Ok(())
}
