//! What Kafka still holds of a mailing's messages.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use domain::ids::{ClientNo, MailingNo};
use domain::mailing::Delivery;
use domain::replan::{Recorded, Remains};
use domain::status::{Reason, Status};
use events::topics::Topic;
use events::{Kind, MessageEvent, Source, StatusEvent, decode};
use kafka::{Cluster, GroupView, Isolation, Record, TableReader, high_watermarks};
use store::mailings::MailingRow;
use store::planning::ClientRange;
use uuid::Uuid;

/// Both logs are read whole.
const DEADLINE: Duration = Duration::from_secs(3_600);
const TIMEOUT: Duration = Duration::from_secs(10);

/// The logs' part of what remains of a mailing: eight bytes a client.
pub(super) struct MailingLog {
    /// Records, the one of the highest round for each client: `client_no << 31 | round << 1 | on the conveyor`, sorted.
    records: Vec<u64>,
    /// Messages of an `at_most_once` mailing whose last status is that a call was about to begin.
    started: HashMap<ClientNo, StatusEvent>,
}

/// A message that may have been sent, and nobody can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InDoubt {
    pub(super) client_no: ClientNo,
    pub(super) round: i32,
}

const ROUND_BITS: u32 = 30;

fn pack(client_no: ClientNo, record: Recorded) -> u64 {
    let round = record.round.clamp(0, (1 << ROUND_BITS) - 1).cast_unsigned();
    client_no.get().cast_unsigned() << (ROUND_BITS + 1) | u64::from(round) << 1 | u64::from(record.on_conveyor)
}

fn client_of(packed: u64) -> ClientNo {
    (packed >> (ROUND_BITS + 1)).cast_signed().into()
}

fn record_of(packed: u64) -> Recorded {
    let round = (packed >> 1) & ((1 << ROUND_BITS) - 1);
    Recorded { round: i32::try_from(round).unwrap_or(i32::MAX), on_conveyor: packed & 1 == 1 }
}

impl MailingLog {
    /// Reads it. The senders are stopped, so their frontiers stand still. Blocks.
    pub(super) fn read(kafka: &Cluster, mailing: &MailingRow) -> anyhow::Result<Self> {
        let senders = GroupView::new(kafka, &kafka.topics.group("sender"), Topic::MessageEvents)?;
        // Without a commit that holds, a sender reads all there is.
        let frontiers: Vec<i64> = senders
            .partitions(TIMEOUT)?
            .iter()
            .map(|partition| partition.checkpoint().map_or(partition.low, |(frontier, _)| frontier.0))
            .collect();
        let mut records = Vec::new();
        read_messages(kafka, (mailing.mailing_no, mailing.id), |record, event| {
            let on_conveyor = record.offset >= frontiers[record.partition as usize];
            records.push(pack(event.message_id.client_no(), Recorded { round: event.round, on_conveyor }));
        })?;
        let mut log = Self { records: highest_rounds(records), started: HashMap::new() };
        if mailing.delivery == Delivery::AtMostOnce {
            log.read_started(kafka, mailing)?;
        }
        Ok(log)
    }

    fn read_started(&mut self, kafka: &Cluster, mailing: &MailingRow) -> anyhow::Result<()> {
        read_all(kafka, Topic::StatusEvents, Isolation::Committed, |record| {
            let Ok(event) = decode::<StatusEvent>(record.payload.as_deref()) else { return };
            if event.mailing_id != mailing.id {
                return;
            }
            let client_no = event.message_id.client_no();
            if event.kind == Kind::Started {
                self.started.insert(client_no, event);
            } else {
                self.started.remove(&client_no);
            }
        })
    }

    /// The highest client number that has a record; 0 without.
    pub(super) fn highest(&self) -> ClientNo {
        self.records.last().copied().map_or(ClientNo::default(), client_of)
    }

