//! Takes the steps that `domain::planning` decides, for the mailings of one shard.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, Utc};
use domain::ids::{ClientNo, MailingNo, Shard};
use domain::mailing::State;
use domain::planning::{PlanningFacts, Step, Wait, next_step};
use events::topics::Topic;
use events::{DatabaseRecord, ProgressRecord};
use kafka::TransactionalProducer;
use sqlx::Connection;
use store::mailings::MailingRow;
use store::planning::{self as rows, LiveMailingRow, Mirror};
use uuid::Uuid;

use crate::context::SchedulerContext;
use crate::drain::Drain;
use crate::handle::ShardHandle;
use crate::page::{self, Extent};
use crate::trouble::Trouble;

/// How soon a mailing that is being planned or waits for its statuses is looked at again.
const BUSY: Duration = Duration::from_millis(50);
const PUBLISHING: Duration = Duration::from_millis(10);
/// How soon a shard in which nothing happens is looked at again.
pub(crate) const IDLE: Duration = Duration::from_secs(1);
const MIRROR_INTERVAL: Duration = Duration::from_millis(100);
const FIRST_SPAN: i64 = 20_000;

/// An owned shard's mailings.
pub(crate) struct Planner {
    shard: i32,
    context: Arc<SchedulerContext>,
    handle: Arc<ShardHandle>,
    producer: TransactionalProducer,
    progress: HashMap<Uuid, ProgressRecord>,
    spans: HashMap<Uuid, i64>,
    mirrors: HashMap<Uuid, (Instant, Mirror)>,
    /// The proofs begun for mailings that wait for their last statuses.
    drains: HashMap<Uuid, Drain>,
    /// The mailing that got the last page. The next turn is another's.
    last_paged: MailingNo,
    /// The shard was confirmed to be ours just before the progress was read; holds for the first sweep.
    confirmed: bool,
}

impl Planner {
    /// `progress` is what was read after the producer was initialized, `confirmed` whether the shard was proved to be ours
    /// just before.
    pub(crate) fn new(
        shard: i32,
        context: Arc<SchedulerContext>,
        handle: Arc<ShardHandle>,
        producer: TransactionalProducer,
        progress: HashMap<Uuid, ProgressRecord>,
        confirmed: bool,
    ) -> Self {
        Self {
            shard,
            context,
            handle,
            producer,
            progress,
            spans: HashMap::new(),
            mirrors: HashMap::new(),
            drains: HashMap::new(),
            last_paged: MailingNo::default(),
            confirmed,
        }
    }

    /// Gives each live mailing its turn. Returns how long to wait before the next sweep.
    pub(crate) fn sweep(&mut self) -> Result<Duration, Trouble> {
        let context = Arc::clone(&self.context);
        let (shard, now) = (self.shard, Utc::now());
        let horizon = now + 2 * IDLE;
        let mut live = context.runtime.block_on(async {
            let mut db = context.db().await?;
            Ok::<_, Trouble>(rows::live_mailings(&mut db, Shard::from(shard), horizon).await?)
        })?;
        // A page may take all the room there is.
        let behind = live.partition_point(|mailing| mailing.row.mailing_no <= self.last_paged);
        live.rotate_left(behind);
        let mut pause = IDLE;
        for mailing in &live {
            if self.handle.stop.is_cancelled() {
                break;
            }
            pause = pause.min(self.turn(mailing)?);
        }
        self.confirmed = false;
        context.conveyor.refresh(IDLE);
        Ok(pause)
    }

