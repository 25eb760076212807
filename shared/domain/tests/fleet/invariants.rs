//! What must hold, whatever happens.

use std::collections::BTreeMap;

use domain::client::OperatorCode;
use domain::delivery::{Next, Outcome};
use domain::lane::Closed;
use domain::mailing::State;
use domain::planning::Step;
use domain::status::{Reason, Status};

use crate::provider::{Answer, Outage, Trouble};
use crate::sender::Key;
use crate::world::{Micros, SECOND, StatusRecord, World};

/// The first message of a lane is called this soon after the provider is well again.
const RECOVERY: Micros = 15 * SECOND;

#[derive(Clone, Debug, Default)]
pub struct Story {
    pub round: i32,
    pub first_planned_at: Micros,
    pub calls: u32,
    pub accepted: u32,
    pub ambiguous: u32,
    /// Calls of which Herald forgot what came, for their sender died.
    pub forgotten: u32,
    /// Waits that the provider asked for and that are longer than a slot waits.
    pub told: u32,
    pub told_until: Micros,
    /// Rounds that were planned while its lane was closed, to probe with.
    pub probing: i32,
    /// Times it was held for the pace or a ramp.
    pub limited: i32,
}

pub struct Checks {
    pub stories: BTreeMap<(i64, i64), Story>,
    pub calls: u64,
    pub throttled: u64,
    pub closings: BTreeMap<OperatorCode, u32>,
    pub all_closings: u32,
    pub held: BTreeMap<String, u64>,
    /// Orders of people, by mailing.
    orders: BTreeMap<i64, i32>,
    pub disturbances: i32,
    disturbed_until: Micros,
    last_call: BTreeMap<OperatorCode, Micros>,
    last_step: BTreeMap<i64, bool>,
    /// Calls and throttled answers by second.
    pub by_second: BTreeMap<Micros, Second>,
    pub most_rounds: i32,
    pub bad_calls: u64,
    traced: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Second {
    pub calls: u64,
    pub accepted: u64,
    pub throttled: u64,
}

impl Checks {
    pub fn new() -> Self {
        Self {
            stories: BTreeMap::new(),
            calls: 0,
            throttled: 0,
            closings: BTreeMap::new(),
            all_closings: 0,
            held: BTreeMap::new(),
            orders: BTreeMap::new(),
            disturbances: 0,
            disturbed_until: 0,
            last_call: BTreeMap::new(),
            last_step: BTreeMap::new(),
            by_second: BTreeMap::new(),
            most_rounds: 0,
            bad_calls: 0,
            traced: std::env::var("FLEET_CLIENT").ok().and_then(|client| client.parse().ok()),
        }
    }

    /// A process is away until then.
    pub fn disturbed(&mut self, until: Micros) {
        self.disturbances += 1;
        self.disturbed_until = self.disturbed_until.max(until);
    }

    pub fn told(&mut self, mailing_no: i64) {
        *self.orders.entry(mailing_no).or_default() += 1;
    }
}

impl World {
    pub fn check_call(&mut self, sender: usize, key: Key, answer: &Answer) {
        let message = self.senders[sender].slots[&key].message;
        let mailing = &self.mailings[&message.mailing_no];
        let now = self.now;
        assert_eq!(self.owners[key.0], Some(sender), "a call by one that doesn't own {key:?} at {now}");
        assert_eq!(mailing.state, State::Running, "a call of a mailing that isn't running at {now}");
        assert!(now < mailing.ends_at, "a call at or after the end");
        assert!(now < message.planned_at + 60 * SECOND, "a call of {message:?} at {now}");
        let erased = self.planner.erased.get(&message.client_no);
        assert!(erased.is_none_or(|erased| *erased >= message.planned_at), "a call of an erased client");
        self.check_recovery(key, &message);
        self.trace(message.client_no, || format!("sender {sender} calls {message:?}: {:?}", answer.outcome));
        let checks = &mut self.checks;
        let story = checks.stories.get_mut(&(message.mailing_no, message.client_no)).unwrap();
        story.calls += 1;
        story.accepted += u32::from(answer.outcome == Outcome::Accepted);
        story.ambiguous += u32::from(matches!(answer.outcome, Outcome::Ambiguous(_)));
        assert!(story.ambiguous <= 4 + story.forgotten, "called ambiguously {} times: {message:?}", story.ambiguous);
        assert!(story.accepted <= 1 + story.forgotten, "accepted {} times: {message:?}", story.accepted);
        checks.calls += 1;
        checks.bad_calls += u64::from(matches!(answer.outcome, Outcome::Retryable(_) | Outcome::Ambiguous(_)));
        let second = checks.by_second.entry(now / SECOND).or_default();
        second.calls += 1;
        second.accepted += u64::from(answer.outcome == Outcome::Accepted);
        second.throttled += u64::from(matches!(answer.outcome, Outcome::Throttled(_)));
        checks.throttled += u64::from(matches!(answer.outcome, Outcome::Throttled(_)));
        checks.last_call.insert(message.code, now);
    }

