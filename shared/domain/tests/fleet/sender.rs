//! A sender: partitions, slots, places to call, and the queue. It decides nothing itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use domain::decision::{Access, Decision, Delay, MessageFacts, decide};
use domain::delivery::{Next, Outcome, after_attempt};
use domain::lane::{Closed, Pass};
use domain::mailing::Delivery;
use domain::status::{Reason, Status};
use domain::traffic::{Place, Traffic, Turn};

use crate::world::{Event, Kind, MILLI, Message, Micros, World, at, micros, since_start};

/// Partition and offset.
pub type Key = (usize, usize);

pub struct Sender {
    /// One more for each start; 0 before the first.
    pub life: u64,
    pub alive: bool,
    pub frozen_until: Option<Micros>,
    pub traffic: Traffic<Key>,
    pub closed: Closed,
    pub parts: BTreeMap<usize, Part>,
    pub slots: BTreeMap<Key, Slot>,
    /// Messages that may be called and wait for a place.
    pub line: VecDeque<Key>,
    pub free_places: usize,
    pump_at: Option<Micros>,
    pub born: Micros,
}

/// A partition that it owns.
#[derive(Default)]
pub struct Part {
    pub position: usize,
    /// Open offsets, with the end of the status log when they were taken in.
    pub open: BTreeMap<usize, usize>,
    pub queued: usize,
    pub calls: u64,
    pub bookmark: usize,
    pub inherited_to: usize,
    pub known: BTreeMap<usize, Known>,
    /// It starts nothing more, and is given up once what is on the wire has come.
    pub leaving: bool,
}

/// What the replay knows of a message.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub settled: bool,
    pub attempt: i32,
    pub delay: Option<(Micros, Reason)>,
    pub in_doubt: bool,
}

pub struct Slot {
    pub message: Message,
    pub attempt: i32,
    pub in_doubt: bool,
    pub delay: Option<Delay>,
    pub queued_since: Option<Micros>,
    pub place: Option<Place>,
    /// The leave to call; with it goes a place to call.
    pub pass: Option<Pass>,
    pub asked: u64,
    pub busy: bool,
    /// Its partition is another's by now.
    pub lost: bool,
    pub started: bool,
}

impl Sender {
    pub fn new(concurrency: usize) -> Self {
        Self {
            life: 0,
            alive: false,
            frozen_until: None,
            traffic: Traffic::default(),
            closed: Closed::default(),
            parts: BTreeMap::new(),
            slots: BTreeMap::new(),
            line: VecDeque::new(),
            free_places: concurrency,
            pump_at: None,
            born: 0,
        }
    }
}

impl World {
    pub fn clock(&self, sender: usize) -> Duration {
        since_start(self.now - self.senders[sender].born)
    }

    pub fn start_sender(&mut self, sender: usize) {
        let life = self.senders[sender].life + 1;
        self.senders[sender] = Sender { life, alive: true, born: self.now, ..Sender::new(self.config.concurrency) };
        self.after(100 * MILLI, Event::Commit { sender, life });
    }

    pub fn poll(&mut self, partition: usize) {
        let Some(sender) = self.owners[partition] else { return };
        if let Some(until) = self.senders[sender].frozen_until.filter(|until| *until > self.now) {
            return self.at(until, Event::Poll(partition));
        }
        while let Some(key) = self.take_in(sender, partition) {
            self.ask(sender, key, None);
        }
    }

    fn take_in(&mut self, sender: usize, partition: usize) -> Option<Key> {
        let limited = self.senders[sender].traffic.lanes().all_limited(self.clock(sender));
        let part = self.senders[sender].parts.get_mut(&partition).filter(|part| !part.leaving)?;
        if limited && part.queued >= self.config.slots / 2 {
            return None;
        }
        loop {
            if part.open.len() >= self.config.slots {
                return None;
            }
            let offset = part.position;
            let message = *self.messages[partition].get(offset)?;
            part.position += 1;
            let known = part.known.remove(&offset).unwrap_or_default();
            if known.settled {
                continue;
            }
            part.open.insert(offset, self.statuses[partition].len());
            let slot = Slot {
                message,
                attempt: known.attempt.max(message.attempts),
                in_doubt: known.in_doubt,
                delay: known.delay.map(|(until, reason)| Delay { until: at(until), reason }),
                queued_since: None,
                place: None,
                pass: None,
                asked: 0,
                busy: false,
                lost: false,
                started: false,
            };
            self.senders[sender].slots.insert((partition, offset), slot);
            return Some((partition, offset));
        }
    }

