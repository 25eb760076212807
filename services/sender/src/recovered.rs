//! What the statuses of an earlier owner say of its messages.

use std::collections::{HashMap, VecDeque};

use domain::decision::Delay;
use domain::ids::MessageId;
use domain::status::Reason;
use events::{Kind, MessageEvent, StatusEvent};
use kafka::ledger::MessageOffset;

/// What the statuses say of a message that isn't settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    message_id: MessageId,
    round: i32,
    /// Calls made so far, the one in doubt not counted.
    pub(crate) attempt: i32,
    /// How many calls were announced so far.
    pub(crate) announced: i32,
    /// The next call begins no earlier.
    pub(crate) delay: Option<Delay>,
    /// The number of the announcement that nothing came of.
    doubt: Option<i32>,
}

impl Recovered {
    fn new(event: &StatusEvent) -> Self {
        let mut recovered = Self {
            message_id: event.message_id,
            round: event.round,
            attempt: 0,
            announced: 0,
            delay: None,
            doubt: None,
        };
        recovered.add(event);
        recovered
    }

    /// Takes a status in. A copy that arrives late changes nothing.
    fn add(&mut self, event: &StatusEvent) {
        // A `started` counts the call that is about to begin; it may be taken back.
        let calls = event.attempt - i32::from(event.kind == Kind::Started);
        let until = self.delay.as_ref().map(|delay| delay.until);
        if (calls, event.not_before) >= (self.attempt, until) {
            self.attempt = calls;
            let reason = event.reason.clone().unwrap_or(Reason::Throttled);
            self.delay = event.not_before.map(|until| Delay { until, reason });
        }
        match (event.kind, self.doubt) {
            (Kind::Started, _) if event.announced > self.announced => self.doubt = Some(event.announced),
            (Kind::Open, Some(doubt)) if event.announced >= doubt => self.doubt = None,
            _ => {}
        }
        self.announced = self.announced.max(event.announced);
    }

    /// Whether an earlier owner was about to make another call, and nobody knows what came of it.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// Whether it is this message's: a topic that was made anew has other messages at the same offsets.
    pub(crate) fn is_of(&self, event: &MessageEvent) -> bool {
        (self.message_id, self.round) == (event.message_id, event.round)
    }
}

/// All that a replay found about messages at or above a frontier.
///
/// A settled message takes two bytes, so what is kept for a million of them behind one that stays open is 2 MB. It is a
/// fingerprint rather than a bit, since a topic that was made anew has other messages at the same offsets.
#[derive(Debug)]
pub(crate) struct Statuses {
    frontier: MessageOffset,
    /// By offset − frontier; 0 isn't settled.
    settled: VecDeque<u16>,
    open: HashMap<MessageOffset, Recovered>,
    /// The highest offset that a status told of.
    last_source: Option<MessageOffset>,
}

impl Statuses {
    pub(crate) fn above(frontier: MessageOffset) -> Self {
        Self { frontier, settled: VecDeque::new(), open: HashMap::new(), last_source: None }
    }

    /// Takes a status in, unless its message lies below the frontier.
    pub(crate) fn add(&mut self, event: &StatusEvent) {
        let source = MessageOffset(event.source.offset);
        let Some(index) = self.index(source) else { return };
        self.last_source = self.last_source.max(Some(source));
        if event.kind == Kind::Settled {
            self.open.remove(&source);
            if self.settled.len() <= index {
                self.settled.resize(index + 1, 0);
            }
            self.settled[index] = fingerprint(event.message_id, event.round);
        } else if self.settled.get(index).is_none_or(|print| *print == 0) {
            self.open
                .entry(source)
                .and_modify(|recovered| recovered.add(event))
                .or_insert_with(|| Recovered::new(event));
        }
    }

