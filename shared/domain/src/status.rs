//! Where a message is in its life, and which of two statuses stands.

use chrono::{DateTime, Utc};

use crate::wire_text::wire_text;

wire_text! {
    /// A message's status. `created` is a count (planned − rows), never an event or a row.
    Status {
        /// Planned; nothing has come of it yet.
        Created = "created",
        /// An attempt failed and another one is to come.
        Retrying = "retrying",
        /// Settled in this round, to be planned again in a later one.
        Held = "held",
        /// The provider accepted it. Nothing leaves this status.
        Succeeded = "succeeded",
        /// Given up, see the reason.
        Failed = "failed",
        /// The mailing ended first.
        Expired = "expired",
        /// The mailing was cancelled first, or the client may not be written to any more.
        Cancelled = "cancelled",
        /// Whether the provider accepted it can't be known, and the mailing chose not to risk a second call.
        Unknown = "unknown",
    }
}

wire_text! {
    /// Why a message has its status.
    Reason {
        /// The provider's definite no.
        Rejected = "rejected",
        /// The retries are used up.
        Exhausted = "exhausted",
        /// The message can't be sent as it is.
        Invalid = "invalid",
        /// The mailing's end has passed.
        Ended = "ended",
        /// The mailing was cancelled.
        MailingCancelled = "mailing_cancelled",
        /// The client was erased.
        Erased = "erased",
        /// The client's number is suppressed.
        Suppressed = "suppressed",
        /// Waits: the mailing is paused.
        Paused = "paused",
        /// Waits: all sending is stopped.
        Stopped = "stopped",
        /// Waits: the client's local window is closed.
        Window = "window",
        /// Waits: the provider asked to come later, or the pace that it takes is used up.
        Throttled = "throttled",
        /// Waits: the provider is in trouble, for all or for the message's operator code.
        Outage = "outage",
        /// Waits: a rate that was ordered is used up.
        Rate = "rate",
        /// Waits: the provider's successes can't be read any more.
        Contract = "contract",
        /// The provider refuses our configuration or account; as a wait, it refuses them to everybody.
        Configuration = "configuration",
        /// Waits: it was planned too long ago, or says what this version doesn't understand, and is planned anew.
        Stale = "stale",
        /// The provider answered 5xx or 408.
        ProviderError = "provider_error",
        /// No complete answer within the call timeout.
        Timeout = "timeout",
        /// The connection could not be made, or broke.
        Connection = "connection",
        /// Its sender died with the call about to begin or on the wire.
        SenderLost = "sender_lost",
        /// 200 with a body that can't be read, or with another code than 0.
        BadAnswer = "bad_answer",
    }
}

/// What decides between two statuses of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The round in which the status was reached, from 1.
    pub round: i32,
    /// The status.
    pub status: Status,
    /// Calls made in all rounds, the throttled ones not counted.
    pub attempt: i32,
    /// The next call or round begins no earlier; while it is `retrying` or `held`.
    pub not_before: Option<DateTime<Utc>>,
}

impl Status {
    /// Nothing more happens to the message by itself. A word of a newer version counts as terminal, as only those are ever added.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Created | Self::Retrying | Self::Held => false,
            Self::Succeeded | Self::Failed | Self::Expired | Self::Cancelled | Self::Unknown | Self::Other(_) => true,
        }
    }

    /// Terminal or held: the round is over for the message.
    pub fn is_settled(&self) -> bool {
        self.is_terminal() || *self == Self::Held
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Created => 0,
            Self::Retrying => 1,
            Self::Held => 2,
            Self::Succeeded | Self::Failed | Self::Expired | Self::Cancelled | Self::Unknown | Self::Other(_) => 3,
        }
    }
}

impl Standing {
    /// Whether `new`, read later in partition order, replaces this one.
    ///
    /// The higher round is shown; within one the first terminal status stands. Only `succeeded` replaces it, from any
    /// round, and any other terminal replaces `unknown`. Of two waits after one attempt the later `not_before` is shown.
    /// So replays, late and doubled events change nothing.
    pub fn is_replaced_by(&self, new: &Self) -> bool {
        if self.status == Status::Succeeded {
            return false;
        }
        if new.status == Status::Succeeded {
            return true;
        }
        if new.round != self.round {
            return new.round > self.round;
        }
        match (self.status.is_terminal(), new.status.is_terminal()) {
            (true, true) => self.status == Status::Unknown && new.status != Status::Unknown,
            (true, false) => false,
            (false, true) => true,
            (false, false) => new.waits() > self.waits(),
        }
    }

