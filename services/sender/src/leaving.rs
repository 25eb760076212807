//! What is waited for when partitions go, in whichever way: given up, lost, or because the process ends.

use std::collections::HashMap;
use std::sync::Mutex;

use futures::future::join_all;
use tokio_util::task::TaskTracker;

/// The messages of every partition that this process has ever owned, until their last statuses are acknowledged.
///
/// A partition keeps one tracker over all of its ownerships. So whoever waits for the partition also waits for what an earlier
/// ownership, one that was lost, left on its way.
#[derive(Default)]
pub(crate) struct Leaving {
    trackers: Mutex<HashMap<i32, TaskTracker>>,
}

impl Leaving {
    /// The tracker that the partition's messages run on.
    pub(crate) fn tracker(&self, partition: i32) -> TaskTracker {
        let mut trackers = self.trackers.lock().expect("not poisoned");
        let tracker = trackers.entry(partition).or_default();
        // A closed tracker still takes tasks; only a closed one can be waited for.
        tracker.close();
        tracker.clone()
    }

    /// Waits until nothing of these partitions is on its way.
    pub(crate) async fn wait_for(&self, partitions: impl IntoIterator<Item = i32>) {
        let trackers: Vec<TaskTracker> = partitions.into_iter().map(|partition| self.tracker(partition)).collect();
        join_all(trackers.iter().map(TaskTracker::wait)).await;
    }

    /// Waits until nothing is on its way, also of partitions that were lost.
    pub(crate) async fn wait_for_all(&self) {
        let partitions: Vec<i32> = self.trackers.lock().expect("not poisoned").keys().copied().collect();
        self.wait_for(partitions).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_partition_that_came_back_is_not_given_away_before_its_earlier_statuses_are_acknowledged() {
        let leaving = Leaving::default();
        let (acknowledge, acknowledged) = oneshot::channel::<()>();
        leaving.tracker(3).spawn(acknowledged);
        // Lost and assigned again: the new ownership's messages run on the tracker of the old one.
        leaving.tracker(3).spawn(async {}).await.unwrap();
        assert!(leaving.wait_for([3]).now_or_never().is_none());
        assert!(leaving.wait_for([4]).now_or_never().is_some(), "another partition isn't held up");
        acknowledge.send(()).unwrap();
        leaving.wait_for([3]).await;
    }

    #[tokio::test]
    async fn a_process_that_ends_waits_for_the_statuses_of_partitions_that_it_has_lost() {
        let leaving = Leaving::default();
        assert!(leaving.wait_for_all().now_or_never().is_some(), "nothing was ever owned");
        let (acknowledge, acknowledged) = oneshot::channel::<()>();
        leaving.tracker(3).spawn(acknowledged);
        assert!(leaving.wait_for_all().now_or_never().is_none());
        acknowledge.send(()).unwrap();
        leaving.wait_for_all().await;
    }
}