    /// Asks what is done about a message, and does it. `access` is what it was just told.
    pub fn ask(&mut self, sender: usize, key: Key, access: Option<Access>) {
        let clock = self.clock(sender);
        self.leave_queue(sender, key);
        let this = &mut self.senders[sender];
        let Some(slot) = this.slots.get_mut(&key).filter(|slot| !slot.busy) else { return };
        slot.asked += 1;
        let gone = slot.lost || this.parts.get(&key.0).is_none_or(|part| part.leaving);
        if gone {
            self.give_back(sender, key);
            self.senders[sender].slots.remove(&key);
            return self.leave_when_done(sender, key.0);
        }
        let code = slot.message.code;
        let access = match (access, &slot.pass) {
            (_, Some(_)) => Access::Open,
            (Some(access), None) => access,
            (None, None) => this.traffic.access(code, clock),
        };
        let may_queue = this.parts[&key.0].queued < self.config.slots / 2;
        let mailing = &self.mailings[&slot.message.mailing_no];
        let facts = facts(slot, &mailing.delivery, may_queue);
        let order = mailing.order();
        match decide(&facts, &order, &access, at(self.now)) {
            Decision::Call => self.call(sender, key),
            Decision::Wait { until } => {
                self.give_back(sender, key);
                self.set_timer(sender, key, micros(until));
            }
            Decision::Queue { until } => {
                let until = micros(until);
                let this = &mut self.senders[sender];
                let slot = this.slots.get_mut(&key).unwrap();
                slot.queued_since.get_or_insert(self.now);
                slot.place = Some(this.traffic.join(code, slot.message.mailing_no, key));
                this.parts.get_mut(&key.0).unwrap().queued += 1;
                self.set_timer(sender, key, until);
                self.pump_now(sender);
            }
            Decision::Hold { reason, not_before } => {
                self.give_back(sender, key);
                self.write(sender, key, Kind::Settled, Status::Held, Some(reason), Some(micros(not_before)));
            }
            Decision::Settle { status, reason } => {
                self.give_back(sender, key);
                self.write(sender, key, Kind::Settled, status, Some(reason), None);
            }
        }
    }

    fn set_timer(&mut self, sender: usize, key: Key, until: Micros) {
        let life = self.senders[sender].life;
        let asked = self.senders[sender].slots[&key].asked;
        self.at(until, Event::Timer { sender, life, key, asked });
    }

    pub fn timer(&mut self, sender: usize, key: Key, asked: u64) {
        if self.senders[sender].slots.get(&key).is_some_and(|slot| slot.asked == asked) {
            self.ask(sender, key, None);
        }
    }

    fn leave_queue(&mut self, sender: usize, key: Key) {
        let this = &mut self.senders[sender];
        if let Some(place) = this.slots.get_mut(&key).and_then(|slot| slot.place.take())
            && this.traffic.leave(place).is_some()
            && let Some(part) = this.parts.get_mut(&key.0)
        {
            part.queued -= 1;
        }
    }

    /// Gives back the leave to call and the place, if it has them.
    fn give_back(&mut self, sender: usize, key: Key) {
        let clock = self.clock(sender);
        let this = &mut self.senders[sender];
        if let Some(pass) = this.slots.get_mut(&key).and_then(|slot| slot.pass.take()) {
            this.traffic.not_begun(pass, clock);
            this.free_places += 1;
            self.pump_now(sender);
        }
    }

    /// The message may be called as far as it knows: it needs a place, and the leave to call.
    fn call(&mut self, sender: usize, key: Key) {
        let clock = self.clock(sender);
        let this = &mut self.senders[sender];
        let slot = this.slots.get_mut(&key).unwrap();
        if slot.pass.is_none() {
            if this.free_places == 0 {
                return this.line.push_back(key);
            }
            match this.traffic.take(slot.message.code, clock) {
                Ok(pass) => {
                    this.free_places -= 1;
                    slot.pass = Some(pass);
                }
                Err(access) => return self.ask(sender, key, Some(access)),
            }
        }
        if self.mailings[&slot.message.mailing_no].delivery == Delivery::AtMostOnce && !slot.started {
            slot.started = true;
            return self.write(sender, key, Kind::Started, Status::Created, None, None);
        }
        slot.busy = true;
        slot.queued_since = None;
        let (message, life) = (slot.message, this.life);
        this.parts.get_mut(&key.0).unwrap().calls += 1;
        let answer = self.provider.call(message.client_no, message.code, self.now, &mut self.random);
        self.check_call(sender, key, &answer);
        self.after(answer.after, Event::Answer { sender, life, key, outcome: answer.outcome });
    }

