//! Kills, handovers and pauses.

use domain::mailing::State;
use domain::status::Status;

use crate::sender::{Known, Part};
use crate::world::{Event, Kind, MILLI, Micros, SECOND, World};

/// How long the group waits for a sender that is silent.
const SESSION: Micros = 12 * SECOND;

#[derive(Clone, Debug)]
pub enum Fault {
    /// SIGKILL; another process takes its place so much later.
    Kill {
        sender: usize,
        restart_after: Micros,
    },
    /// It stands still.
    Freeze {
        sender: usize,
        micros: Micros,
    },
    /// The group has noticed that a sender is silent.
    Lost {
        sender: usize,
        life: u64,
    },
    /// It leaves in good order and joins again so much later.
    Leave {
        sender: usize,
        join_after: Micros,
    },
    Join {
        sender: usize,
    },
    SchedulerDown {
        micros: Micros,
    },
    ProjectorDown {
        micros: Micros,
    },
    State {
        mailing_no: i64,
        state: State,
    },
    Erase {
        client_no: i64,
    },
}

impl World {
    pub fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Kill { sender, restart_after } => self.kill(sender, restart_after),
            Fault::Freeze { sender, micros } if self.senders[sender].alive => {
                self.senders[sender].frozen_until = Some(self.now + micros);
                self.checks.disturbed(self.now + micros + SESSION);
                if micros > SESSION {
                    let life = self.senders[sender].life;
                    self.after(SESSION, Event::Fault(Fault::Lost { sender, life }));
                }
            }
            Fault::Freeze { .. } => {}
            Fault::Lost { sender, life } => self.lost(sender, life),
            Fault::Leave { sender, join_after } if self.senders[sender].alive => {
                self.checks.disturbed(self.now + join_after + 2 * SESSION);
                let partitions: Vec<usize> = self.senders[sender].parts.keys().copied().collect();
                self.senders[sender].alive = false;
                for partition in partitions {
                    self.give_up(sender, partition);
                }
                self.after(join_after.max(SECOND), Event::Fault(Fault::Join { sender }));
            }
            Fault::Leave { .. } => {}
            Fault::Join { sender } => {
                if !self.senders[sender].parts.is_empty() {
                    return self.after(SECOND, Event::Fault(Fault::Join { sender }));
                }
                self.start_sender(sender);
                self.spread(500 * MILLI);
            }
            Fault::SchedulerDown { micros } => {
                self.checks.disturbed(self.now + micros);
                self.planner.restart(self.now + micros);
            }
            Fault::ProjectorDown { micros } => {
                self.checks.disturbed(self.now + micros);
                self.rows.down_until = self.now + micros;
            }
            Fault::State { mailing_no, state } => self.set_state(mailing_no, state),
            Fault::Erase { client_no } => {
                self.planner.erased.insert(client_no, self.now);
            }
        }
    }

    fn set_state(&mut self, mailing_no: i64, state: State) {
        let mailing = self.mailings.get_mut(&mailing_no).unwrap();
        let live = mailing.finished_at.is_none() && mailing.state != State::Cancelled;
        if !live || (state == State::Running && mailing.state != State::Paused) {
            return;
        }
        // One that is paused before its start is scheduled again.
        let unplanned = !self.planner.progress.contains_key(&mailing_no);
        mailing.state = if state == State::Running && unplanned { State::Scheduled } else { state };
        self.checks.told(mailing_no);
        for sender in 0..self.senders.len() {
            for key in self.senders[sender].traffic.take_mailing(mailing_no) {
                self.out_of_queue(sender, key);
                self.ask(sender, key, None);
            }
        }
    }

    fn kill(&mut self, sender: usize, restart_after: Micros) {
        if !self.senders[sender].alive {
            return;
        }
        let life = self.senders[sender].life;
        self.checks.disturbed(self.now + restart_after.max(SESSION) + SESSION);
        self.forget_calls(sender);
        self.senders[sender].slots.clear();
        self.senders[sender].alive = false;
        self.senders[sender].life += 1;
        self.after(SESSION, Event::Fault(Fault::Lost { sender, life: life + 1 }));
        self.after(restart_after.max(SESSION + SECOND), Event::Fault(Fault::Join { sender }));
    }

    fn lost(&mut self, sender: usize, life: u64) {
        if self.senders[sender].life != life {
            return;
        }
        self.forget_calls(sender);
        let this = &mut self.senders[sender];
        let partitions: Vec<usize> = std::mem::take(&mut this.parts).into_keys().collect();
        for slot in this.slots.values_mut() {
            slot.lost = true;
        }
        if !this.alive {
            this.slots.clear();
        }
        let idle: Vec<_> = this.slots.iter().filter(|(_, slot)| !slot.busy).map(|(key, _)| *key).collect();
        for key in idle {
            self.ask(sender, key, None);
        }
        for partition in &partitions {
            self.owners[*partition] = None;
        }
        self.spread(500 * MILLI);
    }

    /// Gives partitions without an owner to those that are there, and evens out what they have.
    pub fn spread(&mut self, after: Micros) {
        let alive: Vec<usize> = (0..self.senders.len()).filter(|sender| self.senders[*sender].alive).collect();
        if alive.is_empty() {
            return;
        }
        let fair = self.owners.len().div_ceil(alive.len());
        for partition in 0..self.owners.len() {
            let count = |sender: usize| self.owners.iter().filter(|owner| **owner == Some(sender)).count();
            match self.owners[partition] {
                Some(owner) if count(owner) > fair && self.senders[owner].alive => self.give_up(owner, partition),
                Some(_) => {}
                None => {
                    let sender = *alive.iter().min_by_key(|sender| count(**sender)).unwrap();
                    self.owners[partition] = Some(sender);
                    self.after(after, Event::Assigned { partition, sender });
                }
            }
        }
    }

    fn give_up(&mut self, sender: usize, partition: usize) {
        let Some(part) = self.senders[sender].parts.get_mut(&partition) else { return };
        part.leaving = true;
        let idle = self.senders[sender].slots.range((partition, 0)..=(partition, usize::MAX));
        let idle: Vec<_> = idle.filter(|(_, slot)| !slot.busy).map(|(key, _)| *key).collect();
        for key in idle {
            self.ask(sender, key, None);
        }
        self.leave_when_done(sender, partition);
    }

    /// A partition is given up once all that was on the wire has come and is written.
    pub fn leave_when_done(&mut self, sender: usize, partition: usize) {
        let this = &self.senders[sender];
        let leaving = this.parts.get(&partition).is_some_and(|part| part.leaving);
        if leaving && this.slots.range((partition, 0)..=(partition, usize::MAX)).next().is_none() {
            self.commit_partition(sender, partition);
            self.senders[sender].parts.remove(&partition);
            self.owners[partition] = None;
            self.spread(500 * MILLI);
        }
    }

    pub fn assigned(&mut self, partition: usize, sender: usize) {
        let this = &self.senders[sender];
        if self.owners[partition] != Some(sender) || this.parts.contains_key(&partition) {
            return;
        }
        if !this.alive {
            self.owners[partition] = None;
            return self.spread(500 * MILLI);
        }
        // What it wrote of an earlier time with the partition must have come.
        if this.slots.range((partition, 0)..=(partition, usize::MAX)).next().is_some() {
            return self.after(100 * MILLI, Event::Assigned { partition, sender });
        }
        let commit = &self.committed[partition];
        let mut part =
            Part { position: commit.frontier, calls: commit.calls, bookmark: commit.bookmark, ..Part::default() };
        for record in &self.statuses[partition][commit.bookmark..] {
            let Some(source) = record.source.filter(|source| *source >= commit.frontier) else { continue };
            part.inherited_to = part.inherited_to.max(source + 1);
            let known: &mut Known = part.known.entry(source).or_default();
            known.settled |= record.kind == Kind::Settled;
            known.in_doubt = record.kind == Kind::Started;
            if record.kind == Kind::Open {
                known.attempt = known.attempt.max(record.attempt);
                if record.status == Status::Retrying {
                    known.delay = record.not_before.zip(record.reason.clone());
                }
            }
        }
        self.senders[sender].parts.insert(partition, part);
        self.poll(partition);
    }
}
