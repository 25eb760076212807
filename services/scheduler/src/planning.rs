//! Takes the steps that `domain::planning` decides, for the mailings of one shard.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, Utc};
use domain::database::Doubt;
use domain::mailing::State;
use domain::planning::{LiveMailing as Planned, Step, Wait, next_step};
use events::topics::Topic;
use events::{DatabaseRecord, ProgressRecord};
use kafka::TransactionalProducer;
use sqlx::Connection;
use store::planning::{self as rows, LiveMailing, Mirror};
use uuid::Uuid;

use crate::drain::Drain;
use crate::page;
use crate::shard::Owned;

/// Between two looks at a mailing that is being planned or waits for its statuses.
const BUSY: Duration = Duration::from_millis(50);
const PUBLISHING: Duration = Duration::from_millis(10);
/// Between two looks at a shard in which nothing happens.
pub(crate) const IDLE: Duration = Duration::from_secs(1);
const MIRROR_INTERVAL: Duration = Duration::from_millis(100);
const FIRST_SPAN: i64 = 20_000;

/// Why a round was broken off.
pub(crate) enum Trouble {
    /// Postgres can't be asked; nothing is lost and nothing is open.
    Postgres(sqlx::Error),
    /// Postgres isn't known to be the right one.
    Doubt(Doubt),
    /// The outcome of a transaction is open.
    Other(anyhow::Error),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<Doubt> for Trouble {
    fn from(doubt: Doubt) -> Self {
        Self::Doubt(doubt)
    }
}

impl From<kafka::Error> for Trouble {
    fn from(error: kafka::Error) -> Self {
        Self::Other(error.into())
    }
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<sqlx::Error>() {
            Ok(error) => Self::Postgres(error),
            Err(error) => Self::Other(error),
        }
    }
}

/// An owned shard's mailings.
pub(crate) struct Planning<'a> {
    owned: &'a Owned,
    producer: TransactionalProducer,
    progress: HashMap<Uuid, ProgressRecord>,
    spans: HashMap<Uuid, i64>,
    mirrors: HashMap<Uuid, (Instant, Mirror)>,
    /// Of mailings that wait for their last statuses.
    drains: HashMap<Uuid, Drain>,
    /// The mailing that got the last page: the next turn is another's.
    last_paged: i64,
    /// The shard was confirmed to be ours just before the progress was read; holds for the first round.
    confirmed: bool,
}

impl<'a> Planning<'a> {
    /// `progress` is what was read after the producer was initialized, `confirmed` whether the shard was proved to be ours
    /// just before.
    pub(crate) fn new(
        owned: &'a Owned,
        producer: TransactionalProducer,
        progress: HashMap<Uuid, ProgressRecord>,
        confirmed: bool,
    ) -> Self {
        Self {
            owned,
            producer,
            progress,
            spans: HashMap::new(),
            mirrors: HashMap::new(),
            drains: HashMap::new(),
            last_paged: 0,
            confirmed,
        }
    }

    /// Gives each live mailing its turn. Returns how long to wait for the next round.
    pub(crate) fn round(&mut self) -> Result<Duration, Trouble> {
        let desk = Arc::clone(&self.owned.desk);
        let (shard, now) = (self.owned.number, Utc::now());
        let horizon = now + 2 * IDLE;
        let mut live = desk.runtime.block_on(async {
            let mut db = desk.db().await?;
            Ok::<_, Trouble>(rows::live_mailings(&mut db, shard, horizon).await?)
        })?;
        // A page may take all the room there is.
        let behind = live.partition_point(|mailing| mailing.mailing_no <= self.last_paged);
        live.rotate_left(behind);
        let mut pause = IDLE;
        for mailing in &live {
            if self.owned.handle.stop.is_cancelled() {
                break;
            }
            pause = pause.min(self.turn(mailing)?);
        }
        self.confirmed = false;
        desk.conveyor.refresh(IDLE);
        Ok(pause)
    }

