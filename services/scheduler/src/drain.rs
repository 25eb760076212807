//! Proves that nothing of a planned mailing is under way any more: then what isn't settled never will be.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use events::topics::Topic;
use kafka::{CommittedPartition, GroupView};
use sqlx::PgPool;
use store::projection;

/// Between two looks. What takes no longer than this to settle is never asked about.
const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(1);

/// How far the proof has come. It stands on the order of its steps: a frontier passes a message only when its settling status
/// is acknowledged.
pub(crate) struct Drain {
    looked_at: Instant,
    stage: Stage,
}

enum Stage {
    /// Nothing was looked at.
    New,
    /// All of the mailing lies in message-events below these ends; the frontiers are to reach them.
    Conveyor(Vec<i64>),
    /// They did, and so all of its statuses lie in status-events below these; Postgres is to hold them.
    Statuses(Vec<i64>),
    /// It does.
    Over,
}

impl Drain {
    /// Begins once the mailing's last page is committed.
    pub(crate) fn new() -> Self {
        Self { looked_at: Instant::now(), stage: Stage::New }
    }

    /// Whether it is proved. Settled rounds that are read from now on hold all there will be.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Looks on, once a second. Blocks for as long as Kafka and Postgres take; what can't be asked now is asked later.
    pub(crate) fn look(&mut self, senders: &GroupView, pool: &PgPool, runtime: &tokio::runtime::Handle) {
        if self.is_over() || self.looked_at.elapsed() < INTERVAL {
            return;
        }
        self.looked_at = Instant::now();
        if let Err(error) = self.step(senders, pool, runtime) {
            tracing::debug!(error = format!("{error:#}"), "looking whether all is settled");
        }
    }

    fn step(&mut self, senders: &GroupView, pool: &PgPool, runtime: &tokio::runtime::Handle) -> anyhow::Result<()> {
        let conveyor = senders.partitions(TIMEOUT)?;
        let ends = || conveyor.iter().map(|partition| partition.end).collect();
        self.stage = match &self.stage {
            Stage::New => Stage::Conveyor(ends()),
            Stage::Conveyor(before) if went_back(&conveyor, before) => Stage::Conveyor(ends()),
            Stage::Conveyor(before) if !passed(&conveyor, before) => return Ok(()),
            Stage::Conveyor(_) => Stage::Statuses(senders.ends_of(Topic::StatusEvents, TIMEOUT)?),
            Stage::Statuses(before) => {
                let partitions: Vec<i32> = (0..).take(before.len()).collect();
                let written =
                    runtime.block_on(async { projection::offsets(&mut *pool.acquire().await?, &partitions).await })?;
                if !holds(&written, before, &senders.ends_of(Topic::StatusEvents, TIMEOUT)?) {
                    return Ok(());
                }
                Stage::Over
            }
            Stage::Over => return Ok(()),
        };
        Ok(())
    }
}

/// A log that ends before where it ended is another one, and its ends are to be asked anew.
fn went_back(conveyor: &[CommittedPartition], before: &[i64]) -> bool {
    conveyor.iter().zip(before).any(|(partition, before)| partition.end < *before)
}

/// All frontiers have reached these ends. In a partition that holds nothing there is nothing to wait for.
fn passed(conveyor: &[CommittedPartition], ends: &[i64]) -> bool {
    conveyor.iter().zip(ends).all(|(partition, end)| match partition.checkpoint() {
        Some((frontier, _)) => frontier.0 >= *end,
        None => partition.low == partition.end,
    })
}

/// Postgres holds the statuses up to these ends. One that holds more than there is now knows another log.
pub(crate) fn holds(written: &BTreeMap<i32, i64>, ends: &[i64], now: &[i64]) -> bool {
    (0..).zip(ends.iter().zip(now)).all(|(partition, (end, now))| {
        let written = written.get(&partition).copied().unwrap_or(0);
        (*end..=*now).contains(&written)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(low: i64, end: i64, committed: Option<(i64, &str)>) -> CommittedPartition {
        let committed = committed.map(|(offset, metadata)| (offset, metadata.to_owned()));
        CommittedPartition { low, end, committed }
    }

    #[test]
    fn the_conveyor_is_passed_when_all_frontiers_are() {
        let metadata = "v2 bookmark=7 position=50 open=3 calling=0 calls=9 pace=- closed=-";
        let passed = partition(0, 60, Some((50, metadata)));
        let cases = [
            ("a frontier at the end", partition(0, 60, Some((50, metadata))), true),
            ("one below it", partition(0, 60, Some((49, metadata))), false),
            ("no commit and records", partition(0, 60, None), false),
            ("no commit and nothing there", partition(60, 60, None), true),
            ("not a sender's commit", partition(0, 60, Some((55, ""))), false),
            ("a commit beyond the end", partition(0, 60, Some((70, metadata))), false),
        ];
        for (name, other, expected) in cases {
            assert_eq!(super::passed(&[passed.clone(), other], &[50, 50]), expected, "{name}");
        }
    }

    #[test]
    fn statuses_are_written_when_postgres_holds_them_and_not_more_than_there_are() {
        let cases = [(5, true), (9, true), (4, false), (10, false)];
        for (written, expected) in cases {
            assert_eq!(holds(&BTreeMap::from([(0, 5), (1, written)]), &[5, 5], &[5, 9]), expected, "{written}");
        }
        assert!(holds(&BTreeMap::new(), &[0, 0], &[0, 3]), "nothing was ever there");
    }
}
