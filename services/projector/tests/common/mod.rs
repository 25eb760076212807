//! A projector on real Kafka and Postgres: topics and a database of its own for each test.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use domain::ids::{MessageId, partition};
use domain::status::{Reason, Status};
use events::topics::{Topic, Topics};
use events::{DeadLetter, Kind, Source, StatusEvent, decode, encode};
use futures::future::join_all;
use kafka::{Admin, Cluster, Isolation, Outgoing, Producer, TableReader};
use projector::Settings;
use runtime::Service;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub const PARTITIONS: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    pub prefix: String,
    pub database: String,
    pub client: Cluster,
    pub pool: PgPool,
    producer: Producer,
}

/// A projector in this process.
pub struct Running {
    service: Service,
    ops: SocketAddr,
    ended: JoinHandle<anyhow::Result<()>>,
}

fn brokers() -> String {
    std::env::var("HERALD_TEST_KAFKA_BROKERS").unwrap_or_else(|_| "127.0.0.1:19092".to_owned())
}

fn server() -> String {
    let variable = |name| std::env::var(name).ok();
    variable("HERALD_TEST_DATABASE_URL")
        .or_else(|| variable("DATABASE_URL"))
        .unwrap_or_else(|| "postgres://herald@127.0.0.1:15432/herald".to_owned())
}

fn database_url(name: &str) -> String {
    let server = server();
    format!("{}/{name}", server.rsplit_once('/').unwrap().0)
}

pub fn client(prefix: &str, properties: &[(&str, &str)]) -> Cluster {
    let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Cluster::new(Topics::new(prefix, Some(PARTITIONS)), &brokers(), properties, "test")
}

/// A lazy pool to a test's database, as the services have it.
pub fn pool(database: &str) -> PgPool {
    store::connect(&database_url(database), 5).unwrap()
}

pub fn settings(batch: u32) -> Settings {
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }
    Cli::parse_from(["projector".to_owned(), format!("--projector-batch={batch}")]).settings
}

impl World {
    pub async fn create() -> Self {
        let name = format!("projector_{}", Uuid::now_v7().simple());
        run_on_server(format!("CREATE DATABASE {name}")).await;
        let pool = pool(&name);
        store::MIGRATOR.run(&pool).await.unwrap();
        let client = client(&name, &[]);
        let admin = Admin::new(&client).unwrap();
        // A broker may not know yet how a topic is configured that it has just created.
        until("the topics are there", async || admin.create_topics(1).await.is_ok()).await;
        let producer = Producer::new(&client).unwrap();
        Self { prefix: name.clone(), database: name, client, pool, producer }
    }

    pub async fn delete(self) {
        self.pool.close().await;
        run_on_server(format!("DROP DATABASE {} WITH (FORCE)", self.database)).await;
        Admin::new(&self.client).unwrap().delete_topics().await.unwrap();
    }

    pub fn topic(&self) -> String {
        self.client.topics.name(Topic::StatusEvents)
    }

    pub async fn start(&self, batch: u32) -> Running {
        self.start_with(&self.client, batch, false).await
    }

    pub async fn start_with(&self, client: &Cluster, batch: u32, rebuild: bool) -> Running {
        let running = self.try_start(client, batch, rebuild).await;
        running.unwrap()
    }

    pub async fn try_start(&self, client: &Cluster, batch: u32, rebuild: bool) -> anyhow::Result<Running> {
        let service = Service::new();
        let metrics = kafka::Metrics::register(&service.registry).unwrap();
        let pool = pool(&self.database);
        if rebuild {
            projector::rebuild(settings(batch), client, pool, &metrics, &service).await?;
        } else {
            projector::start(settings(batch), client, pool, &metrics, &service).await?;
        }
        let ops = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let ended = tokio::spawn(runtime::run(ops, service.clone(), Duration::from_secs(20)));
        Ok(Running { service, ops, ended })
    }

    /// Writes statuses, in this order within each partition.
    pub async fn tell(&self, statuses: &[StatusEvent]) {
        let topic = self.topic();
        let records: Vec<Outgoing<'_>> = statuses.iter().map(|status| outgoing(&topic, status)).collect();
        for sent in join_all(records.iter().map(|record| self.producer.send(record))).await {
            sent.unwrap();
        }
    }