    /// Does the mailing's next step. Returns how soon it is to be looked at again.
    fn turn(&mut self, mailing: &LiveMailing) -> Result<Duration, Trouble> {
        let desk = Arc::clone(&self.owned.desk);
        let progress = self.progress.get(&mailing.id);
        let planning = mailing.state == State::Running.as_str() && progress.is_some_and(|progress| !progress.complete);
        let room = if planning { desk.conveyor.room()? } else { None };
        let now = Utc::now();
        let planned = Planned {
            state: State::from(mailing.state.clone()),
            starts_at: mailing.starts_at,
            published: self.is_published(mailing),
            // Proved in an earlier round: the row, with its settled rounds, was read since.
            drained: self.drains.get(&mailing.id).is_some_and(Drain::is_over),
        };
        let clients = room.as_ref().map(|room| room.clients);
        let step = next_step(&planned, progress.map(ProgressRecord::progress).as_ref(), mailing.settled, clients, now);
        if step != Step::Wait(Wait::Statuses) {
            self.drains.remove(&mailing.id);
        }
        match step {
            Step::Start => {
                self.start(mailing, now)?;
                Ok(Duration::ZERO)
            }
            Step::Page(clients) => {
                let planned = self.page(mailing, clients, now)?;
                if let Some(room) = room {
                    room.used(planned);
                }
                self.last_paged = mailing.mailing_no;
                self.mirror(mailing, None)?;
                Ok(Duration::ZERO)
            }
            Step::Wait(wait) => {
                let pause = match wait {
                    Wait::Start => (mailing.starts_at - now).to_std().unwrap_or_default().min(IDLE),
                    Wait::Publishing => PUBLISHING,
                    _ => BUSY,
                };
                if wait == Wait::Statuses {
                    let drain = self.drains.entry(mailing.id).or_insert_with(Drain::new);
                    drain.look(&desk.conveyor.view, &desk.pool, &desk.runtime);
                }
                self.mirror(mailing, Some(wait))?;
                Ok(pause)
            }
            Step::Finish => {
                self.finish(mailing, now)?;
                Ok(IDLE)
            }
            // A process that was stopped for long sees a mailing that the shard's new owner has started.
            Step::ProgressLost if !self.confirmed => Err(Trouble::Other(anyhow::anyhow!(
                "mailing {} runs without a progress that was read here",
                mailing.id
            ))),
            Step::ProgressLost => {
                let reason = "its planning progress is lost: `herald replan` plans what isn't planned yet";
                self.pause(mailing, reason)
            }
            Step::MessagesLost(messages) => {
                let reason = format!(
                    "{messages} of its messages are lost: planned, and neither settled nor under way. `herald replan` plans \
                     them again"
                );
                self.pause(mailing, &reason)
            }
        }
    }

    /// Nothing goes on by itself: somebody must look.
    fn pause(&mut self, mailing: &LiveMailing, reason: &str) -> Result<Duration, Trouble> {
        tracing::error!(mailing.id = %mailing.id, reason, "a mailing is paused");
        self.write(async |db| rows::set_paused(db, mailing.mailing_no, mailing.version, reason).await)?;
        self.owned.desk.metrics.paused.inc();
        Ok(IDLE)
    }

    fn is_published(&self, mailing: &LiveMailing) -> bool {
        !mailing.in_outbox || self.owned.handle.has_published(mailing.id, mailing.version)
    }

    /// Commits the first progress record, and only then sets the mailing running. A progress that an earlier owner has
    /// moved is kept.
    fn start(&mut self, mailing: &LiveMailing, now: DateTime<Utc>) -> Result<(), Trouble> {
        if self.progress.get(&mailing.id).is_none_or(|progress| progress.cursor == 0) {
            // The mark is raised behind it: a state without one of these clients has a lower one.
            let (audience_max, mark) =
                self.write(async |db| Ok((rows::highest_client_no(db).await?, store::database::next_mark(db).await?)))?;
            let progress = ProgressRecord {
                mailing_id: mailing.id,
                mailing_no: mailing.mailing_no,
                audience_max,
                cursor: 0,
                complete: audience_max == 0,
                planned: 0,
                emitted: 0,
                pass: None,
            };
            let topic = self.owned.desk.kafka.topics.name(Topic::PlanningProgress);
            let record = page::progress_record(&topic, self.owned.number, &progress).map_err(anyhow::Error::from)?;
            let database = self.owned.desk.kafka.topics.name(Topic::Database);
            let writer = format!("planner-{}", self.owned.number);
            let mark = kafka::database_record(&database, &writer, &DatabaseRecord::of(mark, now));
            self.producer.publish([record, mark.map_err(anyhow::Error::from)?])?;
            runtime::crash_point!("plan::started");
            self.progress.insert(mailing.id, progress);
        }
        self.write(async |db| rows::set_running(db, mailing.mailing_no, mailing.version, now).await)?;
        Ok(())
    }

    /// In the background: planning doesn't wait for a figure that is only shown.
    fn count_audience(&self, mailing: &LiveMailing) {
        let (desk, mailing) = (Arc::clone(&self.owned.desk), mailing.clone());
        let up_to = self.progress.get(&mailing.id).map_or(0, |progress| progress.audience_max);
        let runtime = desk.runtime.clone();
        runtime.spawn(async move {
            let count = async {
                let mut db = desk.pool.acquire().await?;
                let filter = (mailing.operator_codes.as_slice(), mailing.tags.as_slice());
                let audience = rows::count_audience(&mut db, filter, up_to).await?;
                rows::write_audience_estimate(&mut db, mailing.mailing_no, audience).await
            };
            if let Err(error) = count.await {
                tracing::warn!(mailing.id = %mailing.id, %error, "the audience could not be counted");
            }
        });
    }

