//! What the scheduler reads and writes.

use chrono::{DateTime, Utc};
use domain::ids::{ClientNo, MailingNo, Shard, Version};
use domain::planning::Wait;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::mailings::{MailingRow, row_columns};

/// A mailing that may have something to plan or to finish, as it is in one snapshot.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct LiveMailingRow {
    /// Its row.
    #[sqlx(flatten)]
    pub row: MailingRow,
    /// An event of it is in the outbox.
    pub in_outbox: bool,
    /// Σ settled rounds.
    pub settled: i64,
    /// Σ settled rounds above the first.
    pub settled_again: i64,
    /// How many of its messages are held.
    pub held: i64,
    /// The first of them is due no earlier.
    pub due_at: Option<DateTime<Utc>>,
    /// Its audience has been counted.
    pub counted: bool,
}

/// A client of a page.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct PageClient {
    /// Internal number.
    #[sqlx(try_from = "i64")]
    pub client_no: ClientNo,
    /// Public id.
    pub id: Uuid,
    /// The digits.
    pub phone: i64,
    /// 900–999.
    pub operator_code: i16,
}

/// How far a mailing is planned, as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Clients planned.
    pub planned: i64,
    /// Message events of all rounds.
    pub emitted: i64,
    /// Those of rounds above the first.
    pub again: i64,
    /// All pages are planned.
    pub complete: bool,
    /// What it waits for.
    pub waiting_for: Option<Wait>,
}

const LIVE: &str = concat!(
    "SELECT ",
    row_columns!(),
    ", EXISTS (SELECT FROM outbox WHERE outbox.mailing_no = mailings.mailing_no) AS in_outbox,
       COALESCE((SELECT sum(n)::bigint FROM mailing_settled_rounds AS settled
                 WHERE settled.mailing_no = mailings.mailing_no), 0) AS settled,
       COALESCE((SELECT sum(again)::bigint FROM mailing_settled_rounds AS settled
                 WHERE settled.mailing_no = mailings.mailing_no), 0) AS settled_again,
       COALESCE((SELECT sum(n)::bigint FROM held_counts WHERE held_counts.mailing_no = mailings.mailing_no), 0) AS held,
       (SELECT min(not_before) FROM held WHERE held.mailing_no = mailings.mailing_no) AS due_at,
       EXISTS (SELECT FROM mailing_progress AS progress
               WHERE progress.mailing_no = mailings.mailing_no AND audience_estimate IS NOT NULL) AS counted
       FROM mailings
       WHERE shard = $1 AND finished_at IS NULL
             AND (state = 'running' OR (state = 'scheduled' AND starts_at <= $2)
                  OR (state = 'cancelled' AND started_at IS NOT NULL))
       ORDER BY mailing_no"
);

/// The mailings of a shard that run, start before `horizon`, or were cancelled and aren't through, oldest first.
pub async fn live_mailings(
    db: &mut PgConnection,
    shard: Shard,
    horizon: DateTime<Utc>,
) -> sqlx::Result<Vec<LiveMailingRow>> {
    sqlx::query_as(LIVE).bind(shard.get()).bind(horizon).fetch_all(db).await
}

