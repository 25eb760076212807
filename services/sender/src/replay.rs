//! Recovery: what the statuses say about messages that an earlier owner left open. Every call blocks.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::ids::MessageId;
use events::topics::Topic;
use events::{Kind, MessageEvent, StatusEvent, decode};
use kafka::ledger::{MessageOffset, StatusOffset};
use kafka::{Assigned, Cluster, Isolation, Record, TableReader, high_watermarks};
use tokio_util::sync::CancellationToken;

use crate::recovered::Statuses;

/// A replay reads 2 million records a second; a day's log fits many times.
const DEADLINE: Duration = Duration::from_secs(600);

/// Where a replay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// A valid commit: at its bookmark.
    Bookmark { frontier: MessageOffset, bookmark: StatusOffset },
    /// None, or one beyond the end: both logs from their start, side by side.
    Whole { low: MessageOffset },
}

/// What a replay found.
#[derive(Debug)]
pub(crate) struct Replayed {
    /// Where the next replay must begin as long as a message up to the last one that a status told of may be open.
    pub(crate) bookmark: StatusOffset,
    /// Where the status partition ended.
    pub(crate) status_end: StatusOffset,
    /// What the statuses say; messages below their frontier are settled.
    pub(crate) statuses: Statuses,
}

impl Begin {
    /// Reads the group's commit.
    pub(crate) fn of(assigned: &Assigned) -> Self {
        let at = &assigned.at;
        match at.checkpoint() {
            Some((frontier, metadata)) => {
                Self::Bookmark { frontier: frontier.max(MessageOffset(at.low)), bookmark: metadata.bookmark }
            }
            None => Self::Whole { low: MessageOffset(at.low) },
        }
    }

    /// The first record to read.
    pub(crate) fn start(self) -> i64 {
        match self {
            Self::Bookmark { frontier, .. } => frontier.0,
            Self::Whole { low } => low.0,
        }
    }

    /// Reads the statuses of the partition, until `stop` says that it isn't ours any more.
    pub(crate) fn replay(self, cluster: &Cluster, partition: i32, stop: &CancellationToken) -> kafka::Result<Replayed> {
        let topic = cluster.topics.name(Topic::StatusEvents);
        // A planner's transaction that hangs may end the committed records before a status of ours: it is waited for.
        let end = high_watermarks(cluster, &topic, &[partition], Duration::from_secs(5))?[0];
        match self {
            Self::Bookmark { frontier, bookmark } => {
                let statuses =
                    TableReader::from_offsets(cluster, &topic, &[(partition, bookmark.0)], Isolation::Committed)?
                        .stopped_by(stop);
                if end < bookmark.0 {
                    // What it held would be called again.
                    return Err(kafka::Error::Topic(format!(
                        "{topic}/{partition} ends at {end}, and was known up to {bookmark}: it was made anew or cut off, and what \
                         was sent can't be known"
                    )));
                }
                from_bookmark(&statuses, end, partition, frontier, bookmark)
            }
            Self::Whole { low } => {
                let statuses =
                    TableReader::from_start(cluster, &topic, &[partition], Isolation::Committed)?.stopped_by(stop);
                let topic = cluster.topics.name(Topic::MessageEvents);
                let messages =
                    TableReader::from_start(cluster, &topic, &[partition], Isolation::Committed)?.stopped_by(stop);
                whole(&statuses, end, &messages, partition, low)
            }
        }
    }
}

fn status_of(record: &Record, partition: i32) -> Option<StatusEvent> {
    runtime::crash_point!("send::replaying");
    // The projector dead-letters what can't be decoded.
    decode::<StatusEvent>(record.payload.as_deref()).ok().filter(|event| event.source.partition == partition)
}

fn from_bookmark(
    reader: &TableReader,
    end: i64,
    partition: i32,
    frontier: MessageOffset,
    bookmark: StatusOffset,
) -> kafka::Result<Replayed> {
    let mut statuses = Statuses::above(frontier);
    reader.read_to(&[end], DEADLINE, |record| {
        if let Some(event) = status_of(&record, partition) {
            statuses.add(&event);
        }
    })?;
    Ok(Replayed { bookmark, status_end: StatusOffset(end), statuses })
}

