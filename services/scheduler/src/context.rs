//! What every shard of a scheduler shares.

use std::sync::Arc;

use domain::mark::{DatabaseMark, check};
use kafka::{Cluster, DeadLetters};
use runtime::health::{Health, Readiness};
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::conveyor::Sampler;
use crate::metrics::Metrics;
use crate::trouble::Trouble;

pub(crate) struct SchedulerContext {
    pub(crate) kafka: Cluster,
    pub(crate) pool: PgPool,
    pub(crate) conveyor: Sampler,
    pub(crate) dead_letters: Arc<DeadLetters>,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) planning: Readiness,
    pub(crate) runtime: Handle,
    /// The database mark that Kafka holds, followed live.
    pub(crate) known: watch::Receiver<Option<DatabaseMark>>,
}

impl SchedulerContext {
    /// A connection to plan by. Fails when Postgres is older than Kafka.
    pub(crate) async fn db(&self) -> Result<PoolConnection<Postgres>, Trouble> {
        let mut db = self.pool.acquire().await?;
        let found = store::mark::read(&mut db).await?;
        check(self.known.borrow().as_ref(), &found)?;
        Ok(db)
    }
}
