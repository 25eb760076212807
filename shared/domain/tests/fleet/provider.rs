//! The provider: limits, outages, odd and lost answers.

use std::time::Duration;

use domain::client::OperatorCode;
use domain::delivery::Outcome;
use domain::status::Reason;

use crate::random::Random;
use crate::world::{MILLI, Micros, SECOND};

/// What is wrong with the provider, and for whom.
#[derive(Clone, Debug)]
pub struct Outage {
    pub from: Micros,
    pub to: Micros,
    /// None: for all.
    pub code: Option<i64>,
    pub trouble: Trouble,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// 500.
    Refuses,
    /// No answer within the call timeout.
    Hangs,
    /// A success that can't be read.
    Unreadable,
    /// 401.
    Forbidden,
    /// 429.
    Throttles,
}

#[derive(Debug)]
pub struct Provider {
    pub latency: Micros,
    pub outages: Vec<Outage>,
    /// Calls a second that it takes; the others get 429.
    pub limit: Option<f64>,
    pub retry_after: Option<Duration>,
    pub error_share: f64,
    pub throttled_share: f64,
    /// The message is taken and the answer lost.
    pub lost_share: f64,
    pub rejected_share: f64,
    /// A client that is told to wait, whenever it is called.
    pub never_now: Option<(i64, Duration)>,
    /// When the bucket of the limit is empty to.
    bucket: f64,
    refilled_at: Micros,
}

impl Default for Provider {
    fn default() -> Self {
        Self {
            latency: 50 * MILLI,
            outages: Vec::new(),
            limit: None,
            retry_after: None,
            error_share: 0.0,
            throttled_share: 0.0,
            lost_share: 0.0,
            rejected_share: 0.0,
            never_now: None,
            bucket: 0.0,
            refilled_at: 0,
        }
    }
}

/// What becomes of a call.
pub struct Answer {
    pub outcome: Outcome,
    pub after: Micros,
}

impl Provider {
    pub fn trouble(&self, code: OperatorCode, now: Micros) -> Option<Trouble> {
        let meets = |outage: &&Outage| {
            (outage.from..outage.to).contains(&now) && outage.code.is_none_or(|of| of == i64::from(code.get()))
        };
        self.outages.iter().find(meets).map(|outage| outage.trouble)
    }

    pub fn call(&mut self, client_no: i64, code: OperatorCode, now: Micros, random: &mut Random) -> Answer {
        let after = self.latency * 8 / 10 + random.between(0, self.latency * 4 / 10 + 1);
        let throttled = |told: Option<Duration>| Outcome::Throttled(told.unwrap_or(Duration::from_secs(1)));
        let answer = |outcome| Answer { outcome, after };
        if let Some(trouble) = self.trouble(code, now) {
            return match trouble {
                Trouble::Refuses => answer(Outcome::Retryable(Reason::ProviderError)),
                Trouble::Hangs => Answer { outcome: Outcome::Ambiguous(Reason::Timeout), after: 5 * SECOND },
                Trouble::Unreadable => answer(Outcome::Ambiguous(Reason::BadAnswer)),
                Trouble::Forbidden => answer(Outcome::Retryable(Reason::Configuration)),
                Trouble::Throttles => answer(throttled(self.retry_after)),
            };
        }
        if let Some((client, wait)) = self.never_now
            && client == client_no
        {
            return answer(throttled(Some(wait)));
        }
        if !self.within_limit(now) || random.chance(self.throttled_share) {
            return answer(throttled(self.retry_after));
        }
        if random.chance(self.error_share) {
            return answer(Outcome::Retryable(Reason::ProviderError));
        }
        if random.chance(self.lost_share) {
            return Answer { outcome: Outcome::Ambiguous(Reason::Timeout), after: 5 * SECOND };
        }
        if random.chance(self.rejected_share) {
            return answer(Outcome::Rejected);
        }
        answer(Outcome::Accepted)
    }

    /// A bucket of a tenth of a second.
    fn within_limit(&mut self, now: Micros) -> bool {
        let Some(limit) = self.limit else { return true };
        let room = (limit / 10.0).max(1.0);
        self.bucket = (self.bucket + (now - self.refilled_at) as f64 * limit / SECOND as f64).min(room);
        self.refilled_at = now;
        let within = self.bucket >= 1.0;
        if within {
            self.bucket -= 1.0;
        }
        within
    }
}
