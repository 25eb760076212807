//! Starts services: one, or all four in this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use runtime::Service;
use runtime::config::InstanceSettings;
use runtime::health::Readiness;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::cli;
use crate::verbs::kafka_client;

/// How long a start waits for a Kafka that may be away: the api's callers wait as well.
const KAFKA_PATIENCE: Duration = Duration::from_secs(3);

/// How long a start asks again for topics that aren't as they should be.
const TOPICS_PATIENCE: Duration = Duration::from_secs(5);

/// How long a service drains after SIGTERM; a sender, whose calls and their statuses take longer, says so itself.
const DRAIN: Duration = Duration::from_secs(10);
/// How often a running service looks whether Kafka and its topics are there.
const LOOK: Duration = Duration::from_secs(5);

pub(crate) async fn all(settings: cli::All) -> anyhow::Result<()> {
    let started = Started::new();
    let kafka = member(kafka_client(&settings.kafka, &settings.topics, "herald")?, &settings.instance)?;
    let pool = postgres(&settings.postgres, 20).await?;
    // Its own: scheduler and projector at work must not keep a caller waiting for a connection.
    let api_pool = postgres(&settings.postgres, 20).await?;
    check_topics_if_reachable(&kafka).await?;
    let service = &started.service;
    api::start(settings.api.clone(), &settings.postgres.database_url, &kafka, api_pool, service).await?;
    let (ops_addr, drain) = (settings.ops.ops_addr, settings.sender.drain());
    service.tasks.spawn("kafka-services", start_with_kafka(settings, kafka, pool, service.clone()));
    started.run(ops_addr, drain).await
}

/// Starts those services of [`all`] that can do nothing without Kafka, once the topics are known to be right, and ends
/// with the process.
async fn start_with_kafka(
    settings: cli::All,
    kafka: kafka::Cluster,
    pool: PgPool,
    service: Service,
) -> anyhow::Result<()> {
    let topics = service.health.readiness("topics");
    loop {
        match service.stop.run_until_cancelled(check_topics(&kafka)).await {
            None => return Ok(()),
            Some(Ok(())) => break,
            // Also when topics are wrong: a Kafka that is just coming up has partitions without a leader.
            Some(Err(error)) => topics.not_ready(format!("{error:#}")),
        }
        service.stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await;
    }
    let metrics = kafka::Metrics::register(&service.registry)?;
    scheduler::start(&kafka, pool.clone(), &metrics, &service).await?;
    sender::start(settings.sender, &kafka, &metrics, &service).await?;
    projector::start(settings.projector, &kafka, pool, &metrics, &service).await?;
    watch_topics(kafka, topics, service.stop.clone()).await
}

/// Tells by `/readyz` whether Kafka answers and the topics are there, until told to stop.
async fn watch_topics(kafka: kafka::Cluster, topics: Readiness, stop: CancellationToken) -> anyhow::Result<()> {
    let admin = Arc::new(kafka::Admin::new(&kafka)?);
    loop {
        let admin = Arc::clone(&admin);
        let looked = tokio::task::spawn_blocking(move || admin.check_partitions());
        match stop.run_until_cancelled(looked).await.transpose()? {
            None => return Ok(()),
            Some(Ok(())) => topics.ready(),
            Some(Err(error)) => topics.not_ready(error.to_string()),
        }
        if stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
            return Ok(());
        }
    }
}

pub(crate) async fn api(settings: cli::Api) -> anyhow::Result<()> {
    let started = Started::new();
    let kafka = kafka_client(&settings.kafka, &settings.topics, "herald-api")?;
    let pool = postgres(&settings.postgres, 20).await?;
    check_topics_if_reachable(&kafka).await?;
    api::start(settings.api, &settings.postgres.database_url, &kafka, pool, &started.service).await?;
    started.run(settings.ops.ops_addr, DRAIN).await
}

pub(crate) async fn scheduler(settings: cli::Scheduler) -> anyhow::Result<()> {
    let started = Started::new();
    let kafka = member(kafka_client(&settings.kafka, &settings.topics, "herald-scheduler")?, &settings.instance)?;
    let pool = postgres(&settings.postgres, 12).await?;
    await_topics(&kafka).await?;
    let metrics = kafka::Metrics::register(&started.service.registry)?;
    scheduler::start(&kafka, pool, &metrics, &started.service).await?;
    started.watch_topics(kafka);
    started.run(settings.ops.ops_addr, DRAIN).await
}