    /// In microseconds, as Postgres keeps it: a status that is read again equals the row that it has made.
    fn waits(&self) -> (u8, i32, Option<i64>) {
        (self.status.rank(), self.attempt, self.not_before.map(|not_before| not_before.timestamp_micros()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn standing(round: i32, status: Status, attempt: i32) -> Standing {
        Standing { round, status, attempt, not_before: None }
    }

    fn waiting(round: i32, status: Status, attempt: i32, seconds: i64) -> Standing {
        Standing { not_before: DateTime::from_timestamp(seconds, 0), ..standing(round, status, attempt) }
    }

    #[test]
    fn the_status_that_stands_follows_the_rules() {
        use Status::*;
        let cases = [
            ("a retry follows a retry", (1, Retrying, 1), (1, Retrying, 2), true),
            ("a replayed retry changes nothing", (1, Retrying, 2), (1, Retrying, 2), false),
            ("an earlier retry changes nothing", (1, Retrying, 2), (1, Retrying, 1), false),
            ("held follows retrying", (1, Retrying, 3), (1, Held, 3), true),
            ("retrying never follows held", (1, Held, 1), (1, Retrying, 2), false),
            ("terminal follows held", (1, Held, 0), (1, Expired, 0), true),
            ("the first terminal stands", (1, Expired, 0), (1, Failed, 4), false),
            ("succeeded replaces a terminal", (1, Failed, 4), (1, Succeeded, 4), true),
            ("late evidence of an earlier round counts", (2, Failed, 8), (1, Succeeded, 4), true),
            ("nothing leaves succeeded", (1, Succeeded, 1), (2, Failed, 2), false),
            ("a terminal replaces unknown", (1, Unknown, 1), (1, Expired, 1), true),
            ("unknown doesn't replace itself", (1, Unknown, 1), (1, Unknown, 1), false),
            ("the higher round is shown", (1, Failed, 4), (2, Retrying, 5), true),
            ("the lower round is not", (2, Retrying, 5), (1, Failed, 4), false),
        ];
        for (name, (r1, s1, a1), (r2, s2, a2), expected) in cases {
            assert_eq!(standing(r1, s1, a1).is_replaced_by(&standing(r2, s2, a2)), expected, "{name}");
        }
    }

    #[test]
    fn of_two_waits_after_one_attempt_the_later_is_shown() {
        use Status::*;
        let cases = [
            ("told to wait again", waiting(1, Retrying, 1, 10), waiting(1, Retrying, 1, 20), true),
            ("the earlier one comes again", waiting(1, Retrying, 1, 20), waiting(1, Retrying, 1, 10), false),
            ("the first wait", standing(1, Retrying, 1), waiting(1, Retrying, 1, 10), true),
            ("a later attempt's", waiting(1, Retrying, 1, 20), waiting(1, Retrying, 2, 10), true),
            ("an earlier attempt's", waiting(1, Retrying, 2, 10), waiting(1, Retrying, 1, 20), false),
            ("held before it", waiting(1, Held, 1, 10), waiting(1, Retrying, 1, 20), false),
        ];
        for (name, shown, new, expected) in cases {
            assert_eq!(shown.is_replaced_by(&new), expected, "{name}");
        }
    }

    fn any_standing() -> impl Strategy<Value = Standing> {
        let status = prop::sample::select(vec![
            Status::Retrying,
            Status::Held,
            Status::Succeeded,
            Status::Failed,
            Status::Expired,
            Status::Cancelled,
            Status::Unknown,
            Status::Other("bounced".to_owned()),
        ]);
        (1..4, status, 0..6, 0i64..3).prop_map(|(round, status, attempt, seconds)| match seconds {
            0 => standing(round, status, attempt),
            seconds => waiting(round, status, attempt, seconds),
        })
    }

    fn fold(history: &[Standing]) -> Option<Standing> {
        history.iter().fold(None, |shown: Option<Standing>, new| match shown {
            Some(shown) if !shown.is_replaced_by(new) => Some(shown),
            _ => Some(new.clone()),
        })
    }

    proptest! {
        #[test]
        fn replaying_any_tail_of_a_history_changes_nothing(
            history in prop::collection::vec(any_standing(), 1..12), from in 0usize..12,
        ) {
            let once = fold(&history);
            let mut replayed = history.clone();
            replayed.extend_from_slice(&history[from.min(history.len())..]);
            prop_assert_eq!(fold(&replayed), once);
        }

        #[test]
        fn nothing_replaces_itself(standing in any_standing()) {
            prop_assert!(!standing.is_replaced_by(&standing));
        }
    }
}
