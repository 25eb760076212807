//! `herald recover`: after Postgres was restored to an older state, or another one stands in for it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use chrono::{DateTime, Utc};
use domain::database::{DatabaseMark, Doubt, check, recovered_state};
use domain::ids::partition;
use domain::mailing::State;
use events::topics::Topic;
use events::{DatabaseRecord, Event, MailingEvent, MailingFilter, ProgressRecord, decode, encode};
use kafka::{Cluster, Isolation, TableReader, TransactionalProducer, high_watermarks};
use sqlx::{Connection, PgConnection};
use store::mailings::{self, Identity, MailingValues};
use store::{database, outbox, recovery};
use uuid::Uuid;

use crate::cli;
use crate::services::check_topics;
use crate::verbs::kafka_client;

/// How long a relay that doesn't know of the restore yet may hold the lock.
const LOCK: Duration = Duration::from_secs(20);
const LOCK_POLL: Duration = Duration::from_millis(50);
const INIT: Duration = Duration::from_secs(30);
/// For reading a topic whole.
const READ: Duration = Duration::from_secs(600);
const ENDS: Duration = Duration::from_secs(10);

pub(crate) async fn recover(settings: cli::Recover) -> anyhow::Result<()> {
    let kafka = kafka_client(&settings.kafka, &settings.topics, "herald-recover")?;
    let pool = store::connect(settings.postgres.database_url.expose(), 1)?;
    let mut db = pool.acquire().await.context("connect to Postgres (DATABASE_URL)")?.detach();
    store::check_schema(&mut db).await?;
    check_topics(&kafka).await?;
    let client = kafka.clone();
    let recorded = blocking(move || Ok(kafka::recorded_mark(&client)?)).await?;
    let found = database::mark(&mut db).await?;
    let doubt = match check(recorded.as_ref(), &found) {
        Err(Doubt::Unknown) => {
            let client = kafka.clone();
            let log = blocking(move || Log::read(&client)).await?;
            (log.mailing_no > found.mailing_no).then_some(Doubt::Older)
        }
        checked => checked.err(),
    };
    let Some(doubt) = doubt else {
        println!("Postgres is the one that Herald last ran with, and no older than Kafka: nothing was changed");
        return Ok(());
    };
    println!("{}", doubt.to_string().trim_end_matches(": run `herald recover`"));

    // From here on no relay publishes, and what planners remember of the mailings they planned is worth nothing: each begins
    // again by reading the progress. The log is read behind that, when nobody can write to it any more.
    lead(&mut db).await?;
    let client = kafka.clone();
    let (relay, log) = blocking(move || Ok((fence(&client)?, Log::read(&client)?))).await?;
    runtime::crash_point!("recover::fenced");
    let mark = restore(&mut db, log, recorded, kafka.topics.shards()).await?;
    runtime::crash_point!("recover::restored");
    let client = kafka.clone();
    blocking(move || {
        let topic = client.topics.name(Topic::Database);
        Ok(relay.publish([kafka::database_record(&topic, "relay", &DatabaseRecord::of(mark, Utc::now()))?])?)
    })
    .await?;
    println!("recovered: services that run go on by themselves, and projectors write again what is missing");
    Ok(())
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
    let producer = |id: &str| {
        let producer = TransactionalProducer::new(kafka, id)?;
        producer.init(INIT)?;
        kafka::Result::Ok(producer)
    };
    for shard in 0..kafka.topics.shards() {
        producer(&kafka.topics.planner_id(shard.cast_signed())).context("fence the planners")?;
    }
    producer(&kafka.topics.relay_id()).context("fence the relays")
}

/// What the topics say.
struct Log {
    /// The newest event of each mailing.
    mailings: HashMap<Uuid, MailingEvent>,
    progress: HashMap<Uuid, ProgressRecord>,
    /// The highest mailing number in any topic: a message's mailing is in mailing-events.
    mailing_no: i64,
    /// The highest client number in any topic: a message's client is in the audience that its mailing's progress bounds.
    client_no: i64,
}

