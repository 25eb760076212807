use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use domain::status::{Reason, Status};
use events::topics::Topic;
use events::{Kind, MessageEvent, Source, StatusEvent, decode};
use kafka::{Isolation, TableReader};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::installation::brokers;
use crate::{Installation, PATIENCE};

/// A test's own hand in the place of all senders: takes message events in, writes what came of them, and commits.
pub struct Senders<'a> {
    installation: &'a Installation,
    reader: Arc<TableReader>,
    committing: Arc<BaseConsumer>,
    /// The next offset to take in, of each partition.
    positions: Vec<i64>,
    /// Messages taken in: each was called once.
    calls: u64,
}

/// A message that a sender has taken in.
#[derive(Clone, Debug)]
pub struct Taken {
    /// As it was planned.
    pub event: MessageEvent,
    /// Where its record lies.
    pub source: Source,
}

impl Taken {
    /// The status that ends the message's round.
    pub fn settled(&self, status: Status, reason: Option<Reason>) -> StatusEvent {
        StatusEvent {
            message_id: self.event.message_id,
            mailing_id: self.event.mailing_id,
            client_id: self.event.client_id,
            round: self.event.round,
            attempt: 1,
            kind: Kind::Settled,
            code: (status == Status::Succeeded).then_some(200),
            status,
            reason,
            latency_ms: None,
            announced: 0,
            operator_code: Some(self.event.operator_code),
            not_before: None,
            detail: None,
            planned_at: self.event.planned_at,
            occurred_at: Utc::now(),
            source: self.source,
        }
    }
}

impl<'a> Senders<'a> {
    /// Takes in from the first record on.
    pub async fn new(installation: &'a Installation) -> Self {
        let (kafka, topic) = (installation.kafka.clone(), installation.topic(Topic::MessageEvents));
        let partitions = installation.partitions(Topic::MessageEvents);
        let positions = vec![0; partitions.len()];
        let open = move || TableReader::from_start(&kafka, &topic, &partitions, Isolation::Committed).unwrap();
        let reader = Arc::new(tokio::task::spawn_blocking(open).await.unwrap());
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers())
            .set("group.id", installation.kafka.topics.group("sender"))
            .set("enable.auto.commit", "false");
        Self { installation, reader, committing: Arc::new(config.create().unwrap()), positions, calls: 0 }
    }

    /// Takes in what has come.
    pub async fn take(&mut self) -> Vec<Taken> {
        let reader = Arc::clone(&self.reader);
        let read = move || {
            let mut records = vec![];
            let ends = reader.read_to_end(PATIENCE, |record| records.push(record)).unwrap();
            (records, ends)
        };
        let (records, ends) = tokio::task::spawn_blocking(read).await.unwrap();
        for (position, end) in self.positions.iter_mut().zip(ends) {
            *position = end.max(*position);
        }
        let taken = records.iter().map(|record| {
            let position = &mut self.positions[usize::try_from(record.partition).unwrap()];
            *position = (*position).max(record.offset + 1);
            Taken {
                event: decode(record.payload.as_deref()).unwrap(),
                source: Source { partition: record.partition, offset: record.offset },
            }
        });
        let taken: Vec<Taken> = taken.collect();
        self.calls += taken.len() as u64;
        taken
    }

    /// Commits that all which was taken in is settled.
    pub async fn commit(&self) {
        self.commit_as("-", None).await;
    }

    /// Commits that all but this message is settled.
    pub async fn commit_open(&self, open: Source) {
        self.commit_as("-", Some(open)).await;
    }

    /// Commits likewise. `closed` says which lanes are: `all`, `-` or a list of codes.
    pub async fn commit_closed(&self, closed: &str) {
        self.commit_as(closed, None).await;
    }

    async fn commit_as(&self, closed: &str, open: Option<Source>) {
        let topic = self.installation.topic(Topic::MessageEvents);
        let mut list = TopicPartitionList::new();
        for (partition, position) in (0..).zip(&self.positions) {
            let mut element = list.add_partition(&topic, partition);
            let open = open.filter(|open| open.partition == partition).map(|open| open.offset);
            element.set_offset(Offset::Offset(open.unwrap_or(*position))).unwrap();
            let count = i32::from(open.is_some());
            // The calls of all partitions are counted in the first.
            let calls = if partition == 0 { self.calls } else { 0 };
            element.set_metadata(format!(
                "v2 bookmark=0 position={position} open={count} calling=0 calls={calls} pace=- closed={closed}"
            ));
        }
        let committing = Arc::clone(&self.committing);
        let commit = move || {
            let began = std::time::Instant::now();
            // A group that is new has no coordinator yet.
            while let Err(error) = committing.commit(&list, CommitMode::Sync) {
                assert!(began.elapsed() < PATIENCE, "{error}");
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        tokio::task::spawn_blocking(commit).await.unwrap();
    }

    /// Takes in what has come, writes what `answer` says came of each message, and commits. Returns what was taken in.
    pub async fn work(&mut self, answer: impl Fn(&Taken) -> StatusEvent) -> Vec<Taken> {
        let taken = self.take().await;
        let statuses: Vec<StatusEvent> = taken.iter().map(answer).collect();
        self.installation.tell(&statuses).await;
        self.commit().await;
        taken
    }
}
