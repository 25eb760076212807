//! A small run to which nobody can object, with a bit of everything that may rightly happen.

use std::collections::BTreeMap;

use chrono::DateTime;
use judge::evidence::{Attempt, Call, Client, Count, Evidence, Mailing, Mirror, Record, Row, message_id};
use judge::journal::Entry;
use judge::sample::{Answer, Committed, Process, Sample, Snapshot};
use judge::wire::{MailingEvent, MessageEvent, ProgressEvent, Source, StatusEvent};
use uuid::Uuid;

/// The run's begin, µs since the epoch.
pub(crate) const T: i64 = 1_777_636_800_000_000;
pub(crate) const MS: i64 = 1_000;
pub(crate) const S: i64 = 1_000 * MS;
pub(crate) const TOKEN: &str = "token-of-the-run";
pub(crate) const TEXTS: [&str; 2] = ["The library is closed.", "Bring your books back."];

pub(crate) fn phone(client_no: i64) -> i64 {
    79_160_000_000 + client_no * 7_919
}

pub(crate) fn uuid(number: i64) -> Uuid {
    Uuid::from_u128(number as u128)
}

/// Mailing 1 is for the six clients with odd numbers, mailing 2 for the first eight; both by 2 partitions.
pub(crate) fn run() -> Evidence {
    let mut run = Run::default();
    run.evidence.token = TOKEN.to_owned();
    run.evidence.partitions = 2;
    run.evidence.memory_limit = Some(96_000_000);
    run.clients();
    run.mailing(1, &[916], &[], T + 3_600 * S);
    run.mailing(2, &[], &["readers"], T + 60 * S);
    run.journal("kill", T + 10 * S);
    run.journal("start", T + 11 * S);
    run.first_mailing();
    run.second_mailing();
    run.tables();
    for at in [T + 2 * S, T + 12 * S, T + 30 * S, T + 70 * S] {
        run.sample(at);
    }
    let log = format!("{{\"message\":\"sent\",\"message.id\":{},\"took\":79160}}\n", message_id(1, 1));
    run.evidence.logs.push(("sender-1.log".to_owned(), log));
    run.evidence
}

#[derive(Default)]
struct Run {
    evidence: Evidence,
    /// By topic and partition.
    ends: BTreeMap<(&'static str, i32), i64>,
}

impl Run {
    fn clients(&mut self) {
        for client_no in 1..=12 {
            // Deleted in the run, before the page that would have held it.
            let erased = client_no == 10;
            self.evidence.clients.push(Client {
                client_no,
                id: uuid(client_no),
                phone: (!erased).then(|| phone(client_no)),
                operator_code: (!erased).then_some(if client_no % 2 == 1 { 916 } else { 917 }),
                tag: (!erased).then(|| if client_no <= 8 { "readers" } else { "writers" }.to_owned()),
                updated_at: if erased { T + 1 } else { T - 3_600 * S },
            });
        }
    }

