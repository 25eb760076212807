//! The table `mailings`, with the counts that the API shows beside it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{PgConnection, QueryBuilder};
use uuid::Uuid;

/// A mailing as the API shows it: row, mirror and counts of one snapshot.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct MailingRow {
    /// Internal number.
    pub mailing_no: i64,
    /// Public id.
    pub id: Uuid,
    /// The partition of mailing-events.
    pub shard: i32,
    /// Version.
    pub version: i64,
    /// What is sent.
    pub text: String,
    /// The filter's codes; empty: any.
    pub operator_codes: Vec<i16>,
    /// The filter's tags; empty: any.
    pub tags: Vec<String>,
    /// Nothing is planned before.
    pub starts_at: DateTime<Utc>,
    /// No call begins at or after.
    pub ends_at: DateTime<Utc>,
    /// The state's text.
    pub state: String,
    /// Why Herald itself paused it.
    pub state_reason: Option<String>,
    /// The delivery mode's text.
    pub delivery: String,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When the caller last changed it.
    pub updated_at: DateTime<Utc>,
    /// When planning began.
    pub started_at: Option<DateTime<Utc>>,
    /// When all of it was terminal.
    pub finished_at: Option<DateTime<Utc>>,
    /// Clients planned, by the mirror.
    pub planned: Option<i64>,
    /// All pages are planned, by the mirror.
    pub complete: Option<bool>,
    /// What it waits for, by the mirror.
    pub waiting_for: Option<String>,
    /// Its audience, counted in the background.
    pub audience_estimate: Option<i64>,
    /// Rows of `messages` by status.
    pub counts: Option<Json<BTreeMap<String, i64>>>,
}

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct MailingValues {
    /// What is sent.
    pub text: String,
    /// The filter's codes; empty: any.
    pub operator_codes: Vec<i16>,
    /// The filter's tags; empty: any.
    pub tags: Vec<String>,
    /// Nothing is planned before.
    pub starts_at: DateTime<Utc>,
    /// No call begins at or after.
    pub ends_at: DateTime<Utc>,
    /// The delivery mode's text.
    pub delivery: String,
}

/// A number for a new mailing, and a version: the database's clock in µs.
pub async fn draw_number(db: &mut PgConnection) -> sqlx::Result<(i64, i64)> {
    let drawn = sqlx::query!(
        r#"SELECT nextval(pg_get_serial_sequence('mailings', 'mailing_no')) AS "mailing_no!",
                  (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint AS "version!""#
    )
    .fetch_one(db)
    .await?;
    Ok((drawn.mailing_no, drawn.version))
}

/// Who a mailing is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Internal number.
    pub mailing_no: i64,
    /// Public id.
    pub id: Uuid,
    /// The partition of mailing-events.
    pub shard: i32,
    /// Version.
    pub version: i64,
}

/// Inserts a scheduled mailing.
pub async fn insert(
    db: &mut PgConnection,
    identity: &Identity,
    values: &MailingValues,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO mailings (mailing_no, id, shard, version, text, operator_codes, tags, starts_at, ends_at, state,
             delivery, created_at, updated_at)
         OVERRIDING SYSTEM VALUE
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'scheduled', $10, $11, $11)",
        identity.mailing_no,
        identity.id,
        identity.shard,
        identity.version,
        values.text,
        &values.operator_codes,
        &values.tags,
        values.starts_at,
        values.ends_at,
        values.delivery,
        now,
    )
    .execute(db)
    .await?;
    Ok(())
}

const SELECT: &str = "SELECT mailing_no, id, shard, version, text, operator_codes, tags, starts_at, ends_at, state, \
                      state_reason, delivery, created_at, updated_at, started_at, finished_at, planned, complete, \
                      waiting_for, audience_estimate, \
                      (SELECT jsonb_object_agg(status, n) FROM (SELECT status, sum(n)::bigint AS n FROM mailing_counts \
                       WHERE mailing_counts.mailing_no = mailings.mailing_no GROUP BY status) AS by_status) AS counts \
                      FROM mailings LEFT JOIN mailing_progress USING (mailing_no) WHERE ";

/// Reads one, with its counts, in one statement: rows never run ahead of what is planned in one snapshot.
pub async fn get(db: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<MailingRow>> {
    let mut query = QueryBuilder::new(SELECT);
    query.push("mailings.id = ").push_bind(id);
    query.build_query_as().fetch_optional(db).await
}

/// Reads one and keeps it from changing until the transaction's end.
pub async fn lock(db: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<MailingRow>> {
    let mut query = QueryBuilder::new(SELECT);
    query.push("mailings.id = ").push_bind(id).push(" FOR UPDATE OF mailings");
    query.build_query_as().fetch_optional(db).await
}

/// Lists mailings with a number below `before`, newest first.
pub async fn list(db: &mut PgConnection, before: i64, limit: i64) -> sqlx::Result<Vec<MailingRow>> {
    let mut query = QueryBuilder::new(SELECT);
    query.push("mailing_no < ").push_bind(before).push(" ORDER BY mailing_no DESC LIMIT ").push_bind(limit);
    query.build_query_as().fetch_all(db).await
}

/// Changes a locked mailing and returns its new version.
pub async fn update(
    db: &mut PgConnection,
    mailing_no: i64,
    values: &MailingValues,
    now: DateTime<Utc>,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"UPDATE mailings SET text = $2, operator_codes = $3, tags = $4, starts_at = $5, ends_at = $6, delivery = $7,
               updated_at = $8,
               version = GREATEST(version + 1, (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint)
           WHERE mailing_no = $1
           RETURNING version"#,
        mailing_no,
        values.text,
        &values.operator_codes,
        &values.tags,
        values.starts_at,
        values.ends_at,
        values.delivery,
        now,
    )
    .fetch_one(db)
    .await
}

/// Removes a locked mailing.
pub async fn delete(db: &mut PgConnection, mailing_no: i64) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM mailings WHERE mailing_no = $1", mailing_no).execute(db).await?;
    Ok(())
}
