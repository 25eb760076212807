//! The relay, on real Kafka: what is in the outbox arrives, once the older relay can write no more, in its order.
#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use common::App;
use events::topics::{Topic, Topics};
use events::{MailingEvent, decode};
use kafka::{Admin, Cluster, Isolation, Outgoing, TableReader, TransactionalProducer};
use runtime::Service;
use runtime::config::Secret;
use serde_json::json;
use sqlx::PgPool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    kafka: Cluster,
    pool: PgPool,
    app: App,
    database_url: Secret,
}

fn brokers() -> String {
    std::env::var("HERALD_TEST_KAFKA_BROKERS").unwrap_or_else(|_| "127.0.0.1:19092".to_owned())
}

fn metrics(service: &Service) -> String {
    prometheus::TextEncoder::new().encode_to_string(&service.registry.gather()).unwrap()
}

fn client(brokers: &str) -> Cluster {
    let prefix = format!("api_{}", Uuid::now_v7().simple());
    Cluster::new(Topics::new(prefix, Some(6)), brokers, vec![], "test")
}

impl World {
    async fn new(pool: PgPool) -> Self {
        let world = Self::with(pool, client(&brokers())).await;
        world.create_topics().await;
        world
    }

    async fn create_topics(&self) {
        let admin = Admin::new(&self.kafka).unwrap();
        until("the topics are there", async || admin.create_topics(1).await.is_ok()).await;
    }

    async fn with(pool: PgPool, kafka: Cluster) -> Self {
        let options = pool.connect_options();
        let (user, host, port) = (options.get_username(), options.get_host(), options.get_port());
        let url = format!("postgres://{user}@{host}:{port}/{}", options.get_database().unwrap());
        Self { kafka, app: App::new(pool.clone()).await, pool, database_url: url.into() }
    }

    async fn start(&self) -> Service {
        let service = Service::new();
        let settings = api::Settings { api_addr: "127.0.0.1:0".parse().unwrap() };
        api::start(settings, &self.database_url, &self.kafka, self.pool.clone(), &service).await.unwrap();
        service
    }

    /// The mailing events, read committed, each partition in its order.
    async fn published(&self) -> Vec<(i32, MailingEvent)> {
        let kafka = self.kafka.clone();
        let read = tokio::task::spawn_blocking(move || {
            let partitions: Vec<i32> = (0..6).collect();
            let topic = kafka.topics.name(Topic::MailingEvents);
            let reader = TableReader::from_start(&kafka, &topic, &partitions, Isolation::Committed).unwrap();
            let mut records = vec![];
            reader.read_to_end(PATIENCE, |record| records.push(record)).unwrap();
            records
        });
        let records = read.await.unwrap();
        records.into_iter().map(|record| (record.partition, decode(record.payload.as_deref()).unwrap())).collect()
    }

    async fn outbox_rows(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&self.pool).await.unwrap()
    }

    async fn outbox_is_empty(&self) {
        until("the outbox is empty", async || self.outbox_rows().await == 0).await;
    }

    async fn delete(self, services: &[Service]) {
        for service in services {
            service.stop.cancel();
        }
        // A topic that is written to while it is deleted would come back.
        until("the relays are gone", async || self.leader().await.is_none()).await;
        Admin::new(&self.kafka).unwrap().delete_topics().await.unwrap();
    }

    /// The backend that holds the relay's lock.
    async fn leader(&self) -> Option<i32> {
        sqlx::query_scalar(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        .fetch_optional(&self.pool)
        .await
        .unwrap()
    }
}

/// The ops port of a service.
struct Probes(SocketAddr);

impl Probes {
    fn of(service: &Service) -> Self {
        let addr = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        tokio::spawn(runtime::run(addr, service.clone(), PATIENCE));
        Self(addr)
    }

