//! The scheduler: pages, passes, and the conveyor that it fills.

use std::collections::BTreeMap;

use domain::conveyor::{Conveyor, Share, open_for_pages};
use domain::ids::ClientNo;
use domain::lane::ClosedLanes;
use domain::mailing::State;
use domain::planning::{Again, PassPlan, PassProgress, PlanningFacts, Progress, Step, again, next_step};

use crate::meter::Meter;
use crate::world::{Event, Kind, MILLI, Message, Micros, StatusRecord, World, at, since_start};

const SAMPLE_AGE: Micros = 100 * MILLI;

#[derive(Default)]
pub struct Planner {
    pub down_until: Micros,
    /// The truth, in planning-progress; a restart reads it.
    pub progress: BTreeMap<i64, MailingProgress>,
    pub erased: BTreeMap<i64, Micros>,
    memory: Memory,
}

pub struct MailingProgress {
    pub progress: Progress,
    /// Where the pass is, in the order of `not_before`.
    pass_cursor: (Micros, i64),
    /// Where the pages are in the mailing's clients.
    next: usize,
}

/// What a restart forgets.
#[derive(Default)]
struct Memory {
    sampled_at: Option<Micros>,
    conveyor: Conveyor,
    closed: ClosedLanes,
    meter: Meter,
    planned_since: u64,
    last_page: Option<Micros>,
    last_mailing: i64,
    paged: BTreeMap<i64, bool>,
    passes: BTreeMap<i64, PassPlan>,
}

impl Planner {
    pub fn restart(&mut self, down_until: Micros) {
        self.memory = Memory::default();
        self.down_until = down_until;
    }
}

impl World {
    pub fn plan(&mut self) {
        if self.now < self.planner.down_until {
            return self.at(self.planner.down_until, Event::Plan);
        }
        self.sample();
        let live = |mailing: &crate::world::Mailing| mailing.finished_at.is_none();
        let mut live: Vec<i64> = self.mailings.iter().filter(|(_, mailing)| live(mailing)).map(|(no, _)| *no).collect();
        let behind = live.partition_point(|no| *no <= self.planner.memory.last_mailing);
        live.rotate_left(behind);
        let mut worked = false;
        for no in live {
            worked |= self.turn(no);
        }
        self.after(if worked { 5 * MILLI } else { 50 * MILLI }, Event::Plan);
    }

    fn sample(&mut self) {
        let memory = &mut self.planner.memory;
        if memory.sampled_at.is_some_and(|at| self.now < at + SAMPLE_AGE) {
            return;
        }
        let unread = |(log, commit): (&Vec<Message>, &crate::world::Commit)| log.len() - commit.position;
        let unread: usize = self.messages.iter().zip(&self.committed).map(unread).sum();
        let open: usize = self.committed.iter().map(|commit| commit.open).sum();
        let lying = |(log, commit): (&Vec<Message>, &crate::world::Commit)| {
            let open = open_for_pages(commit.open as u64, commit.calling as u64, &commit.closed);
            (log.len() - commit.position) as u64 + open
        };
        memory.closed =
            ClosedLanes { by_partition: self.committed.iter().map(|commit| commit.closed.clone()).collect() };
        let calls = self.committed.iter().map(|commit| commit.calls).collect();
        let pace = memory.meter.sample(calls, unread + open > 0, self.now);
        memory.conveyor = Conveyor {
            lying: self.messages.iter().zip(&self.committed).map(lying).collect(),
            unread: unread as u64,
            pace,
            closed: memory.closed.all(),
        };
        memory.planned_since = 0;
        memory.sampled_at = Some(self.now);
    }

    fn room(&self) -> Option<u64> {
        let memory = &self.planner.memory;
        let last_page = memory.last_page.map(|at| since_start(self.now - at));
        memory.conveyor.page(Share { owned: 6, shards: 6, planned_since: memory.planned_since, last_page })
    }

    /// Whether all frontiers have reached the ends of the log, and Postgres holds all statuses.
    fn is_drained(&self) -> bool {
        let at_end = |(log, commit): (&Vec<Message>, &crate::world::Commit)| log.len() == commit.frontier;
        self.messages.iter().zip(&self.committed).all(at_end)
            && self.statuses.iter().zip(&self.rows.offsets).all(|(log, offset)| log.len() == *offset)
    }

    fn turn(&mut self, no: i64) -> bool {
        let mailing = &self.mailings[&no];
        let rows = self.rows.mailings.entry(no).or_default();
        let facts = PlanningFacts {
            state: mailing.state.clone(),
            starts_at: at(mailing.starts_at),
            ends_at: at(mailing.ends_at),
            published: true,
            drained: false,
            settled: rows.settled,
            settled_again: rows.settled_again,
            due_at: rows.held.first().map(|(not_before, _)| at(*not_before)),
            paged: self.planner.memory.paged.get(&no).copied().unwrap_or_default(),
        };
        let facts = PlanningFacts { drained: self.is_drained(), ..facts };
        let progress = self.planner.progress.get(&no).map(|progress| progress.progress.clone());
        let step = next_step(&facts, progress.as_ref(), self.room(), at(self.now));
        self.check_step(no, &step);
        match step {
            Step::Start => {
                let audience_max = i64::try_from(self.mailings[&no].clients.len()).unwrap();
                let complete = audience_max == 0;
                let progress = Progress {
                    audience_max: audience_max.into(),
                    cursor: 0.into(),
                    complete,
                    planned: 0,
                    emitted: 0,
                    again: 0,
                    pass: None,
                };
                let progress = MailingProgress { progress, pass_cursor: (0, 0), next: 0 };
                self.planner.progress.entry(no).or_insert(progress);
                self.mailings.get_mut(&no).unwrap().state = State::Running;
            }
            Step::Page(clients) => self.page(no, clients as usize, true),
            Step::SettlePage(clients) => self.page(no, clients as usize, false),
            Step::BeginPass(rows) => {
                let progress = self.planner.progress.get_mut(&no).unwrap();
                progress.progress.pass = Some(PassProgress { began_at: at(self.now), done: false });
                progress.pass_cursor = (0, 0);
                self.planner.memory.passes.remove(&no);
                self.pass(no, &facts, rows as usize);
            }
            Step::Pass(rows) => self.pass(no, &facts, rows as usize),
            Step::Finish => {
                self.check_finish(no);
                self.mailings.get_mut(&no).unwrap().finished_at = Some(self.now);
                return false;
            }
            Step::Wait(_) => return false,
            Step::ProgressLost | Step::MessagesLost(_) => panic!("{step:?} of {no} at {}", self.now),
        }
        true
    }

