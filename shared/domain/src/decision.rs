//! Whether a message is called, waits, is held or is settled: one question, asked whenever it could have another answer.
//!
//! A sender asks when it takes the message in, when what the message waited for has changed, and when it has a place to
//! call. What orders and limits say will be further rows of the same table.

use chrono::{DateTime, TimeDelta, Utc};

use crate::delivery::MailingOrder;
use crate::mailing::{Delivery, State};
use crate::status::{Reason, Status};

/// A call begins within this time after its message was planned. Later the message is held and planned anew, so a change of
/// the client or of the text reaches every call within it.
pub const VALIDITY: TimeDelta = TimeDelta::seconds(60);
/// The longest that a message waits in its slot at a time; only the messages that a closed lane keeps wait longer.
pub const SLOT_WAIT: TimeDelta = TimeDelta::seconds(5);
/// The longest that a closed lane keeps a message of a second round or later: the next pass waits for it. One of the first
/// round it keeps as long as it is valid.
pub const KEPT_WAIT: TimeDelta = TimeDelta::seconds(10);
/// How long a message is held at the least when its lane or a limit doesn't let it go: the planner looks at the lanes then.
const HELD_FOR_LANE: TimeDelta = TimeDelta::seconds(5);
/// How long a message is held at the least when this version doesn't understand it. A newer sender may get it then.
const HELD_FOR_NEWER: TimeDelta = TimeDelta::seconds(60);

/// What decides about one open message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageFacts<'a> {
    /// From 1; 2 or more: a pass has planned it.
    pub round: i32,
    /// When its page was read.
    pub planned_at: DateTime<Utc>,
    /// It has a phone and a text; without them its client was erased.
    pub addressed: bool,
    /// Which risk its mailing takes.
    pub delivery: &'a Delivery,
    /// It may be called within a local window only.
    pub windowed: bool,
    /// An earlier owner announced a call, and nobody knows what came of it.
    pub in_doubt: bool,
    /// The next call begins no earlier.
    pub delay: Option<Delay>,
    /// Since when it has stood in the queue, if it does.
    pub queued_since: Option<DateTime<Utc>>,
    /// It stands in the queue or may join it: less than half of its partition's slots do.
    pub may_queue: bool,
}

/// A wait of the message's own: a retry's, or what the provider asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delay {
    /// No call before.
    pub until: DateTime<Utc>,
    /// Why.
    pub reason: Reason,
}

/// What the message's lane and the limits above it say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may be called.
    Open,
    /// The pace, or the ramp of a lane that has just opened, lets it go in its turn.
    Limited,
    /// The provider isn't called for its lane.
    Closed {
        /// Why.
        reason: Reason,
        /// The lane keeps the message to probe with.
        kept: bool,
    },
}

/// What is done about a message now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The provider is called.
    Call,
    /// Nothing until then; then it is asked about again.
    Wait {
        /// At most [`SLOT_WAIT`] ahead.
        until: DateTime<Utc>,
    },
    /// It stands in the queue until it is let go, or is asked about again then.
    Queue {
        /// When it has stood there long enough.
        until: DateTime<Utc>,
    },
    /// It gives its slot up, and a pass plans it again.
    Hold {
        /// Why.
        reason: Reason,
        /// No earlier.
        not_before: DateTime<Utc>,
    },
    /// It is terminal without a call.
    Settle {
        /// Its status.
        status: Status,
        /// Why.
        reason: Reason,
    },
}

