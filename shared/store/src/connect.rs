use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgConnection, PgPool};

use crate::MIGRATOR;

/// A caller is to hear within a second that Postgres is down.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(800);

/// A pool that connects when it is first used. The server ends what a dead client left behind: statements after 60 s,
/// waits for a lock after 10 s, idle transactions after 60 s.
pub fn connect(url: &str, max_connections: u32) -> sqlx::Result<PgPool> {
    let options = url.parse::<PgConnectOptions>()?.application_name("herald").options([
        ("statement_timeout", "60s"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "60s"),
    ]);
    Ok(PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options))
}

/// Why a program can't work with the database's schema.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A migration of this binary is missing.
    #[error("the database's schema is older than this program: run `herald migrate`")]
    Older,
    /// Postgres can't be asked.
    #[error(transparent)]
    Sqlx(#[from] sqlx::Error),
}

/// Checks that the schema has all of this binary's migrations. A newer one is fine: changes are made so that the older of
/// two versions still works.
pub async fn check_schema(db: &mut PgConnection) -> Result<(), SchemaError> {
    let migrated: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *db).await?;
    if !migrated {
        return Err(SchemaError::Older);
    }
    let newest: Option<i64> =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success").fetch_one(&mut *db).await?;
    if newest < MIGRATOR.iter().map(|migration| migration.version).max() { Err(SchemaError::Older) } else { Ok(()) }
}

/// Whether trying again later may succeed: Postgres is away, shutting down, full, or had to break a tie.
///
/// SQLSTATE classes 08 (connection), 40 (rollback), 53 (resources), 57P (operator), and 25006, a node that has become
/// read-only, 55000, a standby that isn't promoted yet, 55P03, a lock that was not got in time.
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) | sqlx::Error::Tls(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "40", "53", "57P", "25006", "55000", "55P03"].iter().any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}