/// Reads both logs side by side: a status never precedes its message, so reading the messages up to the source of each
/// status is enough, and what is remembered is what was open at once.
fn whole(
    statuses: &TableReader,
    end: i64,
    messages: &TableReader,
    partition: i32,
    low: MessageOffset,
) -> kafka::Result<Replayed> {
    let message_end = messages.ends(Duration::from_secs(5))?[0];
    let mut merge = Merge::from(low);
    let mut failed = None;
    statuses.read_to(&[end], DEADLINE, |record| {
        let Some(event) = status_of(&record, partition).filter(|event| event.source.offset < message_end) else {
            return;
        };
        let source = MessageOffset(event.source.offset);
        if failed.is_none() && source >= merge.read_to {
            let (up_to, status) = (source.next(), StatusOffset(record.offset));
            failed = messages.read_to(&[up_to.0], DEADLINE, |message| merge.read(&message, status)).err();
            merge.read_to = merge.read_to.max(up_to);
        }
        merge.add(&event);
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok(merge.finish(StatusOffset(end))),
    }
}

/// The two logs, as far as they are read.
struct Merge {
    /// Messages read and not settled, by offset.
    open: BTreeMap<MessageOffset, Read>,
    /// Statuses of messages at or above the lowest open one.
    statuses: Statuses,
    /// Where the messages are read to.
    read_to: MessageOffset,
}

/// A message that was read and isn't settled.
struct Read {
    /// Tells it from others that had its offset before the topic was made anew.
    message_id: MessageId,
    round: i32,
    /// Its statuses, and those of all messages behind it, lie at or behind this offset: it was read for the one there.
    statuses_from: StatusOffset,
}

impl Merge {
    fn from(low: MessageOffset) -> Self {
        Self { open: BTreeMap::new(), statuses: Statuses::above(low), read_to: low }
    }

    /// Takes a message in, read for the status at `status`. One that can't be decoded was dead-lettered by whoever owned the
    /// partition then, and has no status that would close it.
    fn read(&mut self, record: &Record, status: StatusOffset) {
        if let Ok(event) = decode::<MessageEvent>(record.payload.as_deref()) {
            self.open(MessageOffset(record.offset), &event, status);
        }
        self.read_to = MessageOffset(record.offset).next();
    }

    fn open(&mut self, offset: MessageOffset, event: &MessageEvent, status: StatusOffset) {
        let read = Read { message_id: event.message_id, round: event.round, statuses_from: status };
        self.open.insert(offset, read);
    }

    fn add(&mut self, event: &StatusEvent) {
        let source = MessageOffset(event.source.offset);
        let is_of = |read: &Read| (read.message_id, read.round) == (event.message_id, event.round);
        if self.open.get(&source).is_some_and(|read| !is_of(read)) {
            return;
        }
        self.statuses.add(event);
        if event.kind == Kind::Settled {
            self.open.remove(&source);
            self.statuses.raise_frontier(self.frontier());
        }
    }

    fn frontier(&self) -> MessageOffset {
        self.open.first_key_value().map_or(self.read_to, |(&offset, _)| offset)
    }

    fn finish(mut self, status_end: StatusOffset) -> Replayed {
        self.statuses.raise_frontier(self.frontier());
        let bookmark = self.open.first_key_value().map_or(status_end, |(_, read)| read.statuses_from);
        Replayed { bookmark, status_end, statuses: self.statuses }
    }
}

#[cfg(test)]
mod tests {
    use kafka::CommittedPartition;

    use super::*;
    use crate::recovered::tests::{message, status};

    fn assigned(low: i64, end: i64, committed: Option<(i64, &str)>) -> Assigned {
        let committed = committed.map(|(offset, metadata)| (offset, metadata.to_owned()));
        Assigned { partition: 0, at: CommittedPartition { low, end, committed } }
    }

    #[test]
    fn a_replay_begins_at_the_bookmark_of_a_valid_commit_and_else_at_the_start() {
        let metadata = "v2 bookmark=7 position=50 open=3 calling=0 calls=9 pace=- closed=-";
        let cases = [
            (
                "a valid commit",
                assigned(0, 60, Some((40, metadata))),
                Begin::Bookmark { frontier: MessageOffset(40), bookmark: StatusOffset(7) },
            ),
            (
                "retention passed it",
                assigned(45, 60, Some((40, metadata))),
                Begin::Bookmark { frontier: MessageOffset(45), bookmark: StatusOffset(7) },
            ),
            ("no commit", assigned(5, 60, None), Begin::Whole { low: MessageOffset(5) }),
            ("a commit beyond the end", assigned(0, 30, Some((40, metadata))), Begin::Whole { low: MessageOffset(0) }),
            ("somebody else's metadata", assigned(0, 60, Some((40, ""))), Begin::Whole { low: MessageOffset(0) }),
        ];
        for (name, assigned, expected) in cases {
            assert_eq!(Begin::of(&assigned), expected, "{name}");
        }
    }

    #[test]
    fn side_by_side_only_what_is_open_at_once_is_remembered() {
        let mut merge = Merge::from(MessageOffset(0));
        for offset in 0..1_000 {
            merge.open(MessageOffset(offset), &message(offset), StatusOffset(offset));
            merge.read_to = MessageOffset(offset + 1);
            let kind = if offset == 900 { Kind::Open } else { Kind::Settled };
            merge.add(&status(offset, kind, 1));
            assert!(merge.statuses.settled() <= 99, "{offset}: {}", merge.statuses.settled());
        }
        let Replayed { bookmark, statuses, .. } = merge.finish(StatusOffset(1_000));
        assert_eq!((statuses.frontier(), bookmark), (MessageOffset(900), StatusOffset(900)));
        assert_eq!((statuses.open(), statuses.settled()), (1, 99));
        assert!(statuses.has_settled(MessageOffset(950), &message(950)));
    }

    #[test]
    fn side_by_side_a_status_of_another_message_at_the_offset_closes_nothing() {
        let mut merge = Merge::from(MessageOffset(0));
        merge.open(
            MessageOffset(0),
            &MessageEvent { message_id: MessageId::new(2.into(), 7.into()).unwrap(), ..message(0) },
            StatusOffset(4),
        );
        merge.read_to = MessageOffset(1);
        merge.add(&status(0, Kind::Settled, 1));
        let replayed = merge.finish(StatusOffset(9));
        assert_eq!((replayed.statuses.frontier(), replayed.bookmark), (MessageOffset(0), StatusOffset(4)));
        assert_eq!((replayed.statuses.open(), replayed.statuses.settled()), (0, 0));
    }

    #[test]
    fn with_nothing_open_the_next_replay_begins_at_the_end() {
        let mut merge = Merge::from(MessageOffset(0));
        merge.open(MessageOffset(0), &message(0), StatusOffset(0));
        merge.read_to = MessageOffset(1);
        merge.add(&status(0, Kind::Settled, 1));
        let replayed = merge.finish(StatusOffset(9));
        assert_eq!((replayed.statuses.frontier(), replayed.bookmark), (MessageOffset(1), StatusOffset(9)));
    }
}