/// Decides. The order of the checks is the order of the answers.
pub fn decide(message: &MessageFacts<'_>, mailing: &MailingOrder, access: &Access, now: DateTime<Utc>) -> Decision {
    let hold = |reason, not_before| Decision::Hold { reason, not_before };
    let settle = |status, reason| Decision::Settle { status, reason };
    if message.in_doubt {
        return settle(Status::Unknown, Reason::SenderLost);
    }
    match mailing.state {
        State::Cancelled => return settle(Status::Cancelled, Reason::MailingCancelled),
        _ if now >= mailing.ends_at => return settle(Status::Expired, Reason::Ended),
        State::Paused => return hold(Reason::Paused, now),
        State::Other(_) => return hold(Reason::Stale, now + HELD_FOR_NEWER),
        State::Scheduled | State::Running | State::Finished => {}
    }
    if !message.addressed {
        return settle(Status::Cancelled, Reason::Erased);
    }
    if message.windowed {
        return hold(Reason::Window, now + HELD_FOR_NEWER);
    }
    if matches!(message.delivery, Delivery::Other(_)) {
        return hold(Reason::Stale, now + HELD_FOR_NEWER);
    }
    let valid_until = message.planned_at + VALIDITY;
    if now >= valid_until {
        return hold(Reason::Stale, now);
    }
    if let Some(delay) = &message.delay
        && now < delay.until
    {
        return if delay.until > now + SLOT_WAIT || delay.until >= valid_until {
            hold(delay.reason.clone(), delay.until)
        } else {
            Decision::Wait { until: delay.until.min(mailing.ends_at) }
        };
    }
    let queued_since = message.queued_since.unwrap_or(now);
    let limited_until = queued_since + SLOT_WAIT;
    let kept_until = if message.round == 1 { valid_until } else { queued_since + KEPT_WAIT };
    match access {
        Access::Open => Decision::Call,
        Access::Limited if message.may_queue && now < limited_until => {
            Decision::Queue { until: limited_until.min(call_until(message, mailing)) }
        }
        Access::Limited => hold(Reason::Throttled, now + HELD_FOR_LANE),
        Access::Closed { kept: true, .. } if message.may_queue && now < kept_until => {
            Decision::Queue { until: kept_until.min(call_until(message, mailing)) }
        }
        Access::Closed { reason, .. } => hold(reason.clone(), now + HELD_FOR_LANE),
    }
}

