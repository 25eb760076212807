//! Whether the provider may be called, for one operator code and for all.
//!
//! A lane is what the calls of one operator code have in common. Its breaker opens when too many of them fail; then the lane
//! is closed, and the provider is called for it by probes only, until three in a row were good. The lane opens again by a ramp.
//! The same rule runs over all calls together, so a small mailing over many codes notices an outage too. Instants are what
//! has passed on a monotonic clock since the process began.

mod blame;
mod breaker;
mod state;
mod view;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::OperatorCode;
use crate::delivery::Outcome;
use crate::pace::Pace;
use crate::status::Reason;
use blame::{Blame, blame};
use breaker::{Breaker, closing_reason};
pub use view::{Closed, ClosedLanes, LaneView};

use state::{Lane, LaneState, PROBE_INTERVAL, Probes, RAMP, interval, ramped};

/// Good probes that open a lane.
const GOOD_PROBES: u32 = 3;
/// A closed lane that nobody has asked about for this long opens by its ramp: nothing waits for it, and it has nothing to
/// probe with.
const UNASKED: Duration = Duration::from_secs(60);
/// So many answers in a row that refuse our configuration close all lanes.
const REFUSED_ROW: u32 = 5;
/// So many successes in a row that can't be read close all lanes.
const UNREADABLE_ROW: u32 = 20;
/// A probe that may have been received is followed by the next one so late only.
const AMBIGUOUS_PROBE_WAIT: Duration = Duration::from_secs(8);
/// So many bad probes in a row close all lanes again, while none is open.
const BAD_PROBES: u32 = 5;

/// All lanes of a sender, and its pace.
#[derive(Clone, Debug, Default)]
pub struct Lanes {
    lanes: BTreeMap<OperatorCode, Lane>,
    pace: Pace,
    /// The last calls of all lanes that aren't closed by themselves.
    breaker: Breaker,
    /// All lanes are closed together: one probe at a time for all of them.
    all: Option<AllClosed>,
    refused_row: u32,
    unreadable_row: u32,
    bad_probes: u32,
    calls: u64,
    epoch: u64,
}

#[derive(Clone, Debug)]
struct AllClosed {
    reason: Reason,
    probes: Probes,
}

/// What may be called now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// The provider.
    Open,
    /// The provider, from then on: the pace or a ramp is used up.
    Limited(Duration),
    /// The provider with one message, to see how it is.
    Probe,
    /// Nobody, for this reason. The next probe may begin then, if one isn't under way.
    Closed(Reason, Option<Duration>),
}

/// The leave to make one call. Whoever has it tells what came of it, or that no call was made.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a pass that isn't given back holds up the next probe"]
pub struct Pass {
    code: OperatorCode,
    epoch: u64,
    probe: bool,
}

impl Pass {
    /// Whether the call is a probe.
    pub fn is_probe(&self) -> bool {
        self.probe
    }
}

impl Lanes {
    /// What may be called for a code now. Asking keeps a closed lane closed: it has something to probe with.
    pub fn ask(&mut self, code: OperatorCode, now: Duration) -> Gate {
        let lane = self.lanes.entry(code).or_insert_with(|| Lane::new(self.epoch, now));
        lane.asked_at = now;
        if let (Some(all), LaneState::Open) = (&self.all, &lane.state) {
            lane.close(&all.reason, self.epoch, now);
        }
        let (reason, probes) = match (&self.all, &lane.state) {
            (Some(all), _) => (&all.reason, all.probes),
            (None, LaneState::Closed { reason, probes, .. }) => (reason, *probes),
            (None, LaneState::Ramp { bucket, .. }) => {
                let limits = [bucket.next_at(now), self.pace.next_at(now)];
                return limits.into_iter().flatten().max().map_or(Gate::Open, Gate::Limited);
            }
            (None, LaneState::Open) => return self.pace.next_at(now).map_or(Gate::Open, Gate::Limited),
        };
        match probes.next_at(now) {
            Some(next_at) if next_at <= now => Gate::Probe,
            next_at => Gate::Closed(reason.clone(), next_at),
        }
    }

    /// Takes the leave to make a call now, if there is one. It is charged to all that limits it.
    pub fn take(&mut self, code: OperatorCode, now: Duration) -> Result<Pass, Gate> {
        let gate = self.ask(code, now);
        let probe = gate == Gate::Probe;
        let Some(lane) = self.lanes.get_mut(&code).filter(|_| probe || gate == Gate::Open) else { return Err(gate) };
        match &mut lane.state {
            LaneState::Open => {}
            LaneState::Ramp { rate, bucket } => {
                bucket.charge(ramped(*rate, now.saturating_sub(lane.since)), now);
            }
            LaneState::Closed { reason, probes, good, .. } => {
                lane.probes += 1;
                probes.begin(reason, *good, now);
            }
        }
        if let Some(all) = &mut self.all {
            all.probes.begin(&all.reason, 0, now);
        }
        self.pace.begin(now);
        self.calls += 1;
        Ok(Pass { code, epoch: lane.epoch, probe })
    }

