//! What the group has acknowledged of this member's commits, and what follows from that. Pure: the clock comes in.

use std::collections::BTreeMap;
use std::time::Duration;

use super::member::Commit;
use crate::Moment;

/// How often an unchanged checkpoint is committed, to prove membership.
const PROOF_INTERVAL: Duration = Duration::from_secs(1);

/// What one membership has committed, across all its assignments.
#[derive(Debug)]
pub(super) struct Committed {
    session_timeout: Duration,
    /// By partition, since it was assigned.
    acknowledged: BTreeMap<i32, Commit>,
    /// When the last commit was sent, acknowledged or not.
    sent: Option<Moment>,
    /// Membership is proved up to here; none while no partition is owned.
    proved: Option<Moment>,
    /// The group may have forgotten this member since it was given its first partition. Later proofs don't change that.
    silent: bool,
}

/// A commit that is lower than one that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GoneBack {
    pub(super) partition: i32,
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Committed {
    pub(super) fn new(session_timeout: Duration) -> Self {
        Self { session_timeout, acknowledged: BTreeMap::new(), sent: None, proved: None, silent: false }
    }

    /// Partitions are assigned: what is committed next is committed at once.
    pub(super) fn assign(&mut self, partitions: &[i32], now: Moment) {
        self.acknowledged.retain(|partition, _| !partitions.contains(partition));
        self.sent = None;
        if !partitions.is_empty() {
            self.proved.get_or_insert(now);
        }
    }

    /// Partitions are gone; `none_left` says whether they were the last.
    pub(super) fn revoke(&mut self, partitions: &[i32], none_left: bool) {
        self.acknowledged.retain(|partition, _| !partitions.contains(partition));
        if none_left {
            self.proved = None;
            self.silent = false;
        }
    }

    /// Whether to send a commit now: something has changed, or membership is to be proved.
    pub(super) fn is_due(&mut self, commits: &[Commit], now: Moment) -> bool {
        if commits.is_empty() {
            // Nothing could be called or written without a commit, so there is nothing to prove.
            self.prove(now);
            return false;
        }
        let unchanged = commits.iter().all(|commit| self.acknowledged.get(&commit.partition) == Some(commit));
        if unchanged && self.sent.is_some_and(|sent| now.since(sent) < PROOF_INTERVAL) {
            return false;
        }
        self.sent = Some(now);
        true
    }

    /// Commits that would move a partition back.
    pub(super) fn gone_back(&self, commits: &[Commit]) -> Vec<GoneBack> {
        let before = |commit: &Commit| self.acknowledged.get(&commit.partition).map(|before| before.offset);
        let back = |commit: &Commit| {
            let from = before(commit).filter(|&from| from > commit.offset)?;
            Some(GoneBack { partition: commit.partition, from, to: commit.offset })
        };
        commits.iter().filter_map(back).collect()
    }

    /// The group has acknowledged what was sent then. Answers whether that proves membership since the partitions were given.
    pub(super) fn acknowledge(&mut self, commits: &[Commit], sent: Moment) -> bool {
        self.acknowledged.extend(commits.iter().map(|commit| (commit.partition, commit.clone())));
        self.prove(sent);
        !self.silent
    }

    /// Whether the group may have given the partitions to another and taken them back without a word: an acknowledged commit
    /// is missing for longer than it waits for a silent member.
    pub(super) fn is_silent(&mut self, now: Moment) -> bool {
        self.silent |= self.proved.is_some_and(|proved| now.since(proved) > self.session_timeout);
        self.silent
    }

    fn prove(&mut self, at: Moment) {
        self.is_silent(at);
        self.proved = self.proved.map(|proved| if at.since(proved) > Duration::ZERO { at } else { proved });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(12);

    fn commit(partition: i32, offset: i64) -> Commit {
        Commit { partition, offset, metadata: String::new() }
    }

    /// A member that was given partition 0 at the start.
    fn given() -> (Committed, impl Fn(u64) -> Moment) {
        let start = Moment::now();
        let at = move |ms| start.after(Duration::from_millis(ms), Duration::from_millis(ms));
        let mut committed = Committed::new(SESSION);
        committed.assign(&[0], start);
        (committed, at)
    }

    #[test]
    fn a_changed_checkpoint_is_committed_at_once_and_an_unchanged_one_each_second() {
        let (mut committed, at) = given();
        let cases = [
            ("the first", 0, 5, true),
            ("unchanged", 100, 5, false),
            ("changed", 200, 6, true),
            ("unchanged", 1_100, 6, false),
            ("unchanged, a second later", 1_200, 6, true),
        ];
        for (name, ms, offset, expected) in cases {
            let commits = [commit(0, offset)];
            assert_eq!(committed.is_due(&commits, at(ms)), expected, "{name}");
            if expected {
                committed.acknowledge(&commits, at(ms));
            }
        }
        assert!(!committed.is_due(&[], at(5_000)), "there is nothing to commit");
    }

    #[test]
    fn what_was_refused_is_sent_again_at_the_next_look() {
        let (mut committed, at) = given();
        assert!(committed.is_due(&[commit(0, 5)], at(0)));
        assert!(committed.is_due(&[commit(0, 5)], at(100)));
    }

    #[test]
    fn a_commit_goes_back_if_it_is_lower_than_an_acknowledged_one_of_this_ownership() {
        let (mut committed, at) = given();
        committed.acknowledge(&[commit(0, 5), commit(1, 7)], at(0));
        assert_eq!(committed.gone_back(&[commit(0, 5), commit(1, 8), commit(2, 1)]), []);
        assert_eq!(committed.gone_back(&[commit(0, 4), commit(1, 8)]), [GoneBack { partition: 0, from: 5, to: 4 }]);
        committed.revoke(&[0], false);
        assert_eq!(committed.gone_back(&[commit(0, 4)]), [], "it was another's in between");
        committed.assign(&[1], at(1));
        assert_eq!(committed.gone_back(&[commit(1, 4)]), [], "it is given anew");
    }

    /// What happens at a time, in ms.
    enum Step {
        Sent(u64),
        NothingToCommit(u64),
        Assigned(u64, &'static [i32]),
        Revoked(&'static [i32], bool),
    }

    #[test]
    fn a_member_is_silent_once_it_owned_partitions_for_longer_than_a_session_without_an_acknowledged_commit() {
        use Step::{Assigned, NothingToCommit, Revoked, Sent};
        let cases: [(&str, &[Step], u64, bool); 9] = [
            ("given a session ago", &[], 12_000, false),
            ("given longer ago", &[], 12_001, true),
            ("acknowledged since", &[Sent(8_000)], 20_000, false),
            ("acknowledged long ago", &[Sent(8_000)], 20_001, true),
            ("acknowledged too late: another may have owned them", &[Sent(13_000)], 13_100, true),
            ("a rebalance that gives nothing proves nothing", &[Assigned(11_000, &[])], 12_001, true),
            ("nor does one that gives more", &[Assigned(11_000, &[1])], 12_001, true),
            ("it replays and has nothing to commit", &[NothingToCommit(10_000)], 22_000, false),
            ("it owns nothing any more", &[Revoked(&[0], true)], 60_000, false),
        ];
        for (name, steps, now, expected) in cases {
            let (mut committed, at) = given();
            for step in steps {
                match *step {
                    Sent(ms) => assert_eq!(committed.acknowledge(&[commit(0, 5)], at(ms)), ms <= 12_000, "{name}"),
                    NothingToCommit(ms) => assert!(!committed.is_due(&[], at(ms))),
                    Assigned(ms, partitions) => committed.assign(partitions, at(ms)),
                    Revoked(partitions, none_left) => committed.revoke(partitions, none_left),
                }
            }
            assert_eq!(committed.is_silent(at(now)), expected, "{name}");
        }
    }

    #[test]
    fn a_silent_member_that_has_lost_its_partitions_begins_anew() {
        let (mut committed, at) = given();
        assert!(committed.is_silent(at(13_000)));
        committed.revoke(&[0], true);
        committed.assign(&[0], at(14_000));
        assert!(!committed.is_silent(at(15_000)));
        assert!(committed.acknowledge(&[commit(0, 5)], at(15_000)));
    }
}
