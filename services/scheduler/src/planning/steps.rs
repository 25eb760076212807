//! The steps, each of which writes to Kafka or Postgres.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, Utc};
use domain::ids::ClientNo;
use domain::planning::{PassPlan, PlanningFacts, Wait};
use events::topics::Topic;
use events::{DatabaseRecord, ProgressRecord};
use sqlx::Connection;
use store::mailings::MailingRow;
use store::planning::{self as rows, LiveMailingRow, Mirror};

use super::{IDLE, Planner};
use crate::page::{self, Extent};
use crate::pass::{self, Reading};
use crate::records::{self, Names, Records};
use crate::trouble::Trouble;

const MIRROR_INTERVAL: Duration = Duration::from_millis(100);
const FIRST_SPAN: i64 = 20_000;

impl Planner {
    /// Pauses the mailing until an operator looks at it.
    pub(super) fn pause(&mut self, mailing: &MailingRow, reason: &str) -> Result<Duration, Trouble> {
        tracing::error!(mailing.id = %mailing.id, reason, "a mailing is paused");
        self.write(async |db| rows::set_paused(db, mailing.mailing_no, mailing.version, reason).await)?;
        self.context.metrics.paused.inc();
        Ok(IDLE)
    }

    /// Commits the first progress record, and only then sets the mailing running. A progress that an earlier owner has
    /// moved is kept.
    pub(super) fn start(&mut self, mailing: &MailingRow, now: DateTime<Utc>) -> Result<(), Trouble> {
        if self.progress.get(&mailing.id).is_none_or(|progress| progress.cursor == ClientNo::default()) {
            // The mark is raised behind it: a state without one of these clients has a lower one.
            let (audience_max, mark) = self.context.runtime.block_on(async {
                let mut db = self.context.db().await?;
                let audience_max = rows::highest_client_no(&mut db).await?;
                Ok::<_, Trouble>((audience_max, store::mark::next(&mut db).await?))
            })?;
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
            let record = records::progress_record(&topic, self.shard, &progress).map_err(anyhow::Error::from)?;
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

    /// Plans one page, or gives its clients the status of `end`. Returns how many message events it had.
    pub(super) fn page(
        &mut self,
        mailing: &MailingRow,
        clients: u64,
        end: Option<&page::End>,
        now: DateTime<Utc>,
    ) -> Result<u64, Trouble> {
        let context = Arc::clone(&self.context);
        let progress = self.progress.get(&mailing.id).context("a page needs progress")?.clone();
        let extent = Extent { clients, span: self.spans.get(&mailing.id).copied().unwrap_or(FIRST_SPAN) };
        let topics = &context.kafka.topics;
        let page = context.runtime.block_on(async {
            let mut db = context.db().await?;
            Ok::<_, Trouble>(page::read(&mut db, topics, mailing, &progress, extent, end, now).await?)
        })?;
        runtime::crash_point!("plan::read");
        self.spans.insert(mailing.id, page.span);
        let planned = self.publish(page.records, page.progress)?;
        runtime::crash_point!("plan::committed");
        if progress.planned == 0 && planned > 0 {
            let lag = Utc::now() - mailing.starts_at;
            context.metrics.schedule_lag.observe(lag.as_seconds_f64().max(0.0));
        }
        Ok(planned)
    }

    /// Plans a part of the pass under way, or of one that begins. Returns how many message events it had.
    pub(super) fn pass(
        &mut self,
        mailing: &MailingRow,
        facts: &PlanningFacts,
        limit: u64,
        now: DateTime<Utc>,
    ) -> Result<u64, Trouble> {
        let context = Arc::clone(&self.context);
        let progress = self.progress.get(&mailing.id).context("a pass needs progress")?.clone();
        let pass = match &progress.pass {
            Some(pass) if !pass.done => pass.clone(),
            _ => {
                self.passes.remove(&mailing.id);
                pass::begin(&progress, now)
            }
        };
        let closed = context.conveyor.closed_lanes();
        let reading = Reading { topics: &context.kafka.topics, mailing, closed: &closed, limit, now };
        let new_plan = || PassPlan::new(facts, pass.due_before, closed.clone(), now);
        let plan = self.passes.entry(mailing.id).or_insert_with(new_plan);
        let page = context.runtime.block_on(async {
            let mut db = context.db().await?;
            Ok::<_, Trouble>(reading.read(&mut db, &progress, pass, plan).await?)
        })?;
        runtime::crash_point!("pass::read");
        let planned = self.publish(page.records, page.progress)?;
        runtime::crash_point!("pass::committed");
        Ok(planned)
    }

    /// Commits records and the progress that they make. Returns how many message events there were.
    fn publish(&mut self, records: Records, progress: ProgressRecord) -> Result<u64, Trouble> {
        let topics = &self.context.kafka.topics;
        let (planned, settled) = (records.planned(), records.settled());
        let names = Names::new(topics);
        let record = records::progress_record(&names.progress, self.shard, &progress).map_err(anyhow::Error::from)?;
        self.producer.publish(records.outgoing(topics, &names, record))?;
        self.context.metrics.planned.inc_by(planned);
        self.context.metrics.settled.inc_by(settled);
        self.progress.insert(progress.mailing_id, progress);
        Ok(planned)
    }

    /// Shows how far the mailing is, at most every 100 ms, and at once when it is complete.
    pub(super) fn mirror(&mut self, live: &LiveMailingRow, wait: Option<Wait>) -> Result<(), Trouble> {
        let mailing = &live.row;
        let progress = self.progress.get(&mailing.id);
        if progress.is_none() && wait != Some(Wait::Database) {
            return Ok(());
        }
        let mirror = Mirror {
            planned: progress.map_or(0, |progress| progress.planned),
            emitted: progress.map_or(0, |progress| progress.emitted),
            again: progress.map_or(0, |progress| progress.again),
            complete: progress.is_some_and(|progress| progress.complete),
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
        if first && progress.is_some() && !live.counted {
            self.count_audience(mailing);
        }
        Ok(())
    }

    /// Finishes the mailing and its mirror in one transaction: a reader that sees it finished sees all of it planned.
    pub(super) fn finish(&mut self, mailing: &MailingRow, now: DateTime<Utc>) -> Result<(), Trouble> {
        let progress = self.progress.get(&mailing.id);
        let count = |count: fn(&ProgressRecord) -> i64| progress.map_or(0, count);
        let planned = count(|progress| progress.planned);
        let mirror = Mirror {
            planned,
            emitted: count(|progress| progress.emitted),
            again: count(|progress| progress.again),
            complete: true,
            waiting_for: None,
        };
        let context = &self.context;
        let finished = context.runtime.block_on(async {
            let mut db = context.db().await?;
            let mut tx = db.begin().await?;
            rows::limit_lock_waits(&mut tx).await?;
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
        self.passes.remove(&mailing.id);
        self.paged.remove(&mailing.id);
        self.handle.forget(mailing.id);
        Ok(())
    }

    fn write<T>(&self, work: impl AsyncFnOnce(&mut sqlx::PgConnection) -> sqlx::Result<T>) -> Result<T, Trouble> {
        let context = &self.context;
        context.runtime.block_on(async {
            let mut db = context.db().await?;
            let mut tx = db.begin().await?;
            rows::limit_lock_waits(&mut tx).await?;
            let done = work(&mut tx).await?;
            tx.commit().await?;
            Ok(done)
        })
    }
}
