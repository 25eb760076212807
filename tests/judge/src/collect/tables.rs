//! The tables, read in one snapshot.

use anyhow::Context;
use sqlx::postgres::PgRow;
use sqlx::{Connection, Executor, FromRow, PgConnection};

use crate::evidence::Evidence;
use crate::ids::MailingNo;

/// A `timestamptz` as µs since the epoch.
macro_rules! micros {
    ($column:literal) => {
        concat!("(EXTRACT(EPOCH FROM ", $column, ") * 1000000)::bigint AS ", $column)
    };
}

const CLIENTS: &str = concat!(
    "SELECT client_no, id, phone_number AS phone, mobile_operator_code AS operator_code, tag, ",
    micros!("updated_at"),
    " FROM clients ORDER BY client_no"
);
const MAILINGS: &str = concat!(
    "SELECT mailing_no, id, text, operator_codes, tags, state, delivery, ",
    micros!("starts_at"),
    ", ",
    micros!("ends_at"),
    ", ",
    micros!("started_at"),
    " FROM mailings ORDER BY mailing_no"
);
const ROWS: &str = "SELECT mailing_no, client_no, client_id, status, reason, round, settled_round FROM messages";
const COUNTS: &str = "SELECT mailing_no, status, sum(n)::bigint AS n FROM mailing_counts GROUP BY 1, 2";
const SETTLED_ROUNDS: &str = "SELECT mailing_no, sum(n)::bigint FROM mailing_settled_rounds GROUP BY 1";
const STEPS: &str = "SELECT mailing_no, client_no, status_partition, status_offset, attempt FROM steps";
const MIRRORS: &str = "SELECT mailing_no, planned, emitted, again, complete FROM mailing_progress";
const HELD: &str = "SELECT mailing_no, client_no, round, reason FROM held";
const HELD_COUNTS: &str = "SELECT mailing_no, reason, sum(n)::bigint FROM held_counts GROUP BY 1, 2";

pub(super) async fn read(database_url: &str, evidence: &mut Evidence) -> anyhow::Result<()> {
    let mut db = PgConnection::connect(database_url).await.context("connect to Postgres")?;
    db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    evidence.clients = all(&mut db, CLIENTS).await?;
    evidence.mailings = all(&mut db, MAILINGS).await?;
    evidence.rows = all(&mut db, ROWS).await?;
    evidence.counts = all(&mut db, COUNTS).await?;
    let settled: Vec<(MailingNo, i64)> = all(&mut db, SETTLED_ROUNDS).await?;
    evidence.settled_rounds = settled.into_iter().collect();
    evidence.steps = all(&mut db, STEPS).await?;
    evidence.mirrors = all(&mut db, MIRRORS).await?;
    evidence.held = all(&mut db, HELD).await?;
    let counts: Vec<(MailingNo, String, i64)> = all(&mut db, HELD_COUNTS).await?;
    evidence.held_counts = counts.into_iter().map(|(no, reason, n)| ((no, reason), n)).collect();
    db.close().await?;
    Ok(())
}

async fn all<T>(db: &mut PgConnection, query: &'static str) -> anyhow::Result<Vec<T>>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    sqlx::query_as(query).fetch_all(db).await.context(query)
}
