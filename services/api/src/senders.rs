//! What the senders do, by what they commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use events::topics::Topic;
use kafka::{Cluster, CommittedPartition, GroupView};
use tokio::sync::Mutex;

/// A caller is to hear soon that Kafka is away.
const TIMEOUT: Duration = Duration::from_secs(1);
/// However many callers there are, Kafka is asked once in this time.
const FRESH: Duration = Duration::from_secs(1);
/// What was seen longer ago than this says nothing of now.
const STALE: Duration = Duration::from_secs(60);

/// Asks what the senders have committed.
pub(crate) struct Senders {
    view: Arc<GroupView>,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    asked: Option<(Instant, Result<Look, String>)>,
    /// The last answer.
    seen: Option<(Instant, Arc<Vec<CommittedPartition>>)>,
}

/// What was found.
#[derive(Clone)]
pub(crate) struct Look {
    /// The partitions of message-events.
    pub(crate) partitions: Arc<Vec<CommittedPartition>>,
    /// Calls begun since the look before. None: that is too long ago.
    pub(crate) calls_per_second: Option<f64>,
}

impl Senders {
    /// Needs no Kafka yet.
    pub(crate) fn new(kafka: &Cluster) -> anyhow::Result<Self> {
        let view = GroupView::new(kafka, &kafka.topics.group("sender"), Topic::MessageEvents);
        Ok(Self { view: Arc::new(view.context("create a client")?), last: Mutex::default() })
    }

    /// What they have committed, as seen a second ago at most; or why nobody knows.
    pub(crate) async fn look(&self) -> Result<Look, String> {
        let mut last = self.last.lock().await;
        if let Some((_, asked)) = last.asked.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return asked.clone();
        }
        let view = Arc::clone(&self.view);
        let asked = tokio::task::spawn_blocking(move || view.partitions(TIMEOUT)).await;
        let (now, asked) = match asked {
            Ok(Ok(partitions)) => (Instant::now(), Ok(last.take_in(Arc::new(partitions)))),
            Ok(Err(error)) => (Instant::now(), Err(format!("Kafka can't be asked: {error}"))),
            Err(_) => (Instant::now(), Err("Kafka can't be asked".to_owned())),
        };
        last.asked = Some((now, asked.clone()));
        asked
    }
}

impl Last {
    fn take_in(&mut self, partitions: Arc<Vec<CommittedPartition>>) -> Look {
        let before = self.seen.replace((Instant::now(), Arc::clone(&partitions)));
        let before = before.map(|(at, before)| (at.elapsed(), before)).filter(|(ago, _)| *ago < STALE);
        let calls_per_second = before.map(|(ago, before)| calls_between(&before, &partitions) / ago.as_secs_f64());
        Look { partitions, calls_per_second }
    }
}

/// Calls begun from one look to the next. A count that fell, because a commit was lost, tells of none.
#[expect(clippy::cast_precision_loss, reason = "a rate is shown rounded")]
fn calls_between(before: &[CommittedPartition], now: &[CommittedPartition]) -> f64 {
    let calls = |partition: &CommittedPartition| Some(partition.checkpoint()?.1.calls);
    let begun = before.iter().zip(now).filter_map(|(before, now)| Some(calls(now)?.saturating_sub(calls(before)?)));
    begun.sum::<u64>() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_where_both_looks_saw_them_and_never_backwards() {
        let partition = |calls: Option<u64>| CommittedPartition {
            low: 0,
            end: 100,
            committed: calls
                .map(|calls| (7, format!("v2 bookmark=0 position=7 open=0 calling=0 calls={calls} pace=- closed=-"))),
        };
        let before = [partition(Some(10)), partition(Some(500)), partition(None), partition(Some(3))];
        let now = [partition(Some(40)), partition(Some(20)), partition(Some(9)), partition(None)];
        assert!((calls_between(&before, &now) - 30.0).abs() < f64::EPSILON);
    }
}
