//! What the projector writes: `messages`, `steps`, `held`, the counts, and `projector_offsets`.
//!
//! One batch is one transaction of these calls, [`move_offsets`] first. All rows are given sorted by key: two writers that
//! meet wait for each other instead of deadlocking.

mod offsets;

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use domain::ids::{ClientNo, MailingNo, MessageId};
use domain::status::Status;
use sqlx::PgConnection;
use uuid::Uuid;

pub use offsets::{KnownLog, OffsetMove, Seen, known_logs, move_offsets, offsets};

/// A row of `messages`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    /// The mailing.
    pub mailing_no: MailingNo,
    /// The client.
    pub client_no: ClientNo,
    /// The client's public id.
    pub client_id: Uuid,
    /// The status that is shown.
    pub status: Status,
    /// Why.
    pub reason: Option<String>,
    /// The round in which the shown status was reached.
    pub round: i32,
    /// The highest round in which it is settled; 0 is none.
    pub settled_round: i32,
    /// Calls made, as far as shown statuses told.
    pub attempts: i32,
    /// The provider's HTTP status.
    pub code: Option<i32>,
    /// How long the attempt took that led to the status.
    pub latency_ms: Option<i32>,
    /// The next attempt or round begins no earlier.
    pub not_before: Option<DateTime<Utc>>,
    /// When the shown round was planned.
    pub planned_at: DateTime<Utc>,
    /// When the shown status was reached, by the sender's clock; never the time of writing.
    pub updated_at: DateTime<Utc>,
}

/// A row of `steps`: an attempt that failed, a wait, or a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRow {
    /// The mailing.
    pub mailing_no: MailingNo,
    /// The client.
    pub client_no: ClientNo,
    /// Where the status lies that told of it.
    pub status_partition: i32,
    /// Its offset.
    pub status_offset: i64,
    /// The round.
    pub round: i32,
    /// Attempts so far.
    pub attempt: i32,
    /// The status that told of it.
    pub status: Status,
    /// Why.
    pub reason: Option<String>,
    /// The provider's HTTP status.
    pub code: Option<i32>,
    /// How long the attempt took.
    pub latency_ms: Option<i32>,
    /// The next attempt or round begins no earlier.
    pub not_before: Option<DateTime<Utc>>,
    /// For people, masked.
    pub detail: Option<String>,
    /// By the sender's clock.
    pub occurred_at: DateTime<Utc>,
}

/// The public ids of those mailings that there are.
pub async fn mailing_ids(conn: &mut PgConnection, mailing_nos: &[MailingNo]) -> sqlx::Result<HashMap<MailingNo, Uuid>> {
    let mailing_nos: Vec<i64> = mailing_nos.iter().map(|mailing_no| mailing_no.get()).collect();
    let rows = sqlx::query!("SELECT mailing_no, id FROM mailings WHERE mailing_no = ANY($1)", &mailing_nos)
        .fetch_all(conn)
        .await?;
    Ok(rows.into_iter().map(|row| (row.mailing_no.into(), row.id)).collect())
}

/// Locks and reads those of the messages that have a row. Within a transaction only.
pub async fn lock_messages(conn: &mut PgConnection, messages: &[MessageId]) -> sqlx::Result<Vec<MessageRow>> {
    // A plan made while the table was small would read all of it for each batch until the next ANALYZE, a minute later at best.
    sqlx::query!(
        "SELECT set_config('enable_seqscan', 'off', true) AS seqscan,
                set_config('enable_hashjoin', 'off', true) AS hashjoin,
                set_config('enable_mergejoin', 'off', true) AS mergejoin"
    )
    .fetch_one(&mut *conn)
    .await?;
    let (mailing_nos, client_nos) = columns_of(messages);
    sqlx::query_as!(
        MessageRow,
        "SELECT mailing_no, client_no, client_id, status, reason, round, settled_round, attempts, code, latency_ms,
                not_before, planned_at, updated_at
         FROM messages JOIN unnest($1::bigint[], $2::bigint[]) AS key (mailing_no, client_no)
              USING (mailing_no, client_no)
         ORDER BY mailing_no, client_no
         FOR UPDATE OF messages",
        &mailing_nos,
        &client_nos,
    )
    .fetch_all(conn)
    .await
}

fn columns_of(messages: &[MessageId]) -> (Vec<i64>, Vec<i64>) {
    messages.iter().map(|id| (id.mailing_no().get(), id.client_no().get())).unzip()
}

