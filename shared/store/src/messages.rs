//! The tables `messages` and `steps`, as they are read.

use chrono::{DateTime, Utc};
use domain::ids::{ClientNo, MailingNo, MessageId};
use domain::status::Status;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// How many rows one page of a filtered list may look at: there is no index on the status.
const SCAN: i64 = 50_000;

/// What became of a message.
#[derive(Clone, Debug)]
pub struct MessageView {
    /// The client's number.
    pub client_no: ClientNo,
    /// The client's public id.
    pub client_id: Uuid,
    /// The status that is shown.
    pub status: Status,
    /// Why.
    pub reason: Option<String>,
    /// The round in which it was reached.
    pub round: i32,
    /// Calls made.
    pub attempts: i32,
    /// The provider's HTTP status.
    pub code: Option<i32>,
    /// How long the last attempt took.
    pub latency_ms: Option<i32>,
    /// The next attempt or round begins no earlier.
    pub not_before: Option<DateTime<Utc>>,
    /// When it was planned.
    pub planned_at: DateTime<Utc>,
    /// When its status was reached.
    pub updated_at: DateTime<Utc>,
}

/// What a message went through: an attempt that failed, a wait, or a hold.
#[derive(Clone, Debug)]
pub struct StepView {
    /// The round.
    pub round: i32,
    /// Attempts so far, over all rounds.
    pub attempt: i32,
    /// The status that told of it.
    pub status: Status,
    /// Why.
    pub reason: Option<String>,
    /// The provider's HTTP status.
    pub code: Option<i32>,
    /// How long the attempt took.
    pub latency_ms: Option<i32>,
    /// The next attempt or round began no earlier.
    pub not_before: Option<DateTime<Utc>>,
    /// For people.
    pub detail: Option<String>,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
}

/// A page of messages: the rows, and where the next page begins, if there may be one.
pub type Page = (Vec<MessageView>, Option<ClientNo>);

/// Messages of a mailing behind client `after`, in the order of their clients. With a status, a page may hold fewer than
/// `limit` and still have a next one: at most 50,000 rows are looked at.
pub async fn list(
    db: &mut PgConnection,
    mailing_no: MailingNo,
    status: Option<&Status>,
    after: ClientNo,
    limit: i64,
) -> sqlx::Result<Page> {
    let Some(status) = status else {
        let rows = sqlx::query_as!(
            MessageView,
            "SELECT client_no, client_id, status, reason, round, attempts, code, latency_ms, not_before, planned_at,
                    updated_at
             FROM messages WHERE mailing_no = $1 AND client_no > $2 ORDER BY client_no LIMIT $3",
            mailing_no.get(),
            after.get(),
            limit,
        )
        .fetch_all(db)
        .await?;
        let next = (rows.len() as i64 == limit).then(|| rows.last().map(|row| row.client_no)).flatten();
        return Ok((rows, next));
    };
    // Of two snapshots the second could end the scan before the first one's last row, and a message would be listed twice.
    let mut snapshot = db.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
    let rows = sqlx::query_as!(
        MessageView,
        r#"SELECT client_no AS "client_no!", client_id AS "client_id!", status AS "status!", reason, round AS "round!",
                  attempts AS "attempts!", code, latency_ms, not_before, planned_at AS "planned_at!",
                  updated_at AS "updated_at!"
           FROM (SELECT * FROM messages WHERE mailing_no = $1 AND client_no > $2 ORDER BY client_no LIMIT $5) AS scanned
           WHERE status = $3 ORDER BY client_no LIMIT $4"#,
        mailing_no.get(),
        after.get(),
        status.as_str(),
        limit,
        SCAN,
    )
    .fetch_all(&mut *snapshot)
    .await?;
    if rows.len() as i64 == limit {
        let next = rows.last().map(|row| row.client_no);
        snapshot.commit().await?;
        return Ok((rows, next));
    }
    let next = sqlx::query_scalar!(
        "SELECT client_no FROM messages WHERE mailing_no = $1 AND client_no > $2 ORDER BY client_no LIMIT 1 OFFSET $3",
        mailing_no.get(),
        after.get(),
        SCAN - 1,
    )
    .fetch_optional(&mut *snapshot)
    .await?;
    snapshot.commit().await?;
    Ok((rows, next.map(ClientNo::from)))
}

/// One message with its mailing's public id.
pub async fn get(db: &mut PgConnection, message: MessageId) -> sqlx::Result<Option<(Option<Uuid>, MessageView)>> {
    let (mailing_no, client_no) = (message.mailing_no().get(), message.client_no().get());
    let Some(message) = sqlx::query_as!(
        MessageView,
        "SELECT client_no, client_id, status, reason, round, attempts, code, latency_ms, not_before, planned_at,
                    updated_at
         FROM messages WHERE mailing_no = $1 AND client_no = $2",
        mailing_no,
        client_no,
    )
    .fetch_optional(&mut *db)
    .await?
    else {
        return Ok(None);
    };
    let mailing =
        sqlx::query_scalar!("SELECT id FROM mailings WHERE mailing_no = $1", mailing_no).fetch_optional(db).await?;
    Ok(Some((mailing, message)))
}

/// The steps of a message, in their order; the first 1,000.
pub async fn steps(db: &mut PgConnection, message: MessageId) -> sqlx::Result<Vec<StepView>> {
    sqlx::query_as!(
        StepView,
        "SELECT round, attempt, status, reason, code, latency_ms, not_before, detail, occurred_at FROM steps
         WHERE mailing_no = $1 AND client_no = $2 ORDER BY status_partition, status_offset LIMIT 1000",
        message.mailing_no().get(),
        message.client_no().get(),
    )
    .fetch_all(db)
    .await
}
