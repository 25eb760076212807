//! `herald recover`: after Postgres was restored to an older state, or another one stands in for it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use chrono::{DateTime, Utc};
use domain::ids::{ClientNo, MailingNo, Version};
use domain::mailing::State;
use domain::mark::{DatabaseMark, Mismatch, check, recovered_state};
use events::topics::Topic;
use events::{DatabaseRecord, Event, MailingEvent, ProgressRecord, decode};
use kafka::{Cluster, Isolation, TableReader, TransactionalProducer, high_watermarks};
use sqlx::{Connection, PgConnection, PgPool};
use store::mailings::{self, MailingRow};
use store::{mark, outbox, recovery};
use uuid::Uuid;

use crate::producer::INIT_TIMEOUT;

/// How long a relay that doesn't know of the restore yet may hold the lock.
const LOCK: Duration = Duration::from_secs(20);
const LOCK_POLL: Duration = Duration::from_millis(50);
/// For reading a topic whole.
const READ: Duration = Duration::from_secs(600);
const ENDS: Duration = Duration::from_secs(10);

/// What was wrong with Postgres, and what was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// How it differed from what Kafka says.
    pub mismatch: Mismatch,
    /// Mailings that had no row.
    pub back: usize,
    /// Mailings whose row was older than their event.
    pub renewed: usize,
    /// Mailings whose row was there, though they were withdrawn.
    pub withdrawn: usize,
    /// Live mailings, published with a new version.
    pub announced: usize,
    /// Mailing numbers go on above this one.
    pub mailing_no: MailingNo,
    /// Client numbers go on above this one.
    pub client_no: ClientNo,
}

/// Brings a Postgres that is older than Kafka, or another one, up to what Kafka says. None: it is neither, and nothing was
/// changed. Services may run meanwhile.
pub async fn recover(kafka: &Cluster, pool: &PgPool) -> anyhow::Result<Option<Recovered>> {
    let mut db = pool.acquire().await.context("connect to Postgres (DATABASE_URL)")?.detach();
    let client = kafka.clone();
    let recorded = blocking(move || Ok(kafka::recorded_mark(&client)?)).await?;
    let found = mark::read(&mut db).await?;
    let mismatch = match check(recorded.as_ref(), &found) {
        Err(Mismatch::Unknown) => {
            let client = kafka.clone();
            let log = blocking(move || Log::read(&client)).await?;
            (log.mailing_no > found.mailing_no).then_some(Mismatch::Older)
        }
        checked => checked.err(),
    };
    let Some(mismatch) = mismatch else { return Ok(None) };
    tracing::info!(%mismatch, "recovering");

    // From here on no relay publishes, and what planners remember of the mailings they planned is worth nothing: each begins
    // again by reading the progress. The log is read behind that, when nobody can write to it any more.
    lead(&mut db).await?;
    let client = kafka.clone();
    let (relay, log) = blocking(move || Ok((fence(&client)?, Log::read(&client)?))).await?;
    runtime::crash_point!("recover::fenced");
    let (recovered, mark) = restore(&mut db, log, mismatch, recorded, kafka.topics.shards()).await?;
    runtime::crash_point!("recover::restored");
    let client = kafka.clone();
    blocking(move || {
        let topic = client.topics.name(Topic::Database);
        Ok(relay.publish([kafka::database_record(&topic, "relay", &DatabaseRecord::of(mark, Utc::now()))?])?)
    })
    .await?;
    Ok(Some(recovered))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

async fn lead(db: &mut PgConnection) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !outbox::try_lead(db).await? {
        ensure!(begun.elapsed() < LOCK, "a relay, or another `herald recover`, is at work in this Postgres");
        tokio::time::sleep(LOCK_POLL).await;
    }
    Ok(())
}

/// Fences all relays and planners, and returns the relay's producer.
fn fence(kafka: &Cluster) -> anyhow::Result<TransactionalProducer> {
    for shard in 0..kafka.topics.shards().cast_signed() {
        TransactionalProducer::planner(kafka, shard)?.init(INIT_TIMEOUT).context("fence the planners")?;
    }
    let relay = TransactionalProducer::relay(kafka)?;
    relay.init(INIT_TIMEOUT).context("fence the relays")?;
    Ok(relay)
}

/// What the topics say.
struct Log {
    /// The newest event of each mailing.
    mailings: HashMap<Uuid, MailingEvent>,
    progress: HashMap<Uuid, ProgressRecord>,
    /// The highest mailing number in any topic: a message's mailing is in mailing-events.
    mailing_no: MailingNo,
    /// The highest client number in any topic: a message's client is in the audience that its mailing's progress bounds.
    client_no: ClientNo,
}

impl Log {
    fn read(kafka: &Cluster) -> anyhow::Result<Self> {
        let mut log = Self {
            mailings: HashMap::new(),
            progress: HashMap::new(),
            mailing_no: MailingNo::default(),
            client_no: ClientNo::default(),
        };
        each(kafka, Topic::MailingEvents, |event| log.take(event))?;
        each(kafka, Topic::PlanningProgress, |progress: ProgressRecord| {
            log.mailing_no = log.mailing_no.max(progress.mailing_no);
            log.client_no = log.client_no.max(progress.audience_max);
            log.progress.insert(progress.mailing_id, progress);
        })?;
        Ok(log)
    }

    fn take(&mut self, event: MailingEvent) {
        self.mailing_no = self.mailing_no.max(event.mailing_no);
        if self.mailings.get(&event.mailing_id).is_none_or(|known| known.version < event.version) {
            self.mailings.insert(event.mailing_id, event);
        }
    }
}

