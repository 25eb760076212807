//! Samples the conveyor from what the senders have committed, and shares the room among this process's shards.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use domain::conveyor::{Conveyor, Share};
use events::topics::Topic;
use kafka::ledger::Metadata;
use kafka::{CommittedPartition, GroupView};
use runtime::health::Readiness;

use crate::metrics::Metrics;

/// Senders commit this often.
const SAMPLE_AGE: Duration = Duration::from_millis(100);
/// The pace is an average over this long.
const PACE_WINDOW: Duration = Duration::from_secs(1);
/// An order to stop waits for a sample: three questions.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The conveyor as last sampled.
pub(crate) struct Sampler {
    pub(crate) view: GroupView,
    shards: u64,
    metrics: Metrics,
    ready: Readiness,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sampled_at: Option<Instant>,
    /// A partition ends before its frontier.
    went_back: bool,
    conveyor: Conveyor,
    /// Σ (position − open) at past moments, oldest first. Empty after the conveyor was: an idle second is no pace.
    settled: VecDeque<(Instant, u64)>,
    /// Partitions with a commit.
    committed: usize,
    owned: u64,
    /// Clients planned since the sample.
    planned: u64,
    /// Clients of pages under way.
    under_way: u64,
}

/// Room reserved for one page. [`Room::used`] says how much of it was planned.
pub(crate) struct Room<'a> {
    sampler: &'a Sampler,
    pub(crate) clients: u64,
}

impl Sampler {
    pub(crate) fn new(kafka: &kafka::Cluster, metrics: Metrics, ready: Readiness) -> kafka::Result<Self> {
        ready.ready();
        Ok(Self {
            view: GroupView::new(kafka, &kafka.topics.group("sender"), Topic::MessageEvents)?,
            shards: u64::from(kafka.topics.shards()),
            metrics,
            ready,
            state: Mutex::default(),
        })
    }

    /// How many shards this process owns now.
    pub(crate) fn own(&self, shards: usize) {
        self.state.lock().expect("not poisoned").owned = shards as u64;
        self.metrics.shards.set(i64::try_from(shards).unwrap_or(i64::MAX));
    }

    /// Room for the next page, if it is worth planning one. Blocks while it samples.
    pub(crate) fn room(&self) -> kafka::Result<Option<Room<'_>>> {
        let mut state = self.state.lock().expect("not poisoned");
        if state.sampled_at.is_none_or(|at| at.elapsed() >= SAMPLE_AGE) {
            self.sample(&mut state)?;
        }
        if state.went_back {
            return Ok(None);
        }
        let share = Share {
            owned: state.owned,
            shards: self.shards,
            planned_since: state.planned + state.under_way,
            last_page: None,
        };
        let clients = state.conveyor.page(share);
        state.under_way += clients.unwrap_or(0);
        Ok(clients.map(|clients| Room { sampler: self, clients }))
    }

    /// Keeps the figures fresh while nothing is planned. With Kafka away they stay as they are.
    pub(crate) fn refresh(&self, age: Duration) {
        let mut state = self.state.lock().expect("not poisoned");
        if state.sampled_at.is_none_or(|at| at.elapsed() >= age)
            && let Err(error) = self.sample(&mut state)
        {
            tracing::debug!(%error, "sampling the conveyor");
        }
    }

    fn sample(&self, state: &mut State) -> kafka::Result<()> {
        let partitions = self.view.partitions(TIMEOUT)?;
        // Records that grow over an old frontier would be taken for settled, so nothing is planned until a sender has replayed the
        // log and committed anew.
        state.went_back = partitions.iter().any(CommittedPartition::went_back);
        if state.went_back {
            self.ready.not_ready("message-events ends before what the senders have committed: it was made anew or cut off. Start them again");
        } else {
            self.ready.ready();
        }
        let (unread, open, settled) =
            partitions.iter().map(count).fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2));
        let now = Instant::now();
        // A partition whose commit comes or goes jumps by all that ever lay in it, which is no pace.
        let committed = partitions.iter().filter(|partition| partition.committed.is_some()).count();
        if state.conveyor.unread + state.conveyor.open == 0 || committed != state.committed {
            state.settled.clear();
        }
        state.committed = committed;
        state.settled.push_back((now, settled));
        while state.settled.len() > 2 && now - state.settled[1].0 >= PACE_WINDOW {
            state.settled.pop_front();
        }
        let (since, before) = state.settled[0];
        let seconds = (now - since).as_secs_f64();
        if seconds >= SAMPLE_AGE.as_secs_f64() {
            state.conveyor.pace = Some((settled.saturating_sub(before) as f64 / seconds) as u64);
        }
        let pace = state.conveyor.pace;
        state.conveyor = Conveyor { partitions: partitions.len() as u64, unread, open, pace, closed: false };
        (state.sampled_at, state.planned) = (Some(now), 0);
        self.metrics.unread.set(unread.cast_signed());
        self.metrics.open.set(open.cast_signed());
        Ok(())
    }
}

impl Room<'_> {
    /// The page is committed with this many clients. Dropped without, the room is free again.
    pub(crate) fn used(self, clients: u64) {
        self.sampler.state.lock().expect("not poisoned").planned += clients;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.sampler.state.lock().expect("not poisoned").under_way -= self.clients;
    }
}

/// Unread, open and settled of a partition. Without a commit nothing was ever taken in.
fn count(partition: &CommittedPartition) -> (u64, u64, u64) {
    let (position, open) = match &partition.committed {
        Some((frontier, metadata)) => match metadata.parse::<Metadata>() {
            Ok(metadata) => (metadata.position.0, metadata.open),
            Err(_) => (*frontier, 0),
        },
        None => (partition.low, 0),
    };
    let position = position.clamp(partition.low, partition.end);
    let unread = (partition.end - position).cast_unsigned();
    (unread, open, position.cast_unsigned().saturating_sub(open))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unread_or_open_is_counted_from_the_senders_commits() {
        let partition = |committed: Option<(i64, &str)>| CommittedPartition {
            low: 10,
            end: 100,
            committed: committed.map(|(offset, metadata)| (offset, metadata.to_owned())),
        };
        let cases = [
            ("a commit", Some((40, "v2 bookmark=1 position=70 open=5 calls=9 closed=-")), (30, 5, 65)),
            ("no commit", None, (90, 0, 10)),
            ("somebody else's metadata", Some((40, "")), (60, 0, 40)),
            ("beyond the end", Some((200, "v2 bookmark=1 position=200 open=0 calls=9 closed=-")), (0, 0, 100)),
        ];
        for (name, committed, expected) in cases {
            assert_eq!(count(&partition(committed)), expected, "{name}");
        }
    }
}
