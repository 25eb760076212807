//! The projector, and what it has written to Postgres.

use std::collections::{BTreeMap, BTreeSet};

use domain::status::{Reason, Standing, Status};

use crate::world::{Event, Kind, MILLI, Micros, StatusRecord, World, at};

#[derive(Clone, Debug)]
pub struct Row {
    pub standing: Standing,
    pub reason: Option<Reason>,
    pub settled_round: i32,
}

#[derive(Default)]
pub struct MailingRows {
    pub rows: BTreeMap<i64, Row>,
    pub settled: i64,
    pub settled_again: i64,
    /// Held messages by time and client.
    pub held: BTreeSet<(Micros, i64)>,
}

pub struct Rows {
    pub mailings: BTreeMap<i64, MailingRows>,
    pub offsets: Vec<usize>,
    pub down_until: Micros,
}

impl Rows {
    pub fn new(partitions: usize) -> Self {
        Self { mailings: BTreeMap::new(), offsets: vec![0; partitions], down_until: 0 }
    }
}

impl MailingRows {
    pub fn apply(&mut self, record: &StatusRecord) {
        let new = Standing {
            round: record.round,
            status: record.status.clone(),
            attempt: record.attempt,
            not_before: record.not_before.map(at),
        };
        let row = self.rows.get(&record.client_no).cloned();
        let mut next = row.clone().unwrap_or(Row { standing: new.clone(), reason: None, settled_round: 0 });
        if row.as_ref().is_none_or(|row| row.standing.is_replaced_by(&new)) {
            (next.standing, next.reason) = (new, record.reason.clone());
        }
        if record.kind == Kind::Settled && record.round > next.settled_round {
            let again = |round: i32| i64::from((round - 1).max(0));
            self.settled += i64::from(record.round - next.settled_round);
            self.settled_again += again(record.round) - again(next.settled_round);
            next.settled_round = record.round;
        }
        if let Some(key) = row.as_ref().and_then(|row| held_key(row, record.client_no)) {
            self.held.remove(&key);
        }
        if let Some(key) = held_key(&next, record.client_no) {
            self.held.insert(key);
        }
        self.rows.insert(record.client_no, next);
    }
}

fn held_key(row: &Row, client_no: i64) -> Option<(Micros, i64)> {
    let not_before = row.standing.not_before.filter(|_| row.standing.status == Status::Held)?;
    Some((crate::world::micros(not_before), client_no))
}

impl World {
    pub fn project(&mut self) {
        if self.now >= self.rows.down_until {
            for (partition, statuses) in self.statuses.iter().enumerate() {
                let from = self.rows.offsets[partition];
                for record in &statuses[from..] {
                    if record.kind != Kind::Started && record.status != Status::Created {
                        self.rows.mailings.entry(record.mailing_no).or_default().apply(record);
                    }
                }
                self.rows.offsets[partition] = statuses.len();
            }
        }
        self.after(20 * MILLI, Event::Project);
    }
}
