//! The table `outbox`: events on their way to Kafka.

use domain::ids::Shard;
use events::{EncodeError, MailingEvent, encode};
use sqlx::PgConnection;

/// The channel on which a writer wakes the relay. A hint: it also looks every 250 ms.
pub const CHANNEL: &str = "herald_outbox";

/// The advisory lock of the active relay ("herald" in ASCII).
const RELAY_LOCK: i64 = 0x6865_7261_6c64;

/// An event that Kafka has not acknowledged.
#[derive(Clone, Debug)]
pub struct OutboxRow {
    /// Order of writing, within a mailing.
    pub id: i64,
    /// The partition of mailing-events.
    pub shard: Shard,
    /// The record's key.
    pub key: String,
    /// The record's value.
    pub payload: String,
}

/// Why an event isn't in the outbox.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// It is larger than an event may be, or has no form.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Postgres has refused it, or can't be asked.
    #[error(transparent)]
    Sqlx(#[from] sqlx::Error),
}

/// Adds a mailing's event; call it while the mailing's row is locked by this transaction, so that ids keep the order of
/// versions.
pub async fn append(db: &mut PgConnection, shard: Shard, event: &MailingEvent) -> Result<(), AppendError> {
    let payload = String::from_utf8(encode(event)?).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query!(
        "INSERT INTO outbox (mailing_no, shard, key, payload, created_at) VALUES ($1, $2, $3, $4, clock_timestamp())",
        event.mailing_no.get(),
        shard.get(),
        event.mailing_id.to_string(),
        payload,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(db).await?;
    Ok(())
}

/// Tries to become the active relay for as long as this connection lives.
pub async fn try_lead(db: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "leads!""#, RELAY_LOCK).fetch_one(db).await
}

/// The oldest events.
pub async fn oldest(db: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<OutboxRow>> {
    sqlx::query_as!(OutboxRow, "SELECT id, shard, key, payload FROM outbox ORDER BY id LIMIT $1", limit)
        .fetch_all(db)
        .await
}

/// Removes events that Kafka has acknowledged.
pub async fn delete(db: &mut PgConnection, ids: &[i64]) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM outbox WHERE id = ANY($1)", ids).execute(db).await?;
    Ok(())
}

/// How many events wait, and how old the oldest is, in seconds.
pub async fn depth(db: &mut PgConnection) -> sqlx::Result<(i64, f64)> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "rows!",
                  COALESCE(EXTRACT(EPOCH FROM now() - min(created_at)), 0)::float8 AS "age!" FROM outbox"#
    )
    .fetch_one(db)
    .await?;
    Ok((row.rows, row.age))
}