    fn mailing(&mut self, no: i64, codes: &[i16], tags: &[&str], ends_at: i64) {
        let id = uuid(1_000 + no);
        self.evidence.mailings.push(Mailing {
            mailing_no: no,
            id,
            text: TEXTS[no as usize - 1].to_owned(),
            operator_codes: codes.to_vec(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            starts_at: T,
            ends_at,
            state: "finished".to_owned(),
            delivery: "at_least_once".to_owned(),
            started_at: Some(T),
        });
        let event = MailingEvent {
            mailing_id: id,
            mailing_no: no,
            version: T,
            state: "scheduled".to_owned(),
            ends_at: DateTime::from_timestamp_micros(ends_at).unwrap(),
        };
        let record = self.record("mailings", 0, id.to_string(), T - S, event);
        self.evidence.mailing_events.push(record);
        let event = "mailing".to_owned();
        self.evidence.journal.push(Entry { at: T, event, id: Some(id), ..Entry::default() });
    }

    fn journal(&mut self, event: &str, at: i64) {
        let (role, name) = (Some("sender".to_owned()), Some("sender-1".to_owned()));
        self.evidence.journal.push(Entry { at, event: event.to_owned(), role, name, ..Entry::default() });
    }

    fn record<T>(&mut self, topic: &'static str, partition: i32, key: String, at: i64, event: T) -> Record<T> {
        let end = self.ends.entry((topic, partition)).or_default();
        let offset = *end;
        *end += 1;
        let headers = vec![("traceparent".to_owned(), "00-79160007919abc-01".to_owned())];
        Record { partition, offset, at, key, headers, visible: true, event: Some(event) }
    }

    /// A page in its transaction, whose end takes an offset of each partition.
    fn page(&mut self, no: i64, cursor: i64, clients: &[i64], at: i64) {
        for client_no in clients {
            let id = message_id(no, *client_no);
            let event = MessageEvent {
                message_id: id,
                mailing_id: uuid(1_000 + no),
                client_id: uuid(*client_no),
                phone: Some(phone(*client_no)),
                text: Some(TEXTS[no as usize - 1].to_owned()),
                operator_code: if client_no % 2 == 1 { 916 } else { 917 },
                window: None,
                round: 1,
            };
            let record = self.record("messages", partition(*client_no), id.to_string(), at, event);
            self.evidence.message_events.push(record);
        }
        let before = self.evidence.progress.iter().filter(|record| record.visible);
        let before = before.filter_map(|record| record.event.as_ref()).rfind(|event| event.mailing_no == no);
        let planned = before.map_or(0, |event| event.planned) + clients.len() as i64;
        let event = ProgressEvent {
            mailing_id: uuid(1_000 + no),
            mailing_no: no,
            audience_max: 12,
            cursor,
            complete: cursor == 12,
            planned,
            emitted: planned,
            pass: None,
        };
        let record = self.record("progress", 0, uuid(1_000 + no).to_string(), at, event);
        self.evidence.progress.push(record);
        for place in [("messages", 0), ("messages", 1), ("progress", 0)] {
            *self.ends.entry(place).or_default() += 1;
        }
    }

    fn abort_last_page(&mut self, messages: usize) {
        self.evidence.progress.last_mut().unwrap().visible = false;
        self.evidence.message_events.iter_mut().rev().take(messages).for_each(|record| record.visible = false);
    }

    /// Answered after 20 ms, with `ok` if it is accepted with an answer.
    fn call(&mut self, no: i64, client_no: i64, at: i64, outcome: &str) {
        self.evidence.calls.push(Call {
            begun_at: at,
            decided_at: at + MS,
            id: message_id(no, client_no),
            port: None,
            phone: phone(client_no),
            text: Some(TEXTS[no as usize - 1].to_owned()),
            accepted: matches!(outcome, "ok" | "reset_after"),
            answered: outcome != "reset_after",
            retry_after: outcome.starts_with("throttled_").then_some(0),
            outcome: outcome.to_owned(),
        });
    }

    fn status(&mut self, no: i64, client_no: i64, at: i64, attempt: i32, status: &str, reason: Option<&str>) {
        let id = message_id(no, client_no);
        let message =
            self.evidence.message_events.iter().rfind(|record| record.visible && record.key == id.to_string());
        let source = message.map(|record| Source { partition: record.partition, offset: record.offset }).unwrap();
        let event = StatusEvent {
            message_id: id,
            mailing_id: uuid(1_000 + no),
            client_id: uuid(client_no),
            round: 1,
            attempt,
            kind: if status == "retrying" { "open" } else { "settled" }.to_owned(),
            status: status.to_owned(),
            reason: reason.map(ToOwned::to_owned),
            detail: reason.map(|_| "HTTP 500".to_owned()),
            source,
        };
        let record = self.record("statuses", partition(client_no), id.to_string(), at, event);
        self.evidence.status_events.push(record);
    }

    /// A call, and the status it led to 30 ms later.
    fn told(&mut self, no: i64, client_no: i64, at: i64, attempt: i32, outcome: &str, (status, reason): (&str, &str)) {
        self.call(no, client_no, at, outcome);
        let reason = Some(reason).filter(|reason| !reason.is_empty());
        self.status(no, client_no, at + 30 * MS, attempt, status, reason);
    }

    fn first_mailing(&mut self) {
        const OK: (&str, &str) = ("succeeded", "");
        const RETRY: (&str, &str) = ("retrying", "provider_error");
        self.page(1, 0, &[], T);
        self.page(1, 5, &[1, 3, 5], T + 10 * MS);
        self.page(1, 9, &[7, 9], T + 20 * MS);
        self.abort_last_page(2);
        self.page(1, 12, &[7, 9, 11], T + S);
        self.told(1, 1, T + 100 * MS, 1, "ok", OK);
        self.told(1, 3, T + 100 * MS, 1, "status_500", RETRY);
        self.told(1, 3, T + 1_200 * MS, 2, "status_500", RETRY);
        self.told(1, 3, T + 3_300 * MS, 3, "ok", OK);
        // Accepted, and the answer lost: it is called again.
        self.told(1, 5, T + 100 * MS, 1, "reset_after", ("retrying", "connection"));
        self.told(1, 5, T + 1_200 * MS, 2, "ok", OK);
        // On the wire when its sender was killed.
        self.call(1, 7, T + 9_990 * MS, "ok");
        self.told(1, 7, T + 25 * S, 1, "ok", OK);
        self.told(1, 9, T + 1_100 * MS, 1, "status_400", ("failed", "rejected"));
        // Throttled first, which uses no attempt up.
        self.call(1, 11, T + 1_100 * MS, "throttled_429");
        self.told(1, 11, T + 1_200 * MS, 1, "status_500", RETRY);
        self.told(1, 11, T + 2_300 * MS, 2, "status_500", RETRY);
        self.told(1, 11, T + 4_400 * MS, 3, "status_500", RETRY);
        self.told(1, 11, T + 8_500 * MS, 4, "status_500", ("failed", "exhausted"));
    }

    fn second_mailing(&mut self) {
        self.page(2, 0, &[], T + 40 * S);
        self.page(2, 12, &[1, 2, 3, 4, 5, 6, 7, 8], T + 40 * S);
        for client_no in 1..=6 {
            self.told(2, client_no, T + 41 * S, 1, "ok", ("succeeded", ""));
        }
        self.told(2, 8, T + 59_500 * MS, 1, "status_500", ("retrying", "provider_error"));
        self.status(2, 7, T + 60 * S, 0, "expired", Some("ended"));
        self.status(2, 8, T + 60 * S, 1, "expired", Some("ended"));
    }

    /// Of statuses that come once each.
    fn tables(&mut self) {
        for record in &self.evidence.status_events {
            let event = record.event.as_ref().unwrap();
            let (mailing_no, client_no) = (event.message_id >> 33, event.message_id & 0xffff);
            if event.status == "retrying" || event.status == "failed" {
                self.evidence.attempts.push(Attempt {
                    mailing_no,
                    client_no,
                    status_partition: record.partition,
                    status_offset: record.offset,
                    attempt: event.attempt,
                });
            }
            if event.kind == "settled" {
                self.evidence.rows.push(Row {
                    mailing_no,
                    client_no,
                    client_id: event.client_id,
                    status: event.status.clone(),
                    reason: event.reason.clone(),
                    round: 1,
                    settled_round: 1,
                });
            }
        }
        for (mailing_no, status, n) in [(1, "succeeded", 4), (1, "failed", 2), (2, "succeeded", 6), (2, "expired", 2)] {
            self.evidence.counts.push(Count { mailing_no, status: status.to_owned(), n });
        }
        self.evidence.counts.push(Count { mailing_no: 1, status: "retrying".to_owned(), n: 0 });
        self.evidence.settled_rounds = [(1, 6), (2, 8)].into();
        for (mailing_no, planned) in [(1, 6), (2, 8)] {
            self.evidence.mirrors.push(Mirror { mailing_no, planned, emitted: planned, complete: true });
        }
    }

    /// What a sampler saw at an instant, of a projector that is never behind.
    fn sample(&mut self, at: i64) {
        let settled = |id: i64| {
            let mut statuses = self.evidence.status_events.iter().filter(|record| record.at <= at);
            statuses.any(|record| record.event.as_ref().is_some_and(|event| event.message_id == id && event.settles()))
        };
        let committed = [0, 1].map(|partition| {
            let read = self.evidence.message_events.iter().filter(|r| r.partition == partition && r.at <= at);
            let mut open = read.clone().filter(|r| r.visible && !settled(r.event.as_ref().unwrap().message_id));
            let position = read.map(|record| record.offset + 1).max().unwrap_or(0);
            let offset = open.next().map_or(position, |record| record.offset);
            let metadata = format!("v1 bookmark=0 position={position} open=1");
            Committed { partition, offset: Some(offset), metadata }
        });
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for row in self.evidence.rows.iter().filter(|row| row.mailing_no == 1 && settled(row.id())) {
            *counts.entry(row.status.clone()).or_default() += 1;
        }
        let mut answer: BTreeMap<String, Option<i64>> = counts.iter().map(|(s, n)| (s.clone(), Some(*n))).collect();
        answer.insert("audience".to_owned(), None);
        answer.insert("created".to_owned(), Some(6 - counts.values().sum::<i64>()));
        answer.insert("planned".to_owned(), Some(6));
        let metrics = "herald_messages_total{status=\"succeeded\"} 3\nprocess_start_time_seconds 1777636800\n";
        let ops = "127.0.0.1:9100".to_owned();
        self.evidence.samples.push(Sample {
            at,
            committed: Some(committed.into()),
            snapshot: Some(vec![Snapshot { mailing_no: 1, counts: counts.clone(), rows: counts }]),
            answers: Some(vec![Answer { mailing: uuid(1_001), counts: answer }]),
            processes: vec![Process {
                ops,
                open_slots: Some(3.0),
                unacknowledged: Some(1.0),
                memory: Some(30e6),
                metrics: Some(metrics.to_owned()),
            }],
        });
    }
}

fn partition(client_no: i64) -> i32 {
    (client_no / 2 % 2) as i32
}