    /// Plans one page. Returns how many clients it had.
    fn page(&mut self, mailing: &LiveMailing, clients: u64, now: DateTime<Utc>) -> Result<u64, Trouble> {
        let desk = Arc::clone(&self.owned.desk);
        let progress = self.progress.get(&mailing.id).context("a page needs progress")?.clone();
        let span = self.spans.get(&mailing.id).copied().unwrap_or(FIRST_SPAN);
        let page = desk.runtime.block_on(async {
            let mut db = desk.db().await?;
            Ok::<_, Trouble>(page::read(&mut db, &desk.kafka.topics, mailing, &progress, (clients, span), now).await?)
        })?;
        runtime::crash_point!("plan::read");
        self.spans.insert(mailing.id, page.span);
        let (planned, moved) = (page.messages.len() as u64, page.progress.clone());
        let messages = desk.kafka.topics.name(Topic::MessageEvents);
        let progress_topic = desk.kafka.topics.name(Topic::PlanningProgress);
        let record = page::progress_record(&progress_topic, self.owned.number, &moved).map_err(anyhow::Error::from)?;
        self.producer.publish(page.into_records(&messages, record))?;
        runtime::crash_point!("plan::committed");
        if progress.planned == 0 && planned > 0 {
            let lag = Utc::now() - mailing.starts_at;
            desk.metrics.schedule_lag.observe(lag.as_seconds_f64().max(0.0));
        }
        desk.metrics.planned.inc_by(planned);
        self.progress.insert(mailing.id, moved);
        Ok(planned)
    }

    /// Shows how far the mailing is, at most every 100 ms, and at once when it is complete.
    fn mirror(&mut self, mailing: &LiveMailing, wait: Option<Wait>) -> Result<(), Trouble> {
        let Some(progress) = self.progress.get(&mailing.id) else { return Ok(()) };
        let mirror = Mirror {
            planned: progress.planned,
            emitted: progress.emitted,
            again: 0,
            complete: progress.complete,
            waiting_for: wait.map(String::from),
        };
        let shown = self.mirrors.get(&mailing.id);
        let fresh = shown.is_some_and(|(at, shown)| {
            *shown == mirror || (at.elapsed() < MIRROR_INTERVAL && shown.complete == mirror.complete)
        });
        if fresh {
            return Ok(());
        }
        let first = shown.is_none();
        self.write(async |db| rows::write_mirror(db, mailing.mailing_no, &mirror).await)?;
        self.mirrors.insert(mailing.id, (Instant::now(), mirror));
        if first && !mailing.counted {
            self.count_audience(mailing);
        }
        Ok(())
    }

    /// With the mirror in one transaction: who sees it finished sees all of it planned.
    fn finish(&mut self, mailing: &LiveMailing, now: DateTime<Utc>) -> Result<(), Trouble> {
        let Some(progress) = self.progress.get(&mailing.id) else { return Ok(()) };
        let (planned, emitted) = (progress.planned, progress.emitted);
        let mirror = Mirror { planned, emitted, again: 0, complete: true, waiting_for: None };
        let desk = &self.owned.desk;
        let finished = desk.runtime.block_on(async {
            let mut db = desk.db().await?;
            let mut tx = db.begin().await?;
            rows::write_mirror(&mut tx, mailing.mailing_no, &mirror).await?;
            let finished = rows::set_finished(&mut tx, mailing.mailing_no, mailing.version, now).await?;
            tx.commit().await?;
            Ok::<bool, Trouble>(finished)
        })?;
        runtime::crash_point!("plan::finished");
        if !finished {
            return Ok(());
        }
        tracing::info!(mailing.id = %mailing.id, planned, "mailing finished");
        self.progress.remove(&mailing.id);
        self.spans.remove(&mailing.id);
        self.mirrors.remove(&mailing.id);
        self.owned.handle.forget(mailing.id);
        Ok(())
    }

    fn write<T>(&self, work: impl AsyncFnOnce(&mut sqlx::PgConnection) -> sqlx::Result<T>) -> Result<T, Trouble> {
        let desk = &self.owned.desk;
        desk.runtime.block_on(async {
            let mut db = desk.db().await?;
            Ok(work(&mut db).await?)
        })
    }
}
