//! The table `database_mark`, and the server it is on.

use domain::mark::DatabaseMark;
use sqlx::PgConnection;

// pg_control_checkpoint() would still tell the old timeline for a while after a promotion.

/// Reads which database this is and how far. Holds for as long as the connection lives: another state needs another server
/// process. Fails on a standby.
pub async fn read(db: &mut PgConnection) -> sqlx::Result<DatabaseMark> {
    sqlx::query_as!(
        DatabaseMark,
        r#"SELECT (SELECT system_identifier::text FROM pg_control_system()) AS "system_identifier!",
                  ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint AS "timeline!",
                  mark,
                  COALESCE(pg_sequence_last_value(pg_get_serial_sequence('mailings', 'mailing_no')::regclass), 0)
                      AS "mailing_no!"
           FROM database_mark"#
    )
    .fetch_one(db)
    .await
}

/// Raises the mark, outside a transaction: what it returns must be on disk before Kafka is told, and whatever was read
/// before is in every state that has this mark. All in one statement, for the commit makes the number durable as well.
pub async fn next(db: &mut PgConnection) -> sqlx::Result<DatabaseMark> {
    sqlx::query_as!(
        DatabaseMark,
        r#"UPDATE database_mark SET mark = mark + 1
           RETURNING (SELECT system_identifier::text FROM pg_control_system()) AS "system_identifier!",
                     ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint AS "timeline!",
                     mark,
                     COALESCE(pg_sequence_last_value(pg_get_serial_sequence('mailings', 'mailing_no')::regclass), 0)
                         AS "mailing_no!""#
    )
    .fetch_one(db)
    .await
}
