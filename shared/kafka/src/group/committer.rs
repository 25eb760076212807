//! Commits, on a thread of their own and one at a time.
//!
//! They are synchronous: rdkafka 0.39 calls `commit_callback` for automatic commits only (librdkafka enqueues no event for a
//! manual asynchronous one), and a lease needs the acknowledgement.

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::member::Commit;
use super::membership::{Context, Membership, TICK};
use crate::{Error, Moment, Result};

impl Membership {
    pub(super) fn commit_until(&self, left: &CancellationToken, context: &Context) {
        while !left.is_cancelled() {
            std::thread::park_timeout(TICK);
            if let Err(error) = self.commit(context) {
                context.refused(&error);
            }
        }
    }

    /// Commits what may be committed, if it has changed or membership is to be proved.
    fn commit(&self, context: &Context) -> Result<()> {
        let committing = context.committing.lock().expect("not poisoned");
        let sent = Moment::now();
        let commits = context.member.checkpoints();
        if !context.committed().is_due(&commits, sent) {
            return Ok(());
        }
        fail::fail_point!("group::commit", |_| std::process::abort());
        self.consumer.commit(&commit_list(&self.topic, &commits)?, CommitMode::Sync)?;
        let proved = context.acknowledged(&commits, sent);
        drop(committing);
        if proved {
            context.member.commit_acknowledged(sent);
        }
        Ok(())
    }
}

impl Context {
    /// Answers whether that proves that this member has owned its partitions all the time.
    pub(super) fn acknowledged(&self, commits: &[Commit], sent: Moment) -> bool {
        let mut committed = self.committed();
        for gone_back in committed.gone_back(commits) {
            self.metrics.commits_gone_back.with_label_values(&[self.group.as_str()]).inc();
            tracing::error!(
                group = self.group,
                kafka.partition = gone_back.partition,
                from = gone_back.from,
                to = gone_back.to,
                "a commit went back: what lies between is read again"
            );
        }
        committed.acknowledge(commits, sent)
    }

    /// During a rebalance, or with the coordinator away. The next commit repairs it; until then nothing proves membership.
    fn refused(&self, error: &Error) {
        self.metrics.commits_refused.with_label_values(&[self.group.as_str()]).inc();
        if let Some(held_back) = self.refusals.held_back() {
            tracing::warn!(%error, group = self.group, held_back, "a commit was refused");
        }
        self.member.commit_refused(error);
    }
}

/// A fresh list each time: setting an element's metadata twice leaks the first.
pub(super) fn commit_list(topic: &str, commits: &[Commit]) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for commit in commits {
        let mut element = list.add_partition(topic, commit.partition);
        element.set_offset(Offset::Offset(commit.offset))?;
        element.set_metadata(&commit.metadata);
    }
    Ok(list)
}
