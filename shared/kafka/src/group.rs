//! A member of a consumer group: one OS thread that polls and nothing else, and one that commits. What is done with the
//! records is the [`Member`]'s, and happens elsewhere.

mod committed;
mod committer;
mod instance;
mod member;
mod membership;
mod rebalance;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use events::topics::Topic;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::garbage::Reviewer;
use crate::{Cluster, DeadLetters, Metrics, Result};
pub use member::{Assigned, Commit, Intake, Member, Start};
use membership::Membership;

/// How a member takes part in its group.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// The reader, which names the group (`{prefix}.<reader>`) and its dead letters.
    pub reader: &'static str,
    /// What it reads.
    pub topic: Topic,
    /// How long the group waits for a silent member. A member that was silent for longer treats its partitions as lost.
    pub session_timeout: Duration,
    /// How long a rebalance callback may block.
    pub max_poll_interval: Duration,
    /// How many bytes the broker gathers before it answers, for up to 50 ms.
    pub fetch_min_bytes: u32,
}

/// A consumer in a group.
pub struct GroupConsumer {
    cluster: Cluster,
    membership: Membership,
    reviewer: Reviewer,
}

impl GroupConsumer {
    /// Creates the consumer; [`run`](Self::run) joins the group. `runtime` writes the letters.
    pub fn new(
        cluster: &Cluster,
        settings: GroupSettings,
        metrics: &Metrics,
        stop: CancellationToken,
        member: Arc<dyn Member>,
        dead_letters: Arc<DeadLetters>,
        runtime: Handle,
    ) -> Result<Self> {
        let reviewer = Reviewer {
            cluster: cluster.clone(),
            reader: settings.reader,
            topic: settings.topic,
            dead_letters,
            runtime,
        };
        let membership = Membership::new(cluster, settings, metrics, stop, member)?;
        Ok(Self { cluster: cluster.clone(), membership, reviewer })
    }

    /// Polls until told to stop, then gives its partitions up in good order. `beat` is called at each turn.
    pub fn run(self, beat: impl Fn()) -> Result<()> {
        match self.membership.run(&self.reviewer, &beat) {
            Err(error) if instance::is_fenced(&error) => {
                let membership = instance::go_on_without(&self.cluster, self.membership)?;
                membership.run(&self.reviewer, &beat)
            }
            ended => ended,
        }
    }
}