    /// What is left of the clients of a range.
    pub(super) fn remains(&self, range: ClientRange) -> BTreeMap<ClientNo, Remains> {
        let begin = self.records.partition_point(|&packed| client_of(packed) <= range.after);
        let end = self.records.partition_point(|&packed| client_of(packed) <= range.up_to);
        let mut clients: BTreeMap<ClientNo, Remains> = BTreeMap::new();
        for &packed in &self.records[begin..end] {
            clients.entry(client_of(packed)).or_default().record = Some(record_of(packed));
        }
        let in_range = |client_no: &&ClientNo| range.after < **client_no && **client_no <= range.up_to;
        for &client_no in self.started.keys().filter(in_range) {
            clients.entry(client_no).or_default().started = true;
        }
        clients
    }

    /// Tells `tell` the statuses that settle the messages in doubt, which are sorted by client. It reads their records once
    /// more, for keeping what lies in all of them would take as much room as the log. Blocks.
    pub(super) fn unknown(
        &self,
        kafka: &Cluster,
        mailing: &MailingRow,
        in_doubt: &[InDoubt],
        mut tell: impl FnMut(StatusEvent) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if in_doubt.is_empty() {
            return Ok(());
        }
        let mut settling = Settling { in_doubt, told: vec![false; in_doubt.len()] };
        let mut outcome = Ok(());
        read_messages(kafka, (mailing.mailing_no, mailing.id), |record, event| {
            if let Some(status) = settling.of_record(record, &event).filter(|_| outcome.is_ok()) {
                outcome = tell(status);
            }
        })?;
        outcome?;
        for status in settling.rest(&self.started) {
            tell(status?)?;
        }
        Ok(())
    }
}

/// Which messages in doubt are settled by now.
struct Settling<'a> {
    in_doubt: &'a [InDoubt],
    told: Vec<bool>,
}

impl Settling<'_> {
    /// The status for a record, if its message is in doubt.
    fn of_record(&mut self, record: &Record, event: &MessageEvent) -> Option<StatusEvent> {
        let at = self.in_doubt.binary_search_by_key(&event.message_id.client_no(), |one| one.client_no).ok()?;
        if self.in_doubt[at].round != event.round || std::mem::replace(&mut self.told[at], true) {
            return None;
        }
        Some(unknown(event, record))
    }

    /// The statuses for those that have no record: their last status has what is needed.
    fn rest(&self, started: &HashMap<ClientNo, StatusEvent>) -> impl Iterator<Item = anyhow::Result<StatusEvent>> {
        let untold = self.in_doubt.iter().zip(&self.told).filter(|(_, told)| !**told);
        untold.map(|(one, _)| {
            let event = started.get(&one.client_no).context("a message in doubt has a record or a status")?;
            Ok(StatusEvent {
                round: one.round,
                announced: 0,
                kind: Kind::Settled,
                status: Status::Unknown,
                reason: Some(Reason::SenderLost),
                not_before: None,
                occurred_at: Utc::now(),
                ..event.clone()
            })
        })
    }
}

/// Sorted, the highest round of each client.
fn highest_rounds(mut records: Vec<u64>) -> Vec<u64> {
    records.sort_unstable();
    let mut highest: Vec<u64> = Vec::with_capacity(records.len());
    for packed in records {
        match highest.last_mut() {
            Some(last) if client_of(*last) == client_of(packed) => *last = packed,
            _ => highest.push(packed),
        }
    }
    highest
}

fn unknown(event: &MessageEvent, record: &Record) -> StatusEvent {
    StatusEvent {
        message_id: event.message_id,
        mailing_id: event.mailing_id,
        client_id: event.client_id,
        round: event.round,
        attempt: 0,
        announced: 0,
        kind: Kind::Settled,
        status: Status::Unknown,
        reason: Some(Reason::SenderLost),
        code: None,
        latency_ms: None,
        not_before: None,
        operator_code: None,
        detail: None,
        planned_at: event.planned_at,
        occurred_at: Utc::now(),
        source: Source { partition: record.partition, offset: record.offset },
    }
}

