//! Who may call now, and who stands in the queue for it: the lanes, and behind them what waits for a lane or a limit.
//!
//! Mailings take turns, so a small one doesn't stand behind a large one. A closed lane keeps a few messages to probe with; a
//! message that goes back to the queue stands behind the others, so the next probe is another one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::client::OperatorCode;
use crate::decision::Access;
use crate::delivery::Outcome;
use crate::lane::{Gate, Lanes, Pass};
use crate::status::Reason;

/// Messages that a closed lane keeps to probe with.
pub const KEPT: usize = 8;

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u64);

/// Lanes and queue of a sender. `T` is whatever wakes a message.
#[derive(Debug)]
pub struct Traffic<T> {
    lanes: Lanes,
    waiting: BTreeMap<Place, Waiting<T>>,
    /// Places by lane and mailing.
    queues: BTreeMap<OperatorCode, BTreeMap<i64, BTreeSet<Place>>>,
    last_place: u64,
    /// Whose turn it was last.
    last_turn: (i64, Option<OperatorCode>),
}

#[derive(Debug)]
struct Waiting<T> {
    code: OperatorCode,
    mailing_no: i64,
    item: T,
}

/// What the queue does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn<T> {
    /// This message is let go, with the leave to call.
    Go(T, Pass),
    /// Nobody before this moment.
    At(Duration),
    /// Nobody until something changes: a message joins, or an outcome comes.
    Nobody,
}

impl<T> Default for Traffic<T> {
    fn default() -> Self {
        Self {
            lanes: Lanes::default(),
            waiting: BTreeMap::new(),
            queues: BTreeMap::new(),
            last_place: 0,
            last_turn: (0, None),
        }
    }
}

impl<T> Traffic<T> {
    /// What a message is told that isn't in the queue.
    pub fn access(&mut self, code: OperatorCode, now: Duration) -> Access {
        let gate = self.lanes.ask(code, now);
        self.access_by(code, gate, now)
    }

    /// Takes the leave to call for a message that has a place to call and isn't in the queue; what stands there goes first.
    pub fn take(&mut self, code: OperatorCode, now: Duration) -> Result<Pass, Access> {
        match self.access(code, now) {
            Access::Open => self.lanes.take(code, now).map_err(|gate| self.access_by(code, gate, now)),
            other => Err(other),
        }
    }

    /// Puts a message into the queue.
    pub fn join(&mut self, code: OperatorCode, mailing_no: i64, item: T) -> Place {
        self.last_place += 1;
        let place = Place(self.last_place);
        self.queues.entry(code).or_default().entry(mailing_no).or_default().insert(place);
        self.waiting.insert(place, Waiting { code, mailing_no, item });
        place
    }

    /// Takes a message out, if it is still there.
    pub fn leave(&mut self, place: Place) -> Option<T> {
        let Waiting { code, mailing_no, item } = self.waiting.remove(&place)?;
        let queue = self.queues.get_mut(&code)?;
        let places = queue.get_mut(&mailing_no)?;
        places.remove(&place);
        if places.is_empty() {
            queue.remove(&mailing_no);
        }
        if queue.is_empty() {
            self.queues.remove(&code);
        }
        Some(item)
    }

    /// Lets the next one go, if one may. To be asked with a place to call.
    pub fn next(&mut self, now: Duration) -> Turn<T> {
        let mut wake_at: Option<Duration> = None;
        let mut next: Option<(bool, i64, bool, OperatorCode)> = None;
        let (last_mailing, last_code) = self.last_turn;
        for (code, queue) in &self.queues {
            match self.lanes.ask(*code, now) {
                Gate::Open | Gate::Probe => {
                    let after = queue.range(last_mailing + 1..).next().or_else(|| queue.first_key_value());
                    if let Some((mailing_no, _)) = after {
                        // In a circle: what lies behind the last turn comes before what lies at or before it.
                        let key = (*mailing_no <= last_mailing, *mailing_no, Some(*code) <= last_code, *code);
                        next = Some(next.map_or(key, |next| next.min(key)));
                    }
                }
                Gate::Limited(at) | Gate::Closed(_, Some(at)) => {
                    wake_at = Some(wake_at.map_or(at, |wake_at| wake_at.min(at)));
                }
                Gate::Closed(_, None) => {}
            }
        }
        let first = next.and_then(|(_, mailing_no, _, code)| {
            let place = *self.queues.get(&code)?.get(&mailing_no)?.first()?;
            self.last_turn = (mailing_no, Some(code));
            let pass = self.lanes.take(code, now).ok()?;
            Some((self.leave(place)?, pass))
        });
        match (first, wake_at) {
            (Some((item, pass)), _) => Turn::Go(item, pass),
            (None, Some(at)) => Turn::At(at),
            (None, None) => Turn::Nobody,
        }
    }