    /// The answer of `/readyz`; empty while the port isn't open yet.
    async fn ready(&self) -> String {
        let ask = async {
            let mut stream = TcpStream::connect(self.0).await?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        ask.await.unwrap_or_default()
    }
}

async fn until(what: &str, reached: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !reached().await {
        assert!(begun.elapsed() < PATIENCE, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn events_arrive_once_in_order_in_the_mailings_shard(pool: PgPool) {
    let world = World::new(pool).await;
    // Some of them before the relay begins, some while it runs.
    let early = world.app.create_mailing().await;
    world.app.patch(&early, &json!({"text": "1"})).await;
    let service = world.start().await;
    let late = world.app.create_mailing().await;
    for i in 2..10 {
        world.app.patch(&early, &json!({"text": format!("{i}")})).await;
        world.app.patch(&late, &json!({"text": format!("{i}")})).await;
    }
    world.app.delete(&late).await;
    world.outbox_is_empty().await;

    let published = world.published().await;
    for (place, count) in [(&early, 10), (&late, 10)] {
        let mine: Vec<_> =
            published.iter().filter(|(_, event)| place.ends_with(&event.mailing_id.to_string())).collect();
        assert_eq!(mine.len(), count, "{place}");
        assert!(mine.is_sorted_by(|(_, a), (_, b)| a.version < b.version), "{place}");
        assert!(mine.iter().all(|(shard, event)| *shard == event.mailing_no.shard(6).get()));
    }
    world.delete(&[service]).await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_event_is_on_its_way_within_a_moment(pool: PgPool) {
    let world = World::new(pool).await;
    let service = world.start().await;
    world.app.create_mailing().await;
    world.outbox_is_empty().await;
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        let begun = Instant::now();
        world.app.create_mailing().await;
        while world.outbox_rows().await > 0 {
            assert!(begun.elapsed() < PATIENCE);
            tokio::task::yield_now().await;
        }
        slowest = slowest.max(begun.elapsed());
    }
    println!("slowest of 5: {slowest:?}");
    assert!(slowest < Duration::from_millis(1_000), "{slowest:?}");
    world.delete(&[service]).await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_older_relay_can_append_nothing_once_a_newer_one_leads(pool: PgPool) {
    let world = World::new(pool).await;
    let kafka = world.kafka.clone();
    let older = tokio::task::spawn_blocking(move || {
        let older = TransactionalProducer::relay(&kafka).unwrap();
        older.init(PATIENCE).unwrap();
        older
    });
    let older = older.await.unwrap();
    let service = world.start().await;
    world.app.create_mailing().await;
    world.outbox_is_empty().await;

    let topic = world.kafka.topics.name(Topic::MailingEvents);
    let refused = tokio::task::spawn_blocking(move || {
        older.publish([Outgoing { topic: &topic, partition: 0, key: "late".to_owned(), payload: b"late".to_vec() }])
    });
    assert!(refused.await.unwrap().is_err());
    assert_eq!(world.published().await.len(), 1);
    world.delete(&[service]).await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn another_relay_takes_over_when_the_first_one_stops(pool: PgPool) {
    let world = World::new(pool).await;
    let first = world.start().await;
    until("the first leads", async || world.leader().await.is_some()).await;
    let leader = world.leader().await;
    let second = world.start().await;
    world.app.create_mailing().await;
    world.outbox_is_empty().await;
    assert_eq!(world.leader().await, leader);

    first.stop.cancel();
    let place = world.app.create_mailing().await;
    world.outbox_is_empty().await;
    assert_ne!(world.leader().await, leader);
    assert!(world.published().await.iter().any(|(_, event)| place.ends_with(&event.mailing_id.to_string())));
    world.delete(&[first, second]).await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_relay_that_loses_its_connection_begins_anew(pool: PgPool) {
    let world = World::new(pool).await;
    let service = world.start().await;
    for _ in 0..3 {
        until("it leads", async || world.leader().await.is_some()).await;
        let leader = world.leader().await;
        sqlx::query("SELECT pg_terminate_backend($1)").bind(leader).execute(&world.pool).await.unwrap();
        world.app.create_mailing().await;
        world.outbox_is_empty().await;
    }
    assert_eq!(world.published().await.len(), 3);
    world.delete(&[service]).await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn from_a_database_that_is_older_than_kafka_nothing_is_published(pool: PgPool) {
    let world = World::new(pool).await;
    let service = world.start().await;
    world.app.create_mailing().await;
    world.outbox_is_empty().await;
    service.stop.cancel();
    until("the relay is gone", async || world.leader().await.is_none()).await;

    // As it was before the last batch.
    sqlx::query("UPDATE database_mark SET mark = mark - 1").execute(&world.pool).await.unwrap();
    world.app.create_mailing().await;
    let service = world.start().await;
    until("the watch has turned", async || metrics(&service).contains("herald_outbox_unpublished_rows 1\n")).await;
    let probes = Probes::of(&service);
    until("it says why", async || probes.ready().await.contains("Postgres holds an older state than Kafka")).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.leader().await, None, "the lock is `herald recover`'s");
    assert_eq!(world.published().await.len(), 1);

    sqlx::query("UPDATE database_mark SET mark = mark + 1").execute(&world.pool).await.unwrap();
    world.outbox_is_empty().await;
    until("it is ready", async || probes.ready().await.starts_with("HTTP/1.1 200")).await;
    assert_eq!(world.published().await.len(), 2);
    world.delete(&[service]).await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_first_record_is_not_written_for_a_database_that_lacks_published_numbers(pool: PgPool) {
    let world = World::new(pool).await;
    let event = json!({
        "mailing_id": Uuid::now_v7(), "mailing_no": 7, "version": 1, "state": "scheduled", "text": "hello",
        "filter": {"mobile_operator_codes": [], "tags": ["readers"]}, "starts_at": "2026-05-01T12:00:00Z",
        "ends_at": "2026-05-02T12:00:00Z", "delivery": "at_least_once", "occurred_at": "2026-05-01T11:00:00Z",
    });
    let topic = world.kafka.topics.name(Topic::MailingEvents);
    let record =
        Outgoing { topic: &topic, partition: 0, key: "old".to_owned(), payload: event.to_string().into_bytes() };
    kafka::Producer::new(&world.kafka, kafka::Producer::BRIEF).unwrap().send(&record).await.unwrap();

    let service = world.start().await;
    world.app.create_mailing().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.published().await.len(), 1);

    sqlx::query("SELECT setval('mailings_mailing_no_seq', 7)").execute(&world.pool).await.unwrap();
    world.outbox_is_empty().await;
    assert_eq!(world.published().await.len(), 2);
    world.delete(&[service]).await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_relay_waits_until_the_topics_are_there(pool: PgPool) {
    let world = World::with(pool, client(&brokers())).await;
    let service = world.start().await;
    world.app.create_mailing().await;
    until("the watch has turned", async || metrics(&service).contains("herald_outbox_unpublished_rows 1\n")).await;
    assert_eq!(world.leader().await, None, "it must not lead yet");

    world.create_topics().await;
    world.outbox_is_empty().await;
    assert_eq!(world.published().await.len(), 1);
    world.delete(&[service]).await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_relay_that_cannot_publish_is_not_ready(pool: PgPool) {
    let world = World::new(pool).await;
    let service = world.start().await;
    let probes = Probes::of(&service);
    until("it is ready", async || probes.ready().await.starts_with("HTTP/1.1 200")).await;
    world.app.create_mailing().await;
    world.outbox_is_empty().await;
    // There is no such partition.
    sqlx::query("INSERT INTO outbox (mailing_no, shard, key, payload, created_at) VALUES (1, 99, 'lost', '{}', now())")
        .execute(&world.pool)
        .await
        .unwrap();
    until("it says why", async || {
        let answer = probes.ready().await;
        answer.starts_with("HTTP/1.1 503") && answer.contains("publish the outbox")
    })
    .await;
    sqlx::query("DELETE FROM outbox").execute(&world.pool).await.unwrap();
    until("it is ready again", async || probes.ready().await.starts_with("HTTP/1.1 200")).await;
    world.delete(&[service]).await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn without_kafka_the_api_takes_mailings_and_the_outbox_grows(pool: PgPool) {
    // Nothing listens on port 1.
    let world = World::with(pool, client("127.0.0.1:1")).await;
    let service = world.start().await;
    for _ in 0..3 {
        world.app.create_mailing().await;
    }
    until("the metrics tell", async || metrics(&service).contains("herald_outbox_unpublished_rows 3\n")).await;
    assert_eq!(world.outbox_rows().await, 3);
    service.stop.cancel();
}
