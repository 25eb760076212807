//! The table `held`, as passes and the API read it.

use chrono::{DateTime, Utc};
use domain::ids::{ClientNo, MailingNo};
use domain::status::Reason;
use sqlx::{PgConnection, QueryBuilder};
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
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct DueRow {
    /// The client.
    #[sqlx(try_from = "i64")]
    pub client_no: ClientNo,
    /// It is due no earlier.
    pub not_before: DateTime<Utc>,
    /// The round in which it was held: the next one is one more.
    pub round: i32,
    /// Calls made so far; they count on in the next round.
    pub attempts: i32,
    /// When the held round was planned.
    pub planned_at: DateTime<Utc>,
    /// The client's public id.
    pub client_id: Uuid,
    /// The lane of its last record; 0: that wasn't told.
    pub operator_code: i16,
    /// The digits; none: the client is erased.
    pub phone: Option<i64>,
    /// The client's code now; none with the phone.
    pub current_code: Option<i16>,
}

/// Which held messages of a mailing are read.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The mailing.
    pub mailing_no: MailingNo,
    /// Those that are due by then; none: all.
    pub due_before: Option<DateTime<Utc>>,
    /// Those behind this message, by `not_before` and client; none: from the first on.
    pub after: Option<(DateTime<Utc>, ClientNo)>,
    /// Only those of some lanes.
    pub lanes: Lanes,
}

/// A choice of lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lanes {
    /// All but these.
    Except(Vec<i16>),
    /// These.
    Only(Vec<i16>),
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

/// The held message that is due first, of all live mailings.
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

/// Reads on in the order of `not_before`, which is that of an index.
pub async fn due(db: &mut PgConnection, walk: &Walk, limit: i64) -> sqlx::Result<Vec<DueRow>> {
    let mut query = QueryBuilder::new(
        "SELECT held.client_no, held.not_before, held.round, messages.attempts, messages.planned_at, messages.client_id,
                held.operator_code, clients.phone_number AS phone,
                clients.mobile_operator_code AS current_code
         FROM held JOIN messages USING (mailing_no, client_no) LEFT JOIN clients USING (client_no)
         WHERE held.mailing_no = ",
    );
    query.push_bind(walk.mailing_no.get());
    if let Some(due_before) = walk.due_before {
        query.push(" AND held.not_before <= ").push_bind(due_before);
    }
    if let Some((not_before, client_no)) = walk.after {
        query.push(" AND (held.not_before, held.client_no) > (").push_bind(not_before);
        query.push(", ").push_bind(client_no.get()).push(")");
    }
    match &walk.lanes {
        Lanes::Except(codes) if codes.is_empty() => {}
        Lanes::Except(codes) => {
            query.push(" AND held.operator_code <> ALL(").push_bind(codes.clone()).push(")");
        }
        Lanes::Only(codes) => {
            query.push(" AND held.operator_code = ANY(").push_bind(codes.clone()).push(")");
        }
    }
    query.push(" ORDER BY held.not_before, held.client_no LIMIT ").push_bind(limit);
    query.build_query_as().fetch_all(db).await
}