    fn used(&mut self, no: i64, planned: u64, paged: bool) {
        let memory = &mut self.planner.memory;
        memory.planned_since += planned;
        memory.last_mailing = no;
        memory.paged.insert(no, paged);
        if planned > 0 {
            memory.last_page = Some(self.now);
        }
    }

    fn page(&mut self, no: i64, clients: usize, callable: bool) {
        let (from, mailing) = (self.planner.progress[&no].next, &self.mailings[&no]);
        let to = (from + clients).min(mailing.clients.len());
        let (page, state) = (mailing.clients[from..to].to_vec(), mailing.state.clone());
        let complete = to == mailing.clients.len();
        for (client_no, code) in &page {
            let erased = self.planner.erased.contains_key(client_no);
            if callable && !erased {
                self.append(Message {
                    mailing_no: no,
                    client_no: *client_no,
                    code: *code,
                    round: 1,
                    attempts: 0,
                    planned_at: self.now,
                });
            } else {
                let ends_at = if callable { self.now + 1 } else { 0 };
                let settled = again(&state, at(ends_at), erased, at(self.now));
                self.settle(no, *client_no, 1, 0, settled);
            }
            self.check_planned(no, *client_no, 1, false);
        }
        let progress = self.planner.progress.get_mut(&no).unwrap();
        progress.next = to;
        let planned = page.len() as i64;
        progress.progress.planned += planned;
        progress.progress.emitted += planned;
        progress.progress.complete = complete;
        self.used(no, if callable { page.len() as u64 } else { 0 }, true);
    }

    fn pass(&mut self, no: i64, facts: &PlanningFacts, rows: usize) {
        let progress = &self.planner.progress[&no];
        let (cursor, began_at) = (progress.pass_cursor, progress.progress.pass.unwrap().began_at);
        let memory = &mut self.planner.memory;
        let new_plan = || PassPlan::new(facts, began_at, memory.closed.clone(), at(self.now));
        let plan = memory.passes.entry(no).or_insert_with(new_plan);
        let mut taken = Vec::new();
        let mut last = None;
        for held in self.rows.mailings[&no].held.range((cursor.0, cursor.1 + 1)..) {
            if taken.len() == rows {
                last = Some(taken.last().copied().unwrap_or(cursor));
                break;
            }
            let (not_before, client_no) = *held;
            let code = self.mailings[&no].clients[(client_no - no * 1_000_000 - 1) as usize].1;
            let number = ClientNo::from(client_no).partition(self.config.partitions);
            if plan.takes(number, code, at(not_before)) {
                taken.push(*held);
            }
        }
        let mut planned = 0;
        for (_, client_no) in &taken {
            let row = self.rows.mailings[&no].rows[client_no].clone();
            let (round, attempts) = (row.settled_round + 1, row.standing.attempt);
            let mailing = &self.mailings[&no];
            let code = mailing.clients[(client_no - no * 1_000_000 - 1) as usize].1;
            let erased = self.planner.erased.contains_key(client_no);
            match again(&mailing.state, at(mailing.ends_at), erased, at(self.now)) {
                Again::Plan => {
                    planned += 1;
                    let message =
                        Message { mailing_no: no, client_no: *client_no, code, round, attempts, planned_at: self.now };
                    self.append(message);
                }
                settle => self.settle(no, *client_no, round, attempts, settle),
            }
            let number = ClientNo::from(*client_no).partition(self.config.partitions);
            let probe = self.planner.memory.closed.contains(number, code);
            self.check_planned(no, *client_no, round, probe);
        }
        let progress = self.planner.progress.get_mut(&no).unwrap();
        progress.progress.emitted += taken.len() as i64;
        progress.progress.again += taken.len() as i64;
        match last {
            Some(last) => progress.pass_cursor = last,
            None => progress.progress.pass = Some(PassProgress { began_at, done: true }),
        }
        self.used(no, planned, false);
    }

    fn append(&mut self, message: Message) {
        let number = ClientNo::from(message.client_no).partition(self.config.partitions) as usize;
        self.messages[number].push(message);
        self.after(10 * MILLI, Event::Poll(number));
    }

    fn settle(&mut self, mailing_no: i64, client_no: i64, round: i32, attempt: i32, settled: Again) {
        let Again::Settle(status, reason) = settled else { panic!("it may be called") };
        let number = ClientNo::from(client_no).partition(self.config.partitions) as usize;
        self.statuses[number].push(StatusRecord {
            mailing_no,
            client_no,
            round,
            attempt,
            kind: Kind::Settled,
            status,
            reason: Some(reason),
            not_before: None,
            source: None,
        });
    }
}