    /// No call was made after all.
    pub fn not_begun(&mut self, pass: Pass, now: Duration) {
        if pass.probe {
            self.end_probe(&pass, |probes| probes.next_at = now);
        }
    }

    /// Something came of a call. Returns why its lane is closed now, if it is.
    pub fn outcome(&mut self, pass: Pass, outcome: &Outcome, now: Duration) -> Option<Reason> {
        let code = pass.code;
        let throttled = matches!(outcome, Outcome::Throttled(_));
        if let Some(lane) = self.lanes.get_mut(&code) {
            lane.answered.add(now);
            if throttled {
                lane.throttled.add(now);
            }
        }
        if self.pace.answered(throttled, now) {
            match blame(&self.lanes, now) {
                Blame::Lane(code) => {
                    self.pace.forgive();
                    self.close(code, &Reason::Throttled, now);
                }
                Blame::Unclear => {}
                Blame::Pace => self.pace.cut(now),
            }
        }
        self.count_rows(outcome, now);
        let current = self.lanes.get(&code).is_some_and(|lane| lane.epoch == pass.epoch);
        if pass.probe {
            self.end_probe(&pass, |_| {});
            if current {
                self.probed(code, outcome, now);
            }
        } else if current && !throttled {
            self.called(code, failure(outcome), now);
        }
        self.closed_for(code)
    }

    /// Why the lane is closed, if it is.
    pub fn closed_for(&self, code: OperatorCode) -> Option<Reason> {
        match (&self.all, self.lanes.get(&code).map(|lane| &lane.state)) {
            (Some(all), _) => Some(all.reason.clone()),
            (None, Some(LaneState::Closed { reason, .. })) => Some(reason.clone()),
            _ => None,
        }
    }

    /// Lets time pass: ramps end, and closed lanes that nobody asks about open. To be called about once a second.
    pub fn tick(&mut self, now: Duration) {
        let unasked = |lane: &Lane| lane.asked_at + UNASKED <= now;
        if self.all.is_some() && self.lanes.values().all(unasked) {
            self.all = None;
        }
        for lane in self.lanes.values_mut() {
            match lane.state {
                LaneState::Ramp { .. } if lane.since + RAMP <= now => lane.become_state(LaneState::Open, now),
                LaneState::Closed { rate, .. } if self.all.is_none() && unasked(lane) => {
                    self.epoch += 1;
                    lane.open(rate, self.epoch, now);
                }
                _ => {}
            }
        }
    }

    /// Whether nothing can be called without waiting for its turn: by the pace, or because no lane is wholly open. Then nothing
    /// more needs to be taken in while half of the slots wait, for it would only wait too.
    pub fn all_limited(&self, now: Duration) -> bool {
        let open = self.lanes.values().any(|lane| matches!(lane.state, LaneState::Open));
        self.pace.limit(now).is_some() || (!self.lanes.is_empty() && !open)
    }

    /// Whether all lanes that were asked for in the last minute are closed.
    pub fn none_open(&self, now: Duration) -> bool {
        let mut asked = self.lanes.values().filter(|lane| lane.asked_at + UNASKED > now).peekable();
        self.all.is_some() || (asked.peek().is_some() && asked.all(Lane::is_closed))
    }

    /// Which lanes are closed.
    pub fn closed(&self) -> Closed {
        if self.all.is_some() {
            return Closed::All;
        }
        let closed = self.lanes.iter().filter(|(_, lane)| lane.is_closed());
        Closed::Codes(closed.map(|(code, _)| *code).collect())
    }

    /// All lanes that were ever asked for, by code.
    pub fn view(&self) -> Vec<LaneView> {
        let view = |(code, lane): (&OperatorCode, &Lane)| LaneView {
            code: *code,
            closed: self.closed_for(*code),
            ramp: matches!(lane.state, LaneState::Ramp { .. }),
            since: lane.since,
            probes: if lane.is_closed() { lane.probes } else { 0 },
        };
        self.lanes.iter().map(view).collect()
    }

