//! The table `held`, as passes and the API read it.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// How many messages of a mailing wait for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSum {
    /// What they wait for.
    pub reason: String,
    /// How many.
    pub messages: i64,
    /// The first of them is due no earlier.
    pub earliest: Option<DateTime<Utc>>,
}

/// A held message that may be planned again, and its client as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueRow {
    /// The client.
    pub client_no: i64,
    /// The round in which it was held: the next one is one more.
    pub round: i32,
    /// What it waited for.
    pub reason: String,
    /// Calls made so far; they count on in the next round.
    pub attempts: i32,
    /// The client's public id.
    pub client_id: Uuid,
    /// The digits; none: the client is erased.
    pub phone_number: Option<i64>,
    /// 900–999; none with the phone.
    pub mobile_operator_code: Option<i16>,
}

/// What a mailing's held messages wait for. Costs a look-up for each reason, however many wait.
pub async fn sums(db: &mut PgConnection, mailing_no: i64) -> sqlx::Result<Vec<HeldSum>> {
    sqlx::query_as!(
        HeldSum,
        r#"SELECT reason, messages AS "messages!",
                  (SELECT min(not_before) FROM held
                   WHERE held.mailing_no = $1 AND held.reason = sums.reason) AS earliest
           FROM (SELECT reason, sum(n)::bigint AS messages FROM held_counts WHERE mailing_no = $1 GROUP BY reason) AS sums
           WHERE messages > 0
           ORDER BY reason"#,
        mailing_no,
    )
    .fetch_all(db)
    .await
}

/// Held messages behind client `after` that were due at `due_before`, in the order of their clients, but for those of the
/// `closed` lanes.
pub async fn due(
    db: &mut PgConnection,
    mailing_no: i64,
    due_before: DateTime<Utc>,
    closed: &[i16],
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<DueRow>> {
    sqlx::query_as!(
        DueRow,
        r#"SELECT client_no, held.round, held.reason, messages.attempts, messages.client_id,
                  clients.phone_number AS "phone_number?", clients.mobile_operator_code AS "mobile_operator_code?"
           FROM held JOIN messages USING (mailing_no, client_no) LEFT JOIN clients USING (client_no)
           WHERE held.mailing_no = $1 AND held.client_no > $2 AND held.not_before <= $3
                 AND held.operator_code <> ALL($4)
           ORDER BY client_no LIMIT $5"#,
        mailing_no,
        after,
        due_before,
        closed,
        limit,
    )
    .fetch_all(db)
    .await
}