    /// Forgets what lies below.
    pub(crate) fn raise_frontier(&mut self, frontier: MessageOffset) {
        while self.frontier < frontier {
            self.settled.pop_front();
            self.open.remove(&self.frontier);
            self.frontier = self.frontier.next();
        }
    }

    /// Whether the message was settled.
    pub(crate) fn has_settled(&self, offset: MessageOffset, event: &MessageEvent) -> bool {
        self.index(offset).and_then(|index| self.settled.get(index))
            == Some(&fingerprint(event.message_id, event.round))
    }

    /// What is known of an open message, once.
    pub(crate) fn take(&mut self, offset: MessageOffset, event: &MessageEvent) -> Option<Recovered> {
        self.open.remove(&offset).filter(|recovered| recovered.is_of(event))
    }

    pub(crate) fn frontier(&self) -> MessageOffset {
        self.frontier
    }

    pub(crate) fn last_source(&self) -> Option<MessageOffset> {
        self.last_source
    }

    fn index(&self, offset: MessageOffset) -> Option<usize> {
        usize::try_from(offset.0 - self.frontier.0).ok()
    }

    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn settled(&self) -> usize {
        self.settled.iter().filter(|print| **print != 0).count()
    }
}

/// Never 0, which is no message.
fn fingerprint(message: MessageId, round: i32) -> u16 {
    let mixed = (message.get() ^ i64::from(round) << 17).cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 48) as u16).max(1)
}

#[cfg(test)]
pub(crate) mod tests {
    use chrono::{DateTime, Utc};
    use domain::status::Status;
    use events::Source;

    use super::*;

    /// A status of the message at this offset of partition 0.
    pub(crate) fn status(source: i64, kind: Kind, attempt: i32) -> StatusEvent {
        let now: DateTime<Utc> = "2026-05-01T12:00:00Z".parse().unwrap();
        StatusEvent {
            message_id: MessageId::new(1.into(), (source + 1).into()).unwrap(),
            mailing_id: uuid::Uuid::nil(),
            client_id: uuid::Uuid::nil(),
            round: 1,
            attempt,
            announced: 0,
            kind,
            status: if kind == Kind::Settled { Status::Succeeded } else { Status::Retrying },
            reason: None,
            code: None,
            latency_ms: None,
            not_before: None,
            operator_code: None,
            detail: None,
            planned_at: now,
            occurred_at: now,
            source: Source { partition: 0, offset: source },
        }
    }

    /// That message's record.
    pub(crate) fn message(source: i64) -> MessageEvent {
        let now: DateTime<Utc> = "2026-05-01T12:00:00Z".parse().unwrap();
        MessageEvent {
            message_id: MessageId::new(1.into(), (source + 1).into()).unwrap(),
            mailing_id: uuid::Uuid::nil(),
            mailing_version: 1.into(),
            client_id: uuid::Uuid::nil(),
            phone: Some(79_161_234_567),
            text: Some("A text".into()),
            operator_code: 916,
            ends_at: now,
            window: None,
            delivery: domain::mailing::Delivery::AtLeastOnce,
            round: 1,
            attempts: 0,
            planned_at: now,
        }
    }

    fn announced(kind: Kind, attempt: i32, announced: i32) -> StatusEvent {
        StatusEvent { announced, ..status(3, kind, attempt) }
    }

    #[test]
    fn a_replayed_message_keeps_its_highest_attempt() {
        let mut recovered = Recovered::new(&status(3, Kind::Open, 2));
        recovered.add(&status(3, Kind::Open, 1));
        assert_eq!(recovered.attempt, 2);
    }