    /// The pace, to be shown.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Calls begun since the process began.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    fn called(&mut self, code: OperatorCode, failed: Option<Reason>, now: Duration) {
        let Some(lane) = self.lanes.get_mut(&code) else { return };
        lane.breaker.add(code, failed.clone(), now);
        self.breaker.add(code, failed.clone(), now);
        if failed.is_none() {
            return;
        }
        let own = lane.breaker.opens();
        match self.breaker.opens().filter(|_| self.breaker.is_everywhere()) {
            Some(reason) => self.close_all(&reason, now),
            None => {
                if let Some(reason) = own {
                    self.close(code, &reason, now);
                }
            }
        }
    }

    fn probed(&mut self, code: OperatorCode, outcome: &Outcome, now: Duration) {
        let none_open = self.all.is_none() && self.lanes.values().all(Lane::is_closed);
        let Some(lane) = self.lanes.get_mut(&code) else { return };
        let LaneState::Closed { reason, rate, good, probes } = &mut lane.state else { return };
        if matches!(outcome, Outcome::Throttled(_)) {
            // Who throttles is alive, but what a lane is closed for isn't over.
            if *reason == Reason::Throttled {
                *good = 0;
            }
            return;
        }
        if let Some(failure) = failure(outcome) {
            *good = 0;
            let wait = if matches!(outcome, Outcome::Ambiguous(_)) { AMBIGUOUS_PROBE_WAIT } else { Duration::ZERO };
            let next_at = now + wait.max(interval(reason, 0) - PROBE_INTERVAL);
            probes.next_at = probes.next_at.max(next_at);
            self.all.iter_mut().for_each(|all| all.probes.next_at = all.probes.next_at.max(next_at));
            self.bad_probes += 1;
            if none_open && self.bad_probes >= BAD_PROBES {
                self.close_all(&closing_reason(&failure), now);
            }
            return;
        }
        self.bad_probes = 0;
        *good += 1;
        probes.next_at = probes.next_at.min(now + PROBE_INTERVAL);
        if *good >= GOOD_PROBES {
            let rate = *rate;
            self.epoch += 1;
            lane.open(rate, self.epoch, now);
        }
        if self.all.take().is_some() {
            self.let_each_probe(now);
        }
    }

    /// After the first good probe of all.
    fn let_each_probe(&mut self, now: Duration) {
        for lane in self.lanes.values_mut() {
            if let LaneState::Closed { good: 0, probes, .. } = &mut lane.state {
                probes.next_at = now;
            }
        }
    }

    fn end_probe(&mut self, pass: &Pass, change: impl Fn(&mut Probes)) {
        let Some(lane) = self.lanes.get_mut(&pass.code).filter(|lane| lane.epoch == pass.epoch) else { return };
        let own = match &mut lane.state {
            LaneState::Closed { probes, .. } => Some(probes),
            _ => None,
        };
        for probes in own.into_iter().chain(self.all.iter_mut().map(|all| &mut all.probes)) {
            probes.under_way_since = None;
            change(probes);
        }
    }

    /// Counts what is about us and not about any lane.
    fn count_rows(&mut self, outcome: &Outcome, now: Duration) {
        match outcome {
            Outcome::Retryable(Reason::Configuration) => {
                (self.refused_row, self.unreadable_row) = (self.refused_row + 1, 0)
            }
            Outcome::Ambiguous(Reason::BadAnswer) => {
                (self.refused_row, self.unreadable_row) = (0, self.unreadable_row + 1)
            }
            _ => (self.refused_row, self.unreadable_row) = (0, 0),
        }
        if self.all.is_some() {
            return;
        }
        if self.refused_row >= REFUSED_ROW {
            self.close_all(&Reason::Configuration, now);
        } else if self.unreadable_row >= UNREADABLE_ROW {
            self.close_all(&Reason::Contract, now);
        }
    }

    fn close(&mut self, code: OperatorCode, reason: &Reason, now: Duration) {
        self.breaker.forget(code);
        self.epoch += 1;
        if let Some(lane) = self.lanes.get_mut(&code) {
            lane.close(reason, self.epoch, now);
        }
    }

    fn close_all(&mut self, reason: &Reason, now: Duration) {
        self.breaker.clear();
        self.bad_probes = 0;
        self.epoch += 1;
        for lane in self.lanes.values_mut() {
            lane.close(reason, self.epoch, now);
        }
        let probes = Probes::first(reason, now);
        self.all = Some(AllClosed { reason: reason.clone(), probes });
    }
}

/// Why a call failed; none where it didn't, or was throttled.
fn failure(outcome: &Outcome) -> Option<Reason> {
    match outcome {
        Outcome::Accepted | Outcome::Rejected | Outcome::Throttled(_) => None,
        Outcome::Retryable(reason) | Outcome::Ambiguous(reason) => Some(reason.clone()),
    }
}

#[cfg(test)]
mod tests;