    /// The first call of a lane after the provider is well again comes soon.
    fn check_recovery(&self, key: Key, message: &crate::world::Message) {
        let (code, now) = (message.code, self.now);
        if self.provider.trouble(code, now).is_some() || self.checks.disturbed_until + RECOVERY > now {
            return;
        }
        // Who was throttled waits for the pace, or as told.
        let throttles = |outage: &Outage| outage.trouble == Trouble::Throttles;
        let met = |outage: &&Outage| !throttles(outage) && outage.code.is_none_or(|of| of == i64::from(code.get()));
        let healthy_since =
            self.provider.outages.iter().filter(met).map(|outage| outage.to).filter(|to| *to <= now).max();
        let Some(healthy_since) = healthy_since else { return };
        // What can't be read closes all lanes, and is probed once a minute.
        let unreadable = |outage: &Outage| outage.trouble == Trouble::Unreadable;
        let probed_seldom = self.provider.outages.iter().any(unreadable);
        // A probe without an answer is followed 13 s after it began, and a lane may have to wait for a pass. A good provider that
        // fails now and then also fails a probe.
        let hangs = |outage: &Outage| outage.trouble == Trouble::Hangs;
        let provider = &self.provider;
        let fails =
            provider.error_share + provider.throttled_share + provider.lost_share > 0.0 || provider.limit.is_some();
        let recovery = if fails || provider.outages.iter().any(hangs) { 2 * RECOVERY } else { RECOVERY };
        let first = self.checks.last_call.get(&code).is_none_or(|last| *last < healthy_since);
        let story = &self.checks.stories[&(message.mailing_no, message.client_no)];
        let waited = story.first_planned_at < healthy_since && story.told_until < healthy_since;
        let ordered = self.checks.orders.contains_key(&message.mailing_no);
        let slow = self.provider.outages.iter().any(throttles);
        if first && waited && !ordered && !probed_seldom && !slow {
            let seconds = (now - healthy_since) as f64 / SECOND as f64;
            assert!(
                now <= healthy_since + recovery,
                "{code:?} is called {seconds} s after the provider's health: {key:?}"
            );
        }
    }

    pub fn check_answer(&mut self, sender: usize, key: Key, outcome: &Outcome, lane_closed: bool, next: &Next) {
        let message = self.senders[sender].slots[&key].message;
        let story = self.checks.stories.get_mut(&(message.mailing_no, message.client_no)).unwrap();
        if let Next::Wait(wait) = next
            && wait.as_secs() >= 5
        {
            story.told += 1;
            story.told_until = self.now + wait.as_micros() as u64;
        }
        let used = matches!(next, Next::Retry(..) | Next::Settle(Status::Failed, Some(Reason::Exhausted)));
        if used && lane_closed {
            assert!(matches!(outcome, Outcome::Ambiguous(_)), "an attempt used while the lane is closed: {outcome:?}");
        }
    }

    pub fn check_status(&mut self, sender: usize, key: Key, record: &StatusRecord) {
        self.trace(record.client_no, || format!("sender {sender} {key:?} writes {record:?}"));
        if record.status == Status::Held {
            let story = self.checks.stories.get_mut(&(record.mailing_no, record.client_no)).unwrap();
            if record.reason == Some(Reason::Throttled) && story.told_until < self.now {
                story.limited += 1;
                assert!(story.limited <= 10, "held for the pace again and again: {record:?}");
            }
            let reason = record.reason.as_ref().map_or("none", |reason| reason.as_str()).to_owned();
            *self.checks.held.entry(reason).or_default() += 1;
        }
    }

