//! What a sender knows of a mailing, and what follows from a call's outcome.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::ids::Version;
use crate::mailing::{Delivery, State};
use crate::status::{Reason, Status};

/// What a sender must know of a mailing to decide about its messages, as its newest event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailingOrder {
    /// The version of the event.
    pub version: Version,
    /// The mailing's state.
    pub state: State,
    /// No call begins at or after.
    pub ends_at: DateTime<Utc>,
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

/// Less would be a loop: a provider that says 0 means "not now" all the same.
const MIN_THROTTLED_WAIT: Duration = Duration::from_secs(1);
/// A mistaken header keeps nobody waiting for a day.
const MAX_THROTTLED_WAIT: Duration = Duration::from_secs(60);
const THROTTLED_JITTER: f64 = 0.15;

/// What follows from an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The message is settled.
    Settle(Status, Option<Reason>),
    /// It becomes `retrying`, and is called again after this long.
    Retry(Duration, Reason),
    /// It becomes `retrying` and is called again after this long, as if this attempt hadn't been.
    Wait(Duration),
    /// It is asked about again at once, as if this attempt hadn't been: its lane is closed, and will say.
    Uncounted(Reason),
}

/// Decides by the outcome of attempt number `attempt` (from 1); `delays` has one entry a retry. `lane_closed` is what the
/// lane says once it knows the outcome. `random` is drawn anew for each call, from 0 to 1.
///
/// While its lane is closed a message uses no attempt, unless nobody can know what came of it: that always counts, or an
/// hour of probing would send one person thousands of texts. So the retries are used up with the lane open, or by calls
/// that may all have been received. A delivery of a newer version risks nothing twice.
pub fn after_attempt(
    outcome: Outcome,
    delivery: &Delivery,
    attempt: i32,
    lane_closed: bool,
    delays: &[Duration],
    random: f64,
) -> Next {
    match outcome {
        Outcome::Ambiguous(reason) if *delivery != Delivery::AtLeastOnce => Next::Settle(Status::Unknown, Some(reason)),
        Outcome::Accepted => Next::Settle(Status::Succeeded, None),
        Outcome::Rejected => Next::Settle(Status::Failed, Some(Reason::Rejected)),
        Outcome::Throttled(wait) => Next::Wait(throttled_wait(wait, random)),
        Outcome::Retryable(reason) if lane_closed => Next::Uncounted(reason),
        Outcome::Retryable(reason) | Outcome::Ambiguous(reason) => {
            let delay = usize::try_from(attempt - 1).ok().and_then(|index| delays.get(index));
            match delay {
                Some(delay) => Next::Retry(*delay, reason),
                None => Next::Settle(Status::Failed, Some(Reason::Exhausted)),
            }
        }
    }
}

/// What a message that was told to come later waits: 1 to 60 s, and longer by up to 15 %, so that those that were told
/// together don't return together.
fn throttled_wait(told: Duration, random: f64) -> Duration {
    told.clamp(MIN_THROTTLED_WAIT, MAX_THROTTLED_WAIT).mul_f64(1.0 + THROTTLED_JITTER * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn three_retries_follow_a_failed_attempt() {
        let delays = [SECOND, SECOND * 2, SECOND * 4];
        let next = |outcome, attempt| after_attempt(outcome, &Delivery::AtLeastOnce, attempt, false, &delays, 0.0);
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
        assert_eq!(after_attempt(lost(), &Delivery::AtLeastOnce, 1, false, &[SECOND], 0.0), again);
        assert_eq!(after_attempt(lost(), &Delivery::AtMostOnce, 1, false, &[SECOND], 0.0), left);
        let refused = Outcome::Retryable(Reason::ProviderError);
        let next = after_attempt(refused, &Delivery::AtMostOnce, 1, false, &[SECOND], 0.0);
        assert_eq!(next, Next::Retry(SECOND, Reason::ProviderError), "a complete refusal is no doubt");
    }

    #[test]
    fn while_its_lane_is_closed_only_an_ambiguous_call_uses_an_attempt() {
        let next = |outcome, attempt| after_attempt(outcome, &Delivery::AtLeastOnce, attempt, true, &[SECOND], 0.0);
        let refused = || Outcome::Retryable(Reason::ProviderError);
        assert_eq!(next(refused(), 1), Next::Uncounted(Reason::ProviderError));
        assert_eq!(next(refused(), 2), Next::Uncounted(Reason::ProviderError), "and none is exhausted");
        let lost = || Outcome::Ambiguous(Reason::Timeout);
        assert_eq!(next(lost(), 1), Next::Retry(SECOND, Reason::Timeout));
        assert_eq!(next(lost(), 2), Next::Settle(Status::Failed, Some(Reason::Exhausted)));
        let unknown = Next::Settle(Status::Unknown, Some(Reason::Timeout));
        for delivery in [Delivery::AtMostOnce, Delivery::Other("exactly_once".to_owned())] {
            assert_eq!(after_attempt(lost(), &delivery, 1, true, &[SECOND], 0.0), unknown, "{delivery}");
        }
    }

    #[test]
    fn a_throttled_message_waits_as_told_within_a_second_and_a_minute_and_a_little_longer() {
        let wait = |seconds, random| {
            let told = Outcome::Throttled(SECOND * seconds);
            after_attempt(told, &Delivery::AtLeastOnce, 1, true, &[], random)
        };
        let cases = [
            ("at once", 0, 0.0, 1_000),
            ("as told", 8, 0.0, 8_000),
            ("a little longer", 8, 1.0, 9_200),
            ("a day", 86_400, 0.5, 64_500),
        ];
        for (name, seconds, random, expected) in cases {
            assert_eq!(wait(seconds, random), Next::Wait(Duration::from_millis(expected)), "{name}");
        }
    }
}
