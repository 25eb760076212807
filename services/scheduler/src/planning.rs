//! Takes the steps that `domain::planning` decides, for the mailings of one shard.

mod steps;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use domain::ids::{MailingNo, Shard};
use domain::mailing::State;
use domain::planning::{Again, PassPlan, PlanningFacts, Progress, Step, Wait, again, next_step};
use events::ProgressRecord;
use kafka::TransactionalProducer;
use store::mailings::MailingRow;
use store::planning::{self as rows, LiveMailingRow, Mirror};
use uuid::Uuid;

use crate::context::SchedulerContext;
use crate::conveyor::Room;
use crate::drain::Drain;
use crate::handle::ShardHandle;
use crate::trouble::{BackOff, Trouble};

/// How soon a mailing that is being planned or waits for its statuses is looked at again.
const BUSY: Duration = Duration::from_millis(50);
const PUBLISHING: Duration = Duration::from_millis(10);
/// How soon a shard in which nothing happens is looked at again.
pub(crate) const IDLE: Duration = Duration::from_secs(1);

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
    /// The back-off of each mailing that Postgres refuses something.
    back_offs: HashMap<Uuid, BackOff>,
    /// What the pass under way has taken so far.
    passes: HashMap<Uuid, PassPlan>,
    /// Mailings whose last step was a page.
    paged: HashSet<Uuid>,
    /// The conveyor had no room for a mailing in this sweep. Whoever comes later in it isn't to get what comes free meanwhile.
    full: bool,
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
            back_offs: HashMap::new(),
            passes: HashMap::new(),
            paged: HashSet::new(),
            full: false,
            last_paged: MailingNo::default(),
            confirmed,
        }
    }

    /// Gives each live mailing its turn. Returns how long to wait before the next sweep.
    pub(crate) fn sweep(&mut self) -> Result<Duration, Trouble> {
        let context = Arc::clone(&self.context);
        self.producer.check()?;
        let (shard, now) = (self.shard, Utc::now());
        let horizon = now + 2 * IDLE;
        let mut live = context.runtime.block_on(async {
            let mut db = context.db().await?;
            Ok::<_, Trouble>(rows::live_mailings(&mut db, Shard::from(shard), horizon).await?)
        })?;
        // A page may take all the room there is.
        let behind = live.partition_point(|mailing| mailing.row.mailing_no <= self.last_paged);
        live.rotate_left(behind);
        self.full = false;
        let mut pause = IDLE;
        for mailing in &live {
            if self.handle.stop.is_cancelled() {
                break;
            }
            pause = pause.min(self.guarded_turn(mailing)?);
        }
        self.back_offs.retain(|id, _| live.iter().any(|mailing| mailing.row.id == *id));
        self.confirmed = false;
        context.conveyor.refresh(IDLE);
        Ok(pause)
    }

    /// Gives the mailing its turn, unless it backs off. Trouble of its own ends the turn and not the sweep.
    fn guarded_turn(&mut self, live: &LiveMailingRow) -> Result<Duration, Trouble> {
        let id = live.row.id;
        if let Some(left) = self.back_offs.get(&id).and_then(BackOff::left) {
            return Ok(left.min(IDLE));
        }
        let began = Instant::now();
        match self.turn(live) {
            Err(Trouble::Mailing(error)) => {
                tracing::warn!(mailing.id = %id, %error, "a mailing waits for Postgres");
                let back_off = BackOff::after(self.back_offs.get(&id), began.elapsed());
                let pause = back_off.left().unwrap_or_default().min(IDLE);
                self.back_offs.insert(id, back_off);
                match self.mirror(live, Some(Wait::Database)) {
                    // It is only shown, and what is locked may be this.
                    Err(Trouble::Mailing(_)) | Ok(()) => Ok(pause),
                    Err(trouble) => Err(trouble),
                }
            }
            done => {
                if done.is_ok() {
                    self.back_offs.remove(&id);
                }
                done
            }
        }
    }

    /// Does the mailing's next step. Returns how soon it is to be looked at again.
    fn turn(&mut self, live: &LiveMailingRow) -> Result<Duration, Trouble> {
        let context = Arc::clone(&self.context);
        let mailing = &live.row;
        let now = Utc::now();
        let facts = self.facts(live);
        let progress = self.progress.get(&mailing.id).map(ProgressRecord::progress);
        let wants_room = !self.full && wants_room(&facts, progress.as_ref(), now);
        let room = if wants_room { context.conveyor.room()? } else { None };
        self.full |= wants_room && room.is_none();
        let clients = room.as_ref().map(|room| room.clients);
        let step = next_step(&facts, progress.as_ref(), clients, now);
        if step != Step::Wait(Wait::Statuses) {
            self.drains.remove(&mailing.id);
        }
        match step {
            Step::Start => {
                self.start(mailing, now)?;
                Ok(Duration::ZERO)
            }
            Step::Page(clients) => {
                let planned = self.page(mailing, clients, None, now)?;
                self.paged(live, room, planned, true)
            }
            Step::SettlePage(clients) => {
                let end = match again(&facts.state, facts.ends_at, false, now) {
                    Again::Settle(status, reason) => Some((status, reason)),
                    Again::Plan => None,
                };
                let planned = self.page(mailing, clients, end.as_ref(), now)?;
                self.paged(live, room, planned, true)
            }
            Step::BeginPass(clients) | Step::Pass(clients) => {
                let planned = self.pass(mailing, &facts, clients, now)?;
                self.paged(live, room, planned, false)
            }
            Step::Wait(wait) => {
                if wait == Wait::Statuses {
                    let drain = self.drains.entry(mailing.id).or_insert_with(Drain::new);
                    drain.look(&context.conveyor.view, &context.pool, &context.runtime);
                }
                self.mirror(live, Some(wait.clone()))?;
                Ok(pause_of(&wait, &facts, progress.as_ref(), now))
            }
            Step::Finish => {
                self.must_know(mailing, progress.is_some())?;
                self.finish(mailing, now)?;
                Ok(IDLE)
            }
            Step::ProgressLost => {
                self.must_know(mailing, false)?;
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

    /// What planning decides by, as the row was read at the sweep's beginning.
    fn facts(&self, live: &LiveMailingRow) -> PlanningFacts {
        let mailing = &live.row;
        PlanningFacts {
            state: mailing.state.clone(),
            starts_at: mailing.starts_at,
            ends_at: mailing.ends_at,
            published: self.is_published(live),
            // Proved in an earlier sweep: the row, with its settled rounds, was read since.
            drained: self.drains.get(&mailing.id).is_some_and(Drain::is_over),
            settled: live.settled,
            settled_again: live.settled_again,
            due_at: live.due_at,
            paged: self.paged.contains(&mailing.id),
        }
    }

    /// A page or a part of a pass is committed: the next turn is another mailing's, and then the other kind's.
    fn paged(
        &mut self,
        live: &LiveMailingRow,
        room: Option<Room<'_>>,
        planned: u64,
        page: bool,
    ) -> Result<Duration, Trouble> {
        if let Some(room) = room {
            room.used(planned);
        }
        self.last_paged = live.row.mailing_no;
        if page {
            self.paged.insert(live.row.id);
        } else {
            self.paged.remove(&live.row.id);
        }
        self.mirror(live, None)?;
        Ok(Duration::ZERO)
    }

    /// A process that was stopped for long sees mailings that the shard's new owner has started. What it doesn't know of
    /// them proves nothing.
    fn must_know(&self, mailing: &MailingRow, known: bool) -> Result<(), Trouble> {
        if known || self.confirmed {
            return Ok(());
        }
        Err(Trouble::Other(anyhow::anyhow!("mailing {} runs without a progress that was read here", mailing.id)))
    }

    fn is_published(&self, live: &LiveMailingRow) -> bool {
        !live.in_outbox || self.handle.has_published(live.row.id, live.row.version)
    }
}

/// Whether the next step may be one that the conveyor must have room for.
fn wants_room(facts: &PlanningFacts, progress: Option<&Progress>, now: DateTime<Utc>) -> bool {
    let due = facts.due_at.is_some_and(|due_at| due_at <= now);
    let passing = |progress: &Progress| progress.pass.is_some_and(|pass| !pass.done);
    facts.state == State::Running && progress.is_some_and(|progress| !progress.complete || due || passing(progress))
}

fn pause_of(wait: &Wait, facts: &PlanningFacts, progress: Option<&Progress>, now: DateTime<Utc>) -> Duration {
    let until = |at: DateTime<Utc>| (at - now).to_std().unwrap_or_default().min(IDLE);
    match wait {
        Wait::Start => until(facts.starts_at),
        Wait::Publishing => PUBLISHING,
        // It waits for what is held to be due.
        Wait::Senders if progress.is_some_and(|progress| progress.complete) => {
            until(facts.due_at.unwrap_or(now)).max(BUSY)
        }
        _ => BUSY,
    }
}
