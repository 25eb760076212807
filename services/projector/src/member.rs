use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use events::{DecodeError, decode};
use kafka::{Assigned, Commit, Intake, Member, Moment, Record, Start};
use runtime::health::{Heartbeat, Readiness};
use sqlx::PgPool;
use store::projection;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::inbox::{Inbox, Read};
use crate::settings::Settings;

/// The projector in its group: it begins where Postgres says, and hands what it reads to the writer.
pub(crate) struct ProjectorMember {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) pool: PgPool,
    pub(crate) handle: Handle,
    pub(crate) postgres: Readiness,
    pub(crate) group: Readiness,
    pub(crate) reading: Readiness,
    pub(crate) beat: Heartbeat,
    pub(crate) stop: CancellationToken,
    /// Why the projector must not go on.
    pub(crate) failure: Mutex<Option<String>>,
}

impl ProjectorMember {
    /// Waits while Postgres is down; none when told to stop.
    fn stored(&self, partitions: &[i32]) -> Option<BTreeMap<i32, i64>> {
        loop {
            let read = self.handle.block_on(async {
                let mut conn = self.pool.acquire().await?;
                projection::offsets(&mut conn, partitions).await
            });
            match read {
                Ok(stored) => {
                    self.postgres.ready();
                    return Some(stored);
                }
                Err(error) => self.postgres.not_ready(error.to_string()),
            }
            self.beat.beat();
            let pause = tokio::time::Duration::from_millis(500);
            let stopped = self.stop.cancelled();
            if self.handle.block_on(async { tokio::time::timeout(pause, stopped).await.is_ok() }) {
                return None;
            }
        }
    }

    /// Where to begin, or why the log isn't the one that Postgres knows.
    fn start(&self, Assigned { partition, at }: &Assigned, stored: Option<i64>) -> Result<i64, String> {
        let Some(stored) = stored else {
            return Ok(at.low);
        };
        if stored > at.end {
            return Err(format!(
                "status partition {partition} ends at {}, but was written up to {stored}: it was made anew or cut off. \
                 If that was meant, delete the rows of projector_offsets",
                at.end
            ));
        }
        if stored < at.low {
            tracing::error!(
                kafka.partition = partition,
                missing = at.low - stored,
                "the log begins later than what is to be written: these statuses are lost"
            );
        }
        Ok(stored.max(at.low))
    }
}

impl Member for ProjectorMember {
    fn assigned(&self, partitions: &[Assigned]) -> Vec<Start> {
        let numbers: Vec<i32> = partitions.iter().map(|assigned| assigned.partition).collect();
        let Some(stored) = self.stored(&numbers) else {
            return vec![];
        };
        let mut starts = Vec::new();
        for assigned in partitions {
            let stored = stored.get(&assigned.partition).copied();
            match self.start(assigned, stored) {
                Ok(start) => {
                    self.inbox.assign(assigned.partition, stored, start);
                    starts.push(Start(start));
                }
                Err(reason) => {
                    *self.failure.lock().expect("not poisoned") = Some(reason);
                    self.inbox.leave();
                    return vec![];
                }
            }
        }
        self.group.ready();
        starts
    }

    fn revoked(&self, partitions: &[i32], lost: bool) -> Vec<Commit> {
        // Lost: the offsets' compare-and-set decides who writes.
        self.inbox.revoke(partitions, if lost { Duration::ZERO } else { Settings::REVOKE_DEADLINE })
    }

    fn take(&self, record: Record) -> Result<Intake, DecodeError> {
        let event = decode(record.payload.as_deref())?;
        let bytes = record.payload.map_or(0, |payload| payload.len());
        Ok(self.inbox.push(record.partition, Read { offset: record.offset, bytes, event: Some(event) }))
    }

    /// The room that one offset takes is no reason to pause.
    fn garbage_skipped(&self, partition: i32, offset: i64) {
        self.inbox.push(partition, Read { offset, bytes: 0, event: None });
    }

    fn reading_stopped(&self, why: Option<String>) {
        self.reading.set(why);
    }

    fn has_room(&self, _: i32) -> bool {
        self.inbox.has_room()
    }

    /// The ends of the planner's transactions hold no status, and are passed: a reader of the offsets waits until they have
    /// reached the log's end.
    fn read_to(&self, partition: i32, position: i64) {
        self.inbox.read_to(partition, position);
    }

    /// For lag tools: nobody reads them back.
    fn checkpoints(&self) -> Vec<Commit> {
        self.inbox.commits()
    }

    fn commit_acknowledged(&self, _: Moment) {}
}