/// Writes whole rows over what was there.
pub async fn upsert_messages(conn: &mut PgConnection, rows: &[&MessageRow]) -> sqlx::Result<()> {
    fn column<T>(rows: &[&MessageRow], value: impl Fn(&MessageRow) -> T) -> Vec<T> {
        rows.iter().map(|row| value(row)).collect()
    }
    sqlx::query!(
        "INSERT INTO messages (mailing_no, client_no, client_id, status, reason, round, settled_round, attempts, code,
                               latency_ms, not_before, planned_at, updated_at)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::integer[],
                              $7::integer[], $8::integer[], $9::integer[], $10::integer[], $11::timestamptz[],
                              $12::timestamptz[], $13::timestamptz[])
         ON CONFLICT (mailing_no, client_no) DO UPDATE SET
             client_id = EXCLUDED.client_id, status = EXCLUDED.status, reason = EXCLUDED.reason,
             round = EXCLUDED.round, settled_round = EXCLUDED.settled_round, attempts = EXCLUDED.attempts,
             code = EXCLUDED.code, latency_ms = EXCLUDED.latency_ms, not_before = EXCLUDED.not_before,
             planned_at = EXCLUDED.planned_at, updated_at = EXCLUDED.updated_at",
        &column(rows, |row| row.mailing_no.get()),
        &column(rows, |row| row.client_no.get()),
        &column(rows, |row| row.client_id),
        &column(rows, |row| row.status.as_str().to_owned()),
        &column(rows, |row| row.reason.clone()) as &[Option<String>],
        &column(rows, |row| row.round),
        &column(rows, |row| row.settled_round),
        &column(rows, |row| row.attempts),
        &column(rows, |row| row.code) as &[Option<i32>],
        &column(rows, |row| row.latency_ms) as &[Option<i32>],
        &column(rows, |row| row.not_before) as &[Option<DateTime<Utc>>],
        &column(rows, |row| row.planned_at),
        &column(rows, |row| row.updated_at),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes the steps that are not there yet.
pub async fn insert_steps(conn: &mut PgConnection, rows: &[StepRow]) -> sqlx::Result<()> {
    fn column<T>(rows: &[StepRow], value: impl Fn(&StepRow) -> T) -> Vec<T> {
        rows.iter().map(value).collect()
    }
    sqlx::query!(
        "INSERT INTO steps (mailing_no, client_no, status_partition, status_offset, round, attempt, status, reason, code,
                            latency_ms, not_before, detail, occurred_at)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::bigint[], $5::integer[], $6::integer[],
                              $7::text[], $8::text[], $9::integer[], $10::integer[], $11::timestamptz[], $12::text[],
                              $13::timestamptz[])
         ON CONFLICT DO NOTHING",
        &column(rows, |row| row.mailing_no.get()),
        &column(rows, |row| row.client_no.get()),
        &column(rows, |row| row.status_partition),
        &column(rows, |row| row.status_offset),
        &column(rows, |row| row.round),
        &column(rows, |row| row.attempt),
        &column(rows, |row| row.status.as_str().to_owned()),
        &column(rows, |row| row.reason.clone()) as &[Option<String>],
        &column(rows, |row| row.code) as &[Option<i32>],
        &column(rows, |row| row.latency_ms) as &[Option<i32>],
        &column(rows, |row| row.not_before) as &[Option<DateTime<Utc>>],
        &column(rows, |row| row.detail.clone()) as &[Option<String>],
        &column(rows, |row| row.occurred_at),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A row of `held`: a message that waits for a pass. There is one exactly while the row in `messages` shows `held`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRow {
    /// The mailing.
    pub mailing_no: MailingNo,
    /// The client.
    pub client_no: ClientNo,
    /// The round that was settled so.
    pub round: i32,
    /// What it waits for.
    pub reason: String,
    /// It is due no earlier. What waits for a state and not for a time has the moment at which it was held.
    pub not_before: DateTime<Utc>,
    /// The lane of its last record; 0: the status told none.
    pub operator_code: i16,
}