    #[test]
    fn a_call_is_in_doubt_from_its_announcement_until_something_came_of_it() {
        type History = &'static [(Kind, i32, i32)];
        let cases: [(&str, History, bool, i32); 7] = [
            ("announced", &[(Kind::Started, 1, 1)], true, 0),
            ("answered", &[(Kind::Started, 1, 1), (Kind::Open, 1, 1)], false, 1),
            ("announced again", &[(Kind::Started, 1, 1), (Kind::Open, 1, 1), (Kind::Started, 2, 2)], true, 1),
            ("taken back", &[(Kind::Open, 1, 1), (Kind::Started, 2, 2), (Kind::Open, 1, 2)], false, 1),
            (
                "a late copy of an answer",
                &[(Kind::Started, 1, 1), (Kind::Open, 1, 1), (Kind::Started, 2, 2), (Kind::Open, 1, 1)],
                true,
                1,
            ),
            (
                "a late copy of a take-back",
                &[(Kind::Started, 1, 1), (Kind::Open, 0, 1), (Kind::Started, 1, 2), (Kind::Open, 0, 1)],
                true,
                0,
            ),
            (
                "a late copy of an announcement",
                &[(Kind::Started, 1, 1), (Kind::Open, 1, 1), (Kind::Started, 1, 1)],
                false,
                1,
            ),
        ];
        for (name, history, in_doubt, attempt) in cases {
            let mut events = history.iter().map(|&(kind, attempt, number)| announced(kind, attempt, number));
            let mut recovered = Recovered::new(&events.next().unwrap());
            events.for_each(|event| recovered.add(&event));
            assert_eq!((recovered.is_in_doubt(), recovered.attempt), (in_doubt, attempt), "{name}");
        }
    }

    #[test]
    fn of_two_waits_of_one_attempt_the_later_counts() {
        let at = |seconds: i64| Some(DateTime::from_timestamp(1_000 + seconds, 0).unwrap());
        let wait = |seconds| StatusEvent { not_before: at(seconds), ..status(3, Kind::Open, 1) };
        let mut recovered = Recovered::new(&wait(5));
        recovered.add(&wait(30));
        recovered.add(&wait(5));
        assert_eq!(recovered.delay.map(|delay| delay.until), at(30));
    }

    #[test]
    fn settled_messages_take_two_bytes_each_behind_one_that_stays_open() {
        let mut statuses = Statuses::above(MessageOffset(0));
        statuses.add(&status(0, Kind::Open, 1));
        for source in 1..=100_000 {
            statuses.add(&status(source, Kind::Settled, 1));
        }
        assert_eq!((statuses.open(), statuses.settled()), (1, 100_000));
        assert!(statuses.settled.capacity() * 2 <= 400_000, "{}", statuses.settled.capacity());
        assert!(statuses.has_settled(MessageOffset(50_000), &message(50_000)));
        assert!(!statuses.has_settled(MessageOffset(0), &message(0)));
        assert_eq!(statuses.take(MessageOffset(0), &message(0)).map(|recovered| recovered.attempt), Some(1));
        assert_eq!(statuses.last_source(), Some(MessageOffset(100_000)));
    }

    #[test]
    fn a_status_of_a_message_that_had_the_offset_before_the_topic_was_made_anew_settles_nothing() {
        let mut statuses = Statuses::above(MessageOffset(0));
        statuses.add(&status(7, Kind::Settled, 1));
        statuses.add(&status(8, Kind::Open, 1));
        let other =
            |offset| MessageEvent { message_id: MessageId::new(2.into(), 77.into()).unwrap(), ..message(offset) };
        assert!(!statuses.has_settled(MessageOffset(7), &other(7)));
        assert_eq!(statuses.take(MessageOffset(8), &other(8)), None);
    }

    #[test]
    fn what_comes_late_opens_no_settled_message() {
        let mut statuses = Statuses::above(MessageOffset(5));
        statuses.add(&status(6, Kind::Settled, 1));
        statuses.add(&status(6, Kind::Open, 1));
        statuses.add(&status(4, Kind::Open, 1));
        assert_eq!((statuses.open(), statuses.settled()), (0, 1));
        statuses.raise_frontier(MessageOffset(7));
        assert_eq!((statuses.frontier(), statuses.settled()), (MessageOffset(7), 0));
    }
}
