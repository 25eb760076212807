//! Recovery: what the statuses say about messages that an earlier owner left open. Every call blocks.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::ids::MessageId;
use events::topics::Topic;
use events::{Kind, MessageEvent, StatusEvent, decode};
use kafka::{Assigned, Cluster, Isolation, Record, TableReader};
use tokio_util::sync::CancellationToken;

/// A replay reads 2 million records a second; a day's log fits many times.
const DEADLINE: Duration = Duration::from_secs(600);

/// Where a replay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// A valid commit: at its bookmark.
    Bookmark { frontier: i64, bookmark: i64 },
    /// None, or one beyond the end: both logs from their start, side by side.
    Whole { low: i64 },
}

/// What the statuses say of a message that may be open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    message_id: MessageId,
    round: i32,
    /// Where its first status lies.
    first_status: i64,
    pub(crate) settled: bool,
    /// Calls made so far, the one in doubt not counted.
    pub(crate) attempt: i32,
    pub(crate) not_before: Option<DateTime<Utc>>,
    /// Its last status is that a call was about to begin.
    pub(crate) in_doubt: bool,
}

/// What a replay found.
#[derive(Debug)]
pub(crate) struct Replayed {
    /// Messages before this offset are settled.
    pub(crate) frontier: i64,
    /// Where the next replay must begin as long as a message up to `last_source` may be open.
    pub(crate) bookmark: i64,
    /// The highest source offset seen, at or above the frontier.
    pub(crate) last_source: Option<i64>,
    /// Where the status partition ended.
    pub(crate) status_end: i64,
    /// By source offset, at or above the frontier.
    pub(crate) recovered: HashMap<i64, Recovered>,
}

impl Begin {
    /// Reads the group's commit.
    pub(crate) fn of(assigned: &Assigned) -> Self {
        let at = &assigned.at;
        match at.checkpoint() {
            Some((frontier, metadata)) => {
                Self::Bookmark { frontier: frontier.max(at.low), bookmark: metadata.bookmark }
            }
            None => Self::Whole { low: at.low },
        }
    }

    /// The first record to read.
    pub(crate) fn start(self) -> i64 {
        match self {
            Self::Bookmark { frontier, .. } => frontier,
            Self::Whole { low } => low,
        }
    }

    /// Reads the statuses of the partition, until `stop` says that it isn't ours any more.
    pub(crate) fn replay(self, client: &Cluster, partition: i32, stop: &CancellationToken) -> kafka::Result<Replayed> {
        let topic = client.topics.name(Topic::StatusEvents);
        match self {
            Self::Bookmark { frontier, bookmark } => {
                let statuses = TableReader::from_offset(client, &topic, partition, bookmark, Isolation::Uncommitted)?
                    .stopped_by(stop);
                let end = statuses.ends(Duration::from_secs(5))?[0];
                if end < bookmark {
                    // What it held would be called again.
                    return Err(kafka::Error::Topic(format!(
                        "{topic}/{partition} ends at {end}, and was known up to {bookmark}: it was made anew or cut off, and what \
                         was sent can't be known"
                    )));
                }
                from_bookmark(&statuses, partition, frontier, bookmark)
            }
            Self::Whole { low } => {
                let statuses =
                    TableReader::from_start(client, &topic, &[partition], Isolation::Uncommitted)?.stopped_by(stop);
                let topic = client.topics.name(Topic::MessageEvents);
                let messages =
                    TableReader::from_start(client, &topic, &[partition], Isolation::Committed)?.stopped_by(stop);
                whole(&statuses, &messages, partition, low)
            }
        }
    }
}

impl Recovered {
    fn new(event: &StatusEvent, offset: i64) -> Self {
        Self {
            message_id: event.message_id,
            round: event.round,
            first_status: offset,
            settled: event.kind == Kind::Settled,
            attempt: calls_before(event),
            not_before: event.not_before,
            in_doubt: event.kind == Kind::Started,
        }
    }

    fn add(&mut self, event: &StatusEvent) {
        self.settled |= event.kind == Kind::Settled;
        if calls_before(event) >= self.attempt {
            self.attempt = calls_before(event);
            self.not_before = event.not_before;
            self.in_doubt = event.kind == Kind::Started;
        }
    }

    /// A topic that was made anew has other messages at the same offsets.
    pub(crate) fn is_of(&self, event: &MessageEvent) -> bool {
        self.message_id == event.message_id && self.round == event.round
    }
}