impl Log {
    fn read(kafka: &Cluster) -> anyhow::Result<Self> {
        let mut log = Self { mailings: HashMap::new(), progress: HashMap::new(), mailing_no: 0, client_no: 0 };
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
    recorded: Option<DatabaseMark>,
    shards: u32,
) -> anyhow::Result<DatabaseMark> {
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
        let state = recovered_state(row.map(|row| State::from(row.state.clone())), event.state.clone());
        // Withdrawn before its start: such a mailing has no row.
        if state == State::Cancelled && !log.progress.contains_key(&event.mailing_id) {
            if row.is_some() {
                mailings::delete(&mut tx, event.mailing_no).await?;
                withdrawn += 1;
            }
            continue;
        }
        write(&mut tx, event, state, partition(event.mailing_no, shards)).await?;
        if row.is_some() { renewed += 1 } else { back += 1 }
    }

    let announced = announce(&mut tx, &log, &unpublished, shards, now).await?;
    let (mailing_no, client_no) = recovery::raise_numbers(&mut tx, log.mailing_no, log.client_no).await?;
    recovery::raise_mark(&mut tx, recorded.map_or(0, |recorded| recorded.mark)).await?;
    let mark = database::next_mark(&mut tx).await?;
    tx.commit().await?;
    println!("mailings: {back} brought back, {renewed} brought up to date, {withdrawn} withdrawn");
    println!("numbers go on above {mailing_no} for mailings, above {client_no} for clients");
    println!("live mailings with a new version: {announced}");
    Ok(mark)
}

async fn write(db: &mut PgConnection, event: &MailingEvent, state: State, shard: i32) -> anyhow::Result<()> {
    let identity = Identity { mailing_no: event.mailing_no, id: event.mailing_id, shard, version: event.version };
    let values = MailingValues {
        text: event.text.clone(),
        operator_codes: event.filter.mobile_operator_codes.clone(),
        tags: event.filter.tags.clone(),
        starts_at: event.starts_at,
        ends_at: event.ends_at,
        delivery: event.delivery.to_string(),
    };
    // A UUIDv7 tells when it was drawn, to the millisecond.
    let created_at = event.mailing_id.get_timestamp().and_then(|time| {
        let (seconds, nanos) = time.to_unix();
        DateTime::from_timestamp(seconds.cast_signed(), nanos)
    });
    let times = (created_at.unwrap_or(event.occurred_at), event.occurred_at);
    if !recovery::write_mailing(db, &identity, &values, state.as_str(), times).await? {
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
    for row in recovery::mailings(db).await? {
        if ["scheduled", "running", "paused"].contains(&row.state.as_str()) {
            let known = log.mailings.get(&row.id);
            let version = recovery::renew_version(db, row.mailing_no, known.map_or(0, |event| event.version)).await?;
            let row = mailings::lock(db, row.id).await?.context("the row is locked")?;
            let event = MailingEvent {
                mailing_id: row.id,
                mailing_no: row.mailing_no,
                version,
                state: known.map_or(State::Scheduled, |event| event.state.clone()),
                text: row.text,
                filter: MailingFilter { mobile_operator_codes: row.operator_codes, tags: row.tags },
                starts_at: row.starts_at,
                ends_at: row.ends_at,
                delivery: row.delivery.into(),
                occurred_at: now,
            };
            append(db, &event, shards, now).await?;
            announced += 1;
        }
    }
    for event in unpublished.iter().filter_map(|id| log.mailings.get(id)) {
        if event.state == State::Cancelled {
            append(db, event, shards, now).await?;
        }
    }
    Ok(announced)
}

async fn append(db: &mut PgConnection, event: &MailingEvent, shards: u32, now: DateTime<Utc>) -> anyhow::Result<()> {
    let payload = String::from_utf8(encode(event)?)?;
    let place = (event.mailing_no, partition(event.mailing_no, shards));
    Ok(outbox::append(db, place, (&event.mailing_id.to_string(), &payload), now).await?)
}
