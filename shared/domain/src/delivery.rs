//! Whether a call may begin, and what follows from its outcome.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::mailing::{Delivery, State};
use crate::status::{Reason, Status};

/// What a sender must know of a mailing to decide about its messages, as its newest event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailingOrder {
    /// The version of the event.
    pub version: i64,
    /// The mailing's state.
    pub state: State,
    /// No call begins at or after.
    pub ends_at: DateTime<Utc>,
}

/// What may be done about a message now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Call the provider.
    Call,
    /// Settle it without a call.
    Settle(Status, Reason),
}

/// Decides by the mailing's newest state. The order of the checks is the order of the answers: cancelled, ended.
pub fn permit(mailing: &MailingOrder, now: DateTime<Utc>) -> Permit {
    if mailing.state == State::Cancelled {
        Permit::Settle(Status::Cancelled, Reason::MailingCancelled)
    } else if now >= mailing.ends_at {
        Permit::Settle(Status::Expired, Reason::Ended)
    } else {
        Permit::Call
    }
}

/// What one attempt returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took the message.
    Accepted,
    /// It said a definite no.
    Rejected,
    /// It was not taken, and another attempt may succeed.
    Retryable(Reason),
    /// Whether it was taken can't be known: writing began, and no answer came that can be read.
    Ambiguous(Reason),
    /// It asked to come later; this costs no attempt.
    Throttled(Duration),
}

/// What follows from an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The message is settled.
    Settle(Status, Option<Reason>),
    /// It becomes `retrying`, and is called again after this long.
    Retry(Duration, Reason),
    /// It is called again after this long, as if this attempt hadn't been.
    Wait(Duration),
}

/// Decides by the outcome of attempt number `attempt` (from 1); `delays` has one entry a retry.
pub fn after_attempt(outcome: Outcome, delivery: &Delivery, attempt: i32, delays: &[Duration]) -> Next {
    match outcome {
        Outcome::Ambiguous(reason) if *delivery == Delivery::AtMostOnce => Next::Settle(Status::Unknown, Some(reason)),
        Outcome::Accepted => Next::Settle(Status::Succeeded, None),
        Outcome::Rejected => Next::Settle(Status::Failed, Some(Reason::Rejected)),
        Outcome::Throttled(wait) => Next::Wait(wait),
        Outcome::Retryable(reason) | Outcome::Ambiguous(reason) => {
            let delay = usize::try_from(attempt - 1).ok().and_then(|index| delays.get(index));
            match delay {
                Some(delay) => Next::Retry(*delay, reason),
                None => Next::Settle(Status::Failed, Some(Reason::Exhausted)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn three_retries_follow_a_failed_attempt() {
        let delays = [SECOND, SECOND * 2, SECOND * 4];
        let next = |outcome, attempt| after_attempt(outcome, &Delivery::AtLeastOnce, attempt, &delays);
        let timeout = || Outcome::Retryable(Reason::Timeout);
        assert_eq!(next(timeout(), 1), Next::Retry(SECOND, Reason::Timeout));
        assert_eq!(next(timeout(), 2), Next::Retry(SECOND * 2, Reason::Timeout));
        assert_eq!(next(timeout(), 3), Next::Retry(SECOND * 4, Reason::Timeout));
        assert_eq!(next(timeout(), 4), Next::Settle(Status::Failed, Some(Reason::Exhausted)));
        assert_eq!(next(Outcome::Rejected, 1), Next::Settle(Status::Failed, Some(Reason::Rejected)));
        assert_eq!(next(Outcome::Accepted, 4), Next::Settle(Status::Succeeded, None));
        assert_eq!(next(Outcome::Throttled(SECOND * 30), 4), Next::Wait(SECOND * 30));
    }

    #[test]
    fn a_fate_that_cant_be_known_is_risked_again_or_left_as_the_mailing_chose() {
        let lost = || Outcome::Ambiguous(Reason::Timeout);
        let again = Next::Retry(SECOND, Reason::Timeout);
        let left = Next::Settle(Status::Unknown, Some(Reason::Timeout));
        assert_eq!(after_attempt(lost(), &Delivery::AtLeastOnce, 1, &[SECOND]), again);
        assert_eq!(after_attempt(lost(), &Delivery::AtMostOnce, 1, &[SECOND]), left);
        let refused = Outcome::Retryable(Reason::ProviderError);
        let next = after_attempt(refused, &Delivery::AtMostOnce, 1, &[SECOND]);
        assert_eq!(next, Next::Retry(SECOND, Reason::ProviderError), "a complete refusal is no doubt");
    }

    #[test]
    fn no_call_begins_at_the_end_or_after_a_cancel() {
        let end: DateTime<Utc> = "2026-05-01T12:00:00Z".parse().unwrap();
        let order = |state| MailingOrder { version: 1, state, ends_at: end };
        let before = end - chrono::Duration::microseconds(1);
        assert_eq!(permit(&order(State::Running), before), Permit::Call);
        assert_eq!(permit(&order(State::Running), end), Permit::Settle(Status::Expired, Reason::Ended));
        let cancelled = Permit::Settle(Status::Cancelled, Reason::MailingCancelled);
        assert_eq!(permit(&order(State::Cancelled), before), cancelled);
        assert_eq!(permit(&order(State::Cancelled), end), cancelled);
    }
}
