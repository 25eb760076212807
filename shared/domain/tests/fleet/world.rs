//! The fleet on a virtual clock: logs, processes, and the events that move them.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::client::OperatorCode;
use domain::delivery::{MailingOrder, Outcome};
use domain::lane::Closed;
use domain::mailing::{Delivery, State};
use domain::status::{Reason, Status};

use crate::invariants::Checks;
use crate::network::Fault;
use crate::planner::Planner;
use crate::provider::Provider;
use crate::random::Random;
use crate::rows::Rows;
use crate::sender::{Key, Sender};

/// Microseconds since the fleet began.
pub type Micros = u64;

pub const MILLI: Micros = 1_000;
pub const SECOND: Micros = 1_000_000;

pub fn at(micros: Micros) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::microseconds(micros.cast_signed())
}

pub fn micros(at: DateTime<Utc>) -> Micros {
    at.timestamp_micros().cast_unsigned()
}

pub fn since_start(micros: Micros) -> Duration {
    Duration::from_micros(micros)
}

#[derive(Clone, Debug)]
pub struct Config {
    pub partitions: u32,
    pub senders: usize,
    /// Messages a partition that are open at once.
    pub slots: usize,
    /// Calls a sender makes at once.
    pub concurrency: usize,
    pub retry_delays: Vec<Duration>,
    /// Nothing is looked at after this.
    pub horizon: Micros,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            partitions: 12,
            senders: 3,
            slots: 1_000,
            concurrency: 256,
            retry_delays: [1, 2, 4].map(Duration::from_secs).to_vec(),
            horizon: 3_600 * SECOND,
        }
    }
}

pub struct Mailing {
    pub state: State,
    pub starts_at: Micros,
    pub ends_at: Micros,
    pub delivery: Delivery,
    /// Client numbers and their codes, ascending.
    pub clients: Vec<(i64, OperatorCode)>,
    pub finished_at: Option<Micros>,
}

impl Mailing {
    pub fn order(&self) -> MailingOrder {
        MailingOrder { version: 1.into(), state: self.state.clone(), ends_at: at(self.ends_at) }
    }
}

/// A record of message-events.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    pub mailing_no: i64,
    pub client_no: i64,
    pub code: OperatorCode,
    pub round: i32,
    pub attempts: i32,
    pub planned_at: Micros,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Started,
    Open,
    Settled,
}

/// A record of status-events.
#[derive(Clone, Debug)]
pub struct StatusRecord {
    pub mailing_no: i64,
    pub client_no: i64,
    pub round: i32,
    pub attempt: i32,
    pub kind: Kind,
    pub status: Status,
    pub reason: Option<Reason>,
    pub not_before: Option<Micros>,
    /// The message record's offset; none: the planner's own.
    pub source: Option<usize>,
}

/// What a sender has committed for a partition.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    pub frontier: usize,
    pub bookmark: usize,
    pub position: usize,
    pub open: usize,
    pub calling: usize,
    pub calls: u64,
    pub closed: Closed,
}

pub enum Event {
    /// The owner of the partition reads it.
    Poll(usize),
    /// A slot's own time has come, unless it was asked about since.
    Timer {
        sender: usize,
        life: u64,
        key: Key,
        asked: u64,
    },
    /// The queue is looked at.
    Pump {
        sender: usize,
        life: u64,
    },
    Answer {
        sender: usize,
        life: u64,
        key: Key,
        outcome: Outcome,
    },
    /// A status lies in the log.
    Written {
        sender: usize,
        life: u64,
        key: Key,
        record: StatusRecord,
    },
    /// Commits, and lets time pass for the lanes.
    Commit {
        sender: usize,
        life: u64,
    },
    /// The partition's new owner has replayed it.
    Assigned {
        partition: usize,
        sender: usize,
    },
    Project,
    Plan,
    Fault(Fault),
}

pub struct World {
    pub config: Config,
    pub now: Micros,
    events: BTreeMap<(Micros, u64), Event>,
    sequence: u64,
    pub random: Random,
    pub messages: Vec<Vec<Message>>,
    pub statuses: Vec<Vec<StatusRecord>>,
    pub committed: Vec<Commit>,
    pub owners: Vec<Option<usize>>,
    pub senders: Vec<Sender>,
    pub provider: Provider,
    pub planner: Planner,
    pub rows: Rows,
    pub mailings: BTreeMap<i64, Mailing>,
    pub checks: Checks,
}

