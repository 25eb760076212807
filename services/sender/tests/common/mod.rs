//! A sender on a real Kafka, and the provider's simulator; a test acts as relay and planner.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use domain::ids::{ClientNo, MessageId};
use domain::mailing::{Delivery, State};
use domain::status::Status;
use events::topics::Topic;
use events::{Event, Kind, MailingEvent, MailingFilter, MessageEvent, StatusEvent, encode};
use futures::future::join_all;
use kafka::{GroupView, Outgoing};
use provider_sim::{Config, Faults};
use support::{Installation, Running, eventually, until};
use uuid::Uuid;

const TOKEN: &str = "token";
const TEXT: &str = "hello";
pub const HOUR: TimeDelta = TimeDelta::hours(1);

/// An installation without a database, and its provider.
pub struct Stage {
    pub installation: Installation,
    pub provider: provider_sim::Running,
}

impl Stage {
    /// One partition, and a provider that answers at once.
    pub async fn new() -> Self {
        let provider = provider_sim::start(Config::new(TOKEN)).await.unwrap();
        Self { installation: Installation::create("sender", 1).await, provider }
    }

    /// Starts a sender, and waits until it has its partition.
    pub async fn sender(&self) -> Running {
        self.sender_with(&[]).await
    }

    /// Likewise, with further arguments.
    pub async fn sender_with(&self, arguments: &[&str]) -> Running {
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            settings: sender::Settings,
        }
        let url = format!("http://{}", self.provider.addr);
        let own = ["sender", "--provider-url", &url, "--provider-token", TOKEN];
        let settings = Cli::parse_from(own.iter().chain(arguments)).settings;
        let kafka = &self.installation.kafka;
        let running = Running::start(async |service| {
            let metrics = kafka::Metrics::register(&service.registry)?;
            sender::start(settings, kafka, &metrics, service).await
        });
        let running = running.await.unwrap();
        running.ready().await;
        running
    }

    /// Sets the provider's faults, as `PUT /faults` takes them.
    pub fn faults(&self, faults: serde_json::Value) {
        self.provider.set_faults(serde_json::from_value::<Faults>(faults).unwrap());
    }

    /// Publishes a mailing, or a further version of one.
    pub async fn publish(&self, mailing: &Mailing) {
        let event = MailingEvent {
            mailing_id: mailing.id,
            mailing_no: mailing.no.into(),
            version: mailing.version.into(),
            state: mailing.state.clone(),
            text: TEXT.to_owned(),
            filter: MailingFilter::default(),
            starts_at: Utc::now(),
            ends_at: mailing.ends_at,
            delivery: mailing.delivery.clone(),
            occurred_at: Utc::now(),
        };
        self.write(Topic::MailingEvents, &mailing.id.to_string(), &event).await;
    }

    /// Plans messages of a published mailing, in their order.
    pub async fn plan(&self, events: impl IntoIterator<Item = MessageEvent>) {
        let written = events.into_iter().map(|event| async move {
            self.write(Topic::MessageEvents, &event.message_id.to_string(), &event).await;
        });
        join_all(written).await;
    }

    async fn write<E: Event>(&self, topic: Topic, key: &str, event: &E) {
        let name = self.installation.topic(topic);
        let record = Outgoing { topic: &name, partition: 0, key: key.to_owned(), payload: encode(event).unwrap() };
        self.installation.producer.send(&record).await.unwrap();
    }

    /// All statuses so far.
    pub async fn statuses(&self) -> Vec<StatusEvent> {
        self.installation.events(Topic::StatusEvents).await
    }

    /// Waits until so many messages are settled; their settling statuses.
    pub async fn settled(&self, messages: usize) -> Vec<StatusEvent> {
        eventually("all are settled", async || {
            let statuses = self.statuses().await;
            let settled: Vec<StatusEvent> = statuses.into_iter().filter(|event| event.kind == Kind::Settled).collect();
            (settled.len() >= messages).then_some(settled)
        })
        .await
    }

    /// Waits for the only message's end; all that was told of it, as status, reason and attempts.
    pub async fn story(&self) -> Vec<(String, String, i32)> {
        self.settled(1).await;
        let told = |event: StatusEvent| {
            let reason = event.reason.map_or("-".to_owned(), |reason| reason.as_str().to_owned());
            (event.status.as_str().to_owned(), reason, event.attempt)
        };
        self.statuses().await.into_iter().map(told).collect()
    }

    /// What the senders have committed.
    pub async fn committed(&self) -> Option<(i64, String)> {
        let kafka = self.installation.kafka.clone();
        let look = move || {
            let view = GroupView::new(&kafka, &kafka.topics.group("sender"), Topic::MessageEvents).unwrap();
            view.partitions(Duration::from_secs(10)).unwrap().remove(0).committed
        };
        tokio::task::spawn_blocking(look).await.unwrap()
    }

    /// Waits until they have committed this offset and these words.
    pub async fn committed_as(&self, offset: i64, words: &str) {
        until(&format!("{offset} and {words} are committed"), async || {
            self.committed().await.is_some_and(|(at, metadata)| at == offset && metadata.contains(words))
        })
        .await;
    }

    /// Calls begun so far.
    pub fn calls(&self) -> u64 {
        self.provider.stats().unwrap().calls
    }

    /// Fails if a message was accepted twice; how many were.
    pub fn accepted(&self) -> u64 {
        let stats = self.provider.stats().unwrap();
        assert_eq!(stats.duplicates, 0, "{stats:?}");
        stats.distinct_accepted
    }

    pub async fn leave(self, senders: impl IntoIterator<Item = Running>) {
        for sender in senders {
            sender.stop().await;
        }
        self.installation.delete().await;
    }
}

/// A mailing as its newest event has it.
#[derive(Clone)]
pub struct Mailing {
    pub no: i64,
    pub id: Uuid,
    pub version: i64,
    pub state: State,
    pub ends_at: DateTime<Utc>,
    pub delivery: Delivery,
}

/// A running mailing that ends in an hour.
pub fn mailing(no: i64) -> Mailing {
    let ends_at = Utc::now() + HOUR;
    Mailing { no, id: Uuid::now_v7(), version: 1, state: State::Running, ends_at, delivery: Delivery::AtLeastOnce }
}

impl Mailing {
    /// Its message to a client of operator code 916.
    pub fn message(&self, client_no: i64) -> MessageEvent {
        MessageEvent {
            message_id: MessageId::new(self.no.into(), ClientNo::from(client_no)).unwrap(),
            mailing_id: self.id,
            mailing_version: self.version.into(),
            client_id: Uuid::now_v7(),
            phone: Some(79_160_000_000 + client_no),
            text: Some(TEXT.into()),
            operator_code: 916,
            ends_at: self.ends_at,
            window: None,
            delivery: self.delivery.clone(),
            round: 1,
            attempts: 0,
            planned_at: Utc::now(),
        }
    }

    /// Its messages to so many clients.
    pub fn messages(&self, clients: i64) -> Vec<MessageEvent> {
        (1..=clients).map(|client_no| self.message(client_no)).collect()
    }
}

pub fn count(statuses: &[StatusEvent], status: &Status) -> usize {
    statuses.iter().filter(|event| event.status == *status).count()
}

/// The word of a reason.
pub fn reason(event: &StatusEvent) -> &str {
    event.reason.as_ref().map_or("-", |reason| reason.as_str())
}