    /// Writes a record as it is and returns its offset.
    pub async fn tell_raw(&self, partition: i32, payload: &[u8]) -> i64 {
        let topic = self.topic();
        let record = Outgoing { topic: &topic, partition, key: "foreign".to_owned(), payload: payload.to_vec() };
        self.producer.send(&record).await.unwrap()
    }

    pub async fn add_mailing(&self, id: Uuid, created_at: DateTime<Utc>) -> i64 {
        sqlx::query_scalar(
            "INSERT INTO mailings (id, shard, version, text, operator_codes, tags, starts_at, ends_at, state, delivery,
                                   created_at, updated_at)
             VALUES ($1, 0, 1, 'hello', '{}', '{all}', $2, $2 + interval '1 day', 'running', 'at_least_once', $2, $2)
             RETURNING mailing_no",
        )
        .bind(id)
        .bind(created_at)
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    /// Where the projector must get to: one past the last record of each partition.
    pub async fn ends(&self) -> Vec<i64> {
        let (client, topic) = (self.client.clone(), self.topic());
        let read = move || {
            let reader = TableReader::from_start(&client, &topic, &[0, 1], Isolation::Committed).unwrap();
            let mut ends = vec![0; PARTITIONS as usize];
            reader.read_to_end(PATIENCE, |record| ends[record.partition as usize] = record.offset + 1).unwrap();
            ends
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    /// Waits until all that is in the log is written.
    pub async fn caught_up(&self) {
        let ends = self.ends().await;
        let offset = "SELECT coalesce((SELECT next_offset FROM projector_offsets WHERE partition = $1), 0)";
        for (partition, end) in (0i32..).zip(ends) {
            until(&format!("partition {partition} is written up to {end}"), async || {
                sqlx::query_scalar::<_, i64>(offset)
                    .bind(partition)
                    .fetch_one(&self.pool)
                    .await
                    .is_ok_and(|at| at == end)
            })
            .await;
        }
    }

    /// All that the projector writes, to the byte.
    pub async fn dump(&self) -> Vec<String> {
        let mut dump = Vec::new();
        for table in [
            "messages",
            "steps",
            "held",
            "mailing_counts",
            "held_counts",
            "mailing_settled_rounds",
            "projector_offsets",
        ] {
            let rows = format!("SELECT '{table} ' || row::text FROM {table} AS row ORDER BY row");
            dump.extend(sqlx::query_scalar::<_, String>(AssertSqlSafe(rows)).fetch_all(&self.pool).await.unwrap());
        }
        dump
    }

    /// The counts and settled rounds must be sums over the rows.
    pub async fn assert_conserved(&self) {
        let wrong: Vec<String> = sqlx::query_scalar(
            "SELECT format('%s %s: %s rows, counted %s', mailing_no, status, coalesce(r.n, 0), coalesce(c.n, 0))
             FROM (SELECT mailing_no, status, count(*) AS n FROM messages GROUP BY 1, 2) AS r
             FULL JOIN (SELECT mailing_no, status, sum(n) AS n FROM mailing_counts GROUP BY 1, 2) AS c
                  USING (mailing_no, status)
             WHERE coalesce(r.n, 0) <> coalesce(c.n, 0)
             UNION ALL
             SELECT format('%s: %s and %s rounds settled, summed %s and %s', mailing_no, r.n, r.again, s.n, s.again)
             FROM (SELECT mailing_no, sum(settled_round) AS n, sum(greatest(settled_round - 1, 0)) AS again
                   FROM messages GROUP BY 1) AS r
             LEFT JOIN (SELECT mailing_no, sum(n) AS n, sum(again) AS again FROM mailing_settled_rounds GROUP BY 1) AS s
                  USING (mailing_no)
             WHERE (r.n, r.again) <> (coalesce(s.n, 0), coalesce(s.again, 0))",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        assert_eq!(wrong, Vec::<String>::new());
    }

    /// Rows by status.
    pub async fn counts(&self) -> Vec<(String, i64)> {
        let sums = "SELECT status, sum(n)::bigint FROM mailing_counts GROUP BY 1 HAVING sum(n) <> 0 ORDER BY 1";
        sqlx::query_as(sums).fetch_all(&self.pool).await.unwrap()
    }

    pub async fn dead_letters(&self) -> Vec<DeadLetter> {
        let (client, topic) = (self.client.clone(), self.client.topics.name(Topic::DeadLetters));
        let read = move || {
            let reader = TableReader::from_start(&client, &topic, &[0, 1], Isolation::Committed).unwrap();
            let mut letters: Vec<DeadLetter> = vec![];
            reader.read_to_end(PATIENCE, |record| letters.push(decode(record.payload.as_deref()).unwrap())).unwrap();
            letters.sort_by_key(|letter| (letter.partition, letter.offset));
            letters
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }
}

impl Running {
    pub async fn stop(self) {
        self.service.stop.cancel();
        self.ended.await.unwrap().unwrap();
    }

    /// Waits until `/readyz` says so.
    pub async fn ready(&self) {
        until("it is ready", async || self.probe().await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))).await;
    }

    async fn probe(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.ops).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Waits for a projector that ends by itself and says why.
    pub async fn failure(self) -> String {
        let ended = tokio::time::timeout(PATIENCE, self.ended).await.expect("it goes on");
        format!("{:#}", ended.unwrap().unwrap_err())
    }
}

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn run_on_server(sql: String) {
    let pool = PgPool::connect(&server()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    pool.close().await;
}

pub fn outgoing<'a>(topic: &'a str, status: &StatusEvent) -> Outgoing<'a> {
    Outgoing {
        topic,
        partition: partition(status.message_id.client_no(), PARTITIONS),
        key: status.message_id.to_string(),
        payload: encode(status).unwrap(),
    }
}

/// A status of round 1.
pub fn status(mailing_no: i64, mailing_id: Uuid, client_no: i64, status: Status, attempt: i32) -> StatusEvent {
    let planned_at = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
    StatusEvent {
        message_id: MessageId::new(mailing_no, client_no).unwrap(),
        mailing_id,
        client_id: Uuid::from_u128(client_no.cast_unsigned().into()),
        round: 1,
        attempt,
        announced: 0,
        kind: if status.is_settled() { Kind::Settled } else { Kind::Open },
        reason: match status {
            Status::Retrying => Some(Reason::ProviderError),
            Status::Failed => Some(Reason::Exhausted),
            _ => None,
        },
        code: Some(if status == Status::Succeeded { 200 } else { 500 }),
        latency_ms: Some(attempt),
        not_before: None,
        operator_code: None,
        detail: (status == Status::Retrying).then(|| "HTTP 500".to_owned()),
        planned_at,
        occurred_at: planned_at + TimeDelta::milliseconds(client_no * 10 + i64::from(attempt)),
        source: Source { partition: partition(client_no, PARTITIONS), offset: client_no },
        status,
    }
}

/// What a sender says of clients `1..=n`: of every ten one fails after four attempts, two succeed after a retry and seven at
/// once. Every seventh status is doubled, as after a takeover.
pub fn life(mailing_no: i64, mailing_id: Uuid, clients: std::ops::RangeInclusive<i64>) -> Vec<StatusEvent> {
    let told = |client_no, of, attempt| status(mailing_no, mailing_id, client_no, of, attempt);
    let mut by_attempt: [Vec<StatusEvent>; 4] = Default::default();
    for client_no in clients {
        let attempts = match client_no % 10 {
            0 => 4,
            1 | 2 => 2,
            _ => 1,
        };
        for attempt in 1..attempts {
            by_attempt[attempt as usize - 1].push(told(client_no, Status::Retrying, attempt));
        }
        let last = if attempts == 4 { Status::Failed } else { Status::Succeeded };
        by_attempt[attempts as usize - 1].push(told(client_no, last, attempts));
    }
    let statuses = by_attempt.concat();
    statuses.iter().enumerate().flat_map(|(at, status)| vec![status.clone(); if at % 7 == 6 { 2 } else { 1 }]).collect()
}