    /// Takes out what a closed lane doesn't keep: it is to be asked about again.
    pub fn take_unkept(&mut self) -> Vec<T> {
        // Asked after each outcome, and as a rule no lane is closed.
        let closed = self.queues.iter().filter(|(code, _)| self.lanes.closed_for(**code).is_some());
        let unkept = |(_, queue): (&OperatorCode, &BTreeMap<i64, BTreeSet<Place>>)| {
            let places: BTreeSet<Place> = queue.values().flatten().copied().collect();
            places.into_iter().skip(KEPT).collect::<Vec<Place>>()
        };
        let places: Vec<Place> = closed.flat_map(unkept).collect();
        places.into_iter().filter_map(|place| self.leave(place)).collect()
    }

    /// Takes out all of a mailing: its state has changed, and it is to be asked about again.
    pub fn take_mailing(&mut self, mailing_no: i64) -> Vec<T> {
        let of_mailing = |queue: &BTreeMap<i64, BTreeSet<Place>>| queue.get(&mailing_no).cloned().unwrap_or_default();
        let places: Vec<Place> = self.queues.values().flat_map(of_mailing).collect();
        places.into_iter().filter_map(|place| self.leave(place)).collect()
    }

    /// How many stand in the queue.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// See [`Lanes::not_begun`].
    pub fn not_begun(&mut self, pass: Pass, now: Duration) {
        self.lanes.not_begun(pass, now);
    }

    /// See [`Lanes::outcome`].
    pub fn outcome(&mut self, pass: Pass, outcome: &Outcome, now: Duration) -> Option<Reason> {
        self.lanes.outcome(pass, outcome, now)
    }

    /// See [`Lanes::tick`].
    pub fn tick(&mut self, now: Duration) {
        self.lanes.tick(now);
    }

    /// The lanes, to be shown.
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    fn access_by(&self, code: OperatorCode, gate: Gate, now: Duration) -> Access {
        let waiting = self.queues.get(&code).map_or(0, |queue| queue.values().map(BTreeSet::len).sum());
        match gate {
            Gate::Limited(_) => Access::Limited,
            // What stands in the queue has been there first: of its lane, and of all while all are limited.
            Gate::Open if waiting > 0 => Access::Limited,
            Gate::Open if !self.waiting.is_empty() && self.lanes.pace().limit(now).is_some() => Access::Limited,
            Gate::Open => Access::Open,
            // Through the queue, that the probes are of all its mailings in turn.
            Gate::Probe => Access::Closed { reason: self.closed_for(code), kept: waiting < KEPT },
            Gate::Closed(reason, _) => Access::Closed { reason, kept: waiting < KEPT },
        }
    }

