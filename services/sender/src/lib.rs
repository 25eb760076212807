//! The sender: a member of the consumer group on message-events that calls the provider for each message until it is
//! settled, and says so in status-events.
//!
//! A record becomes an open slot ([`partition`]), a slot is a task that lives the life of one message ([`message`]):
//! board and lease are checked, the provider is called, the status is acknowledged, the slot is closed. What is committed
//! is the frontier of the closed slots. A new owner reads the statuses behind the old one's bookmark first ([`replay`]).

mod board;
mod clock;
mod context;
mod fence;
mod guard;
mod jitter;
mod lanes;
mod leaving;
mod member;
mod message;
mod metrics;
mod others;
mod partition;
mod provider;
mod recovered;
mod replay;
mod settings;
mod statuses;
mod takeover;
mod telling;
mod texts;
mod timing;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use events::topics::Topic;
use kafka::{GroupConsumer, GroupSettings};
use runtime::Service;

pub use settings::Settings;

/// Starts the sender's tasks. Returns once they are spawned; readiness says when it takes part.
pub async fn start(
    settings: Settings,
    kafka: &kafka::Cluster,
    kafka_metrics: &kafka::Metrics,
    service: &Service,
) -> anyhow::Result<()> {
    let metrics = metrics::Metrics::register(&service.registry)?.with_zeros();
    let fence = Arc::new(fence::Fence::default());
    let board = Arc::new(board::Board::new(metrics.missing_mailing.clone()));

    let reader = board::Reader::new(kafka.clone(), Arc::clone(&board), Arc::clone(&fence));
    let beat = service.health.heartbeat("board", board::Reader::BEAT_LIMIT);
    let (board_ready, stop) = (service.health.readiness("board"), service.stop.clone());
    service.tasks.spawn_blocking("board", move || reader.run(&stop, &board_ready, &beat));

    let provider = provider::Provider::new(&settings, service.health.readiness("provider"))?;
    let lanes = lanes::Lanes::new(settings.sender_concurrency);
    let context = Arc::new(context::SenderContext {
        board,
        fence,
        lanes: Arc::clone(&lanes),
        provider,
        statuses: statuses::Statuses::new(kafka, metrics.unacknowledged.clone())?,
        retry_delays: settings.retry_delays.0.clone(),
        metrics,
        panicked: Arc::default(),
    });
    let lanes_ready = service.health.readiness("lanes");
    watch::start(&context, lanes_ready.clone(), service);
    let partitions = Arc::new(takeover::Partitions::new(service.health.readiness("sender-group")));
    let view = kafka::GroupView::new(kafka, &kafka.topics.group("sender"), Topic::MessageEvents)?;
    let (view, partitions_of) = (Arc::new(view), Arc::clone(&partitions));
    let others = others::Others { view, lanes, partitions: partitions_of, ready: lanes_ready };
    service.tasks.spawn("sender-others", others.run(service.stop.clone()));
    let leaving = Arc::new(leaving::Leaving::default());
    let member = Arc::new(member::SenderMember::new(
        kafka.clone(),
        context,
        Arc::clone(&leaving),
        settings.revoke_deadline(),
        partitions,
        service.health.readiness("message-events"),
    ));
    let group = GroupSettings {
        reader: "sender",
        topic: Topic::MessageEvents,
        session_timeout: timing::SESSION_TIMEOUT,
        max_poll_interval: settings.max_poll_interval,
        // A message's first call waits for the fetch, so the broker answers with what it has.
        fetch_min_bytes: 1,
    };
    let (client, guarded, stop) = (kafka.clone(), Arc::clone(&member), service.stop.clone());
    service.tasks.spawn_blocking("sender-guard", move || guard::run(&client, &guarded, &stop));
    let dead_letters = Arc::new(kafka::DeadLetters::new(kafka, kafka_metrics)?);
    let (stop, runtime) = (service.stop.clone(), tokio::runtime::Handle::current());
    let consumer = GroupConsumer::new(kafka, group, kafka_metrics, stop, member, dead_letters, runtime.clone())
        .context("create the sender's consumer")?;
    let beat = service.health.heartbeat("consumer", settings.max_poll_interval + Duration::from_secs(30));
    let deadline = settings.revoke_deadline();
    service.tasks.spawn_blocking("sender-consumer", move || {
        consumer.run(|| beat.beat())?;
        // The partitions that were given up have been waited for; those that were lost have not.
        let left = async { tokio::time::timeout(deadline, leaving.wait_for_all()).await };
        if runtime.block_on(left).is_err() {
            tracing::warn!("statuses of lost partitions were still under way when the sender had to end");
        }
        Ok(())
    });
    Ok(())
}
