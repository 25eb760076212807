//! Starts services: one, or all four in this process.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use runtime::Service;
use sqlx::PgPool;

use crate::cli;
use crate::verbs::kafka_client;

/// How long a service drains after SIGTERM: a sender's calls and their statuses take the longest.
const DRAIN: Duration = Duration::from_secs(12);

pub(crate) async fn all(settings: cli::All) -> anyhow::Result<()> {
    let started = Started::new();
    let kafka = kafka_client(&settings.kafka, &settings.topics, "herald");
    let pool = postgres(&settings.postgres, 40).await?;
    check_topics(&kafka).await?;
    let metrics = kafka::Metrics::register(&started.service.registry)?;
    let service = &started.service;
    api::start(settings.api, &settings.postgres.database_url, &kafka, pool.clone(), service).await?;
    scheduler::start(&kafka, pool.clone(), &metrics, service).await?;
    sender::start(settings.sender, &kafka, &metrics, service).await?;
    projector::start(settings.projector, &kafka, pool, &metrics, service).await?;
    started.run(settings.ops.ops_addr).await
}

pub(crate) async fn api(settings: cli::Api) -> anyhow::Result<()> {
    let started = Started::new();
    let kafka = kafka_client(&settings.kafka, &settings.topics, "herald-api");
    let pool = postgres(&settings.postgres, 20).await?;
    api::start(settings.api, &settings.postgres.database_url, &kafka, pool, &started.service).await?;
    started.run(settings.ops.ops_addr).await
}

pub(crate) async fn scheduler(settings: cli::Scheduler) -> anyhow::Result<()> {
    let started = Started::new();
    let kafka = kafka_client(&settings.kafka, &settings.topics, "herald-scheduler");
    let pool = postgres(&settings.postgres, 12).await?;
    check_topics(&kafka).await?;
    let metrics = kafka::Metrics::register(&started.service.registry)?;
    scheduler::start(&kafka, pool, &metrics, &started.service).await?;
    started.run(settings.ops.ops_addr).await
}

pub(crate) async fn sender(settings: cli::Sender) -> anyhow::Result<()> {
    let started = Started::new();
    let kafka = kafka_client(&settings.kafka, &settings.topics, "herald-sender");
    check_topics(&kafka).await?;
    let metrics = kafka::Metrics::register(&started.service.registry)?;
    sender::start(settings.sender, &kafka, &metrics, &started.service).await?;
    started.run(settings.ops.ops_addr).await
}

pub(crate) async fn projector(settings: cli::Projector) -> anyhow::Result<()> {
    let started = Started::new();
    let kafka = kafka_client(&settings.kafka, &settings.topics, "herald-projector");
    let pool = postgres(&settings.postgres, 6).await?;
    check_topics(&kafka).await?;
    let metrics = kafka::Metrics::register(&started.service.registry)?;
    if settings.rebuild {
        projector::rebuild(settings.projector, &kafka, pool, &metrics, &started.service).await?;
    } else {
        projector::start(settings.projector, &kafka, pool, &metrics, &started.service).await?;
    }
    started.run(settings.ops.ops_addr).await
}

struct Started {
    service: Service,
}

impl Started {
    fn new() -> Self {
        runtime::telemetry::init();
        Self { service: Service::new() }
    }

    async fn run(self, ops_addr: SocketAddr) -> anyhow::Result<()> {
        runtime::run(ops_addr, self.service, DRAIN).await
    }
}

/// Connects, and checks that the schema is the one this binary was built for.
async fn postgres(settings: &runtime::config::PostgresSettings, connections: u32) -> anyhow::Result<PgPool> {
    let pool = store::connect(settings.database_url.expose(), connections)?;
    let mut db = pool.acquire().await.context("connect to Postgres (DATABASE_URL)")?;
    store::check_schema(&mut db).await?;
    drop(db);
    Ok(pool)
}

/// Checks that the topics are there. Blocks a thread of its own: it asks the brokers.
async fn check_topics(kafka: &kafka::Client) -> anyhow::Result<()> {
    let admin = kafka::Admin::new(kafka)?;
    tokio::task::spawn_blocking(move || admin.check_partitions())
        .await?
        .context("check the topics (HERALD_KAFKA_BROKERS)")
}