/// No call begins at or after this moment, as long as the mailing stays as it is.
pub fn call_until(message: &MessageFacts<'_>, mailing: &MailingOrder) -> DateTime<Utc> {
    mailing.ends_at.min(message.planned_at + VALIDITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: TimeDelta = TimeDelta::seconds(1);

    fn planned_at() -> DateTime<Utc> {
        "2026-05-01T12:00:00Z".parse().unwrap()
    }

    fn facts() -> MessageFacts<'static> {
        MessageFacts {
            round: 1,
            planned_at: planned_at(),
            addressed: true,
            delivery: &Delivery::AtLeastOnce,
            windowed: false,
            in_doubt: false,
            delay: None,
            queued_since: None,
            may_queue: true,
        }
    }

    fn order(state: State) -> MailingOrder {
        MailingOrder { version: 1.into(), state, ends_at: planned_at() + SECOND * 30 }
    }

    fn settle(status: Status, reason: Reason) -> Decision {
        Decision::Settle { status, reason }
    }

    #[test]
    fn what_the_mailing_and_the_client_say_comes_first() {
        let now = planned_at() + SECOND;
        let end = planned_at() + SECOND * 30;
        let newer = Delivery::Other("exactly_once".to_owned());
        let hold = |reason, not_before| Decision::Hold { reason, not_before };
        let (running, paused, cancelled) = (|| State::Running, || State::Paused, || State::Cancelled);
        let cases = [
            ("a call", facts(), running(), now, Decision::Call),
            ("a scheduled mailing's event comes before the start", facts(), State::Scheduled, now, Decision::Call),
            ("cancelled", facts(), cancelled(), now, settle(Status::Cancelled, Reason::MailingCancelled)),
            ("cancelled, then ended", facts(), cancelled(), end, settle(Status::Cancelled, Reason::MailingCancelled)),
            ("the last moment", facts(), running(), end - TimeDelta::microseconds(1), Decision::Call),
            ("ended", facts(), running(), end, settle(Status::Expired, Reason::Ended)),
            ("ended while paused", facts(), paused(), end, settle(Status::Expired, Reason::Ended)),
            ("paused", facts(), paused(), now, hold(Reason::Paused, now)),
            (
                "a state of a newer version",
                facts(),
                State::Other("frozen".to_owned()),
                now,
                hold(Reason::Stale, now + SECOND * 60),
            ),
            (
                "its client is erased",
                MessageFacts { addressed: false, ..facts() },
                running(),
                now,
                settle(Status::Cancelled, Reason::Erased),
            ),
            (
                "in doubt, whatever the mailing says",
                MessageFacts { in_doubt: true, ..facts() },
                paused(),
                end,
                settle(Status::Unknown, Reason::SenderLost),
            ),
            (
                "a window, which this version doesn't keep",
                MessageFacts { windowed: true, ..facts() },
                running(),
                now,
                hold(Reason::Window, now + SECOND * 60),
            ),
            (
                "a risk of a newer version",
                MessageFacts { delivery: &newer, ..facts() },
                running(),
                now,
                hold(Reason::Stale, now + SECOND * 60),
            ),
        ];
        for (name, message, state, now, expected) in cases {
            assert_eq!(decide(&message, &order(state), &Access::Open, now), expected, "{name}");
        }
    }

    #[test]
    fn no_message_is_called_a_minute_after_it_was_planned() {
        let mailing = MailingOrder { ends_at: planned_at() + SECOND * 3_600, ..order(State::Running) };
        let at = |seconds| decide(&facts(), &mailing, &Access::Open, planned_at() + TimeDelta::milliseconds(seconds));
        assert_eq!(at(59_999), Decision::Call);
        let now = planned_at() + SECOND * 60;
        assert_eq!(at(60_000), Decision::Hold { reason: Reason::Stale, not_before: now });
        assert_eq!(call_until(&facts(), &mailing), now);
        assert_eq!(call_until(&facts(), &order(State::Running)), planned_at() + SECOND * 30);
    }

    #[test]
    fn a_wait_over_five_seconds_or_beyond_the_validity_is_held() {
        let now = planned_at() + SECOND * 10;
        let mailing = MailingOrder { ends_at: planned_at() + SECOND * 3_600, ..order(State::Running) };
        let delayed = |from: DateTime<Utc>, seconds| {
            let until = from + SECOND * seconds;
            let delay = Some(Delay { until, reason: Reason::Throttled });
            (decide(&MessageFacts { delay, ..facts() }, &mailing, &Access::Open, from), until)
        };
        let (decision, until) = delayed(now, 5);
        assert_eq!(decision, Decision::Wait { until });
        let (decision, not_before) = delayed(now, 6);
        assert_eq!(decision, Decision::Hold { reason: Reason::Throttled, not_before });
        let (decision, not_before) = delayed(planned_at() + SECOND * 58, 2);
        assert_eq!(decision, Decision::Hold { reason: Reason::Throttled, not_before });
        assert_eq!(delayed(now, 0).0, Decision::Call, "it is over");
        let ending = MailingOrder { ends_at: now + SECOND, ..mailing };
        let delay = Some(Delay { until: now + SECOND * 4, reason: Reason::Timeout });
        let decision = decide(&MessageFacts { delay, ..facts() }, &ending, &Access::Open, now);
        assert_eq!(decision, Decision::Wait { until: now + SECOND }, "its end comes first");
    }

    #[test]
    fn what_its_lane_does_not_let_go_stands_in_the_queue_or_is_held() {
        let now = planned_at() + SECOND * 10;
        let mailing = MailingOrder { ends_at: planned_at() + SECOND * 3_600, ..order(State::Running) };
        let closed = |kept| Access::Closed { reason: Reason::Outage, kept };
        let since = |seconds| MessageFacts { queued_since: Some(now - SECOND * seconds), ..facts() };
        let crowded = || MessageFacts { may_queue: false, ..facts() };
        let queue = |seconds| Decision::Queue { until: planned_at() + SECOND * seconds };
        let hold = |reason| Decision::Hold { reason, not_before: now + SECOND * 5 };
        let cases = [
            ("limited", facts(), Access::Limited, queue(15)),
            ("limited for a while", since(3), Access::Limited, queue(12)),
            ("limited for long enough", since(5), Access::Limited, hold(Reason::Throttled)),
            ("half of the slots wait", crowded(), Access::Limited, hold(Reason::Throttled)),
            ("let go", since(5), Access::Open, Decision::Call),
            ("kept to probe with", facts(), closed(true), queue(60)),
            ("kept for a while", since(9), closed(true), queue(60)),
            ("kept in a later round", MessageFacts { round: 2, ..since(9) }, closed(true), queue(11)),
            ("and for long enough", MessageFacts { round: 2, ..since(10) }, closed(true), hold(Reason::Outage)),
            ("half of the slots wait for a closed lane", crowded(), closed(true), hold(Reason::Outage)),
            ("closed", facts(), closed(false), hold(Reason::Outage)),
        ];
        for (name, message, access, expected) in cases {
            assert_eq!(decide(&message, &mailing, &access, now), expected, "{name}");
        }
    }
}
