//! A small run to which nobody can object, with a bit of everything that may rightly happen.

use std::collections::BTreeMap;

use chrono::DateTime;
use judge::evidence::{Call, Client, Count, Evidence, Mailing, Mirror, Record, Row, Step};
use judge::ids::{ClientNo, MailingNo, MessageId, MessagePlace};
use judge::journal::Entry;
use judge::sample::{Answer, Committed, Process, Sample, Snapshot};
use judge::wire::{MailingEvent, MessageEvent, ProgressEvent, StatusEvent};
use uuid::Uuid;

/// The run's begin, µs since the epoch.
pub(crate) const T: i64 = 1_777_636_800_000_000;
pub(crate) const MS: i64 = 1_000;
pub(crate) const S: i64 = 1_000 * MS;
pub(crate) const TOKEN: &str = "token-of-the-run";
pub(crate) const TEXTS: [&str; 3] = ["The library is closed.", "Bring your books back.", "Write a book."];

pub(crate) fn phone(client_no: i64) -> i64 {
    79_160_000_000 + client_no * 7_919
}

pub(crate) fn message_id(mailing_no: i64, client_no: i64) -> MessageId {
    MessageId::of(MailingNo(mailing_no), ClientNo(client_no))
}

pub(crate) fn uuid(number: i64) -> Uuid {
    Uuid::from_u128(number as u128)
}

/// Mailing 1 is for the six clients with odd numbers, mailing 2 for the first eight; both by 2 partitions.
pub(crate) fn run() -> Evidence {
    let mut run = Run::begun();
    run.first_mailing();
    run.second_mailing();
    run.tables();
    for at in [T + 2 * S, T + 12 * S, T + 30 * S, T + 70 * S] {
        run.sample(at);
    }
    run.evidence
}

#[derive(Default)]
pub(crate) struct Run {
    pub(crate) evidence: Evidence,
    /// By topic and partition.
    ends: BTreeMap<(&'static str, i32), i64>,
}

impl Run {
    /// Two mailings and a kill, and nothing sent.
    pub(crate) fn begun() -> Self {
        let mut run = Self::default();
        run.evidence.token = TOKEN.to_owned();
        run.evidence.partitions = 2;
        run.evidence.memory_limit = Some(96_000_000);
        run.clients();
        run.mailing(1, &[916], &[], T + 3_600 * S);
        run.mailing(2, &[], &["readers"], T + 60 * S);
        run.journal("kill", T + 10 * S);
        run.journal("start", T + 11 * S);
        for number in 1..=2 {
            let (role, name) = (Some("sender".to_owned()), Some(format!("sender-{number}")));
            let event = "start".to_owned();
            run.evidence.journal.push(Entry { at: T - S, event, role, name, port: Some(number), ..Entry::default() });
        }
        let log = format!("{{\"message\":\"sent\",\"message.id\":{},\"took\":79160}}\n", message_id(1, 1));
        run.evidence.logs.push(("sender-1.log".to_owned(), log));
        run
    }

    fn clients(&mut self) {
        for client_no in 1..=12 {
            // Deleted in the run, before the page that would have held it.
            let erased = client_no == 10;
            self.evidence.clients.push(Client {
                client_no: ClientNo(client_no),
                id: uuid(client_no),
                phone: (!erased).then(|| phone(client_no)),
                operator_code: (!erased).then_some(if client_no % 2 == 1 { 916 } else { 917 }),
                tag: (!erased).then(|| if client_no <= 8 { "readers" } else { "writers" }.to_owned()),
                updated_at: if erased { T + 1 } else { T - 3_600 * S },
            });
        }
    }