pub(crate) async fn sender(settings: cli::Sender) -> anyhow::Result<()> {
    let started = Started::new();
    let kafka = member(kafka_client(&settings.kafka, &settings.topics, "herald-sender")?, &settings.instance)?;
    await_topics(&kafka).await?;
    let metrics = kafka::Metrics::register(&started.service.registry)?;
    let drain = settings.sender.drain();
    sender::start(settings.sender, &kafka, &metrics, &started.service).await?;
    started.watch_topics(kafka);
    started.run(settings.ops.ops_addr, drain).await
}

pub(crate) async fn projector(settings: cli::Projector) -> anyhow::Result<()> {
    let started = Started::new();
    let kafka = member(kafka_client(&settings.kafka, &settings.topics, "herald-projector")?, &settings.instance)?;
    let pool = postgres(&settings.postgres, 6).await?;
    await_topics(&kafka).await?;
    let metrics = kafka::Metrics::register(&started.service.registry)?;
    if settings.rebuild {
        projector::rebuild(settings.projector, &kafka, pool, &metrics, &started.service).await?;
    } else {
        projector::start(settings.projector, &kafka, pool, &metrics, &started.service).await?;
    }
    started.watch_topics(kafka);
    started.run(settings.ops.ops_addr, DRAIN).await
}

struct Started {
    service: Service,
}

impl Started {
    fn new() -> Self {
        runtime::telemetry::init();
        Self { service: Service::new() }
    }

    fn watch_topics(&self, kafka: kafka::Cluster) {
        let topics = self.service.health.readiness("topics");
        self.service.tasks.spawn("topics", watch_topics(kafka, topics, self.service.stop.clone()));
    }

    async fn run(self, ops_addr: SocketAddr, drain: Duration) -> anyhow::Result<()> {
        runtime::run(ops_addr, self.service, drain).await
    }
}

/// Joins groups as the instance that the process is, if it has been told to be one.
fn member(kafka: kafka::Cluster, settings: &InstanceSettings) -> anyhow::Result<kafka::Cluster> {
    Ok(match &settings.state_dir {
        Some(dir) => kafka.instance(runtime::instance::hold(dir).context("HERALD_STATE_DIR")?),
        None => kafka,
    })
}

/// Connects, and checks that the schema is the one this binary was built for.
pub(crate) async fn postgres(settings: &runtime::config::PostgresSettings, connections: u32) -> anyhow::Result<PgPool> {
    let pool = store::connect(settings.database_url.expose(), connections)?;
    let mut db = pool.acquire().await.context("connect to Postgres (DATABASE_URL)")?;
    store::check_schema(&mut db).await?;
    drop(db);
    Ok(pool)
}

/// Checks the topics for the api, which works without Kafka: a definite answer that they are wrong ends the process, no
/// answer doesn't. The relay looks again before it publishes.
async fn check_topics_if_reachable(kafka: &kafka::Cluster) -> anyhow::Result<()> {
    match tokio::time::timeout(KAFKA_PATIENCE, check_topics(kafka)).await {
        Ok(Err(error)) if !matches!(error.downcast_ref(), Some(kafka::Error::Topic(_))) => {
            tracing::warn!(error = format!("{error:#}"), "the api starts without Kafka");
            Ok(())
        }
        Err(_) => {
            tracing::warn!("the api starts without Kafka: no answer after {KAFKA_PATIENCE:?}");
            Ok(())
        }
        Ok(checked) => checked,
    }
}

/// Waits a moment for the topics: one that was just made isn't known to every broker of a cluster yet, and a partition whose
/// broker has died has no leader until another is chosen.
async fn await_topics(kafka: &kafka::Cluster) -> anyhow::Result<()> {
    let deadline = Instant::now() + TOPICS_PATIENCE;
    loop {
        match check_topics(kafka).await {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(100)).await,
            checked => return checked,
        }
    }
}

/// Checks that the topics are there.
pub(crate) async fn check_topics(kafka: &kafka::Cluster) -> anyhow::Result<()> {
    kafka::check_topics(kafka).await.context("check the topics (HERALD_KAFKA_BROKERS)")
}
