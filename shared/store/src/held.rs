//! The table `held`, as passes and the API read it.

use chrono::{DateTime, Utc};
use domain::ids::{ClientNo, MailingNo};
use domain::status::Reason;
use sqlx::PgConnection;
use uuid::Uuid;

/// How many messages wait for one reason.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct HeldSum {
    /// What they wait for.
    pub reason: Reason,
    /// How many.
    pub messages: i64,
    /// The first of them is due no earlier.
    pub earliest: Option<DateTime<Utc>>,
}

/// The held message that is due first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstDue {
    /// Its mailing.
    pub mailing_no: MailingNo,
    /// The mailing's public id.
    pub mailing_id: Uuid,
    /// Its client.
    pub client_no: ClientNo,
    /// What it waits for.
    pub reason: Reason,
    /// Since when.
    pub held_at: DateTime<Utc>,
    /// It is due no earlier.
    pub not_before: DateTime<Utc>,
}

/// A held message that may be planned again, and its client as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueRow {
    /// The client.
    pub client_no: ClientNo,
    /// The round in which it was held: the next one is one more.
    pub round: i32,
    /// What it waited for.
    pub reason: Reason,
    /// Calls made so far; they count on in the next round.
    pub attempts: i32,
    /// The client's public id.
    pub client_id: Uuid,
    /// The digits; none: the client is erased.
    pub phone: Option<i64>,
    /// 900–999; none with the phone.
    pub operator_code: Option<i16>,
}

/// What the held messages of all live mailings wait for. Costs a look-up for each reason of each of them, however many
/// messages wait.
pub async fn sums(db: &mut PgConnection) -> sqlx::Result<Vec<HeldSum>> {
    sqlx::query_as!(
        HeldSum,
        r#"SELECT reason, sum(n)::bigint AS "messages!", min(earliest) AS earliest
           FROM (SELECT reason, sum(n) AS n,
                        (SELECT min(not_before) FROM held
                         WHERE held.mailing_no = counts.mailing_no AND held.reason = counts.reason) AS earliest
                 FROM held_counts AS counts JOIN mailings USING (mailing_no)
                 WHERE state IN ('scheduled', 'running', 'paused')
                 GROUP BY counts.mailing_no, reason HAVING sum(n) > 0) AS by_mailing
           GROUP BY reason ORDER BY reason"#
    )
    .fetch_all(db)
    .await
}

/// Of all live mailings' held messages the one that is due first.
pub async fn first_due(db: &mut PgConnection) -> sqlx::Result<Option<FirstDue>> {
    sqlx::query_as!(
        FirstDue,
        r#"SELECT mailings.mailing_no, mailings.id AS mailing_id, first.client_no, first.reason,
                  messages.updated_at AS held_at, first.not_before
           FROM mailings
                CROSS JOIN LATERAL (SELECT client_no, reason, not_before FROM held
                                    WHERE held.mailing_no = mailings.mailing_no
                                    ORDER BY not_before LIMIT 1) AS first
                JOIN messages ON messages.mailing_no = mailings.mailing_no AND messages.client_no = first.client_no
           WHERE state IN ('scheduled', 'running', 'paused')
           ORDER BY first.not_before LIMIT 1"#
    )
    .fetch_optional(db)
    .await
}

/// Held messages behind client `after` that were due at `due_before`, in the order of their clients, but for those of the
/// `closed` lanes.
pub async fn due(
    db: &mut PgConnection,
    mailing_no: MailingNo,
    due_before: DateTime<Utc>,
    closed: &[i16],
    after: ClientNo,
    limit: i64,
) -> sqlx::Result<Vec<DueRow>> {
    sqlx::query_as!(
        DueRow,
        r#"SELECT client_no, held.round, held.reason, messages.attempts, messages.client_id,
                  clients.phone_number AS "phone?", clients.mobile_operator_code AS "operator_code?"
           FROM held JOIN messages USING (mailing_no, client_no) LEFT JOIN clients USING (client_no)
           WHERE held.mailing_no = $1 AND held.client_no > $2 AND held.not_before <= $3
                 AND held.operator_code <> ALL($4)
           ORDER BY client_no LIMIT $5"#,
        mailing_no.get(),
        after.get(),
        due_before,
        closed,
        limit,
    )
    .fetch_all(db)
    .await
}
