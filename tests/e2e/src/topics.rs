use std::sync::Mutex;
use std::time::Duration;

use events::topics::Topic;
use kafka::{Isolation, Record, TableReader};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};

use crate::{World, eventually};

/// Where what was written lies.
#[derive(Default)]
struct Offsets(Mutex<Vec<i64>>);

impl ClientContext for Offsets {}

impl ProducerContext for Offsets {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.0.lock().unwrap().push(result.as_ref().unwrap().offset());
    }
}

impl World {
    /// Waits until each broker knows the topics: of several some hear of them a moment later.
    pub(crate) async fn topics_known(&self) {
        for broker in self.brokers.split(',') {
            eventually("a broker to know the topics", async || {
                // Made anew each time: it asks the broker that it is told of first.
                let client = kafka::Cluster::new(self.kafka.topics.clone(), broker, vec![], "e2e");
                kafka::check_topics(&client).await.ok()
            })
            .await;
        }
    }

    /// All records of a topic.
    pub async fn records(&self, topic: Topic, isolation: Isolation) -> Vec<Record> {
        let kafka = self.kafka.clone();
        tokio::task::spawn_blocking(move || {
            let partitions: Vec<i32> = (0..kafka.topics.partitions(topic).cast_signed()).collect();
            let reader = TableReader::from_start(&kafka, &kafka.topics.name(topic), &partitions, isolation).unwrap();
            let mut records = Vec::new();
            reader.read_to_end(Duration::from_secs(60), |record| records.push(record)).unwrap();
            records
        })
        .await
        .unwrap()
    }

    /// Deletes a topic with all that is in it and makes it anew.
    pub async fn recreate(&self, topic: Topic) {
        let name = self.kafka.topics.name(topic);
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
        for deleted in self.rdkafka_admin().delete_topics(&[&name], &options).await.unwrap() {
            deleted.unwrap();
        }
        eventually("the topic to be gone and made anew", async || {
            let made = self.run(&["topics"], &[]).await.ok()?;
            made.contains(&name).then_some(())
        })
        .await;
    }

    /// Deletes all records that a topic has, as retention does.
    pub async fn delete_records(&self, topic: Topic) {
        let mut list = TopicPartitionList::new();
        for partition in 0..self.kafka.topics.partitions(topic).cast_signed() {
            list.add_partition_offset(&self.kafka.topics.name(topic), partition, Offset::End).unwrap();
        }
        let deleted = self.rdkafka_admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
        assert!(deleted.elements().iter().all(|element| element.error().is_ok()), "{deleted:?}");
    }

    fn rdkafka_admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap()
    }

    /// Writes records that Herald did not write, and returns their offsets, which are in the order of the payloads.
    pub fn write_foreign(&self, topic: Topic, partition: i32, payloads: &[&[u8]]) -> Vec<i64> {
        let producer: ThreadedProducer<Offsets> = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("enable.idempotence", "true")
            .create_with_context(Offsets::default())
            .unwrap();
        let name = self.kafka.topics.name(topic);
        for payload in payloads {
            producer.send(BaseRecord::to(&name).partition(partition).key("?").payload(*payload)).unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();
        // They lie in order; but they are heard of by two threads, the producer's own and the one that flushes.
        let mut offsets = producer.context().0.lock().unwrap().clone();
        offsets.sort_unstable();
        assert_eq!(offsets.len(), payloads.len());
        offsets
    }

    /// Leaves transactions on message-events that are never committed, one of each shard's planner and `records` in each,
    /// as planners do that die over a page.
    pub async fn leave_open_transactions(&self, records: usize) {
        let (kafka, brokers) = (self.kafka.clone(), self.brokers.clone());
        let leave = move || {
            let name = kafka.topics.name(Topic::MessageEvents);
            for shard in 0..kafka.topics.shards() {
                let dead: BaseProducer = ClientConfig::new()
                    .set("bootstrap.servers", &brokers)
                    .set("transactional.id", kafka.topics.planner_id(shard.cast_signed()))
                    .create()
                    .unwrap();
                dead.init_transactions(Duration::from_secs(30)).unwrap();
                dead.begin_transaction().unwrap();
                for number in 0..records {
                    let partition = (number as u32 % kafka.topics.partitions(Topic::MessageEvents)).cast_signed();
                    dead.send(BaseRecord::to(&name).partition(partition).key("?").payload("never committed")).unwrap();
                }
                dead.flush(Duration::from_secs(30)).unwrap();
            }
        };
        tokio::task::spawn_blocking(leave).await.unwrap();
    }

    /// Keys and headers of all records, as text.
    pub fn keys_and_headers(&self) -> String {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "unused")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_uncommitted")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        for topic in Topic::ALL {
            for partition in 0..self.kafka.topics.partitions(topic).cast_signed() {
                list.add_partition_offset(&self.kafka.topics.name(topic), partition, Offset::Beginning).unwrap();
            }
        }
        consumer.assign(&list).unwrap();
        let (mut found, mut ends) = (String::new(), 0);
        while ends < list.count() {
            match consumer.poll(Duration::from_secs(10)) {
                Some(Ok(message)) => {
                    found.push_str(&String::from_utf8_lossy(message.key().unwrap_or_default()));
                    found.push('\n');
                    if let Some(headers) = message.headers() {
                        for header in headers.iter() {
                            let value = String::from_utf8_lossy(header.value.unwrap_or_default());
                            found.push_str(&format!("{}={value}\n", header.key));
                        }
                    }
                }
                Some(Err(_)) => ends += 1,
                None => panic!("the topics can't be read"),
            }
        }
        found
    }
}