    fn closed_for(&self, code: OperatorCode) -> Reason {
        self.lanes.closed_for(code).unwrap_or(Reason::Outage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(code: i64) -> OperatorCode {
        OperatorCode::new(code).unwrap()
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn refused() -> Outcome {
        Outcome::Retryable(Reason::ProviderError)
    }

    fn fail(traffic: &mut Traffic<u32>, lane: i64, calls: usize, now: Duration) {
        for _ in 0..calls {
            let pass = traffic.take(code(lane), now).unwrap();
            traffic.outcome(pass, &refused(), now);
        }
    }

    fn go(turn: Turn<u32>) -> (u32, Pass) {
        match turn {
            Turn::Go(item, pass) => (item, pass),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn mailings_take_turns() {
        let mut traffic = Traffic::default();
        for item in 0..3 {
            traffic.join(code(900), 7, item);
        }
        traffic.join(code(901), 3, 10);
        traffic.join(code(900), 9, 20);
        let order: Vec<u32> = (0..5).map(|_| go(traffic.next(at(0))).0).collect();
        assert_eq!(order, [10, 0, 20, 1, 2]);
        assert_eq!(traffic.next(at(0)), Turn::Nobody);
    }

    #[test]
    fn a_message_that_comes_later_does_not_overtake_the_queue() {
        let mut traffic = Traffic::default();
        traffic.join(code(900), 7, 1);
        assert_eq!(traffic.access(code(900), at(0)), Access::Limited);
        assert_eq!(traffic.access(code(901), at(0)), Access::Open);
        let _ = go(traffic.next(at(0)));
        assert_eq!(traffic.access(code(900), at(0)), Access::Open);
    }

    #[test]
    fn a_closed_lane_keeps_a_few_and_each_probe_is_another() {
        let mut traffic = Traffic::default();
        let good = traffic.take(code(901), at(0)).unwrap();
        traffic.outcome(good, &Outcome::Accepted, at(0));
        let items = 0..20;
        items.for_each(|item| {
            traffic.join(code(900), 7, item);
        });
        for _ in 0..5 {
            let (item, pass) = go(traffic.next(at(0)));
            assert!(!pass.is_probe());
            traffic.outcome(pass, &refused(), at(0));
            traffic.join(code(900), 7, item);
        }
        assert_eq!(traffic.next(at(0)), Turn::At(at(1_000)));
        assert_eq!(traffic.take_unkept().len(), 20 - KEPT);
        assert_eq!(traffic.waiting(), KEPT);
        let closed = |kept| Access::Closed { reason: Reason::Outage, kept };
        assert_eq!(traffic.access(code(900), at(1_000)), closed(false));
        let mut probed = Vec::new();
        for second in 1..=8 {
            let (item, pass) = go(traffic.next(at(second * 1_000)));
            assert!(pass.is_probe());
            assert_eq!(traffic.next(at(second * 1_000 + 1)), Turn::Nobody, "one is under way");
            assert_eq!(traffic.outcome(pass, &refused(), at(second * 1_000 + 50)), Some(Reason::Outage));
            traffic.join(code(900), 7, item);
            probed.push(item);
        }
        probed.dedup();
        assert_eq!(probed.len(), 8);
    }

    #[test]
    fn one_probe_at_a_time_goes_out_while_all_are_closed_and_a_good_one_lets_each_lane_probe() {
        let mut traffic = Traffic::default();
        for lane in 900..905 {
            fail(&mut traffic, lane, 1, at(0));
        }
        for lane in 900..908 {
            assert_eq!(
                traffic.access(code(lane), at(1)),
                Access::Closed { reason: Reason::Outage, kept: true },
                "also one that was never called"
            );
            traffic.join(code(lane), 7, u32::try_from(lane).unwrap());
        }
        let (first, pass) = go(traffic.next(at(1_000)));
        assert_eq!(traffic.next(at(1_000)), Turn::Nobody);
        traffic.outcome(pass, &refused(), at(1_010));
        assert_eq!(traffic.next(at(1_010)), Turn::At(at(2_000)));
        traffic.join(code(i64::from(first)), 7, first);
        let (second, pass) = go(traffic.next(at(2_000)));
        assert_ne!(first, second, "lanes take turns");
        traffic.outcome(pass, &Outcome::Accepted, at(2_010));
        let mut probes = 0;
        while let Turn::Go(_, pass) = traffic.next(at(2_010)) {
            assert!(pass.is_probe());
            probes += 1;
            traffic.outcome(pass, &Outcome::Accepted, at(2_010));
        }
        assert_eq!(probes, 7);
    }

    #[test]
    fn a_pass_that_was_not_used_does_not_hold_up_the_next_probe() {
        let mut traffic = Traffic::default();
        fail(&mut traffic, 900, 5, at(0));
        traffic.join(code(900), 7, 1);
        traffic.join(code(900), 7, 2);
        let (_, pass) = go(traffic.next(at(1_000)));
        traffic.not_begun(pass, at(1_100));
        assert_eq!(go(traffic.next(at(1_100))).0, 2);
    }

    #[test]
    fn all_of_a_mailing_are_taken_out() {
        let mut traffic = Traffic::default();
        let place = traffic.join(code(900), 7, 1);
        traffic.join(code(901), 7, 2);
        traffic.join(code(900), 8, 3);
        assert_eq!(traffic.take_mailing(7), [1, 2]);
        assert_eq!((traffic.leave(place), traffic.waiting()), (None, 1));
    }
}
