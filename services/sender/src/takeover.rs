//! Takes a partition over: waits for what this process left of it, replays its statuses, opens it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::health::Readiness;
use tokio::sync::Semaphore;

use crate::leaving::Leaving;
use crate::message::Ownership;
use crate::replay::Begin;

/// Each replay holds two librdkafka clients and what they have fetched.
const REPLAYS_AT_ONCE: usize = 3;
/// Before a replay that failed begins again.
const PAUSE: Duration = Duration::from_millis(500);

/// The partitions that this sender owns. It is ready while all of them are open.
pub(crate) struct Partitions {
    owned: Mutex<HashMap<i32, Arc<Ownership>>>,
    ready: Readiness,
}

impl Partitions {
    pub(crate) fn new(ready: Readiness) -> Self {
        Self { owned: Mutex::default(), ready }
    }

    pub(crate) fn get(&self, number: i32) -> Option<Arc<Ownership>> {
        self.owned.lock().expect("not poisoned").get(&number).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Ownership>> {
        self.owned.lock().expect("not poisoned").values().cloned().collect()
    }

    pub(crate) fn insert(&self, ownership: Arc<Ownership>) {
        self.owned.lock().expect("not poisoned").insert(ownership.partition.number, ownership);
    }

    pub(crate) fn remove(&self, numbers: &[i32]) -> Vec<Arc<Ownership>> {
        let mut owned = self.owned.lock().expect("not poisoned");
        numbers.iter().filter_map(|number| owned.remove(number)).collect()
    }

    /// Says whether all are open.
    pub(crate) fn tell_readiness(&self) {
        let owned = self.owned.lock().expect("not poisoned");
        let mut closed: Vec<i32> =
            owned.values().map(|owned| &owned.partition).filter(|it| !it.is_open()).map(|it| it.number).collect();
        closed.sort_unstable();
        self.ready.set((!closed.is_empty()).then(|| format!("the statuses of partitions {closed:?} are being read")));
    }
}

/// How partitions are taken over.
pub(crate) struct Takeover {
    kafka: kafka::Cluster,
    leaving: Arc<Leaving>,
    /// How long statuses of an earlier ownership are waited for.
    deadline: Duration,
    partitions: Arc<Partitions>,
    replays: Semaphore,
}

impl Takeover {
    pub(crate) fn new(
        kafka: kafka::Cluster,
        leaving: Arc<Leaving>,
        deadline: Duration,
        partitions: Arc<Partitions>,
    ) -> Self {
        Self { kafka, leaving, deadline, partitions, replays: Semaphore::new(REPLAYS_AT_ONCE) }
    }

    /// Tries until it succeeds or the partition is taken away. One that can't be replayed holds up no other: it waits for its
    /// turn anew before each try.
    pub(crate) async fn run(&self, owned: Arc<Ownership>, begin: Begin) {
        let (partition, number) = (&owned.partition, owned.partition.number);
        // What this process called before it lost the partition must be in what the replay reads.
        let left = tokio::time::timeout(self.deadline, self.leaving.wait_for([number]));
        let _ = partition.stop.run_until_cancelled(left).await;
        loop {
            let Some(Ok(turn)) = partition.stop.run_until_cancelled(self.replays.acquire()).await else { return };
            let (kafka, stop) = (self.kafka.clone(), partition.stop.clone());
            let replay = owned.runtime.spawn_blocking(move || begin.replay(&kafka, number, &stop));
            // A panic in there is one of this task.
            let replayed = replay.await.expect("a replay doesn't panic");
            drop(turn);
            match replayed {
                Ok(replayed) => {
                    let (frontier, open, settled) =
                        (replayed.statuses.frontier(), replayed.statuses.open(), replayed.statuses.settled());
                    tracing::info!(kafka.partition = number, ?begin, %frontier, open, settled, "partition taken over");
                    owned.context.metrics.replayed.inc_by((open + settled) as u64);
                    owned.begin(partition.open_with(replayed));
                    return self.partitions.tell_readiness();
                }
                Err(kafka::Error::Stopped) => return,
                Err(error) => {
                    self.partitions.ready.not_ready(format!("partition {number}: {error}"));
                    partition.stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                }
            }
        }
    }
}
