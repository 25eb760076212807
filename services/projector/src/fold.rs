//! The fold: many statuses into one row a message, and what that adds to the counts.
//!
//! It starts from the rows as they are and takes each status by itself, so where one batch ends and the next begins makes no
//! difference; and by the rules of [`Standing`] a status that is read again changes nothing.

use std::collections::BTreeMap;

use domain::ids::{ClientNo, MailingNo, MessageId};
use domain::status::{Standing, Status};
use events::{Kind, StatusEvent};
use store::projection::{HeldRow, MessageRow, SettledRounds, StepRow};

/// What a batch writes.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    rows: BTreeMap<(MailingNo, ClientNo), Folded>,
    /// In the order in which they were read.
    pub(crate) steps: Vec<StepRow>,
    /// Messages that are held now, or were and aren't any more.
    held: BTreeMap<(MailingNo, ClientNo), Option<HeldRow>>,
    /// What is added to a mailing's held rows by partition and reason.
    pub(crate) held_counts: BTreeMap<(MailingNo, i32, String), i64>,
    /// What is added to a mailing's rows by partition and status. A status that was only passed through is here with 0: it
    /// leaves a count of 0 whether it shared a batch with the next one or not.
    pub(crate) counts: BTreeMap<(MailingNo, i32, String), i64>,
    /// What is added to a mailing's settled rounds by partition.
    pub(crate) settled_rounds: BTreeMap<(MailingNo, i32), SettledRounds>,
}

#[derive(Debug)]
struct Folded {
    row: MessageRow,
    changed: bool,
}

impl Fold {
    /// Begins with the rows that the batch's messages have.
    pub(crate) fn over(rows: Vec<MessageRow>) -> Self {
        let rows =
            rows.into_iter().map(|row| ((row.mailing_no, row.client_no), Folded { row, changed: false })).collect();
        Self { rows, ..Self::default() }
    }

    /// Takes the status read at these coordinates.
    pub(crate) fn apply(&mut self, partition: i32, offset: i64, event: &StatusEvent) {
        if event.status == Status::Created {
            return;
        }
        let (mailing_no, client_no) = (event.message_id.mailing_no(), event.message_id.client_no());
        if event.is_step() {
            self.steps.push(step_row(partition, offset, event));
        }
        let count = |status: &str| (mailing_no, partition, status.to_owned());
        let folded = self.rows.entry((mailing_no, client_no)).or_insert_with(|| {
            *self.counts.entry(count(event.status.as_str())).or_default() += 1;
            if let Some(held) = held_row(event) {
                *self.held_counts.entry(count(&held.reason)).or_default() += 1;
                self.held.insert((mailing_no, client_no), Some(held));
            }
            Folded { row: first_row(event), changed: true }
        });
        let row = &mut folded.row;
        if standing(row).is_replaced_by(&event.standing()) {
            if row.status == Status::Held {
                *self.held_counts.entry(count(row.reason.as_deref().unwrap_or_default())).or_default() -= 1;
                self.held.insert((mailing_no, client_no), None);
            }
            if let Some(held) = held_row(event) {
                *self.held_counts.entry(count(&held.reason)).or_default() += 1;
                self.held.insert((mailing_no, client_no), Some(held));
            }
            if row.status != event.status {
                *self.counts.entry(count(row.status.as_str())).or_default() -= 1;
                *self.counts.entry(count(event.status.as_str())).or_default() += 1;
            }
            show(row, event);
            folded.changed = true;
        }
        if event.kind == Kind::Settled && event.round > row.settled_round {
            let settled = self.settled_rounds.entry((mailing_no, partition)).or_default();
            settled.all += i64::from(event.round) - i64::from(row.settled_round);
            settled.again += above_the_first(event.round) - above_the_first(row.settled_round);
            row.settled_round = event.round;
            folded.changed = true;
        }
    }

    /// Whether anything of the batch was held or is held no longer.
    pub(crate) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Rows of `held` to be written, by key.
    pub(crate) fn held_rows(&self) -> Vec<&HeldRow> {
        self.held.values().flatten().collect()
    }

    /// Messages that are held no longer.
    pub(crate) fn released(&self) -> Vec<MessageId> {
        let released = self.held.iter().filter(|(_, row)| row.is_none());
        released.filter_map(|(&(mailing, client), _)| MessageId::new(mailing, client).ok()).collect()
    }

    /// The rows that differ from what they were, by key.
    pub(crate) fn changed_rows(&self) -> Vec<&MessageRow> {
        self.rows.values().filter(|folded| folded.changed).map(|folded| &folded.row).collect()
    }
}

/// The row of a message that is held by this.
fn held_row(event: &StatusEvent) -> Option<HeldRow> {
    (event.status == Status::Held).then(|| HeldRow {
        mailing_no: event.message_id.mailing_no(),
        client_no: event.message_id.client_no(),
        round: event.round,
        reason: event.reason.as_ref().map_or_else(String::new, |reason| reason.as_str().to_owned()),
        not_before: event.not_before.unwrap_or(event.occurred_at),
        operator_code: event.operator_code.unwrap_or(0),
    })
}

fn above_the_first(round: i32) -> i64 {
    i64::from(round - 1).max(0)
}

fn standing(row: &MessageRow) -> Standing {
    Standing { round: row.round, status: row.status.clone(), attempt: row.attempts, not_before: row.not_before }
}

fn first_row(event: &StatusEvent) -> MessageRow {
    MessageRow {
        mailing_no: event.message_id.mailing_no(),
        client_no: event.message_id.client_no(),
        client_id: event.client_id,
        status: event.status.clone(),
        reason: event.reason.as_ref().map(|reason| reason.as_str().to_owned()),
        round: event.round,
        settled_round: 0,
        attempts: event.attempt,
        code: event.code,
        latency_ms: event.latency_ms,
        not_before: event.not_before,
        planned_at: event.planned_at,
        updated_at: event.occurred_at,
    }
}

fn show(row: &mut MessageRow, event: &StatusEvent) {
    let (settled_round, attempts) = (row.settled_round, row.attempts);
    *row = MessageRow { settled_round, attempts: attempts.max(event.attempt), ..first_row(event) };
}

fn step_row(partition: i32, offset: i64, event: &StatusEvent) -> StepRow {
    StepRow {
        mailing_no: event.message_id.mailing_no(),
        client_no: event.message_id.client_no(),
        status_partition: partition,
        status_offset: offset,
        round: event.round,
        attempt: event.attempt,
        status: event.status.clone(),
        reason: event.reason.as_ref().map(|reason| reason.as_str().to_owned()),
        code: event.code,
        latency_ms: event.latency_ms,
        not_before: event.not_before,
        detail: event.detail.clone(),
        occurred_at: event.occurred_at,
    }
}

#[cfg(test)]
mod tests;