    pub fn answered(&mut self, sender: usize, key: Key, outcome: Outcome) {
        let clock = self.clock(sender);
        let this = &mut self.senders[sender];
        let Some(slot) = this.slots.get_mut(&key) else { return };
        let Some(pass) = slot.pass.take() else { return };
        this.free_places += 1;
        (slot.busy, slot.started) = (false, false);
        let lane_closed = this.traffic.outcome(pass, &outcome, clock).is_some();
        let delivery = &self.mailings[&slot.message.mailing_no].delivery;
        let random = self.random.share();
        let next =
            after_attempt(outcome.clone(), delivery, slot.attempt + 1, lane_closed, &self.config.retry_delays, random);
        self.check_answer(sender, key, &outcome, lane_closed, &next);
        self.see_lanes(sender);
        let slot = self.senders[sender].slots.get_mut(&key).unwrap();
        match next {
            Next::Settle(status, reason) => {
                slot.attempt += 1;
                self.write(sender, key, Kind::Settled, status, reason, None);
            }
            Next::Retry(delay, reason) => {
                slot.attempt += 1;
                let delay = delay.as_micros() as u64 * 85 / 100 + (delay.as_micros() as f64 * 0.3 * random) as u64;
                slot.delay = Some(Delay { until: at(self.now + delay), reason: reason.clone() });
                self.write(sender, key, Kind::Open, Status::Retrying, Some(reason), Some(self.now + delay));
            }
            Next::Wait(wait) => {
                let until = self.now + wait.as_micros() as u64;
                slot.delay = Some(Delay { until: at(until), reason: Reason::Throttled });
                if wait > Duration::from_secs(5) {
                    self.ask(sender, key, None);
                } else {
                    self.write(sender, key, Kind::Open, Status::Retrying, Some(Reason::Throttled), Some(until));
                }
            }
            Next::Uncounted(_) => self.ask(sender, key, None),
        }
        self.pump_now(sender);
    }

    /// Notes which lanes have closed, and asks again about what they don't keep.
    pub fn see_lanes(&mut self, sender: usize) {
        let closed = self.senders[sender].traffic.lanes().closed();
        if closed != self.senders[sender].closed {
            self.check_closed(sender, &closed);
            self.senders[sender].closed = closed;
        }
        for key in self.senders[sender].traffic.take_unkept() {
            self.out_of_queue(sender, key);
            self.ask(sender, key, None);
        }
    }

    pub fn out_of_queue(&mut self, sender: usize, key: Key) {
        let this = &mut self.senders[sender];
        if let Some(slot) = this.slots.get_mut(&key)
            && slot.place.take().is_some()
            && let Some(part) = this.parts.get_mut(&key.0)
        {
            part.queued -= 1;
        }
    }

    pub fn pump_now(&mut self, sender: usize) {
        self.pump_at(sender, self.now);
    }

    fn pump_at(&mut self, sender: usize, at: Micros) {
        let this = &mut self.senders[sender];
        if this.pump_at.is_none_or(|pump_at| at < pump_at || pump_at < self.now) {
            this.pump_at = Some(at);
            let life = this.life;
            self.at(at, Event::Pump { sender, life });
        }
    }

    /// Gives places to call: first to the queue, whose turn is the lanes' to say.
    pub fn pump(&mut self, sender: usize) {
        if self.senders[sender].pump_at.take_if(|at| *at <= self.now).is_none() {
            // An earlier one was asked for since.
            return;
        }
        let clock = self.clock(sender);
        while self.senders[sender].free_places > 0 {
            let this = &mut self.senders[sender];
            match this.traffic.next(clock) {
                Turn::Go(key, pass) => {
                    this.free_places -= 1;
                    self.out_of_queue(sender, key);
                    if let Some(slot) = self.senders[sender].slots.get_mut(&key) {
                        slot.pass = Some(pass);
                        self.ask(sender, key, None);
                    }
                    continue;
                }
                Turn::At(at) => {
                    let at = self.senders[sender].born + at.as_micros() as u64 + 1;
                    self.pump_at(sender, at);
                }
                Turn::Nobody => {}
            }
            let Some(key) = self.senders[sender].line.pop_front() else { return };
            self.ask(sender, key, None);
        }
    }
}

pub fn facts<'a>(slot: &Slot, delivery: &'a Delivery, may_queue: bool) -> MessageFacts<'a> {
    MessageFacts {
        planned_at: at(slot.message.planned_at),
        // Whose client was erased before the page is read gets no message event.
        addressed: true,
        delivery,
        round: slot.message.round,
        windowed: false,
        in_doubt: slot.in_doubt,
        delay: slot.delay.clone(),
        queued_since: slot.queued_since.map(at),
        may_queue,
    }
}
