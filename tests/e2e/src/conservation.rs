use std::collections::{BTreeMap, BTreeSet};

use events::topics::Topic;
use events::{MessageEvent, StatusEvent, decode};
use kafka::Isolation;
use serde_json::Value;

use crate::{World, eventually};

const TERMINAL: [&str; 5] = ["succeeded", "failed", "expired", "cancelled", "unknown"];

impl World {
    /// The message ids of a mailing that were planned: those in message-events, read committed, in their first round, and those
    /// that the planner settled without one; with repetitions.
    pub async fn planned_messages(&self, mailing: &str) -> Vec<i64> {
        let records = self.records(Topic::MessageEvents, Isolation::Committed).await;
        let events = records.iter().filter_map(|record| decode::<MessageEvent>(record.payload.as_deref()).ok());
        let mut planned: Vec<i64> = events
            .filter(|event| event.mailing_id.to_string() == mailing && event.round == 1)
            .map(|event| event.message_id.get())
            .collect();
        let records = self.records(Topic::StatusEvents, Isolation::Committed).await;
        let statuses = records.iter().filter_map(|record| decode::<StatusEvent>(record.payload.as_deref()).ok());
        let with_record: BTreeSet<i64> = planned.iter().copied().collect();
        let settled_unsent = statuses
            .filter(|event| event.mailing_id.to_string() == mailing && event.round == 1 && event.source.offset < 0)
            .map(|event| event.message_id.get());
        // `herald replan` settles some whose record is there.
        planned.extend(settled_unsent.filter(|message| !with_record.contains(message)));
        planned.sort_unstable();
        planned
    }

    /// What the projector writes, row by row.
    pub async fn projected_rows(&self) -> Vec<String> {
        let mut rows = Vec::new();
        for (table, key) in [
            ("messages", "mailing_no, client_no"),
            ("steps", "mailing_no, client_no, status_partition, status_offset"),
            ("held", "mailing_no, client_no"),
            ("mailing_counts", "mailing_no, partition, status"),
            ("held_counts", "mailing_no, partition, reason"),
            ("mailing_settled_rounds", "mailing_no, partition"),
            ("projector_offsets", "partition"),
        ] {
            let query = format!("SELECT '{table}' || row_to_json({table})::text FROM {table} ORDER BY {key}");
            rows.extend(sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(query)).fetch_all(&self.db).await.unwrap());
        }
        // A count that came down to nothing needs no row.
        rows.retain(|row| !row.ends_with("\"n\":0}"));
        rows
    }

    /// Waits until every status is in the tables.
    pub async fn projected(&self) {
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        for record in self.records(Topic::StatusEvents, Isolation::Committed).await {
            ends.insert(record.partition, record.offset + 1);
        }
        eventually("the projector to write all", async || {
            let query = "SELECT partition, next_offset FROM projector_offsets";
            let written: Vec<(i32, i64)> = sqlx::query_as(query).fetch_all(&self.db).await.ok()?;
            let written: BTreeMap<i32, i64> = written.into_iter().collect();
            ends.iter().all(|(partition, end)| written.get(partition) >= Some(end)).then_some(())
        })
        .await;
    }

    /// The rows of a mailing: status by message id.
    pub async fn rows(&self, mailing: &str) -> BTreeMap<i64, String> {
        let rows: Vec<(i64, String)> = sqlx::query_as(
            "SELECT messages.mailing_no << 33 | client_no, status FROM messages JOIN mailings USING (mailing_no)
             WHERE mailings.id = $1::uuid",
        )
        .bind(mailing)
        .fetch_all(&self.db)
        .await
        .unwrap();
        rows.into_iter().collect()
    }

    /// Conservation at the end, when the mailing is finished: the audience = planned messages = rows = counts, all of it
    /// terminal, and the provider's log agrees. Returns the mailing.
    pub async fn assert_conserved(&self, mailing: &str, audience: usize) -> Value {
        let shown = self.api.finished(mailing).await;
        let counts = &shown["counts"];
        assert_eq!(counts["audience"], audience, "{shown}");
        assert_eq!(counts["planned"], audience, "{shown}");

        let planned = self.planned_messages(mailing).await;
        let distinct: BTreeSet<i64> = planned.iter().copied().collect();
        assert_eq!((distinct.len(), planned.len()), (audience, audience), "each client is planned once");

        let rows = self.rows(mailing).await;
        assert!(rows.keys().eq(&distinct), "a row for each planned message and no other");
        let mut by_status: BTreeMap<&str, usize> = TERMINAL.map(|status| (status, 0)).into();
        for status in rows.values() {
            *by_status.get_mut(status.as_str()).unwrap_or_else(|| panic!("{status} isn't terminal")) += 1;
        }
        for (status, n) in &by_status {
            assert_eq!(counts[status], *n, "{status}: {counts}");
        }

        let calls = self.calls().await;
        for (message, status) in &rows {
            let accepted = calls.accepted(*message);
            assert!(accepted || status != "succeeded", "{message} succeeded, and the provider never accepted it");
            // Unless its answer was lost on the way, as it is when a sender dies.
            let other = !["succeeded", "unknown"].contains(&status.as_str())
                && calls
                    .by_message
                    .get(message)
                    .is_some_and(|calls| calls.iter().any(|call| call.accepted && call.outcome == "ok"));
            assert!(!other, "{message} is {status}, and the provider accepted it and answered");
        }
        shown
    }
}