    pub(crate) fn mailing(&mut self, no: i64, codes: &[i16], tags: &[&str], ends_at: i64) {
        let id = uuid(1_000 + no);
        self.evidence.mailings.push(Mailing {
            mailing_no: MailingNo(no),
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
            mailing_no: MailingNo(no),
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

    /// A page in its transaction.
    pub(crate) fn page(&mut self, no: i64, cursor: i64, clients: &[i64], at: i64) {
        for client_no in clients {
            self.message(no, *client_no, 1, None, at);
        }
        let before = self.evidence.progress.iter().filter(|record| record.visible);
        let before = before.filter_map(|record| record.event.as_ref()).rfind(|event| event.mailing_no.0 == no);
        let planned = before.map_or(0, |event| event.planned) + clients.len() as i64;
        self.progress(no, cursor, planned, None, at);
    }

    pub(crate) fn message(&mut self, no: i64, client_no: i64, round: i32, attempts: Option<i32>, at: i64) {
        let id = message_id(no, client_no);
        let event = MessageEvent {
            message_id: id,
            mailing_id: uuid(1_000 + no),
            client_id: uuid(client_no),
            phone: Some(phone(client_no)),
            text: Some(TEXTS[no as usize - 1].to_owned()),
            operator_code: if client_no % 2 == 1 { 916 } else { 917 },
            window: None,
            round,
            attempts,
            planned_at: DateTime::from_timestamp_micros(at - 5 * MS),
        };
        let record = self.record("messages", partition(client_no), id.to_string(), at, event);
        self.evidence.message_events.push(record);
    }

    /// The end of a transaction takes an offset of each partition. `again` is what a schema with held messages adds.
    pub(crate) fn progress(&mut self, no: i64, cursor: i64, planned: i64, again: Option<i64>, at: i64) {
        let event = ProgressEvent {
            mailing_id: uuid(1_000 + no),
            mailing_no: MailingNo(no),
            audience_max: 12,
            cursor,
            complete: cursor == 12,
            planned,
            emitted: planned + again.unwrap_or(0),
            again,
            pass: again.filter(|again| *again > 0).map(|_| serde_json::json!({"seq": 1})),
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
    pub(crate) fn call(&mut self, no: i64, client_no: i64, at: i64, outcome: &str) {
        self.evidence.calls.push(Call {
            begun_at: at,
            decided_at: at + MS,
            id: message_id(no, client_no),
            sender: Some(if at < T + 10 * S { 1 } else { 2 }),
            phone: phone(client_no),
            text: Some(TEXTS[no as usize - 1].to_owned()),
            accepted: matches!(outcome, "ok" | "reset_after"),
            answered: outcome != "reset_after",
            retry_after: outcome.starts_with("throttled_").then_some(0),
            outcome: outcome.to_owned(),
        });
    }

    pub(crate) fn status(
        &mut self,
        no: i64,
        client_no: i64,
        at: i64,
        attempt: i32,
        status: &str,
        reason: Option<&str>,
    ) {
        let id = message_id(no, client_no);
        let mut messages = self.evidence.message_events.iter();
        let message = messages.rfind(|record| record.visible && record.key == id.to_string());
        let source =
            message.map_or(MessagePlace { partition: partition(client_no), offset: -1 }, Record::<MessageEvent>::place);
        let event = StatusEvent {
            message_id: id,
            mailing_id: uuid(1_000 + no),
            client_id: uuid(client_no),
            round: message.and_then(|record| record.event.as_ref()).map_or(1, |event| event.round),
            attempt,
            announced: 0,
            kind: match status {
                "created" => "started",
                "retrying" => "open",
                _ => "settled",
            }
            .to_owned(),
            status: status.to_owned(),
            reason: reason.map(ToOwned::to_owned),
            detail: reason.map(|_| "HTTP 500".to_owned()),
            not_before: None,
            source,
        };
        let record = self.record("statuses", partition(client_no), id.to_string(), at, event);
        self.evidence.status_events.push(record);
    }

    /// A call, and the status it led to 30 ms later.
    pub(crate) fn told(
        &mut self,
        no: i64,
        client_no: i64,
        at: i64,
        attempt: i32,
        outcome: &str,
        (status, reason): (&str, &str),
    ) {
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

    /// What a projector makes of the statuses.
    pub(crate) fn tables(&mut self) {
        let mut rows: BTreeMap<MessageId, Row> = BTreeMap::new();
        for record in &self.evidence.status_events {
            let event = record.event.as_ref().unwrap();
            let (mailing_no, client_no) = (event.message_id.mailing(), event.message_id.client());
            if matches!(event.status.as_str(), "retrying" | "failed" | "held") {
                self.evidence.steps.push(Step {
                    mailing_no,
                    client_no,
                    status_partition: record.partition,
                    status_offset: record.offset,
                    attempt: event.attempt,
                });
            }
            if event.kind == "settled" {
                let (status, reason, round) = (event.status.clone(), event.reason.clone(), event.round);
                let client_id = event.client_id;
                let row = Row { mailing_no, client_no, client_id, status, reason, round, settled_round: round };
                rows.insert(event.message_id, row);
            }
        }
        let mut counts: BTreeMap<(MailingNo, String), i64> = BTreeMap::new();
        for row in rows.values() {
            *counts.entry((row.mailing_no, row.status.clone())).or_default() += 1;
            *self.evidence.settled_rounds.entry(row.mailing_no).or_default() += i64::from(row.settled_round);
        }
        self.evidence.rows = rows.into_values().collect();
        let counts = counts.into_iter().map(|((mailing_no, status), n)| Count { mailing_no, status, n });
        self.evidence.counts.extend(counts);
        self.evidence.counts.push(Count { mailing_no: MailingNo(1), status: "retrying".to_owned(), n: 0 });
        let told = self.evidence.progress.iter().filter(|record| record.visible);
        let told: BTreeMap<MailingNo, &ProgressEvent> =
            told.filter_map(|record| record.event.as_ref()).map(|event| (event.mailing_no, event)).collect();
        for ProgressEvent { mailing_no, planned, emitted, again, complete, .. } in told.into_values().cloned() {
            self.evidence.mirrors.push(Mirror { mailing_no, planned, emitted, again: again.unwrap_or(0), complete });
        }
    }

    fn status_end(&self, partition: i32, at: i64) -> i64 {
        let written = self.evidence.status_events.iter().filter(|r| r.partition == partition && r.at <= at);
        written.map(|record| record.offset + 1).max().unwrap_or(0)
    }

    /// What a sampler saw at an instant, of a projector that is never behind.
    pub(crate) fn sample(&mut self, at: i64) {
        let settled = |id: MessageId| {
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
        for row in self.evidence.rows.iter().filter(|row| row.mailing_no == MailingNo(1) && settled(row.id())) {
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
            status_ends: Some([0, 1].map(|partition| (partition, self.status_end(partition, at))).into()),
            snapshot: Some(vec![Snapshot {
                mailing_no: 1,
                counts: counts.clone(),
                rows: counts,
                ..Snapshot::default()
            }]),
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

pub(crate) fn partition(client_no: i64) -> i32 {
    (client_no / 2 % 2) as i32
}
