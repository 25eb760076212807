//! `herald replan`: plans again what Kafka has lost of a mailing, and nothing else.
//!
//! It runs while schedulers and senders are stopped, so that nothing is on the wire and nobody fences it for long. It writes in
//! the place of the shard's planner, and the mailing stays paused until its progress is written: killed at any moment it
//! leaves records and statuses that its next run finds.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use chrono::Utc;
use domain::ids::{ClientNo, MessageId};
use domain::mailing::State;
use domain::replan::{Fate, Remains, Shown};
use domain::status::{Reason, Status};
use events::topics::Topic;
use events::{Kind, MessageEvent, ProgressRecord, Source, StatusEvent, encode};
use futures::future::try_join_all;
use kafka::{Cluster, GroupView, Outgoing, Producer, TransactionalProducer};
use sqlx::PgPool;
use store::mailings::{self, MailingRow};
use store::planning::{self, ClientRange, Mirror, PageClient};
use store::{outbox, projection, replan as rows};
use uuid::Uuid;

use super::remains::{InDoubt, MailingLog};
use crate::producer::INIT_TIMEOUT;
use crate::{drain, page, progress, records};

const TIMEOUT: Duration = Duration::from_secs(10);
/// A member that was killed is in its group until its session is over: 12 s.
const QUIET: Duration = Duration::from_secs(20);
/// How long the projector may write nothing while there is something to write.
const STANDSTILL: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// Client numbers looked at in one step.
const BLOCK: i64 = 20_000;
const MAX_MESSAGES: usize = 5_000;

/// What was found of a mailing, in clients, and done about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replanned {
    /// Something came of these.
    pub settled: i64,
    /// The senders have these before them.
    pub on_conveyor: i64,
    /// These may have been sent: they become `unknown`.
    pub in_doubt: i64,
    /// Planned again.
    pub again: i64,
    /// Lost, and their clients erased since: they become `failed (invalid)`.
    pub erased: i64,
    /// The progress record was gone.
    pub progress_lost: bool,
    /// The mailing runs again; it doesn't if it was its caller who had paused it.
    pub resumed: bool,
}

/// Plans again those clients of the mailing of whom nothing is left, restores its progress, and sets it running again.
///
/// # Errors
/// Schedulers or senders run; the projector doesn't write; the mailing isn't running or paused; status-events was made anew, and
/// what was sent can't be known. Nothing is sent in any of these cases.
pub async fn replan(kafka: &Cluster, pool: &PgPool, id: Uuid) -> anyhow::Result<Replanned> {
    let row = mailings::get(&mut *pool.acquire().await?, id).await?.context("there is no mailing with this id")?.row;
    ensure!(
        matches!(row.state, State::Running | State::Paused),
        "the mailing is {}: there is nothing to plan again",
        row.state
    );
    quiet(kafka, "scheduler", Topic::MailingEvents).await?;
    quiet(kafka, "sender", Topic::MessageEvents).await?;
    // A person's pause has no reason, and is theirs to end.
    let resumes = row.state == State::Running || row.state_reason.is_some();
    if row.state == State::Running {
        let reason = "`herald replan` is at work; if it has ended, run it again";
        let paused = planning::set_paused(&mut *pool.acquire().await?, row.mailing_no, row.version, reason).await?;
        ensure!(paused, "the mailing has changed meanwhile: run this again");
    }
    written_up(kafka, pool).await?;

    let producer = TransactionalProducer::planner(kafka, row.shard.get())?;
    let (progress, log) = tokio::task::block_in_place(|| {
        producer.init(INIT_TIMEOUT).context("fence older planners")?;
        // The scheduler dead-letters what can't be decoded.
        let progress = progress::read(kafka, row.shard.get(), |_, _| {}).context("read planning-progress")?.remove(&id);
        anyhow::Ok((progress, MailingLog::read(kafka, &row).context("read what is left")?))
    })?;
    let mut work = Work {
        kafka,
        producer,
        statuses: Producer::new(kafka, Producer::BRIEF)?,
        row: &row,
        log,
        in_doubt: Vec::new(),
        done: Replanned { progress_lost: progress.is_none(), ..Replanned::default() },
        planned: 0,
        emitted: 0,
    };
    let progress = work.run(pool, progress).await.context(
        "not all could be planned again; the mailing stays paused. If a scheduler has started, stop it; run this again",
    )?;
    if resumes {
        work.done.resumed = resume(pool, &row, &progress).await?;
    }
    Ok(work.done)
}