/// Writes whole rows over what was there.
pub async fn upsert_held(conn: &mut PgConnection, rows: &[&HeldRow]) -> sqlx::Result<()> {
    fn column<T>(rows: &[&HeldRow], value: impl Fn(&HeldRow) -> T) -> Vec<T> {
        rows.iter().map(|row| value(row)).collect()
    }
    sqlx::query!(
        "INSERT INTO held (mailing_no, client_no, round, reason, not_before, operator_code)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::text[], $5::timestamptz[], $6::smallint[])
         ON CONFLICT (mailing_no, client_no) DO UPDATE SET
             round = EXCLUDED.round, reason = EXCLUDED.reason, not_before = EXCLUDED.not_before,
             operator_code = EXCLUDED.operator_code",
        &column(rows, |row| row.mailing_no.get()),
        &column(rows, |row| row.client_no.get()),
        &column(rows, |row| row.round),
        &column(rows, |row| row.reason.clone()),
        &column(rows, |row| row.not_before),
        &column(rows, |row| row.operator_code),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Removes the rows of messages that are no longer held.
pub async fn delete_held(conn: &mut PgConnection, messages: &[MessageId]) -> sqlx::Result<()> {
    let (mailing_nos, client_nos) = columns_of(messages);
    sqlx::query!(
        "DELETE FROM held USING unnest($1::bigint[], $2::bigint[]) AS key (mailing_no, client_no)
         WHERE held.mailing_no = key.mailing_no AND held.client_no = key.client_no",
        &mailing_nos,
        &client_nos,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds to `held_counts`, by `(mailing_no, partition, reason)`.
pub async fn add_held_counts(
    conn: &mut PgConnection,
    changes: &BTreeMap<(MailingNo, i32, String), i64>,
) -> sqlx::Result<()> {
    let (mut mailing_nos, mut partitions, mut reasons, mut ns) = (vec![], vec![], vec![], vec![]);
    for ((mailing_no, partition, reason), n) in changes {
        mailing_nos.push(mailing_no.get());
        partitions.push(*partition);
        reasons.push(reason.clone());
        ns.push(*n);
    }
    sqlx::query!(
        "INSERT INTO held_counts (mailing_no, partition, reason, n)
         SELECT * FROM unnest($1::bigint[], $2::integer[], $3::text[], $4::bigint[])
         ON CONFLICT (mailing_no, partition, reason) DO UPDATE SET n = held_counts.n + EXCLUDED.n",
        &mailing_nos,
        &partitions,
        &reasons,
        &ns,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds to `mailing_counts`, by `(mailing_no, partition, status)`.
pub async fn add_counts(
    conn: &mut PgConnection,
    changes: &BTreeMap<(MailingNo, i32, String), i64>,
) -> sqlx::Result<()> {
    let (mut mailing_nos, mut partitions, mut statuses, mut ns) = (vec![], vec![], vec![], vec![]);
    for ((mailing_no, partition, status), n) in changes {
        mailing_nos.push(mailing_no.get());
        partitions.push(*partition);
        statuses.push(status.clone());
        ns.push(*n);
    }
    sqlx::query!(
        "INSERT INTO mailing_counts (mailing_no, partition, status, n)
         SELECT * FROM unnest($1::bigint[], $2::integer[], $3::text[], $4::bigint[])
         ON CONFLICT (mailing_no, partition, status) DO UPDATE SET n = mailing_counts.n + EXCLUDED.n",
        &mailing_nos,
        &partitions,
        &statuses,
        &ns,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Settled rounds of a mailing's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SettledRounds {
    /// Σ `settled_round`.
    pub all: i64,
    /// Σ max(`settled_round` − 1, 0): those above the first.
    pub again: i64,
}

/// Adds to `mailing_settled_rounds`, by `(mailing_no, partition)`.
pub async fn add_settled_rounds(
    conn: &mut PgConnection,
    changes: &BTreeMap<(MailingNo, i32), SettledRounds>,
) -> sqlx::Result<()> {
    let (mut mailing_nos, mut partitions, mut all, mut again) = (vec![], vec![], vec![], vec![]);
    for ((mailing_no, partition), rounds) in changes {
        mailing_nos.push(mailing_no.get());
        partitions.push(*partition);
        all.push(rounds.all);
        again.push(rounds.again);
    }
    sqlx::query!(
        "INSERT INTO mailing_settled_rounds AS stored (mailing_no, partition, n, again)
         SELECT * FROM unnest($1::bigint[], $2::integer[], $3::bigint[], $4::bigint[])
         ON CONFLICT (mailing_no, partition) DO UPDATE SET
             n = stored.n + EXCLUDED.n, again = stored.again + EXCLUDED.again",
        &mailing_nos,
        &partitions,
        &all,
        &again,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Empties all that the projector writes, so that it is written again from the log. Waits for a projector's transaction.
pub async fn empty(conn: &mut PgConnection) -> sqlx::Result<()> {
    // The offsets first, as every batch takes them.
    sqlx::query!(
        "TRUNCATE projector_offsets, messages, steps, held, mailing_counts, held_counts, mailing_settled_rounds"
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether there are rows of a mailing that was created before `moment`, or that is no longer there to say when.
pub async fn has_rows_from_before(conn: &mut PgConnection, moment: DateTime<Utc>) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM mailing_counts LEFT JOIN mailings USING (mailing_no)
               WHERE mailings.created_at IS NULL OR mailings.created_at < $1
           ) AS "exists!""#,
        moment,
    )
    .fetch_one(conn)
    .await
}