    /// Does the mailing's next step. Returns how soon it is to be looked at again.
    fn turn(&mut self, live: &LiveMailingRow) -> Result<Duration, Trouble> {
        let context = Arc::clone(&self.context);
        let mailing = &live.row;
        let progress = self.progress.get(&mailing.id);
        let planning = mailing.state == State::Running && progress.is_some_and(|progress| !progress.complete);
        let room = if planning { context.conveyor.room()? } else { None };
        let now = Utc::now();
        let facts = PlanningFacts {
            state: mailing.state.clone(),
            starts_at: mailing.starts_at,
            ends_at: mailing.ends_at,
            published: self.is_published(live),
            // Proved in an earlier sweep: the row, with its settled rounds, was read since.
            drained: self.drains.get(&mailing.id).is_some_and(Drain::is_over),
            settled: live.settled,
            settled_again: live.settled_again,
            due_at: live.due_at,
            paged: true,
        };
        let clients = room.as_ref().map(|room| room.clients);
        let mut step = next_step(&facts, progress.map(ProgressRecord::progress).as_ref(), clients, now);
        if matches!(step, Step::SettlePage(_)) {
            // The senders settle what has ended.
            step = clients.map_or(Step::Wait(Wait::Senders), Step::Page);
        }
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
                self.mirror(live, None)?;
                Ok(Duration::ZERO)
            }
            // Nothing is held yet.
            Step::SettlePage(_) | Step::BeginPass(_) | Step::Pass(_) => Ok(BUSY),
            Step::Wait(wait) => {
                let pause = match wait {
                    Wait::Start => (mailing.starts_at - now).to_std().unwrap_or_default().min(IDLE),
                    Wait::Publishing => PUBLISHING,
                    _ => BUSY,
                };
                if wait == Wait::Statuses {
                    let drain = self.drains.entry(mailing.id).or_insert_with(Drain::new);
                    drain.look(&context.conveyor.view, &context.pool, &context.runtime);
                }
                self.mirror(live, Some(wait))?;
                Ok(pause)
            }
            Step::Finish => {
                self.finish(mailing, now)?;
                Ok(IDLE)
            }
            // A process that was stopped for long sees mailings that the shard's new owner has started.
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

    /// Pauses the mailing until an operator looks at it.
    fn pause(&mut self, mailing: &MailingRow, reason: &str) -> Result<Duration, Trouble> {
        tracing::error!(mailing.id = %mailing.id, reason, "a mailing is paused");
        self.write(async |db| rows::set_paused(db, mailing.mailing_no, mailing.version, reason).await)?;
        self.context.metrics.paused.inc();
        Ok(IDLE)
    }

    fn is_published(&self, live: &LiveMailingRow) -> bool {
        !live.in_outbox || self.handle.has_published(live.row.id, live.row.version)
    }

    /// Commits the first progress record, and only then sets the mailing running. A progress that an earlier owner has
    /// moved is kept.
    fn start(&mut self, mailing: &MailingRow, now: DateTime<Utc>) -> Result<(), Trouble> {
        if self.progress.get(&mailing.id).is_none_or(|progress| progress.cursor == ClientNo::default()) {
            // The mark is raised behind it: a state without one of these clients has a lower one.
            let (audience_max, mark) =
                self.write(async |db| Ok((rows::highest_client_no(db).await?, store::mark::next(db).await?)))?;
            let progress = ProgressRecord {
                mailing_id: mailing.id,
                mailing_no: mailing.mailing_no,
                audience_max,
                cursor: ClientNo::default(),
                complete: audience_max == ClientNo::default(),
                planned: 0,
                emitted: 0,
                again: 0,
                pass: None,
            };
            let topic = self.context.kafka.topics.name(Topic::PlanningProgress);
            let record = page::progress_record(&topic, self.shard, &progress).map_err(anyhow::Error::from)?;
            let database = self.context.kafka.topics.name(Topic::Database);
            let writer = format!("planner-{}", self.shard);
            let mark = kafka::database_record(&database, &writer, &DatabaseRecord::of(mark, now));
            self.producer.publish([record, mark.map_err(anyhow::Error::from)?])?;
            runtime::crash_point!("plan::started");
            self.progress.insert(mailing.id, progress);
        }
        self.write(async |db| rows::set_running(db, mailing.mailing_no, mailing.version, now).await)?;
        Ok(())
    }

