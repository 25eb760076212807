//! The api: REST for callers ([`routes`]), and the [`relay`] from the outbox to Kafka.
//!
//! A write is the row and its outbox event in one transaction; the event is a wake-up, the row the truth. What is refused
//! is a problem document ([`problem`]), also where the framework refuses.

mod body;
mod extract;
mod json;
mod metrics;
mod observe;
mod problem;
mod relay;
mod routes;
mod senders;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::{Router, middleware};
use domain::mark::{DatabaseMark, check};
use runtime::Service;
use runtime::config::{Secret, parse_addr};
use sqlx::PgPool;
use sqlx::pool::PoolConnection;
use tokio::net::TcpListener;
use tokio::sync::watch;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::problem::ApiError;
use crate::senders::Senders;

/// How long requests may go on after the stop: an import has no end that could be waited for.
const DRAIN: Duration = Duration::from_secs(10);

/// What takes Postgres longer has lost its connection without being told, or waits for a lock for too long.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Opening the topic and reading it to its end take 30 s at most.
const MARKS_BEAT_LIMIT: Duration = Duration::from_secs(60);

/// What the api can be told.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub struct Settings {
    /// Where REST is served, `host:port`.
    #[arg(long, env = "HERALD_API_ADDR", default_value = "127.0.0.1:8083", value_parser = parse_addr)]
    pub api_addr: SocketAddr,
}

/// What every handler has.
#[derive(Clone)]
struct Api {
    pool: PgPool,
    shards: u32,
    known: watch::Receiver<Option<DatabaseMark>>,
    senders: Arc<Senders>,
}

impl Api {
    async fn db(&self) -> Result<PoolConnection<sqlx::Postgres>, ApiError> {
        Ok(self.pool.acquire().await?)
    }

    /// A connection to write by. Refused to a Postgres that is older than Kafka: it would give out numbers again.
    async fn writing(&self) -> Result<PoolConnection<sqlx::Postgres>, ApiError> {
        let mut db = self.db().await?;
        let found = store::mark::read(&mut db).await?;
        check(self.known.borrow().as_ref(), &found)?;
        Ok(db)
    }
}

/// Binds the port and starts the api's tasks: server, relay, and the look at Postgres for `/readyz`.
pub async fn start(
    settings: Settings,
    database_url: &Secret,
    kafka: &kafka::Cluster,
    pool: PgPool,
    service: &Service,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(settings.api_addr)
        .await
        .with_context(|| format!("HERALD_API_ADDR {} can't be bound", settings.api_addr))?;
    let metrics = metrics::Metrics::register(&service.registry)?;
    let known = follow_marks(kafka, service);
    let app = router(pool.clone(), kafka, known.clone(), metrics.clone())?;
    let stop = service.stop.clone();
    service.tasks.spawn("rest", async move {
        let server = axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::select! {
            served = async { server.await } => served.context("serve REST"),
            () = async { stop.cancelled().await; tokio::time::sleep(DRAIN).await } => {
                tracing::warn!("requests were cut off by the stop");
                Ok(())
            }
        }
    });

    let relay = relay::Relay::new(kafka.clone(), database_url.clone(), known, &service.health);
    let stop = service.stop.clone();
    service.tasks.spawn("relay", async move { relay.run(stop).await });

    let (postgres, stop) = (service.health.readiness("postgres"), service.stop.clone());
    service.tasks.spawn("outbox-watch", async move {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            match within(outbox_depth(&pool)).await {
                Ok((rows, age)) => {
                    metrics.outbox_rows.set(rows);
                    metrics.outbox_age.set(age);
                    postgres.ready();
                }
                Err(error) => postgres.not_ready(error.to_string()),
            }
        }
        Ok(())
    });
    Ok(())
}

/// Ready once Kafka has told which Postgres is the right one: until then nothing can be written. When that turns out to be
/// another one, the relay says so.
fn follow_marks(kafka: &kafka::Cluster, service: &Service) -> watch::Receiver<Option<DatabaseMark>> {
    let (known, follower) = watch::channel(None);
    let (kafka, stop) = (kafka.clone(), service.stop.clone());
    let beat = service.health.heartbeat("database-marks", MARKS_BEAT_LIMIT);
    service.tasks.spawn_blocking("database-marks", move || {
        kafka::follow_marks(&kafka, &known, &stop, || beat.beat()).context("read the topic database")
    });
    let (readiness, stop, mut told) = (service.health.readiness("database"), service.stop.clone(), follower.clone());
    tokio::spawn(async move {
        let told = stop.run_until_cancelled(told.wait_for(Option::is_some)).await;
        if matches!(told, Some(Ok(_))) {
            readiness.ready();
        }
    });
    follower
}

async fn outbox_depth(pool: &PgPool) -> sqlx::Result<(i64, f64)> {
    store::outbox::depth(&mut *pool.acquire().await?).await
}

async fn within<T>(work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    tokio::time::timeout(DATABASE_TIMEOUT, work).await.unwrap_or_else(|_| Err(timed_out()))
}

fn timed_out() -> sqlx::Error {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Herald",
        description = "Sends text messages to clients: nothing lost, nothing doubled, and a status for each."
    ),
    tags(
        (name = "clients", description = "People who may receive"),
        (name = "mailings", description = "A text, a filter, a start and an end"),
        (name = "messages", description = "One mailing for one client"),
        (name = "sending", description = "What the senders do, and what waits for what")
    )
)]
struct Document;

fn documented() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi()).nest("/api/v1", routes::all())
}

/// The OpenAPI document as JSON, as it stands in `docs/openapi.json`.
pub fn openapi_json() -> String {
    documented().to_openapi().to_pretty_json().expect("the document is JSON")
}

/// The whole application, for the server and for tests. Writes go only to the Postgres that is `known`; Kafka is only asked
/// what its groups have committed.
pub fn router(
    pool: PgPool,
    kafka: &kafka::Cluster,
    known: watch::Receiver<Option<DatabaseMark>>,
    metrics: metrics::Metrics,
) -> anyhow::Result<Router> {
    let (routes, document) = documented().split_for_parts();
    // By default the page asks a validator on the internet about the document.
    let config = Config::default().validator_url("none");
    let docs = SwaggerUi::new("/api/v1/docs").config(config).url("/api/v1/openapi.json", document);
    let docs = Router::from(docs).layer(middleware::map_response(problem::instead_of_text));
    let router = routes
        .merge(docs)
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .with_state(Api { pool, shards: kafka.topics.shards(), known, senders: Arc::new(Senders::new(kafka)?) });
    Ok(observe::layer(router, metrics))
}

pub use metrics::Metrics;