/// The mailing's records, also those of another mailing under its number left out.
fn read_messages(
    kafka: &Cluster,
    (mailing_no, id): (MailingNo, Uuid),
    mut take: impl FnMut(&Record, MessageEvent),
) -> anyhow::Result<()> {
    read_all(kafka, Topic::MessageEvents, Isolation::Committed, |record| {
        let event = decode::<MessageEvent>(record.payload.as_deref());
        if let Ok(event) = event
            && event.message_id.mailing_no() == mailing_no
            && event.mailing_id == id
        {
            take(&record, event);
        }
    })
}

fn read_all(kafka: &Cluster, topic: Topic, isolation: Isolation, take: impl FnMut(Record)) -> anyhow::Result<()> {
    let partitions: Vec<i32> = (0..kafka.topics.partitions(topic).cast_signed()).collect();
    let name = kafka.topics.name(topic);
    let ends = high_watermarks(kafka, &name, &partitions, TIMEOUT)?;
    TableReader::from_start(kafka, &name, &partitions, isolation)?.read_to(&ends, DEADLINE, take)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use domain::ids::MessageId;

    use super::*;

    #[test]
    fn of_each_clients_records_the_one_of_the_highest_round_counts() {
        let record = |round, on_conveyor| Recorded { round, on_conveyor };
        let highest = ClientNo::from((1 << 33) - 1);
        let records = vec![
            pack(7.into(), record(2, true)),
            pack(highest, record(1, false)),
            pack(7.into(), record(1, false)),
            pack(3.into(), record(1, true)),
        ];
        let log = MailingLog { records: highest_rounds(records), started: HashMap::new() };
        assert_eq!(log.highest(), highest);
        let found = log.remains(ClientRange { after: 3.into(), up_to: highest });
        let found: Vec<(ClientNo, Recorded)> =
            found.into_iter().map(|(client_no, remains)| (client_no, remains.record.unwrap())).collect();
        assert_eq!(found, [(7.into(), record(2, true)), (highest, record(1, false))]);
    }

    fn record(client_no: i64, round: i32, offset: i64) -> (Record, MessageEvent) {
        let planned_at = DateTime::UNIX_EPOCH;
        let event = MessageEvent {
            message_id: MessageId::new(1.into(), client_no.into()).unwrap(),
            mailing_id: Uuid::nil(),
            mailing_version: 1.into(),
            client_id: Uuid::nil(),
            phone: None,
            text: None,
            operator_code: 916,
            ends_at: planned_at,
            window: None,
            delivery: Delivery::AtLeastOnce,
            round,
            attempts: 0,
            planned_at,
        };
        (Record { partition: 0, offset, timestamp_ms: 0, payload: None }, event)
    }

    #[test]
    fn only_the_records_of_messages_in_doubt_make_a_status_each_one_of_its_round() {
        let in_doubt = |client_no: i64, round| InDoubt { client_no: client_no.into(), round };
        let in_doubt = [in_doubt(3, 2), in_doubt(7, 1), in_doubt(9, 1)];
        let mut settling = Settling { in_doubt: &in_doubt, told: vec![false; 3] };
        let log = [record(1, 1, 0), record(3, 1, 1), record(7, 1, 2), record(3, 2, 3), record(7, 1, 4)];
        let told: Vec<(i64, i32, i64)> = log
            .iter()
            .filter_map(|(record, event)| settling.of_record(record, event))
            .map(|status| (status.message_id.client_no().get(), status.round, status.source.offset))
            .collect();
        assert_eq!(told, [(7, 1, 2), (3, 2, 3)]);

        let (record, event) = record(9, 1, 5);
        let started = HashMap::from([(9.into(), StatusEvent { reason: None, ..unknown(&event, &record) })]);
        let rest: Vec<StatusEvent> = settling.rest(&started).map(Result::unwrap).collect();
        assert_eq!((rest.len(), &rest[0].reason), (1, &Some(Reason::SenderLost)));
    }
}
