//! A shard while this process owns it: a thread that plans its mailings.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use events::topics::Topic;
use kafka::Moment;

use crate::context::SchedulerContext;
use crate::handle::ShardHandle;
use crate::planning::{self, Planner};
use crate::producer::{INIT_TIMEOUT, ShardProducer};
use crate::progress;
use crate::trouble::Trouble;

/// A sweep over the mailings takes no longer: pages are small, and each statement ends by itself.
const BEAT_LIMIT: Duration = Duration::from_secs(120);

/// An owned shard.
pub(crate) struct Shard {
    pub(crate) handle: Arc<ShardHandle>,
    thread: JoinHandle<()>,
}

impl Shard {
    pub(crate) fn take_over(
        number: i32,
        position: i64,
        context: Arc<SchedulerContext>,
        producer: Arc<ShardProducer>,
    ) -> Self {
        let beat = context.health.heartbeat(format!("shard-{number}"), BEAT_LIMIT);
        let handle = Arc::new(ShardHandle::new(position, beat));
        let shard = Owned { number, context, producer, handle: Arc::clone(&handle) };
        let thread = std::thread::Builder::new()
            .name(format!("shard-{number}"))
            .spawn(move || shard.run())
            .expect("a thread can be made");
        Self { handle, thread }
    }

    /// Waits for the page under way; returns where the shard's events are read to.
    pub(crate) fn give_up(self) -> i64 {
        self.handle.stop.cancel();
        if self.thread.join().is_err() {
            tracing::error!("a shard's thread panicked");
        }
        self.handle.position()
    }
}

/// What the shard's thread holds.
struct Owned {
    number: i32,
    context: Arc<SchedulerContext>,
    handle: Arc<ShardHandle>,
    producer: Arc<ShardProducer>,
}

impl Owned {
    fn run(self) {
        let mut confirmed = false;
        while !self.handle.stop.is_cancelled() {
            match self.own(confirmed) {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(shard = self.number, error = format!("{error:#}"), "planning begins again");
                    self.context.planning.not_ready(format!("shard {}: {error:#}", self.number));
                    self.confirm();
                    confirmed = true;
                }
            }
        }
        self.producer.renew(&self.context.kafka);
    }

    /// After an error the shard may be another's: only a commit that is acknowledged now proves that it is still ours.
    fn confirm(&self) {
        let failed = Moment::now();
        while !self.handle.stop.is_cancelled() {
            self.handle.beat();
            if self.handle.is_confirmed_since(failed, Duration::from_secs(10)) {
                return;
            }
        }
    }

    /// Fences older owners, reads what is planned, and plans until told to stop or an outcome is open.
    fn own(&self, confirmed: bool) -> anyhow::Result<()> {
        let producer = self.producer.take(&self.context.kafka)?.stopped_by(&self.handle.stop);
        producer.init(INIT_TIMEOUT).context("fence older planners")?;
        let topic = self.context.kafka.topics.name(Topic::PlanningProgress);
        let progress = progress::read(&self.context.kafka, self.number, |record, reason| {
            progress::refuse(&self.context.dead_letters, &self.context.runtime, &topic, record, reason);
        })
        .context("read planning-progress")?;
        tracing::info!(shard = self.number, mailings = progress.len(), "shard taken over");
        let context = Arc::clone(&self.context);
        let handle = Arc::clone(&self.handle);
        let mut planner = Planner::new(self.number, context, handle, producer, progress, confirmed);
        while !self.handle.stop.is_cancelled() {
            self.handle.beat();
            let pause = match planner.sweep() {
                Ok(pause) => {
                    self.context.planning.ready();
                    pause
                }
                Err(Trouble::Postgres(error) | Trouble::Mailing(error)) => {
                    tracing::warn!(shard = self.number, %error, "planning waits for Postgres");
                    self.context.planning.not_ready(format!("Postgres: {error}"));
                    planning::IDLE
                }
                Err(Trouble::Mismatch(mismatch)) => {
                    self.context.planning.not_ready(mismatch.to_string());
                    planning::IDLE
                }
                Err(Trouble::Other(error)) => return Err(error),
            };
            self.handle.sleep(pause);
        }
        Ok(())
    }
}
