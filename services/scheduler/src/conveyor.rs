//! Samples the conveyor from what the senders have committed, and shares the room among this process's shards.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use domain::conveyor::{Conveyor, Share, open_for_pages};
use domain::lane::{Closed, ClosedLanes};
use events::topics::Topic;
use kafka::ledger::Metadata;
use kafka::{CommittedPartition, GroupView};
use runtime::health::Readiness;

use crate::metrics::Metrics;
use crate::pace::Pace;

/// Senders commit this often.
const SAMPLE_AGE: Duration = Duration::from_millis(100);
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
    pace: Pace,
    closed: ClosedLanes,
    /// When a page was last planned by this process.
    last_page: Option<Instant>,
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
            last_page: state.last_page.map(|at| at.elapsed()),
        };
        let clients = state.conveyor.page(share);
        state.under_way += clients.unwrap_or(0);
        Ok(clients.map(|clients| Room { sampler: self, clients }))
    }

    /// The lanes that the senders have closed, as last sampled.
    pub(crate) fn closed_lanes(&self) -> ClosedLanes {
        self.state.lock().expect("not poisoned").closed.clone()
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
        let counts: Vec<Count> = partitions.iter().map(Count::of).collect();
        let unread = counts.iter().map(|count| count.unread).sum();
        let open: u64 = counts.iter().map(|count| count.open).sum();
        let now = Instant::now();
        let calls = counts.iter().map(|count| count.calls).collect();
        let pace = state.pace.sample(calls, unread + open == 0, now);
        let lying = counts.iter().map(|it| it.unread + open_for_pages(it.open, it.calling, &it.closed)).collect();
        state.closed = ClosedLanes { by_partition: counts.into_iter().map(|count| count.closed).collect() };
        let closed = state.closed.all();
        state.conveyor = Conveyor { lying, unread, pace, closed };
        (state.sampled_at, state.planned) = (Some(now), 0);
        self.metrics.unread.set(unread.cast_signed());
        self.metrics.open.set(open.cast_signed());
        Ok(())
    }
}

impl Room<'_> {
    /// The page is committed with this many clients. Dropped without, the room is free again.
    pub(crate) fn used(self, clients: u64) {
        let mut state = self.sampler.state.lock().expect("not poisoned");
        state.planned += clients;
        if clients > 0 {
            state.last_page = Some(Instant::now());
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.sampler.state.lock().expect("not poisoned").under_way -= self.clients;
    }
}

/// What a partition's commit tells.
#[derive(Debug, PartialEq, Eq)]
struct Count {
    unread: u64,
    open: u64,
    calling: u64,
    /// None: no sender has committed.
    calls: Option<u64>,
    closed: Closed,
}

impl Count {
    /// Without a commit nothing was ever taken in.
    fn of(partition: &CommittedPartition) -> Self {
        let committed = partition.committed.as_ref();
        let metadata: Option<Metadata> = committed.and_then(|(_, metadata)| metadata.parse().ok());
        let position = match (&metadata, committed) {
            (Some(metadata), _) => metadata.position.0,
            (None, Some((frontier, _))) => *frontier,
            (None, None) => partition.low,
        };
        Self {
            unread: (partition.end - position.clamp(partition.low, partition.end)).cast_unsigned(),
            open: metadata.as_ref().map_or(0, |metadata| metadata.open),
            calling: metadata.as_ref().map_or(0, |metadata| metadata.calling),
            calls: metadata.as_ref().map(|metadata| metadata.calls),
            closed: metadata.map(|metadata| metadata.closed).unwrap_or_default(),
        }
    }
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
        let count = |unread, open, calls, closed| Count { unread, open, calling: open / 2, calls, closed };
        let none = Closed::default;
        let cases = [
            (
                "a commit",
                Some((40, "v2 bookmark=1 position=70 open=5 calling=2 calls=9 pace=- closed=-")),
                count(30, 5, Some(9), none()),
            ),
            (
                "closed lanes",
                Some((40, "v2 bookmark=1 position=70 open=5 calling=2 calls=9 pace=- closed=all")),
                count(30, 5, Some(9), Closed::All),
            ),
            ("no commit", None, count(90, 0, None, none())),
            ("somebody else's metadata", Some((40, "")), count(60, 0, None, none())),
            (
                "beyond the end",
                Some((200, "v2 bookmark=1 position=200 open=0 calling=0 calls=9 pace=- closed=-")),
                count(0, 0, Some(9), none()),
            ),
        ];
        for (name, committed, expected) in cases {
            assert_eq!(Count::of(&partition(committed)), expected, "{name}");
        }
    }
}
