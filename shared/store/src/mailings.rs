//! The table `mailings`, with the counts that the API shows beside it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::ids::{MailingNo, Shard, Version};
use domain::mailing::{Delivery, State};
use events::{MailingEvent, MailingFilter};
use sqlx::types::Json;
use sqlx::{PgConnection, QueryBuilder};
use uuid::Uuid;

use crate::held::HeldSum;

/// A row of `mailings`.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct MailingRow {
    /// Internal number.
    #[sqlx(try_from = "i64")]
    pub mailing_no: MailingNo,
    /// Public id.
    pub id: Uuid,
    /// The partition of mailing-events.
    #[sqlx(try_from = "i32")]
    pub shard: Shard,
    /// Version.
    #[sqlx(try_from = "i64")]
    pub version: Version,
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
    /// The state.
    #[sqlx(try_from = "String")]
    pub state: State,
    /// Why Herald itself paused it.
    pub state_reason: Option<String>,
    /// Which risk it takes.
    #[sqlx(try_from = "String")]
    pub delivery: Delivery,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When the caller last changed it.
    pub updated_at: DateTime<Utc>,
    /// When planning began.
    pub started_at: Option<DateTime<Utc>>,
    /// When all of it was terminal.
    pub finished_at: Option<DateTime<Utc>>,
}

/// A mailing as the API shows it: row, mirror and counts of one snapshot.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct MailingView {
    /// Its row.
    #[sqlx(flatten)]
    pub row: MailingRow,
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
    /// What its held messages wait for.
    pub waiting: Option<Json<Vec<HeldSum>>>,
}

impl MailingRow {
    /// What the mailing's event says. `state` is the caller's word, which the row doesn't keep.
    pub fn event(&self, state: State, occurred_at: DateTime<Utc>) -> MailingEvent {
        MailingEvent {
            mailing_id: self.id,
            mailing_no: self.mailing_no,
            version: self.version,
            state,
            text: self.text.clone(),
            filter: MailingFilter { mobile_operator_codes: self.operator_codes.clone(), tags: self.tags.clone() },
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            delivery: self.delivery.clone(),
            occurred_at,
        }
    }
}

/// The columns of a [`MailingRow`].
macro_rules! row_columns {
    () => {
        "mailing_no, id, shard, version, text, operator_codes, tags, starts_at, ends_at, state, state_reason, delivery, \
         created_at, updated_at, started_at, finished_at"
    };
}
pub(crate) use row_columns;

const VIEW: &str = concat!(
    "SELECT ",
    row_columns!(),
    ", planned, complete, waiting_for, audience_estimate,
       (SELECT jsonb_object_agg(status, n) FROM (SELECT status, sum(n)::bigint AS n FROM mailing_counts
        WHERE mailing_counts.mailing_no = mailings.mailing_no GROUP BY status) AS by_status) AS counts,
       (SELECT jsonb_agg(jsonb_build_object('reason', reason, 'messages', n, 'earliest',
                (SELECT min(not_before) FROM held WHERE held.mailing_no = mailings.mailing_no
                 AND held.reason = by_reason.reason)) ORDER BY reason)
        FROM (SELECT reason, sum(n)::bigint AS n FROM held_counts
              WHERE held_counts.mailing_no = mailings.mailing_no GROUP BY reason HAVING sum(n) > 0) AS by_reason) AS waiting
       FROM mailings LEFT JOIN mailing_progress USING (mailing_no) WHERE "
);

/// A number for a new mailing, and a version: the database's clock in µs.
pub async fn draw_number(db: &mut PgConnection) -> sqlx::Result<(MailingNo, Version)> {
    let drawn = sqlx::query!(
        r#"SELECT nextval(pg_get_serial_sequence('mailings', 'mailing_no')) AS "mailing_no!",
                  (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint AS "version!""#
    )
    .fetch_one(db)
    .await?;
    Ok((drawn.mailing_no.into(), drawn.version.into()))
}

/// Inserts a mailing that is scheduled and hasn't started.
pub async fn insert(db: &mut PgConnection, row: &MailingRow) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO mailings (mailing_no, id, shard, version, text, operator_codes, tags, starts_at, ends_at, state,
                               delivery, created_at, updated_at)
         OVERRIDING SYSTEM VALUE
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        row.mailing_no.get(),
        row.id,
        row.shard.get(),
        row.version.get(),
        row.text,
        &row.operator_codes,
        &row.tags,
        row.starts_at,
        row.ends_at,
        row.state.as_str(),
        row.delivery.as_str(),
        row.created_at,
        row.updated_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Reads one, with its counts, in one statement: rows never run ahead of what is planned in one snapshot.
pub async fn get(db: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<MailingView>> {
    let mut query = QueryBuilder::new(VIEW);
    query.push("mailings.id = ").push_bind(id);
    query.build_query_as().fetch_optional(db).await
}

/// Lists mailings with a number below `before`, newest first.
pub async fn list(db: &mut PgConnection, before: MailingNo, limit: i64) -> sqlx::Result<Vec<MailingView>> {
    let mut query = QueryBuilder::new(VIEW);
    query.push("mailing_no < ").push_bind(before.get()).push(" ORDER BY mailing_no DESC LIMIT ").push_bind(limit);
    query.build_query_as().fetch_all(db).await
}

/// Reads one's row and keeps it from changing until the transaction's end.
pub async fn lock(db: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<MailingRow>> {
    const LOCK: &str = concat!("SELECT ", row_columns!(), " FROM mailings WHERE id = $1 FOR UPDATE");
    sqlx::query_as(LOCK).bind(id).fetch_optional(db).await
}

/// Writes what a caller may change of a locked mailing, and returns its new version.
pub async fn update(db: &mut PgConnection, row: &MailingRow) -> sqlx::Result<Version> {
    let version = sqlx::query_scalar!(
        r#"UPDATE mailings SET text = $2, operator_codes = $3, tags = $4, starts_at = $5, ends_at = $6, delivery = $7,
               updated_at = $8,
               version = GREATEST(version + 1, (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint)
           WHERE mailing_no = $1
           RETURNING version"#,
        row.mailing_no.get(),
        row.text,
        &row.operator_codes,
        &row.tags,
        row.starts_at,
        row.ends_at,
        row.delivery.as_str(),
        row.updated_at,
    )
    .fetch_one(db)
    .await?;
    Ok(version.into())
}

/// Removes a locked mailing.
pub async fn delete(db: &mut PgConnection, mailing_no: MailingNo) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM mailings WHERE mailing_no = $1", mailing_no.get()).execute(db).await?;
    Ok(())
}

/// A mailing's internal number.
pub async fn number(db: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<MailingNo>> {
    let number = sqlx::query_scalar!("SELECT mailing_no FROM mailings WHERE id = $1", id).fetch_optional(db).await?;
    Ok(number.map(MailingNo::from))
}
