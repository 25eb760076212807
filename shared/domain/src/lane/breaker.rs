//! When calls fail so often that no more are made.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::client::OperatorCode;
use crate::status::Reason;

/// Calls that count at the most.
const MOST: usize = 100;
const SPAN: Duration = Duration::from_secs(10);
/// From so many calls within [`SPAN`] on half of them must have failed.
const ENOUGH: usize = 20;
/// Of fewer the last five must have, however long ago; or the last four over [`SLOW`]: a message that is alone makes no fifth
/// call before its retries are used up.
const ROW: usize = 5;
const SLOW_ROW: usize = 4;
const SLOW: Duration = Duration::from_secs(5);
/// What is longer ago isn't remembered.
const MEMORY: Duration = Duration::from_secs(60);

/// The last calls of one lane, or of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Breaker {
    calls: VecDeque<Call>,
}

#[derive(Clone, Debug)]
struct Call {
    at: Duration,
    code: OperatorCode,
    /// Why it failed; throttled is no failure.
    failed: Option<Reason>,
}

impl Breaker {
    pub(super) fn add(&mut self, code: OperatorCode, failed: Option<Reason>, now: Duration) {
        self.calls.push_back(Call { at: now, code, failed });
        while self.calls.len() > MOST || self.calls.front().is_some_and(|call| call.at + MEMORY < now) {
            self.calls.pop_front();
        }
    }

    /// Why most of the calls failed that say so, if so many did that it opens.
    pub(super) fn opens(&self) -> Option<Reason> {
        let counted = self.counted();
        let failed = || counted.iter().filter_map(|call| call.failed.as_ref());
        let slow = || counted.first().zip(counted.last()).is_some_and(|(newest, first)| first.at + SLOW <= newest.at);
        let opens = if self.recent() >= ENOUGH {
            2 * failed().count() >= counted.len()
        } else {
            counted.len() >= ROW || (counted.len() >= SLOW_ROW && slow())
        };
        if !opens {
            return None;
        }
        let most = |reason: &Reason| 2 * failed().filter(|failed| *failed == reason).count() > failed().count();
        let reason = failed().find(|reason| most(reason));
        Some(reason.map_or(Reason::Outage, closing_reason))
    }

    /// The calls that say whether it opens, newest first: those within [`SPAN`], or of few the row of failures.
    fn counted(&self) -> Vec<&Call> {
        let newest = self.calls.iter().rev();
        if self.recent() >= ENOUGH {
            newest.take(self.recent()).collect()
        } else {
            newest.take_while(|call| call.failed.is_some()).take(ROW).collect()
        }
    }

    fn recent(&self) -> usize {
        let Some(newest) = self.calls.back() else { return 0 };
        self.calls.iter().rev().take_while(|call| call.at + SPAN >= newest.at).count()
    }

    /// Whether half of the calls failed also without the lane in which most did, or there is no other lane: else the trouble
    /// is that lane's own.
    pub(super) fn is_everywhere(&self) -> bool {
        let mut lanes: BTreeMap<OperatorCode, (usize, usize)> = BTreeMap::new();
        let lately = self.recent().max(ROW);
        for call in self.calls.iter().rev().take(lately) {
            let (calls, failed) = lanes.entry(call.code).or_default();
            *calls += 1;
            *failed += usize::from(call.failed.is_some());
        }
        let worst = lanes.iter().max_by_key(|(_, (_, failed))| *failed).map(|(code, _)| *code);
        let others = lanes.iter().filter(|(code, _)| Some(**code) != worst);
        let (calls, failed) = others.fold((0, 0), |sum, (_, lane)| (sum.0 + lane.0, sum.1 + lane.1));
        2 * failed >= calls
    }

    /// Forgets a lane's calls.
    pub(super) fn forget(&mut self, code: OperatorCode) {
        self.calls.retain(|call| call.code != code);
    }

    pub(super) fn clear(&mut self) {
        self.calls.clear();
    }
}

/// Why a lane is closed when its calls failed for this reason.
pub(super) fn closing_reason(failure: &Reason) -> Reason {
    match failure {
        Reason::Configuration => Reason::Configuration,
        Reason::BadAnswer => Reason::Contract,
        _ => Reason::Outage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(code: i64) -> OperatorCode {
        OperatorCode::new(code).unwrap()
    }

    fn breaker(calls: impl IntoIterator<Item = (i64, bool)>) -> Breaker {
        let mut breaker = Breaker::default();
        for (lane, failed) in calls {
            breaker.add(code(lane), failed.then_some(Reason::Timeout), Duration::from_secs(1));
        }
        breaker
    }

    #[test]
    fn it_opens_when_half_of_the_last_calls_failed_or_the_last_five_of_few() {
        let calls = |text: &str| breaker(text.chars().map(|call| (900, call == 'x')));
        let cases = [
            ("none", String::new(), false),
            ("four", "x".repeat(4), false),
            ("five", "x".repeat(5), true),
            ("five of few", format!("{}{}", ".".repeat(9), "x".repeat(5)), true),
            ("not in a row", format!("{}.xxxx", "x".repeat(4)), false),
            ("nine of twenty", format!("{}{}", ".".repeat(11), "x".repeat(9)), false),
            ("ten of twenty", ".x".repeat(10), true),
            ("half of the last hundred", format!("{}{}", ".".repeat(500), "x".repeat(50)), true),
            ("a tenth", ".........x".repeat(50), false),
        ];
        for (name, text, expected) in cases {
            assert_eq!(calls(&text).opens().is_some(), expected, "{name}");
        }
    }

    #[test]
    fn few_calls_are_remembered_for_a_minute_and_four_over_a_while_are_enough() {
        let failures = |seconds: &[u64]| {
            let mut breaker = Breaker::default();
            seconds.iter().for_each(|at| breaker.add(code(900), Some(Reason::Timeout), Duration::from_secs(*at)));
            breaker.opens().is_some()
        };
        let cases = [
            ("a message alone, with its retries", vec![0, 1, 3, 7], true),
            ("before its last", vec![0, 1, 3], false),
            ("four at once", vec![0, 1, 2, 3], false),
            ("slow ones", vec![0, 13, 27, 40], true),
            ("too long ago", vec![0, 30, 50, 70], false),
        ];
        for (name, seconds, expected) in cases {
            assert_eq!(failures(&seconds), expected, "{name}");
        }
    }

    #[test]
    fn it_says_what_most_of_the_failures_were() {
        let opens = |reasons: [Reason; 5]| {
            let mut breaker = Breaker::default();
            reasons.into_iter().for_each(|reason| breaker.add(code(900), Some(reason), Duration::ZERO));
            breaker.opens()
        };
        use Reason::*;
        assert_eq!(opens([Timeout, Connection, ProviderError, BadAnswer, BadAnswer]), Some(Outage));
        assert_eq!(opens([Timeout, Connection, BadAnswer, BadAnswer, BadAnswer]), Some(Contract));
        assert_eq!(opens([Timeout, Configuration, Configuration, Configuration, BadAnswer]), Some(Configuration));
    }

    #[test]
    fn trouble_is_everywhere_when_it_is_not_one_lanes_own() {
        let cases = [
            ("one lane and no other", vec![(900, true); 5], true),
            ("one lane of two", vec![(900, true), (900, true), (900, true), (901, false)], false),
            ("many lanes", (900..905).map(|lane| (lane, true)).collect(), true),
        ];
        for (name, calls, expected) in cases {
            assert_eq!(breaker(calls).is_everywhere(), expected, "{name}");
        }
    }
}