impl World {
    pub fn new(config: Config, seed: u64) -> Self {
        let partitions = config.partitions as usize;
        let mut world = Self {
            now: 0,
            events: BTreeMap::new(),
            sequence: 0,
            random: Random::new(seed),
            messages: vec![Vec::new(); partitions],
            statuses: vec![Vec::new(); partitions],
            committed: vec![Commit::default(); partitions],
            owners: vec![None; partitions],
            senders: (0..config.senders).map(|_| Sender::new(config.concurrency)).collect(),
            provider: Provider::default(),
            planner: Planner::default(),
            rows: Rows::new(partitions),
            mailings: BTreeMap::new(),
            checks: Checks::new(),
            config,
        };
        for sender in 0..world.senders.len() {
            world.start_sender(sender);
        }
        world.spread(0);
        world.at(0, Event::Project);
        world.at(0, Event::Plan);
        world
    }

    /// Adds a mailing of clients of these codes, in turn.
    pub fn mailing(&mut self, no: i64, clients: i64, codes: &[i64], starts_at: Micros, ends_at: Micros) {
        let code = |i: i64| OperatorCode::new(codes[i as usize % codes.len()]).unwrap();
        let clients = (0..clients).map(|i| (no * 1_000_000 + i + 1, code(i))).collect();
        let (state, delivery) = (State::Scheduled, Delivery::AtLeastOnce);
        let mailing = Mailing { state, starts_at, ends_at, delivery, clients, finished_at: None };
        self.mailings.insert(no, mailing);
    }

    pub fn at(&mut self, at: Micros, event: Event) {
        self.sequence += 1;
        self.events.insert((at.max(self.now), self.sequence), event);
    }

    pub fn after(&mut self, micros: Micros, event: Event) {
        self.at(self.now + micros, event);
    }

    /// Runs until all mailings are finished, or to that moment.
    pub fn run_to(&mut self, end: Micros) {
        while let Some((&(at, sequence), _)) = self.events.first_key_value() {
            if at > end || (end == self.config.horizon && self.is_finished()) {
                break;
            }
            self.now = at;
            let event = self.events.remove(&(at, sequence)).unwrap();
            self.handle(event);
        }
        self.now = self.now.max(end.min(self.config.horizon));
    }

    pub fn run(&mut self) {
        self.run_to(self.config.horizon);
        self.check_end();
    }

    fn is_finished(&self) -> bool {
        self.mailings.values().all(|mailing| mailing.finished_at.is_some())
    }

    fn handle(&mut self, event: Event) {
        let current = |world: &Self, sender: usize, life: u64| world.senders[sender].life == life;
        // A process that stands still does all of it later.
        if let Event::Timer { sender, .. }
        | Event::Pump { sender, .. }
        | Event::Answer { sender, .. }
        | Event::Written { sender, .. }
        | Event::Commit { sender, .. } = &event
            && let Some(until) = self.senders[*sender].frozen_until.filter(|until| *until > self.now)
        {
            return self.at(until, event);
        }
        match event {
            Event::Poll(partition) => self.poll(partition),
            Event::Timer { sender, life, key, asked } if current(self, sender, life) => self.timer(sender, key, asked),
            Event::Pump { sender, life } if current(self, sender, life) => self.pump(sender),
            Event::Answer { sender, life, key, outcome } if current(self, sender, life) => {
                self.answered(sender, key, outcome);
            }
            Event::Written { sender, life, key, record } if current(self, sender, life) => {
                self.written(sender, key, record);
            }
            Event::Commit { sender, life } if current(self, sender, life) => self.commit(sender),
            Event::Assigned { partition, sender } => self.assigned(partition, sender),
            Event::Project => self.project(),
            Event::Plan => self.plan(),
            Event::Fault(fault) => self.fault(fault),
            // Of an earlier life.
            _ => {}
        }
    }
}
