//! What a sender writes: statuses, and commits.

use domain::status::{Reason, Status};

use crate::sender::Key;
use crate::world::{Commit, Event, Kind, MILLI, Micros, StatusRecord, World};

impl World {
    pub fn write(
        &mut self,
        sender: usize,
        key: Key,
        kind: Kind,
        status: Status,
        reason: Option<Reason>,
        not_before: Option<Micros>,
    ) {
        let slot = self.senders[sender].slots.get_mut(&key).unwrap();
        slot.busy = true;
        let record = StatusRecord {
            mailing_no: slot.message.mailing_no,
            client_no: slot.message.client_no,
            round: slot.message.round,
            attempt: slot.attempt + i32::from(kind == Kind::Started),
            kind,
            status,
            reason,
            not_before,
            source: Some(key.1),
        };
        let life = self.senders[sender].life;
        self.after(5 * MILLI, Event::Written { sender, life, key, record });
    }

    pub fn written(&mut self, sender: usize, key: Key, record: StatusRecord) {
        let this = &mut self.senders[sender];
        let Some(slot) = this.slots.get_mut(&key) else { return };
        slot.busy = false;
        let (lost, kind) = (slot.lost, record.kind);
        // Held is no evidence: a partition that is lost drops it.
        if !lost || record.status != Status::Held {
            self.check_status(sender, key, &record);
            self.statuses[key.0].push(record);
        }
        if kind == Kind::Settled {
            let this = &mut self.senders[sender];
            this.slots.remove(&key);
            if let Some(part) = this.parts.get_mut(&key.0).filter(|_| !lost) {
                part.open.remove(&key.1);
            }
            self.leave_when_done(sender, key.0);
            if !lost {
                self.poll(key.0);
            }
        } else {
            self.ask(sender, key, None);
        }
    }

    pub fn commit(&mut self, sender: usize) {
        let (clock, life) = (self.clock(sender), self.senders[sender].life);
        self.senders[sender].traffic.tick(clock);
        self.see_lanes(sender);
        let partitions: Vec<usize> = self.senders[sender].parts.keys().copied().collect();
        for partition in partitions {
            self.commit_partition(sender, partition);
        }
        self.pump_now(sender);
        self.after(100 * MILLI, Event::Commit { sender, life });
    }

    pub fn commit_partition(&mut self, sender: usize, partition: usize) {
        let this = &mut self.senders[sender];
        let slots = this.slots.range((partition, 0)..(partition + 1, 0));
        let calling = slots.filter(|(_, slot)| slot.busy && slot.pass.is_some()).count();
        let part = this.parts.get_mut(&partition).unwrap();
        let frontier = part.open.first_key_value().map_or(part.position, |(offset, _)| *offset);
        let mut bookmark = part.open.first_key_value().map_or(self.statuses[partition].len(), |(_, end)| *end);
        if frontier <= part.inherited_to {
            bookmark = bookmark.min(part.bookmark);
        }
        self.committed[partition] = Commit {
            frontier,
            bookmark,
            position: part.position,
            open: part.open.len(),
            calling,
            calls: part.calls,
            closed: this.closed.clone(),
        };
    }
}