    /// Counts in the background, because planning doesn't wait for a figure that is only shown.
    fn count_audience(&self, mailing: &MailingRow) {
        let (context, mailing) = (Arc::clone(&self.context), mailing.clone());
        let up_to = self.progress.get(&mailing.id).map_or(ClientNo::default(), |progress| progress.audience_max);
        let runtime = context.runtime.clone();
        runtime.spawn(async move {
            let count = async {
                let mut db = context.pool.acquire().await?;
                let audience = rows::count_audience(&mut db, mailing.filter(), up_to).await?;
                rows::write_audience_estimate(&mut db, mailing.mailing_no, audience).await
            };
            if let Err(error) = count.await {
                tracing::warn!(mailing.id = %mailing.id, %error, "the audience could not be counted");
            }
        });
    }

    /// Plans one page. Returns how many clients it had.
    fn page(&mut self, mailing: &MailingRow, clients: u64, now: DateTime<Utc>) -> Result<u64, Trouble> {
        let context = Arc::clone(&self.context);
        let progress = self.progress.get(&mailing.id).context("a page needs progress")?.clone();
        let extent = Extent { clients, span: self.spans.get(&mailing.id).copied().unwrap_or(FIRST_SPAN) };
        let page = context.runtime.block_on(async {
            let mut db = context.db().await?;
            Ok::<_, Trouble>(page::read(&mut db, &context.kafka.topics, mailing, &progress, extent, now).await?)
        })?;
        runtime::crash_point!("plan::read");
        self.spans.insert(mailing.id, page.span);
        let (planned, moved) = (page.messages.len() as u64, page.progress.clone());
        let messages = context.kafka.topics.name(Topic::MessageEvents);
        let progress_topic = context.kafka.topics.name(Topic::PlanningProgress);
        let record = page::progress_record(&progress_topic, self.shard, &moved).map_err(anyhow::Error::from)?;
        self.producer.publish(page.into_records(&messages, record))?;
        runtime::crash_point!("plan::committed");
        if progress.planned == 0 && planned > 0 {
            let lag = Utc::now() - mailing.starts_at;
            context.metrics.schedule_lag.observe(lag.as_seconds_f64().max(0.0));
        }
        context.metrics.planned.inc_by(planned);
        self.progress.insert(mailing.id, moved);
        Ok(planned)
    }

    /// Shows how far the mailing is, at most every 100 ms, and at once when it is complete.
    fn mirror(&mut self, live: &LiveMailingRow, wait: Option<Wait>) -> Result<(), Trouble> {
        let mailing = &live.row;
        let Some(progress) = self.progress.get(&mailing.id) else { return Ok(()) };
        let mirror = Mirror {
            planned: progress.planned,
            emitted: progress.emitted,
            again: progress.again,
            complete: progress.complete,
            waiting_for: wait,
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
        if first && !live.counted {
            self.count_audience(mailing);
        }
        Ok(())
    }

    /// Finishes the mailing and its mirror in one transaction: a reader that sees it finished sees all of it planned.
    fn finish(&mut self, mailing: &MailingRow, now: DateTime<Utc>) -> Result<(), Trouble> {
        let Some(progress) = self.progress.get(&mailing.id) else { return Ok(()) };
        let (planned, emitted, again) = (progress.planned, progress.emitted, progress.again);
        let mirror = Mirror { planned, emitted, again, complete: true, waiting_for: None };
        let context = &self.context;
        let finished = context.runtime.block_on(async {
            let mut db = context.db().await?;
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
        self.handle.forget(mailing.id);
        Ok(())
    }

    fn write<T>(&self, work: impl AsyncFnOnce(&mut sqlx::PgConnection) -> sqlx::Result<T>) -> Result<T, Trouble> {
        let context = &self.context;
        context.runtime.block_on(async {
            let mut db = context.db().await?;
            Ok(work(&mut db).await?)
        })
    }
}