/// Waits until a service's group has no members: then none of them will call, plan or commit by what it knew before.
async fn quiet(kafka: &Cluster, service: &str, topic: Topic) -> anyhow::Result<()> {
    let group = GroupView::new(kafka, &kafka.topics.group(service), topic)?;
    let begun = Instant::now();
    loop {
        let members = tokio::task::block_in_place(|| group.members(TIMEOUT))?;
        if members == 0 {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < QUIET,
            "{members} {service}s are running: stop all schedulers and senders first (`herald all` too), leave a projector \
             running, and run this again"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until Postgres holds every status there is, so that whatever was sent has a row.
async fn written_up(kafka: &Cluster, pool: &PgPool) -> anyhow::Result<()> {
    let senders = GroupView::new(kafka, &kafka.topics.group("sender"), Topic::MessageEvents)?;
    let (ends, commits) = tokio::task::block_in_place(|| {
        anyhow::Ok((senders.ends_of(Topic::StatusEvents, TIMEOUT)?, senders.partitions(TIMEOUT)?))
    })?;
    let partitions: Vec<i32> = (0..).take(ends.len()).collect();
    let (mut moved, mut before) = (Instant::now(), BTreeMap::new());
    loop {
        let written = projection::offsets(&mut *pool.acquire().await?, &partitions).await?;
        for (&partition, end) in partitions.iter().zip(&ends) {
            let commit = commits.get(partition as usize).and_then(kafka::CommittedPartition::checkpoint);
            let known = written.get(&partition).copied().max(commit.map(|(_, metadata)| metadata.bookmark.0));
            if known.is_some_and(|known| known > *end) {
                bail!(
                    "status-events/{partition} ends at {end}, and was known up to {}: it was made anew or cut off. What was sent \
                     can't be known, so nothing is planned again",
                    known.unwrap_or_default()
                );
            }
        }
        if drain::holds(&written, &ends, &ends) {
            return Ok(());
        }
        if written != before {
            (moved, before) = (Instant::now(), written);
        }
        ensure!(
            moved.elapsed() < STANDSTILL,
            "status-events isn't written to Postgres yet, and nothing moves: start a projector (`herald projector`) and run \
             this again"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// Progress, mirror and state are as the scheduler would have left them; its mailing event is published again, for a sender's
/// board that has lost it.
async fn resume(pool: &PgPool, row: &MailingRow, progress: &ProgressRecord) -> anyhow::Result<bool> {
    let mirror = Mirror {
        planned: progress.planned,
        emitted: progress.emitted,
        again: progress.again,
        complete: progress.complete,
        waiting_for: None,
    };
    let mut tx = pool.begin().await?;
    rows::replace_mirror(&mut tx, row.mailing_no, &mirror).await?;
    let resumed = rows::set_running_again(&mut tx, row.mailing_no, row.version).await?;
    ensure!(resumed, "the mailing has changed meanwhile: run this again");
    outbox::append(&mut tx, row.shard, &row.event(State::Scheduled, row.updated_at)).await?;
    tx.commit().await?;
    Ok(resumed)
}

/// A message that is planned again.
struct Again {
    client: PageClient,
    round: i32,
    /// Calls made before.
    attempts: i32,
}

/// One run, once all is read.
struct Work<'a> {
    kafka: &'a Cluster,
    producer: TransactionalProducer,
    statuses: Producer,
    row: &'a MailingRow,
    log: MailingLog,
    in_doubt: Vec<InDoubt>,
    done: Replanned,
    planned: i64,
    emitted: i64,
}

impl Work<'_> {
    /// Walks the clients up to the cursor, and writes the progress last.
    async fn run(&mut self, pool: &PgPool, before: Option<ProgressRecord>) -> anyhow::Result<ProgressRecord> {
        let row = self.row;
        let mut db = pool.acquire().await?;
        let highest = self.log.highest().max(rows::highest_row(&mut db, row.mailing_no).await?);
        let (cursor, audience_max) = match &before {
            Some(progress) => (progress.cursor.max(highest), progress.audience_max),
            None => {
                let started_at = row.started_at.context("the mailing has never started")?;
                (highest, rows::highest_client_no_at(&mut db, started_at).await?.max(highest))
            }
        };
        let mut after = ClientNo::default();
        while after < cursor {
            let up_to = ClientNo::from(after.get() + BLOCK).min(cursor);
            self.block(&mut db, ClientRange { after, up_to }).await?;
            after = up_to;
        }
        tokio::task::block_in_place(|| self.settle_in_doubt())?;
        let progress = ProgressRecord {
            mailing_id: row.id,
            mailing_no: row.mailing_no,
            audience_max,
            cursor,
            complete: cursor >= audience_max,
            planned: self.planned,
            emitted: self.emitted,
            again: self.emitted - self.planned,
            pass: before.and_then(|progress| progress.pass),
        };
        let topic = self.kafka.topics.name(Topic::PlanningProgress);
        let record = records::progress_record(&topic, row.shard.get(), &progress)?;
        tokio::task::block_in_place(|| self.producer.publish([record]))?;
        Ok(progress)
    }

    /// Looks at each client of a range of numbers, and does what is to be done.
    async fn block(&mut self, db: &mut sqlx::PgConnection, range: ClientRange) -> anyhow::Result<()> {
        let audience = planning::page_clients(db, self.row.filter(), range, i64::MAX).await?;
        let shown = rows::rows(db, self.row.mailing_no, range).await?;
        let mut clients: BTreeMap<ClientNo, Remains> = self.log.remains(range);
        for row in &shown {
            clients.entry(row.client_no).or_default().shown =
                Some(Shown { round: row.round, settled_round: row.settled_round });
        }
        for client in &audience {
            clients.entry(client.client_no).or_default();
        }

        let mut lost = Vec::new();
        for (client_no, remains) in clients {
            let round = remains.round();
            self.planned += 1;
            self.emitted += i64::from(round);
            match remains.fate() {
                Fate::Settled => self.done.settled += 1,
                Fate::OnConveyor => self.done.on_conveyor += 1,
                Fate::InDoubt => self.in_doubt.push(InDoubt { client_no, round }),
                Fate::Lost => lost.push((client_no, round)),
            }
        }
        let row_of = |client_no: ClientNo| {
            let at = shown.binary_search_by_key(&client_no, |row| row.client_no).ok()?;
            shown.get(at)
        };

        let mut found: HashMap<ClientNo, PageClient> =
            audience.into_iter().map(|client| (client.client_no, client)).collect();
        let elsewhere: Vec<ClientNo> =
            lost.iter().map(|(client_no, _)| *client_no).filter(|client_no| !found.contains_key(client_no)).collect();
        if !elsewhere.is_empty() {
            let clients = rows::clients(db, &elsewhere).await?;
            found.extend(clients.into_iter().map(|client| (client.client_no, client)));
        }
        let (mut again, mut statuses) = (Vec::new(), Vec::new());
        for (client_no, round) in lost {
            let row = row_of(client_no);
            match found.remove(&client_no) {
                Some(client) => again.push(Again { client, round, attempts: row.map_or(0, |row| row.attempts) }),
                None => {
                    let row = row.context("a client who is erased has a row")?;
                    statuses.push(self.erased(row, round)?);
                    self.done.erased += 1;
                }
            }
        }
        self.tell(statuses).await?;
        self.plan_again(&again)
    }

    /// Settles what may have been sent, in portions: however much it is, it doesn't lie in memory. Blocks.
    fn settle_in_doubt(&mut self) -> anyhow::Result<()> {
        let in_doubt = std::mem::take(&mut self.in_doubt);
        self.done.in_doubt += in_doubt.len() as i64;
        let runtime = tokio::runtime::Handle::current();
        let mut portion = Vec::new();
        let this = &*self;
        this.log.unknown(this.kafka, this.row, &in_doubt, |event| {
            portion.push(event);
            if portion.len() < MAX_MESSAGES {
                return Ok(());
            }
            runtime.block_on(this.tell(std::mem::take(&mut portion)))
        })?;
        runtime.block_on(this.tell(portion))
    }

    /// In transactions no larger than a page.
    fn plan_again(&mut self, clients: &[Again]) -> anyhow::Result<()> {
        let topic = self.kafka.topics.name(Topic::MessageEvents);
        let partitions = self.kafka.topics.partitions(Topic::MessageEvents);
        let (mut records, mut bytes) = (Vec::new(), 0);
        let now = Utc::now();
        for (index, Again { client, round, attempts }) in clients.iter().enumerate() {
            let event = MessageEvent { attempts: *attempts, ..page::message(self.row, client, *round, now)? };
            let payload = encode(&event)?;
            bytes += payload.len();
            records.push(Outgoing {
                topic: &topic,
                partition: client.client_no.partition(partitions),
                key: event.message_id.to_string(),
                payload,
            });
            if bytes >= records::MAX_BYTES || records.len() >= MAX_MESSAGES || index + 1 == clients.len() {
                let page = records.len() as i64;
                tokio::task::block_in_place(|| self.producer.publish(std::mem::take(&mut records)))?;
                runtime::crash_point!("replan::page");
                self.done.again += page;
                bytes = 0;
            }
        }
        Ok(())
    }

    /// As a sender settles a message without phone and text. Its record lies nowhere any more.
    fn erased(&self, row: &rows::ShownRow, round: i32) -> anyhow::Result<StatusEvent> {
        let partition = row.client_no.partition(self.kafka.topics.partitions(Topic::MessageEvents));
        Ok(StatusEvent {
            message_id: MessageId::new(self.row.mailing_no, row.client_no)?,
            mailing_id: self.row.id,
            client_id: row.client_id,
            round,
            attempt: 0,
            announced: 0,
            kind: Kind::Settled,
            status: Status::Failed,
            reason: Some(Reason::Invalid),
            code: None,
            latency_ms: None,
            not_before: None,
            operator_code: None,
            detail: None,
            planned_at: row.planned_at,
            occurred_at: Utc::now(),
            source: Source { partition, offset: -1 },
        })
    }

    async fn tell(&self, statuses: Vec<StatusEvent>) -> anyhow::Result<()> {
        let topic = self.kafka.topics.name(Topic::StatusEvents);
        let send = async |event: StatusEvent| {
            let outgoing = Outgoing {
                topic: &topic,
                partition: event.source.partition,
                key: event.message_id.to_string(),
                payload: encode(&event)?,
            };
            self.statuses.send(&outgoing).await.context("write a status")
        };
        try_join_all(statuses.into_iter().map(send)).await?;
        Ok(())
    }
}