/// The highest client number drawn so far; 0 without clients.
pub async fn highest_client_no(db: &mut PgConnection) -> sqlx::Result<ClientNo> {
    let highest =
        sqlx::query_scalar!(r#"SELECT COALESCE(max(client_no), 0) AS "highest!" FROM clients"#).fetch_one(db).await?;
    Ok(highest.into())
}

/// Lets this transaction wait for a lock for 200 ms at most. A row that is locked is looked at again soon, and until then
/// other mailings wait for the same thread.
pub async fn limit_lock_waits(db: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("SET LOCAL lock_timeout = '200ms'").execute(db).await?;
    Ok(())
}

/// Sets a scheduled mailing running, if its row is still the one that was read. Makes no version: nothing that a sender
/// checks has changed.
pub async fn set_running(
    db: &mut PgConnection,
    mailing_no: MailingNo,
    version: Version,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE mailings SET state = 'running', started_at = $3
         WHERE mailing_no = $1 AND version = $2 AND state = 'scheduled'",
        mailing_no.get(),
        version.get(),
        now,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Sets a running mailing finished, likewise. One that was cancelled stays so, and has an end.
pub async fn set_finished(
    db: &mut PgConnection,
    mailing_no: MailingNo,
    version: Version,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE mailings SET state = CASE state WHEN 'running' THEN 'finished' ELSE state END, finished_at = $3
         WHERE mailing_no = $1 AND version = $2 AND state IN ('running', 'cancelled') AND finished_at IS NULL",
        mailing_no.get(),
        version.get(),
        now,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Sets a running mailing paused, likewise, and says why.
pub async fn set_paused(
    db: &mut PgConnection,
    mailing_no: MailingNo,
    version: Version,
    reason: &str,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE mailings SET state = 'paused', state_reason = $3
         WHERE mailing_no = $1 AND version = $2 AND state = 'running'",
        mailing_no.get(),
        version.get(),
        reason,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whom a mailing is for, as its row has it; an empty list means any.
#[derive(Clone, Copy, Debug)]
pub struct FilterRef<'a> {
    /// Operator codes.
    pub operator_codes: &'a [i16],
    /// Tags.
    pub tags: &'a [String],
}

impl MailingRow {
    /// Whom it is for.
    pub fn filter(&self) -> FilterRef<'_> {
        FilterRef { operator_codes: &self.operator_codes, tags: &self.tags }
    }
}

/// Clients with `after < client_no <= up_to`.
#[derive(Clone, Copy, Debug)]
pub struct ClientRange {
    /// Below the first.
    pub after: ClientNo,
    /// The last.
    pub up_to: ClientNo,
}

/// Clients of a range that match the filter, in the order of their numbers, at most `limit`.
pub async fn page_clients(
    db: &mut PgConnection,
    filter: FilterRef<'_>,
    range: ClientRange,
    limit: i64,
) -> sqlx::Result<Vec<PageClient>> {
    let mut query = QueryBuilder::new(
        "SELECT client_no, id, phone_number AS phone, mobile_operator_code AS operator_code
         FROM clients WHERE deleted_at IS NULL",
    );
    push_filter(&mut query, filter, range);
    query.push(" ORDER BY client_no LIMIT ").push_bind(limit);
    query.build_query_as().fetch_all(db).await
}

/// How many clients match now.
pub async fn count_audience(db: &mut PgConnection, filter: FilterRef<'_>, up_to: ClientNo) -> sqlx::Result<i64> {
    let mut query = QueryBuilder::new("SELECT count(*) FROM clients WHERE deleted_at IS NULL");
    push_filter(&mut query, filter, ClientRange { after: ClientNo::default(), up_to });
    query.build_query_scalar().fetch_one(db).await
}

/// Only the lists that name something become conditions, so that each filter is a range scan of an index.
fn push_filter(query: &mut QueryBuilder<Postgres>, filter: FilterRef<'_>, range: ClientRange) {
    query.push(" AND client_no > ").push_bind(range.after.get());
    query.push(" AND client_no <= ").push_bind(range.up_to.get());
    match filter.operator_codes {
        [] => {}
        [code] => {
            query.push(" AND mobile_operator_code = ").push_bind(*code);
        }
        codes => {
            query.push(" AND mobile_operator_code = ANY(").push_bind(codes.to_vec()).push(")");
        }
    }
    match filter.tags {
        [] => {}
        [tag] => {
            query.push(" AND tag = ").push_bind(tag.clone());
        }
        tags => {
            query.push(" AND tag = ANY(").push_bind(tags.to_vec()).push(")");
        }
    }
}

/// Writes the mirror; its numbers only grow.
pub async fn write_mirror(db: &mut PgConnection, mailing_no: MailingNo, mirror: &Mirror) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO mailing_progress AS stored (mailing_no, planned, emitted, again, complete, waiting_for)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (mailing_no) DO UPDATE SET
             planned = GREATEST(stored.planned, EXCLUDED.planned),
             emitted = GREATEST(stored.emitted, EXCLUDED.emitted),
             again = GREATEST(stored.again, EXCLUDED.again),
             complete = stored.complete OR EXCLUDED.complete,
             waiting_for = EXCLUDED.waiting_for",
        mailing_no.get(),
        mirror.planned,
        mirror.emitted,
        mirror.again,
        mirror.complete,
        mirror.waiting_for.as_ref().map(Wait::as_str),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Writes what was counted.
pub async fn write_audience_estimate(db: &mut PgConnection, mailing_no: MailingNo, audience: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO mailing_progress (mailing_no, audience_estimate) VALUES ($1, $2)
         ON CONFLICT (mailing_no) DO UPDATE SET audience_estimate = EXCLUDED.audience_estimate",
        mailing_no.get(),
        audience,
    )
    .execute(db)
    .await?;
    Ok(())
}
