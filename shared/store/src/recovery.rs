//! What `herald recover` reads and writes, in one transaction.

use domain::ids::{ClientNo, MailingNo, Version};
use sqlx::PgConnection;

use crate::mailings::{MailingRow, row_columns};

/// Keeps mailings and outbox from changing until the transaction's end.
pub async fn lock(db: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("LOCK TABLE mailings, outbox IN SHARE ROW EXCLUSIVE MODE").execute(db).await?;
    Ok(())
}

/// All mailings.
pub async fn mailings(db: &mut PgConnection) -> sqlx::Result<Vec<MailingRow>> {
    const ALL: &str = concat!("SELECT ", row_columns!(), " FROM mailings ORDER BY mailing_no");
    sqlx::query_as(ALL).fetch_all(db).await
}

/// Removes all events and returns their payloads, oldest first.
pub async fn empty_outbox(db: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    let mut rows = sqlx::query!("DELETE FROM outbox RETURNING id, payload").fetch_all(db).await?;
    rows.sort_by_key(|row| row.id);
    Ok(rows.into_iter().map(|row| row.payload).collect())
}

/// Writes a mailing over its row or anew; what only the scheduler knows of it stays. `false`: another mailing has its number.
pub async fn write_mailing(db: &mut PgConnection, row: &MailingRow) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO mailings AS stored (mailing_no, id, shard, version, text, operator_codes, tags, starts_at, ends_at,
             state, delivery, created_at, updated_at)
         OVERRIDING SYSTEM VALUE
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (mailing_no) DO UPDATE SET
             version = EXCLUDED.version, text = EXCLUDED.text, operator_codes = EXCLUDED.operator_codes,
             tags = EXCLUDED.tags, starts_at = EXCLUDED.starts_at, ends_at = EXCLUDED.ends_at, state = EXCLUDED.state,
             delivery = EXCLUDED.delivery, updated_at = EXCLUDED.updated_at
         WHERE stored.id = EXCLUDED.id",
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
    Ok(done.rows_affected() == 1)
}

/// Gives a mailing a version above `known` and its own.
pub async fn renew_version(db: &mut PgConnection, mailing_no: MailingNo, known: Version) -> sqlx::Result<Version> {
    let version = sqlx::query_scalar!(
        "UPDATE mailings SET version = GREATEST(version + 1, $2::bigint + 1,
             (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint)
         WHERE mailing_no = $1
         RETURNING version",
        mailing_no.get(),
        known.get(),
    )
    .fetch_one(db)
    .await?;
    Ok(version.into())
}

/// Gives out no mailing and no client number up to these any more. Outlives a rollback. Returns the highest of each that
/// counts as given out.
pub async fn raise_numbers(
    db: &mut PgConnection,
    mailing_no: MailingNo,
    client_no: ClientNo,
) -> sqlx::Result<(MailingNo, ClientNo)> {
    let raised = sqlx::query!(
        r#"SELECT CASE WHEN mailings.last < $1 THEN setval(mailings.sequence, $1) ELSE mailings.last END AS "mailing_no!",
                  CASE WHEN clients.last < $2 THEN setval(clients.sequence, $2) ELSE clients.last END AS "client_no!"
           FROM (SELECT sequence, COALESCE(pg_sequence_last_value(sequence), 0) AS last
                 FROM CAST(pg_get_serial_sequence('mailings', 'mailing_no') AS regclass) AS sequence) AS mailings,
                (SELECT sequence, COALESCE(pg_sequence_last_value(sequence), 0) AS last
                 FROM CAST(pg_get_serial_sequence('clients', 'client_no') AS regclass) AS sequence) AS clients"#,
        mailing_no.get(),
        client_no.get(),
    )
    .fetch_one(db)
    .await?;
    Ok((raised.mailing_no.into(), raised.client_no.into()))
}

/// Raises the mark to this one at least.
pub async fn raise_mark(db: &mut PgConnection, mark: i64) -> sqlx::Result<()> {
    sqlx::query!("UPDATE database_mark SET mark = GREATEST(mark, $1)", mark).execute(db).await?;
    Ok(())
}
