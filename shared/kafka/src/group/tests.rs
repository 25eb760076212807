//! A member in a group of librdkafka's mock cluster, which refuses what it is told to.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use events::DecodeError;
use events::topics::{Topic, Topics};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use series::Registry;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{Error, Moment, Record};

/// Longer than the 3 s that a group of the mock cluster waits for its first members.
const SESSION: Duration = Duration::from_secs(4);

/// What a member was told, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Assigned(usize),
    Revoked { lost: bool },
    Acknowledged,
    Refused,
}

/// Commits offset 0 of each partition that it owns.
#[derive(Default)]
struct Ledger {
    told: Mutex<Vec<Told>>,
    owned: Mutex<BTreeSet<i32>>,
}

impl Ledger {
    /// Tells apart what is new only: proofs come each second.
    fn tell(&self, told: Told) {
        let mut all = self.told.lock().unwrap();
        if all.last() != Some(&told) {
            all.push(told);
        }
    }

    fn all(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    fn commits(partitions: impl IntoIterator<Item = i32>) -> Vec<Commit> {
        let commit = |partition| Commit { partition, offset: 0, metadata: String::new() };
        partitions.into_iter().map(commit).collect()
    }
}

impl Member for Ledger {
    fn assigned(&self, partitions: &[Assigned]) -> Vec<Start> {
        if !partitions.is_empty() {
            self.tell(Told::Assigned(partitions.len()));
            self.owned.lock().unwrap().extend(partitions.iter().map(|assigned| assigned.partition));
        }
        partitions.iter().map(|assigned| Start(assigned.at.low)).collect()
    }
    fn revoked(&self, partitions: &[i32], lost: bool) -> Vec<Commit> {
        self.tell(Told::Revoked { lost });
        self.owned.lock().unwrap().retain(|owned| !partitions.contains(owned));
        Self::commits(partitions.iter().copied())
    }
    fn take(&self, _: Record) -> std::result::Result<Intake, DecodeError> {
        Ok(Intake::More)
    }
    fn garbage_skipped(&self, _: i32, _: i64) {}
    fn reading_stopped(&self, _: Option<String>) {}
    fn has_room(&self, _: i32) -> bool {
        true
    }
    fn read_to(&self, _: i32, _: i64) {}
    fn checkpoints(&self) -> Vec<Commit> {
        Self::commits(self.owned.lock().unwrap().iter().copied())
    }
    fn commit_acknowledged(&self, _: Moment) {
        self.tell(Told::Acknowledged);
    }
    fn commit_refused(&self, _: &Error) {
        self.tell(Told::Refused);
    }
}

struct World {
    brokers: MockCluster<'static, DefaultProducerContext>,
    member: Arc<Ledger>,
    metrics: Metrics,
    stop: CancellationToken,
    running: JoinHandle<crate::Result<()>>,
    _runtime: Runtime,
}

impl World {
    fn new(arrange: impl FnOnce(&MockCluster<'static, DefaultProducerContext>)) -> Self {
        let brokers = MockCluster::new(1).unwrap();
        let cluster = Cluster::new(Topics::new("mock", Some(2)), &brokers.bootstrap_servers(), vec![], "test");
        brokers.create_topic(&cluster.topics.name(Topic::StatusEvents), 2, 1).unwrap();
        arrange(&brokers);
        let settings = GroupSettings {
            reader: "projector",
            topic: Topic::StatusEvents,
            session_timeout: SESSION,
            max_poll_interval: Duration::from_secs(10),
            fetch_min_bytes: 1,
        };
        let (metrics, runtime) = (Metrics::register(&Registry::new()).unwrap(), Runtime::new().unwrap());
        let dead_letters = Arc::new(DeadLetters::new(&cluster, &metrics).unwrap());
        let (member, stop) = (Arc::new(Ledger::default()), CancellationToken::new());
        let handle = runtime.handle().clone();
        let consumer = {
            let member = Arc::clone(&member) as Arc<dyn Member>;
            GroupConsumer::new(&cluster, settings, &metrics, stop.clone(), member, dead_letters, handle).unwrap()
        };
        let running = std::thread::spawn(move || consumer.run(|| {}));
        Self { brokers, member, metrics, stop, running, _runtime: runtime }
    }

    fn until(&self, what: &str, holds: impl Fn(&[Told]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds(&self.member.all()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.member.all());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn end(self) -> Vec<Told> {
        self.stop.cancel();
        self.running.join().unwrap().unwrap();
        self.member.all()
    }
}

#[test]
fn a_member_that_leaves_commits_last_and_loses_nothing() {
    let world = World::new(|_| {});
    world.until("a commit is acknowledged", |told| told.contains(&Told::Acknowledged));
    assert_eq!(world.end(), [Told::Assigned(2), Told::Acknowledged, Told::Revoked { lost: false }]);
}

#[test]
fn a_member_without_an_acknowledged_commit_for_a_session_counts_its_partitions_as_lost_and_joins_anew() {
    let world = World::new(|_| {});
    world.until("a commit is acknowledged", |told| told.contains(&Told::Acknowledged));
    // Its heartbeats are answered all the time.
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 1_000];
    world.brokers.request_errors(RDKafkaApiKey::OffsetCommit, &refused);
    world.until("it counts them as lost", |told| told.contains(&Told::Revoked { lost: true }));
    world.brokers.clear_request_errors(RDKafkaApiKey::OffsetCommit);
    world.until("it is given them again", |told| told.ends_with(&[Told::Assigned(2), Told::Acknowledged]));
    let group = world.metrics.commits_refused.with_label_values(&["mock.projector"]).get();
    assert!(group > 0, "refused commits are counted");
    let told = world.end();
    let expected = [Told::Assigned(2), Told::Acknowledged, Told::Refused, Told::Revoked { lost: true }];
    assert_eq!(told[..4], expected, "{told:?}");
}

#[test]
fn brokers_that_refuse_at_once_are_asked_again_after_a_pause() {
    let begun = Instant::now();
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 5];
    let world = World::new(|brokers| brokers.request_errors(RDKafkaApiKey::OffsetFetch, &refused));
    world.until("it is given its partitions", |told| told.contains(&Told::Assigned(2)));
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
    world.end();
}