/// Reads a topic whole, also what a transaction has only just committed. What can't be decoded its readers dead-letter.
fn each<E: Event>(kafka: &Cluster, topic: Topic, mut take: impl FnMut(E)) -> anyhow::Result<()> {
    let partitions: Vec<i32> = (0..kafka.topics.partitions(topic).cast_signed()).collect();
    let name = kafka.topics.name(topic);
    let ends = high_watermarks(kafka, &name, &partitions, ENDS)?;
    let table = TableReader::from_start(kafka, &name, &partitions, Isolation::Committed)?;
    table
        .read_to(&ends, READ, |record| {
            if let Ok(event) = decode::<E>(record.payload.as_deref()) {
                take(event);
            }
        })
        .with_context(|| format!("read {name}"))
}

/// Brings Postgres up to what the topics say, in one transaction, and tells of it.
async fn restore(
    db: &mut PgConnection,
    mut log: Log,
    mismatch: Mismatch,
    recorded: Option<DatabaseMark>,
    shards: u32,
) -> anyhow::Result<(Recovered, DatabaseMark)> {
    let now = Utc::now();
    let mut tx = db.begin().await?;
    recovery::lock(&mut tx).await?;
    // An event that Kafka doesn't have is news; all others would come behind newer ones.
    let mut unpublished = Vec::new();
    for payload in recovery::empty_outbox(&mut tx).await? {
        let event: MailingEvent = decode(Some(payload.as_bytes())).context("read the outbox")?;
        if log.mailings.get(&event.mailing_id).is_none_or(|known| known.version < event.version) {
            unpublished.push(event.mailing_id);
        }
        log.take(event);
    }

    let rows = recovery::mailings(&mut tx).await?;
    let rows: HashMap<Uuid, _> = rows.into_iter().map(|row| (row.id, row)).collect();
    let (mut back, mut renewed, mut withdrawn) = (0, 0, 0);
    for event in log.mailings.values() {
        let row = rows.get(&event.mailing_id);
        if row.is_some_and(|row| row.version >= event.version) {
            continue;
        }
        let state = recovered_state(row.map(|row| row.state.clone()), event.state.clone());
        // Withdrawn before its start: such a mailing has no row.
        if state == State::Cancelled && !log.progress.contains_key(&event.mailing_id) {
            if row.is_some() {
                mailings::delete(&mut tx, event.mailing_no).await?;
                withdrawn += 1;
            }
            continue;
        }
        write(&mut tx, event, state, shards).await?;
        if row.is_some() { renewed += 1 } else { back += 1 }
    }

    let announced = announce(&mut tx, &log, &unpublished, shards, now).await?;
    let (mailing_no, client_no) = recovery::raise_numbers(&mut tx, log.mailing_no, log.client_no).await?;
    recovery::raise_mark(&mut tx, recorded.map_or(0, |recorded| recorded.mark)).await?;
    let mark = mark::next(&mut tx).await?;
    tx.commit().await?;
    Ok((Recovered { mismatch, back, renewed, withdrawn, announced, mailing_no, client_no }, mark))
}

async fn write(db: &mut PgConnection, event: &MailingEvent, state: State, shards: u32) -> anyhow::Result<()> {
    // A UUIDv7 tells when it was drawn, to the millisecond.
    let created_at = event.mailing_id.get_timestamp().and_then(|time| {
        let (seconds, nanos) = time.to_unix();
        DateTime::from_timestamp(seconds.cast_signed(), nanos)
    });
    let row = MailingRow {
        mailing_no: event.mailing_no,
        id: event.mailing_id,
        shard: event.mailing_no.shard(shards),
        version: event.version,
        text: event.text.clone(),
        operator_codes: event.filter.mobile_operator_codes.clone(),
        tags: event.filter.tags.clone(),
        starts_at: event.starts_at,
        ends_at: event.ends_at,
        state,
        state_reason: None,
        delivery: event.delivery.clone(),
        created_at: created_at.unwrap_or(event.occurred_at),
        updated_at: event.occurred_at,
        started_at: None,
        finished_at: None,
    };
    if !recovery::write_mailing(db, &row).await? {
        bail!(
            "number {} is another mailing's in Postgres than {}: nothing was changed",
            event.mailing_no,
            event.mailing_id
        );
    }
    Ok(())
}

/// Gives each live mailing a version above all that were published, so that whatever anybody still holds of it is older. A
/// withdrawal that was not published is told again.
async fn announce(
    db: &mut PgConnection,
    log: &Log,
    unpublished: &[Uuid],
    shards: u32,
    now: DateTime<Utc>,
) -> anyhow::Result<usize> {
    let mut announced = 0;
    for mut row in recovery::mailings(db).await? {
        if matches!(row.state, State::Scheduled | State::Running | State::Paused) {
            let known = log.mailings.get(&row.id);
            let above = known.map_or(Version::default(), |event| event.version);
            row.version = recovery::renew_version(db, row.mailing_no, above).await?;
            let state = known.map_or(State::Scheduled, |event| event.state.clone());
            outbox::append(db, row.mailing_no.shard(shards), &row.event(state, now)).await?;
            announced += 1;
        }
    }
    for event in unpublished.iter().filter_map(|id| log.mailings.get(id)) {
        if event.state == State::Cancelled {
            outbox::append(db, event.mailing_no.shard(shards), event).await?;
        }
    }
    Ok(announced)
}
