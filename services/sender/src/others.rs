//! A sender with no open lane while others call is sick itself: it may be its network or its address. It says so, for its
//! messages wait while others could be sent.

use std::sync::Arc;
use std::time::Duration;

use domain::lane::Closed;
use kafka::{CommittedPartition, GroupView};
use runtime::health::Readiness;
use tokio_util::sync::CancellationToken;

use crate::lanes::Lanes;
use crate::takeover::Partitions;

/// Between two looks at what the others commit, while no lane is open here.
const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(1);
/// After trouble of all, lanes don't open everywhere in the same second.
const LOOKS: u32 = 2;

/// Looks at the other senders of the group.
pub(crate) struct Others {
    pub(crate) view: Arc<GroupView>,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) ready: Readiness,
}

impl Others {
    /// Looks until told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let (mut interval, mut before, mut row) = (tokio::time::interval(INTERVAL), None, 0);
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            if !self.lanes.none_open() {
                (before, row) = (None, 0);
                self.ready.ready();
                continue;
            }
            let view = Arc::clone(&self.view);
            // With Kafka away nobody knows: what was said last stands.
            let Ok(Ok(now)) = tokio::task::spawn_blocking(move || view.partitions(TIMEOUT)).await else { continue };
            let own: Vec<i32> = self.partitions.all().iter().map(|owned| owned.partition.number).collect();
            let call = before.is_some_and(|before: Vec<_>| others_call(&own, &before, &now));
            (before, row) = (Some(now), if call { row + 1 } else { 0 });
            let reason = "no lane is open while other senders call: look at this one's way to the provider";
            self.ready.set((row >= LOOKS).then(|| reason.to_owned()));
        }
        Ok(())
    }
}

/// Whether calls began in a partition of another sender that has no lane closed, from one look to the next.
fn others_call(own: &[i32], before: &[CommittedPartition], now: &[CommittedPartition]) -> bool {
    let others = (0..).zip(before.iter().zip(now)).filter(|(number, _)| !own.contains(number));
    others.map(|(_, looks)| looks).any(|(before, now)| {
        let (Some((_, before)), Some((_, now))) = (before.checkpoint(), now.checkpoint()) else { return false };
        now.closed == Closed::default() && now.calls > before.calls
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_call_when_one_without_a_closed_lane_does() {
        let partition = |calls: u64, closed: &str| CommittedPartition {
            low: 0,
            end: 100,
            committed: Some((
                7,
                format!("v2 bookmark=0 position=7 open=0 calling=0 calls={calls} pace=- closed={closed}"),
            )),
        };
        let nobody = CommittedPartition { low: 0, end: 100, committed: None };
        let before = [partition(5, "all"), partition(5, "-"), nobody.clone()];
        let cases = [
            ("nobody does", partition(5, "-"), nobody.clone(), false),
            ("one does", partition(6, "-"), nobody.clone(), true),
            ("it only probes", partition(6, "916"), nobody.clone(), false),
            ("a first commit tells of no calls", partition(5, "-"), partition(9, "-"), false),
        ];
        for (name, second, third, expected) in cases {
            let now = [partition(8, "-"), second, third];
            assert_eq!(others_call(&[0], &before, &now), expected, "{name}");
        }
    }
}
