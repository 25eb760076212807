//! Rows that a test needs to be there, and what must hold of those that services write.

use chrono::{DateTime, Utc};
use events::topics::Topic;
use uuid::Uuid;

use crate::{Installation, until};

impl Installation {
    /// Adds a running mailing that nobody has planned, and returns its number.
    pub async fn add_mailing(&self, id: Uuid, created_at: DateTime<Utc>) -> i64 {
        sqlx::query_scalar(
            "INSERT INTO mailings (id, shard, version, text, operator_codes, tags, starts_at, ends_at, state, delivery,
                                   created_at, updated_at)
             VALUES ($1, 0, 1, 'hello', '{}', '{all}', $2, $2 + interval '1 day', 'running', 'at_least_once', $2, $2)
             RETURNING mailing_no",
        )
        .bind(id)
        .bind(created_at)
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    /// Waits until the projector has written all that is in status-events.
    pub async fn caught_up(&self) {
        let mut ends = vec![0; self.partitions(Topic::StatusEvents).len()];
        for record in self.records(Topic::StatusEvents).await {
            ends[usize::try_from(record.partition).unwrap()] = record.offset + 1;
        }
        let offset = "SELECT coalesce((SELECT next_offset FROM projector_offsets WHERE partition = $1), 0)";
        for (partition, end) in (0i32..).zip(ends) {
            until(&format!("partition {partition} is written up to {end}"), async || {
                let at = sqlx::query_scalar::<_, i64>(offset).bind(partition).fetch_one(&self.pool).await;
                at.is_ok_and(|at| at >= end)
            })
            .await;
        }
    }

    /// Rows by status, as the counts have them.
    pub async fn counts(&self) -> Vec<(String, i64)> {
        let sums = "SELECT status, sum(n)::bigint FROM mailing_counts GROUP BY 1 HAVING sum(n) <> 0 ORDER BY 1";
        sqlx::query_as(sums).fetch_all(&self.pool).await.unwrap()
    }

    /// Fails unless counts and settled rounds are sums over the rows.
    pub async fn assert_conserved(&self) {
        let wrong: Vec<String> = sqlx::query_scalar(
            "SELECT format('%s %s: %s rows, counted %s', mailing_no, status, coalesce(r.n, 0), coalesce(c.n, 0))
             FROM (SELECT mailing_no, status, count(*) AS n FROM messages GROUP BY 1, 2) AS r
             FULL JOIN (SELECT mailing_no, status, sum(n) AS n FROM mailing_counts GROUP BY 1, 2) AS c
                  USING (mailing_no, status)
             WHERE coalesce(r.n, 0) <> coalesce(c.n, 0)
             UNION ALL
             SELECT format('%s: %s and %s rounds settled, summed %s and %s', mailing_no, r.n, r.again, s.n, s.again)
             FROM (SELECT mailing_no, sum(settled_round) AS n, sum(greatest(settled_round - 1, 0)) AS again
                   FROM messages GROUP BY 1) AS r
             LEFT JOIN (SELECT mailing_no, sum(n) AS n, sum(again) AS again FROM mailing_settled_rounds GROUP BY 1) AS s
                  USING (mailing_no)
             WHERE (r.n, r.again) <> (coalesce(s.n, 0), coalesce(s.again, 0))",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        assert_eq!(wrong, Vec::<String>::new());
    }
}
