//! One lane: open, opening by a ramp, or closed and probed.

use std::time::Duration;

use super::breaker::Breaker;
use crate::pace::Bucket;
use crate::status::Reason;
use crate::window::Window;

pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Who answers what can't be read may have sent the message: that is tried seldom.
const CONTRACT_PROBE_INTERVAL: Duration = Duration::from_secs(60);
/// A probe of which nothing was heard for this long is under way no more.
const PROBE_LOST: Duration = Duration::from_secs(60);
/// A lane opens at this share of its former rate, and has all of it back after [`RAMP`].
const RAMP_FROM: f64 = 0.2;
pub(super) const RAMP: Duration = Duration::from_secs(20);
/// Calls a second below which a ramp makes nothing smaller.
const LEAST_RATE: f64 = 5.0;

#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) state: LaneState,
    pub(super) since: Duration,
    pub(super) asked_at: Duration,
    pub(super) breaker: Breaker,
    pub(super) answered: Window<10>,
    pub(super) throttled: Window<10>,
    /// Changes when the lane closes or opens: what came of an earlier call says nothing any more.
    pub(super) epoch: u64,
    pub(super) probes: u64,
}

#[derive(Clone, Debug)]
pub(super) enum LaneState {
    Open,
    Ramp { rate: f64, bucket: Bucket },
    Closed { reason: Reason, rate: f64, good: u32, probes: Probes },
}

/// When the next probe may begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probes {
    pub(super) next_at: Duration,
    pub(super) under_way_since: Option<Duration>,
}

impl Lane {
    pub(super) fn new(epoch: u64, now: Duration) -> Self {
        let ten_seconds = || Window::new(Duration::from_secs(1));
        Self {
            state: LaneState::Open,
            since: now,
            asked_at: now,
            breaker: Breaker::default(),
            answered: ten_seconds(),
            throttled: ten_seconds(),
            epoch,
            probes: 0,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, LaneState::Closed { .. })
    }

    pub(super) fn become_state(&mut self, state: LaneState, now: Duration) {
        self.state = state;
        self.since = now;
    }

    pub(super) fn close(&mut self, reason: &Reason, epoch: u64, now: Duration) {
        let taken = (self.answered.rate(now) - self.throttled.rate(now)).max(LEAST_RATE);
        // One that fails while it opens has its former rate still before it; one that is throttled had too much of it.
        let rate = match self.state {
            LaneState::Ramp { rate, .. } | LaneState::Closed { rate, .. } if *reason != Reason::Throttled => {
                taken.max(rate)
            }
            _ => taken,
        };
        self.breaker.clear();
        self.epoch = epoch;
        self.probes = 0;
        let probes = Probes::first(reason, now);
        self.become_state(LaneState::Closed { reason: reason.clone(), rate, good: 0, probes }, now);
    }

    pub(super) fn open(&mut self, rate: f64, epoch: u64, now: Duration) {
        self.breaker.clear();
        self.throttled.clear();
        self.epoch = epoch;
        self.become_state(LaneState::Ramp { rate, bucket: Bucket::default() }, now);
    }
}

impl Probes {
    pub(super) fn first(reason: &Reason, now: Duration) -> Self {
        Self { next_at: now + interval(reason, 0), under_way_since: None }
    }

    /// None while one is under way.
    pub(super) fn next_at(self, now: Duration) -> Option<Duration> {
        self.under_way_since.is_none_or(|since| since + PROBE_LOST <= now).then_some(self.next_at)
    }

    pub(super) fn begin(&mut self, reason: &Reason, good: u32, now: Duration) {
        *self = Self { next_at: now + interval(reason, good), under_way_since: Some(now) };
    }
}

pub(super) fn interval(reason: &Reason, good: u32) -> Duration {
    if *reason == Reason::Contract && good == 0 { CONTRACT_PROBE_INTERVAL } else { PROBE_INTERVAL }
}

/// Calls a second of a lane that opened so long ago.
pub(super) fn ramped(rate: f64, since: Duration) -> f64 {
    let share = RAMP_FROM + (1.0 - RAMP_FROM) * since.div_duration_f64(RAMP).min(1.0);
    (rate * share).max(1.0)
}
