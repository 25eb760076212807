//! What `herald replan` reads and writes.

use chrono::{DateTime, Utc};
use domain::ids::{ClientNo, MailingNo, Version};
use domain::planning::Wait;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::planning::{ClientRange, Mirror, PageClient};

/// What a row says about how far its message came.
#[derive(Clone, Debug)]
pub struct ShownRow {
    /// The client.
    pub client_no: ClientNo,
    /// The client's public id.
    pub client_id: Uuid,
    /// The round of the shown status.
    pub round: i32,
    /// The highest round in which it is settled; 0 is none.
    pub settled_round: i32,
    /// Calls made so far.
    pub attempts: i32,
    /// When it was planned.
    pub planned_at: DateTime<Utc>,
}

/// The rows of a mailing's clients in a range.
pub async fn rows(db: &mut PgConnection, mailing_no: MailingNo, range: ClientRange) -> sqlx::Result<Vec<ShownRow>> {
    sqlx::query_as!(
        ShownRow,
        "SELECT client_no, client_id, round, settled_round, attempts, planned_at FROM messages
         WHERE mailing_no = $1 AND client_no > $2 AND client_no <= $3 ORDER BY client_no",
        mailing_no.get(),
        range.after.get(),
        range.up_to.get(),
    )
    .fetch_all(db)
    .await
}

/// The highest client number that a mailing has a row for; 0 without rows.
pub async fn highest_row(db: &mut PgConnection, mailing_no: MailingNo) -> sqlx::Result<ClientNo> {
    let highest = sqlx::query_scalar!(
        r#"SELECT COALESCE(max(client_no), 0) AS "highest!" FROM messages WHERE mailing_no = $1"#,
        mailing_no.get(),
    )
    .fetch_one(db)
    .await?;
    Ok(highest.into())
}

/// The highest client number that was there at `moment`; 0 without clients.
pub async fn highest_client_no_at(db: &mut PgConnection, moment: DateTime<Utc>) -> sqlx::Result<ClientNo> {
    let found = sqlx::query_scalar!(
        "SELECT client_no FROM clients WHERE created_at <= $1 ORDER BY client_no DESC LIMIT 1",
        moment,
    )
    .fetch_optional(db)
    .await?;
    Ok(found.unwrap_or(0).into())
}

/// Those of the clients that aren't erased, in whatever audience they are now.
pub async fn clients(db: &mut PgConnection, client_nos: &[ClientNo]) -> sqlx::Result<Vec<PageClient>> {
    let client_nos: Vec<i64> = client_nos.iter().map(|client_no| client_no.get()).collect();
    sqlx::query_as!(
        PageClient,
        r#"SELECT client_no, id, phone_number AS "phone!", mobile_operator_code AS "operator_code!"
           FROM clients WHERE client_no = ANY($1) AND deleted_at IS NULL"#,
        &client_nos,
    )
    .fetch_all(db)
    .await
}

/// Sets a paused mailing running again, if its row is still the one that was read.
pub async fn set_running_again(db: &mut PgConnection, mailing_no: MailingNo, version: Version) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE mailings SET state = 'running', state_reason = NULL
         WHERE mailing_no = $1 AND version = $2 AND state = 'paused'",
        mailing_no.get(),
        version.get(),
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes the mirror as it is, also where it falls: a client who has left the audience since isn't planned again.
pub async fn replace_mirror(db: &mut PgConnection, mailing_no: MailingNo, mirror: &Mirror) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO mailing_progress (mailing_no, planned, emitted, again, complete, waiting_for)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (mailing_no) DO UPDATE SET
             planned = EXCLUDED.planned, emitted = EXCLUDED.emitted, again = EXCLUDED.again,
             complete = EXCLUDED.complete, waiting_for = EXCLUDED.waiting_for",
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
