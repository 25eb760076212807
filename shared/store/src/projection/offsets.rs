//! `projector_offsets`: how far each status partition is written, and from which log.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::ids::MessageId;
use sqlx::PgConnection;

/// A step of one partition's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetMove {
    /// The status partition.
    pub partition: i32,
    /// What must be stored now; nothing before the partition's first batch.
    pub from: Option<i64>,
    /// The next offset to read.
    pub to: i64,
    /// The newest status of this step; none when all of it was garbage.
    pub seen: Option<Seen>,
}

/// A status that was written, and where it lay: evidence of which log it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its offset.
    pub offset: i64,
    /// Its message.
    pub message: MessageId,
    /// When it happened, in µs.
    pub at: DateTime<Utc>,
}

/// What Postgres knows of the log that a status partition's rows came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownLog {
    /// The status partition.
    pub partition: i32,
    /// The next offset to read; none: there are rows, and nothing says where they came from.
    pub next_offset: Option<i64>,
    /// The newest status that was written.
    pub seen: Option<Seen>,
    /// There were rows before the first batch of this log.
    pub began_over: bool,
}

/// What is known of the logs that the rows came from, by partition.
pub async fn known_logs(conn: &mut PgConnection) -> sqlx::Result<Vec<KnownLog>> {
    let rows = sqlx::query!(
        r#"SELECT COALESCE(offsets.partition, counted.partition) AS "partition!", next_offset AS "next_offset?",
                  seen_offset, seen_message_id, seen_at, COALESCE(began_over, true) AS "began_over!"
           FROM projector_offsets AS offsets
           FULL JOIN (SELECT DISTINCT partition FROM mailing_counts) AS counted USING (partition)
           ORDER BY 1"#
    )
    .fetch_all(conn)
    .await?;
    let mut logs = Vec::new();
    for row in rows {
        let seen = match (row.seen_offset, row.seen_message_id, row.seen_at) {
            (Some(offset), Some(id), Some(at)) => {
                let message = MessageId::try_from(id).map_err(|error| sqlx::Error::Decode(error.into()))?;
                Some(Seen { offset, message, at })
            }
            _ => None,
        };
        let (partition, next_offset, began_over) = (row.partition, row.next_offset, row.began_over);
        logs.push(KnownLog { partition, next_offset, seen, began_over });
    }
    Ok(logs)
}

/// Where the given partitions go on; those that nothing was written of are absent.
pub async fn offsets(conn: &mut PgConnection, partitions: &[i32]) -> sqlx::Result<BTreeMap<i32, i64>> {
    let rows =
        sqlx::query!("SELECT partition, next_offset FROM projector_offsets WHERE partition = ANY($1)", partitions)
            .fetch_all(conn)
            .await?;
    Ok(rows.into_iter().map(|row| (row.partition, row.next_offset)).collect())
}

/// Moves all the offsets by compare-and-set. `false`: some are not where they should be, the transaction must be rolled
/// back. Waits for another transaction that moves them.
pub async fn move_offsets(conn: &mut PgConnection, moves: &[OffsetMove]) -> sqlx::Result<bool> {
    fn column<T>(moves: &[&OffsetMove], value: impl Fn(&OffsetMove) -> T) -> Vec<T> {
        moves.iter().map(|step| value(step)).collect()
    }
    let (known, new): (Vec<&OffsetMove>, Vec<&OffsetMove>) = moves.iter().partition(|step| step.from.is_some());
    let mut moved = 0;
    if !known.is_empty() {
        let update = sqlx::query!(
            "UPDATE projector_offsets AS stored SET
                 next_offset = step.next_offset,
                 seen_offset = COALESCE(step.seen_offset, stored.seen_offset),
                 seen_message_id = COALESCE(step.seen_message_id, stored.seen_message_id),
                 seen_at = COALESCE(step.seen_at, stored.seen_at)
             FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[])
                  AS step (partition, expected, next_offset, seen_offset, seen_message_id, seen_at)
             WHERE stored.partition = step.partition AND stored.next_offset = step.expected",
            &column(&known, |step| step.partition),
            &column(&known, |step| step.from) as &[Option<i64>],
            &column(&known, |step| step.to),
            &column(&known, |step| step.seen.map(|seen| seen.offset)) as &[Option<i64>],
            &column(&known, |step| step.seen.map(|seen| seen.message.get())) as &[Option<i64>],
            &column(&known, |step| step.seen.map(|seen| seen.at)) as &[Option<DateTime<Utc>>],
        );
        moved += update.execute(&mut *conn).await?.rows_affected();
    }
    if !new.is_empty() {
        let insert = sqlx::query!(
            "INSERT INTO projector_offsets (partition, next_offset, seen_offset, seen_message_id, seen_at, began_over)
             SELECT step.*, EXISTS (SELECT FROM mailing_counts WHERE mailing_counts.partition = step.partition)
             FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bigint[], $5::timestamptz[])
                  AS step (partition, next_offset, seen_offset, seen_message_id, seen_at)
             ON CONFLICT DO NOTHING",
            &column(&new, |step| step.partition),
            &column(&new, |step| step.to),
            &column(&new, |step| step.seen.map(|seen| seen.offset)) as &[Option<i64>],
            &column(&new, |step| step.seen.map(|seen| seen.message.get())) as &[Option<i64>],
            &column(&new, |step| step.seen.map(|seen| seen.at)) as &[Option<DateTime<Utc>>],
        );
        moved += insert.execute(&mut *conn).await?.rows_affected();
    }
    Ok(moved == moves.len() as u64)
}
