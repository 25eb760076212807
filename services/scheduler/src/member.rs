use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use events::{DecodeError, MailingEvent, decode};
use kafka::{Assigned, Commit, Intake, Member, Moment, Record, Start};
use runtime::health::Readiness;

use crate::context::SchedulerContext;
use crate::producer::ShardProducer;
use crate::shard::Shard;

/// The scheduler as a member of its group. An event only wakes its shard: the row is the truth.
pub(crate) struct SchedulerMember {
    context: Arc<SchedulerContext>,
    ready: Readiness,
    reading: Readiness,
    producers: Vec<Arc<ShardProducer>>,
    shards: Mutex<HashMap<i32, Shard>>,
}

impl SchedulerMember {
    /// Makes a producer for each shard there is, so that taking one over doesn't wait for a connection.
    pub(crate) fn new(context: Arc<SchedulerContext>, ready: Readiness, reading: Readiness) -> kafka::Result<Self> {
        let shards = 0..context.kafka.topics.shards().cast_signed();
        let producers = shards
            .map(|shard| Ok(Arc::new(ShardProducer::new(&context.kafka, shard)?)))
            .collect::<kafka::Result<_>>()?;
        Ok(Self { context, ready, reading, producers, shards: Mutex::default() })
    }

    fn owns(&self, shards: usize) {
        self.context.conveyor.own(shards);
        if shards == 0 {
            // It stands by, which needs no planning.
            self.context.planning.ready();
        }
    }
}

impl Member for SchedulerMember {
    fn assigned(&self, assigned: &[Assigned]) -> Vec<Start> {
        let mut shards = self.shards.lock().expect("not poisoned");
        let starts = assigned.iter().map(|one| {
            // Events that came while nobody listened are read again: they wake and tell which versions are published.
            let start = one.at.committed.as_ref().map_or(one.at.low, |(offset, _)| *offset);
            let start = start.clamp(one.at.low, one.at.end);
            let producer = Arc::clone(&self.producers[one.partition as usize]);
            shards.insert(one.partition, Shard::take_over(one.partition, start, Arc::clone(&self.context), producer));
            Start(start)
        });
        let starts = starts.collect();
        self.owns(shards.len());
        self.ready.ready();
        starts
    }

    fn revoked(&self, numbers: &[i32], _lost: bool) -> Vec<Commit> {
        let revoked: Vec<(i32, Shard)> = {
            let mut shards = self.shards.lock().expect("not poisoned");
            let revoked = numbers.iter().filter_map(|number| Some((*number, shards.remove(number)?))).collect();
            self.owns(shards.len());
            revoked
        };
        for (_, shard) in &revoked {
            shard.handle.stop.cancel();
        }
        revoked.into_iter().map(|(number, shard)| commit(number, shard.give_up())).collect()
    }

    fn take(&self, record: Record) -> Result<Intake, DecodeError> {
        let shards = self.shards.lock().expect("not poisoned");
        let handle = shards.get(&record.partition).map(|shard| Arc::clone(&shard.handle));
        drop(shards);
        if let Some(handle) = handle
            && record.payload.is_some()
        {
            handle.published(&decode::<MailingEvent>(record.payload.as_deref())?);
        }
        Ok(Intake::More)
    }

    fn garbage_skipped(&self, _: i32, _: i64) {}

    fn reading_stopped(&self, why: Option<String>) {
        self.reading.set(why);
    }

    fn has_room(&self, _partition: i32) -> bool {
        true
    }

    fn read_to(&self, partition: i32, position: i64) {
        if let Some(shard) = self.shards.lock().expect("not poisoned").get(&partition) {
            shard.handle.read_to(position);
        }
    }

    fn checkpoints(&self) -> Vec<Commit> {
        let shards = self.shards.lock().expect("not poisoned");
        let mut commits: Vec<Commit> =
            shards.iter().map(|(&number, shard)| commit(number, shard.handle.position())).collect();
        commits.sort_by_key(|commit| commit.partition);
        commits
    }

    fn commit_acknowledged(&self, sent: Moment) {
        for shard in self.shards.lock().expect("not poisoned").values() {
            shard.handle.confirm(sent);
        }
    }
}

fn commit(partition: i32, offset: i64) -> Commit {
    Commit { partition, offset, metadata: String::new() }
}
