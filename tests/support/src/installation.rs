use chrono::Utc;
use events::topics::{Topic, Topics};
use events::{DatabaseRecord, Event, StatusEvent, decode, encode};
use futures::future::join_all;
use kafka::{Admin, Cluster, Isolation, Outgoing, Producer, Record, TableReader};
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use crate::{PATIENCE, until};

/// A database and topics of a test's own, and no program.
pub struct Installation {
    /// The topics' prefix, and the database's name.
    pub name: String,
    /// Reaches its topics.
    pub kafka: Cluster,
    /// Reaches its database.
    pub pool: PgPool,
    /// Writes statuses in a sender's place, and whatever else a test says.
    pub producer: Producer,
}

pub(crate) fn brokers() -> String {
    std::env::var("HERALD_TEST_KAFKA_BROKERS").unwrap_or_else(|_| "127.0.0.1:19092".to_owned())
}

fn server() -> String {
    let variable = |name| std::env::var(name).ok();
    variable("HERALD_TEST_DATABASE_URL")
        .or_else(|| variable("DATABASE_URL"))
        .unwrap_or_else(|| "postgres://herald@127.0.0.1:15432/herald".to_owned())
}

/// Reaches the topics of the installation with this name. `properties` are librdkafka's.
pub fn client(name: &str, partitions: u32, properties: &[(&str, &str)]) -> Cluster {
    let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Cluster::new(Topics::new(name, Some(partitions)), &brokers(), properties, "test")
}

/// A lazy pool to the installation's database, as the services have it.
pub fn database_pool(name: &str) -> PgPool {
    let server = server();
    store::connect(&format!("{}/{name}", server.rsplit_once('/').unwrap().0), 5).unwrap()
}

/// Runs SQL as the server's superuser, outside of any installation.
pub async fn run_on_server(sql: String) {
    let pool = PgPool::connect(&server()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    pool.close().await;
}

impl Installation {
    /// Creates the database, migrated, and the topics, with `partitions` each.
    pub async fn create(service: &str, partitions: u32) -> Self {
        let name = format!("{service}_{}", Uuid::now_v7().simple());
        run_on_server(format!("CREATE DATABASE {name}")).await;
        let pool = database_pool(&name);
        store::MIGRATOR.run(&pool).await.unwrap();
        let kafka = client(&name, partitions, &[]);
        let admin = Admin::new(&kafka).unwrap();
        // A broker may not know yet how a topic is configured that it has just created.
        until("the topics are there", async || admin.create_topics(1).await.is_ok()).await;
        let producer = Producer::new(&kafka, Producer::BRIEF).unwrap();
        Self { name, kafka, pool, producer }
    }

    /// Tells Kafka that this is its database, as the relay does when it begins. A scheduler waits for that.
    pub async fn record_database(&self) {
        let mark = store::mark::next(&mut self.pool.acquire().await.unwrap()).await.unwrap();
        let topic = self.topic(Topic::Database);
        let record = kafka::database_record(&topic, "test", &DatabaseRecord::of(mark, Utc::now())).unwrap();
        self.producer.send(&record).await.unwrap();
    }

    /// Removes both. A test that fails doesn't come here, so what it left can be looked at.
    pub async fn delete(self) {
        self.pool.close().await;
        run_on_server(format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
        Admin::new(&self.kafka).unwrap().delete_topics().await.unwrap();
    }

    /// The name of one of its topics.
    pub fn topic(&self, topic: Topic) -> String {
        self.kafka.topics.name(topic)
    }

    /// All of a topic's partitions.
    pub fn partitions(&self, topic: Topic) -> Vec<i32> {
        (0..self.kafka.topics.partitions(topic).cast_signed()).collect()
    }

    /// Writes statuses to the partition of their messages, in this order within each.
    pub async fn tell(&self, statuses: &[StatusEvent]) {
        let topic = self.topic(Topic::StatusEvents);
        let partitions = self.kafka.topics.partitions(Topic::StatusEvents);
        let records: Vec<Outgoing<'_>> = statuses.iter().map(|status| outgoing(&topic, partitions, status)).collect();
        for sent in join_all(records.iter().map(|record| self.producer.send(record))).await {
            sent.unwrap();
        }
    }

    /// Reads a topic whole, as a reader that sees committed records only.
    pub async fn records(&self, topic: Topic) -> Vec<Record> {
        let (kafka, name, partitions) = (self.kafka.clone(), self.topic(topic), self.partitions(topic));
        let read = move || {
            let reader = TableReader::from_start(&kafka, &name, &partitions, Isolation::Committed).unwrap();
            let mut records = vec![];
            reader.read_to_end(PATIENCE, |record| records.push(record)).unwrap();
            records
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    /// Reads a topic whole, decoded, each partition in its order.
    pub async fn events<E: Event>(&self, topic: Topic) -> Vec<E> {
        let records = self.records(topic).await;
        records.iter().map(|record| decode(record.payload.as_deref()).unwrap()).collect()
    }
}

/// A status as the record that a sender writes.
pub fn outgoing<'a>(topic: &'a str, partitions: u32, status: &StatusEvent) -> Outgoing<'a> {
    Outgoing {
        topic,
        partition: status.message_id.client_no().partition(partitions),
        key: status.message_id.to_string(),
        payload: encode(status).unwrap(),
    }
}
