use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use domain::mailing::Delivery;
use domain::replan::{Evidence, Recorded};
use domain::status::{Reason, Status};
use events::topics::Topic;
use events::{Kind, MessageEvent, Source, StatusEvent, decode};
use kafka::{Cluster, GroupView, Isolation, Record, TableReader, high_watermarks};
use store::mailings::MailingRow;
use store::planning::LiveMailing;
use uuid::Uuid;

/// Both logs are read whole.
const DEADLINE: Duration = Duration::from_secs(3_600);
const TIMEOUT: Duration = Duration::from_secs(10);

/// What Kafka still holds of a mailing's messages: eight bytes a client.
pub(super) struct Remains {
    /// Records, the one of the highest round for each client: `client_no << 31 | round << 1 | on the conveyor`, sorted.
    records: Vec<u64>,
    /// Messages of an `at_most_once` mailing whose last status is that a call was about to begin.
    started: HashMap<i64, StatusEvent>,
    /// The records of messages in doubt, read when the first is asked for.
    details: Option<HashMap<i64, StatusEvent>>,
}

const ROUND_BITS: u32 = 30;

fn pack(client_no: i64, record: Recorded) -> u64 {
    let round = record.round.clamp(0, (1 << ROUND_BITS) - 1).cast_unsigned();
    client_no.cast_unsigned() << (ROUND_BITS + 1) | u64::from(round) << 1 | u64::from(record.on_conveyor)
}

fn client_of(packed: u64) -> i64 {
    (packed >> (ROUND_BITS + 1)).cast_signed()
}

fn record_of(packed: u64) -> Recorded {
    let round = (packed >> 1) & ((1 << ROUND_BITS) - 1);
    Recorded { round: i32::try_from(round).unwrap_or(i32::MAX), on_conveyor: packed & 1 == 1 }
}

impl Remains {
    /// Reads them. The senders are stopped, so their frontiers stand still. Blocks.
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
        let mut remains = Self { records: highest_rounds(records), started: HashMap::new(), details: None };
        if mailing.delivery == Delivery::AtMostOnce.as_str() {
            remains.read_started(kafka, mailing)?;
        }
        Ok(remains)
    }

    fn read_started(&mut self, kafka: &Cluster, mailing: &MailingRow) -> anyhow::Result<()> {
        read_all(kafka, Topic::StatusEvents, Isolation::Uncommitted, |record| {
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
    pub(super) fn highest(&self) -> i64 {
        self.records.last().copied().map_or(0, client_of)
    }

    /// What is left of the clients with `after < client_no <= up_to`.
    pub(super) fn evidence(&self, (after, up_to): (i64, i64)) -> BTreeMap<i64, Evidence> {
        let begin = self.records.partition_point(|&packed| client_of(packed) <= after);
        let end = self.records.partition_point(|&packed| client_of(packed) <= up_to);
        let mut clients: BTreeMap<i64, Evidence> = BTreeMap::new();
        for &packed in &self.records[begin..end] {
            clients.entry(client_of(packed)).or_default().record = Some(record_of(packed));
        }
        for &client_no in self.started.keys().filter(|client_no| (after + 1..=up_to).contains(client_no)) {
            clients.entry(client_no).or_default().started = true;
        }
        clients
    }

    /// The status that settles a message in doubt. Blocks at the first.
    pub(super) fn unknown(
        &mut self,
        kafka: &Cluster,
        mailing: &LiveMailing,
        (client_no, round): (i64, i32),
    ) -> anyhow::Result<StatusEvent> {
        if self.details.is_none() {
            let details = tokio::task::block_in_place(|| self.read_details(kafka, mailing))?;
            self.details = Some(details);
        }
        let recorded = self.details.as_ref().and_then(|details| details.get(&client_no));
        let event = recorded.or(self.started.get(&client_no)).context("a message in doubt has a record or a status")?;
        Ok(StatusEvent {
            round,
            announced: 0,
            kind: Kind::Settled,
            status: Status::Unknown,
            reason: Some(Reason::SenderLost),
            not_before: None,
            occurred_at: Utc::now(),
            ..event.clone()
        })
    }

    /// A settling status of each record that no sender will read.
    fn read_details(&self, kafka: &Cluster, mailing: &LiveMailing) -> anyhow::Result<HashMap<i64, StatusEvent>> {
        let mut details = HashMap::new();
        read_messages(kafka, (mailing.mailing_no, mailing.id), |record, event| {
            let client_no = event.message_id.client_no();
            let found = self.records.binary_search_by_key(&client_no, |&packed| client_of(packed));
            if found.is_ok_and(|index| !record_of(self.records[index]).on_conveyor) {
                details.insert(client_no, settling(&event, record));
            }
        })?;
        Ok(details)
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

fn settling(event: &MessageEvent, record: &Record) -> StatusEvent {
    StatusEvent {
        message_id: event.message_id,
        mailing_id: event.mailing_id,
        client_id: event.client_id,
        round: event.round,
        attempt: 0,
        announced: 0,
        kind: Kind::Settled,
        status: Status::Unknown,
        reason: None,
        code: None,
        latency_ms: None,
        not_before: None,
        operator_code: None,
        detail: None,
        planned_at: event.planned_at,
        occurred_at: event.planned_at,
        source: Source { partition: record.partition, offset: record.offset },
    }
}

/// The mailing's records, also those of another mailing under its number left out.
fn read_messages(
    kafka: &Cluster,
    (mailing_no, id): (i64, Uuid),
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
    use super::*;

    #[test]
    fn of_each_clients_records_the_one_of_the_highest_round_counts() {
        let record = |round, on_conveyor| Recorded { round, on_conveyor };
        let highest = (1 << 33) - 1;
        let records = vec![
            pack(7, record(2, true)),
            pack(highest, record(1, false)),
            pack(7, record(1, false)),
            pack(3, record(1, true)),
        ];
        let remains = Remains { records: highest_rounds(records), started: HashMap::new(), details: None };
        assert_eq!(remains.highest(), highest);
        let found = remains.evidence((3, highest));
        let found: Vec<(i64, Recorded)> =
            found.into_iter().map(|(client_no, evidence)| (client_no, evidence.record.unwrap())).collect();
        assert_eq!(found, [(7, record(2, true)), (highest, record(1, false))]);
    }
}
