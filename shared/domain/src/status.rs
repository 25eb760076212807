//! Where a message is in its life, and which of two statuses stands.

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
        /// The mailing is paused.
        Paused = "paused",
        /// The provider answered 5xx or 408, or refused our configuration (401, 403, 3xx).
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
}

impl Status {
    /// Nothing more happens to the message by itself. A word of a newer version counts as terminal, as only those are ever added.
    pub fn is_terminal(&self) -> bool {
        !matches!(self, Self::Created | Self::Retrying | Self::Held)
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
            _ => 3,
        }
    }
}

impl Standing {
    /// Whether `new`, read later in partition order, replaces this one.
    ///
    /// The higher round is shown; within one the first terminal status stands. Only `succeeded` replaces it, from any
    /// round, and any other terminal replaces `unknown`. So replays, late and doubled events change nothing.
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
            (false, false) => (new.status.rank(), new.attempt) > (self.status.rank(), self.attempt),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn standing(round: i32, status: Status, attempt: i32) -> Standing {
        Standing { round, status, attempt }
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
        (1..4, status, 0..6).prop_map(|(round, status, attempt)| standing(round, status, attempt))
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