/// A `started` counts the call that is about to begin; it may be taken back.
fn calls_before(event: &StatusEvent) -> i32 {
    event.attempt - i32::from(event.kind == Kind::Started)
}

fn status_of(record: &Record, partition: i32) -> Option<StatusEvent> {
    runtime::crash_point!("send::replaying");
    // The projector dead-letters what can't be decoded.
    decode::<StatusEvent>(record.payload.as_deref()).ok().filter(|event| event.source.partition == partition)
}

fn from_bookmark(statuses: &TableReader, partition: i32, frontier: i64, bookmark: i64) -> kafka::Result<Replayed> {
    let mut known: HashMap<i64, Recovered> = HashMap::new();
    let ends = statuses.read_to_end(DEADLINE, |record| {
        let Some(event) = status_of(&record, partition).filter(|event| event.source.offset >= frontier) else { return };
        known
            .entry(event.source.offset)
            .and_modify(|known| known.add(&event))
            .or_insert_with(|| Recovered::new(&event, record.offset));
    })?;
    let last_source = known.keys().max().copied();
    Ok(Replayed { frontier, bookmark, last_source, status_end: ends[0], recovered: known })
}

/// Reads both logs side by side: a status never precedes its message, so reading the messages up to the source of each
/// status is enough, and what is remembered is what was open at once.
fn whole(statuses: &TableReader, messages: &TableReader, partition: i32, low: i64) -> kafka::Result<Replayed> {
    let message_end = messages.ends(Duration::from_secs(5))?[0];
    let mut merge = Merge { read_to: low, ..Merge::default() };
    let mut failed = None;
    let ends = statuses.read_to_end(DEADLINE, |record| {
        let Some(event) = status_of(&record, partition).filter(|event| event.source.offset < message_end) else {
            return;
        };
        if failed.is_none() && event.source.offset >= merge.read_to {
            let up_to = event.source.offset + 1;
            failed = messages.read_to(&[up_to], DEADLINE, |record| merge.read(&record)).err();
            merge.read_to = merge.read_to.max(up_to);
        }
        merge.take(&event, record.offset);
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let frontier = merge.frontier();
    let known: HashMap<i64, Recovered> = merge.known.into_iter().filter(|(source, _)| *source >= frontier).collect();
    let bookmark = known.values().map(|known| known.first_status).min().unwrap_or(ends[0]);
    let last_source = known.keys().max().copied();
    Ok(Replayed { frontier, bookmark, last_source, status_end: ends[0], recovered: known })
}

/// The two logs, as far as they are read.
#[derive(Default)]
struct Merge {
    /// Messages read and not settled, with what tells them from others that had their offset before the topic was made
    /// anew.
    open: BTreeMap<i64, (MessageId, i32)>,
    /// Statuses of messages at or above the lowest open one.
    known: BTreeMap<i64, Recovered>,
    /// Where the messages are read to.
    read_to: i64,
}

impl Merge {
    /// Takes a message in. One that can't be decoded was dead-lettered by whoever owned the partition then, and has no
    /// status that would close it.
    fn read(&mut self, record: &Record) {
        if let Ok(event) = decode::<MessageEvent>(record.payload.as_deref()) {
            self.open.insert(record.offset, (event.message_id, event.round));
        }
        self.read_to = record.offset + 1;
    }

    fn take(&mut self, event: &StatusEvent, offset: i64) {
        let source = event.source.offset;
        if self.open.get(&source).is_some_and(|message| *message != (event.message_id, event.round)) {
            return;
        }
        self.known.entry(source).and_modify(|known| known.add(event)).or_insert_with(|| Recovered::new(event, offset));
        if event.kind == Kind::Settled {
            self.open.remove(&source);
            let frontier = self.frontier();
            while self.known.first_key_value().is_some_and(|(&source, _)| source < frontier) {
                self.known.pop_first();
            }
        }
    }

    fn frontier(&self) -> i64 {
        self.open.first_key_value().map_or(self.read_to, |(&offset, _)| offset)
    }
}

#[cfg(test)]
mod tests {
    use domain::status::Status;
    use events::Source;
    use kafka::CommittedPartition;

    use super::*;

    fn assigned(low: i64, end: i64, committed: Option<(i64, &str)>) -> Assigned {
        let committed = committed.map(|(offset, metadata)| (offset, metadata.to_owned()));
        Assigned { partition: 0, at: CommittedPartition { low, end, committed } }
    }

    #[test]
    fn a_replay_begins_at_the_bookmark_of_a_valid_commit_and_else_at_the_start() {
        let metadata = "v1 bookmark=7 position=50 open=3";
        let cases = [
            ("a valid commit", assigned(0, 60, Some((40, metadata))), Begin::Bookmark { frontier: 40, bookmark: 7 }),
            (
                "retention passed it",
                assigned(45, 60, Some((40, metadata))),
                Begin::Bookmark { frontier: 45, bookmark: 7 },
            ),
            ("no commit", assigned(5, 60, None), Begin::Whole { low: 5 }),
            ("a commit beyond the end", assigned(0, 30, Some((40, metadata))), Begin::Whole { low: 0 }),
            ("somebody else's metadata", assigned(0, 60, Some((40, ""))), Begin::Whole { low: 0 }),
        ];
        for (name, assigned, expected) in cases {
            assert_eq!(Begin::of(&assigned), expected, "{name}");
        }
    }

    fn status(source: i64, kind: Kind, attempt: i32) -> StatusEvent {
        let now: DateTime<Utc> = "2026-05-01T12:00:00Z".parse().unwrap();
        StatusEvent {
            message_id: MessageId::new(1, source + 1).unwrap(),
            mailing_id: uuid::Uuid::nil(),
            client_id: uuid::Uuid::nil(),
            round: 1,
            attempt,
            kind,
            status: if kind == Kind::Settled { Status::Succeeded } else { Status::Retrying },
            reason: None,
            code: None,
            latency_ms: None,
            not_before: None,
            detail: None,
            planned_at: now,
            occurred_at: now,
            source: Source { partition: 0, offset: source },
        }
    }

    #[test]
    fn side_by_side_only_what_is_open_at_once_is_remembered() {
        let mut merge = Merge::default();
        for message in 0..1_000 {
            merge.open.insert(message, (MessageId::new(1, message + 1).unwrap(), 1));
            merge.read_to = message + 1;
            if message != 900 {
                merge.take(&status(message, Kind::Settled, 1), message);
            } else {
                merge.take(&status(message, Kind::Open, 1), message);
            }
            assert!(merge.known.len() <= 100, "{message}: {}", merge.known.len());
        }
        assert_eq!(merge.frontier(), 900);
        assert_eq!(merge.known.len(), 100);
        assert!(!merge.known[&900].settled);
        assert!(merge.known[&950].settled);
    }

    #[test]
    fn a_status_of_a_message_that_had_the_offset_before_the_topic_was_made_anew_settles_nothing() {
        let mut merge = Merge::default();
        merge.open.insert(0, (MessageId::new(2, 7).unwrap(), 1));
        merge.read_to = 1;
        merge.take(&status(0, Kind::Settled, 1), 0);
        assert_eq!((merge.frontier(), merge.known.len()), (0, 0));
    }

    #[test]
    fn a_replayed_message_keeps_its_highest_attempt() {
        let mut known = Recovered::new(&status(3, Kind::Open, 2), 10);
        known.add(&status(3, Kind::Open, 1));
        assert_eq!((known.attempt, known.settled, known.first_status), (2, false, 10));
        known.add(&status(3, Kind::Settled, 3));
        assert_eq!((known.attempt, known.settled), (3, true));
    }

    #[test]
    fn a_call_is_in_doubt_from_its_start_until_something_came_of_it() {
        let mut known = Recovered::new(&status(3, Kind::Started, 1), 10);
        assert!(known.in_doubt);
        known.add(&status(3, Kind::Open, 1));
        assert!(!known.in_doubt);
        known.add(&status(3, Kind::Started, 2));
        assert_eq!((known.in_doubt, known.attempt), (true, 1));
    }

    #[test]
    fn a_call_that_was_announced_and_not_made_is_in_no_doubt_and_not_counted() {
        let mut known = Recovered::new(&status(3, Kind::Open, 1), 10);
        known.add(&status(3, Kind::Started, 2));
        known.add(&StatusEvent { status: Status::Created, ..status(3, Kind::Open, 1) });
        assert_eq!((known.in_doubt, known.attempt), (false, 1));
    }
}