    pub fn check_closed(&mut self, sender: usize, closed: &Closed) {
        match (closed, &self.senders[sender].closed) {
            (Closed::All, Closed::Codes(_)) => self.checks.all_closings += 1,
            (Closed::Codes(codes), Closed::Codes(before)) => {
                for code in codes.difference(before) {
                    *self.checks.closings.entry(*code).or_default() += 1;
                }
            }
            _ => {}
        }
    }

    /// Each client is planned once, and once a round.
    pub fn check_planned(&mut self, mailing_no: i64, client_no: i64, round: i32, probe: bool) {
        let now = self.now;
        let story = self.checks.stories.entry((mailing_no, client_no)).or_default();
        if story.round == 0 {
            story.first_planned_at = now;
        }
        assert_eq!(round, story.round + 1, "{mailing_no}/{client_no} is planned in round {round}");
        story.round = round;
        story.probing += i32::from(probe);
        let (probing, limited) = (story.probing, story.limited);
        let told = i32::try_from(story.told).unwrap();
        self.checks.most_rounds = self.checks.most_rounds.max(round);
        let mailing = &self.mailings[&mailing_no];
        let code = mailing.clients[(client_no - mailing_no * 1_000_000 - 1) as usize].1;
        let closings = self.checks.closings.get(&code).copied().unwrap_or(0) + self.checks.all_closings;
        let orders = self.checks.orders.get(&mailing_no).copied().unwrap_or(0);
        let most = 2 + closings.cast_signed() + told + orders + self.checks.disturbances + probing + limited;
        let over = self.now >= mailing.ends_at || mailing.state == State::Cancelled;
        assert!(
            round <= most || over,
            "{mailing_no}/{client_no} is planned in round {round} at {now}: {closings} closings, {:?}",
            self.checks.stories[&(mailing_no, client_no)]
        );
    }

    /// Tells the story of the client of `FLEET_CLIENT`.
    pub fn trace(&self, client_no: i64, text: impl Fn() -> String) {
        if self.checks.traced == Some(client_no) {
            println!("{:.3} {}", self.now as f64 / SECOND as f64, text());
        }
    }

    /// A pass doesn't stop the pages.
    pub fn check_step(&mut self, mailing_no: i64, step: &Step) {
        let complete = self.planner.progress.get(&mailing_no).is_none_or(|progress| progress.progress.complete);
        let pass = matches!(step, Step::BeginPass(_) | Step::Pass(_));
        let before = self.checks.last_step.get(&mailing_no).copied().unwrap_or_default();
        let over = self.now >= self.mailings[&mailing_no].ends_at;
        assert!(!pass || !before || complete || over, "two steps of a pass without a page between");
        if pass || matches!(step, Step::Page(_)) {
            self.checks.last_step.insert(mailing_no, pass && !complete);
        }
    }

    /// Calls of which nobody will know what came.
    pub fn forget_calls(&mut self, sender: usize) {
        for slot in self.senders[sender].slots.values().filter(|slot| slot.busy) {
            let key = (slot.message.mailing_no, slot.message.client_no);
            self.checks.stories.get_mut(&key).unwrap().forgotten += 1;
        }
    }

    /// All of a finished mailing is terminal, and each client was planned.
    pub fn check_finish(&self, mailing_no: i64) {
        let mailing = &self.mailings[&mailing_no];
        let rows = self.rows.mailings.get(&mailing_no);
        let Some(progress) = self.planner.progress.get(&mailing_no) else {
            return assert_eq!(mailing.state, State::Cancelled, "finished before it began");
        };
        let rows = rows.map(|rows| &rows.rows);
        let terminal = rows.map_or(0, |rows| rows.values().filter(|row| row.standing.status.is_terminal()).count());
        assert_eq!(terminal, mailing.clients.len(), "mailing {mailing_no} is finished");
        assert_eq!(progress.progress.planned, mailing.clients.len() as i64);
    }

    pub fn check_end(&self) {
        for (no, mailing) in &self.mailings {
            let progress = self.planner.progress.get(no).map(|progress| &progress.progress);
            let rows =
                self.rows.mailings.get(no).map(|rows| (rows.rows.len(), rows.settled, rows.settled_again, &rows.held));
            assert!(mailing.finished_at.is_some(), "mailing {no} never finishes: {progress:?} {rows:?}");
        }
    }

    /// How many messages have this status.
    pub fn count(&self, mailing_no: i64, status: &Status) -> usize {
        let rows = self.rows.mailings[&mailing_no].rows.values();
        rows.filter(|row| row.standing.status == *status).count()
    }
}
