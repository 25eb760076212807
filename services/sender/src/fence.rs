//! Self-fencing: a sender acts only while it can prove that it is in the group and that its board is current, and while its
//! clock has not leapt.

use std::sync::Mutex;

use kafka::Moment;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::timing::{LEASE, PROOF};

/// The proofs, and the clock that is decided by.
pub(crate) struct Fence {
    pub(crate) clock: Clock,
    proofs: Mutex<Proofs>,
    renewed: watch::Sender<()>,
}

#[derive(Default)]
struct Proofs {
    /// When the acknowledged commit was sent.
    lease: Option<Moment>,
    /// When the generation began; commits sent before prove nothing about it.
    generation: Option<Moment>,
    /// When the request that proved the board current was sent.
    board: Option<Moment>,
}

impl Default for Fence {
    fn default() -> Self {
        Self { clock: Clock::default(), proofs: Mutex::default(), renewed: watch::Sender::new(()) }
    }
}

impl Fence {
    /// A rebalance: earlier commits prove nothing any more.
    pub(crate) fn new_generation(&self) {
        let mut proofs = self.proofs.lock().expect("not poisoned");
        proofs.lease = None;
        proofs.generation = Some(Moment::now());
    }

    /// A commit sent at `sent` was acknowledged.
    pub(crate) fn renew_lease(&self, sent: Moment) {
        let mut proofs = self.proofs.lock().expect("not poisoned");
        if proofs.generation.is_some_and(|generation| sent.age() <= generation.age()) {
            proofs.lease = Some(sent);
            drop(proofs);
            self.renewed.send_replace(());
        }
    }

    /// The board holds all that was written before a request sent at `sent`.
    pub(crate) fn prove_board(&self, sent: Moment) {
        self.proofs.lock().expect("not poisoned").board = Some(sent);
        self.renewed.send_replace(());
    }

    /// Whether an attempt may begin, or a message be settled without one, at this moment.
    pub(crate) fn holds(&self) -> bool {
        self.missing().is_none()
    }

    /// What keeps it from holding.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        let proofs = self.proofs.lock().expect("not poisoned");
        if proofs.lease.is_none_or(|lease| lease.age() >= LEASE) {
            Some("no commit was acknowledged in the last 5 s, so the partitions may be another's")
        } else if proofs.board.is_none_or(|board| board.age() >= PROOF) {
            Some("mailing-events was not read to its end in the last second")
        } else if !self.clock.is_trusted() {
            Some("the clock has leapt")
        } else {
            None
        }
    }

    /// Waits until it holds.
    pub(crate) async fn wait(&self) {
        let mut renewed = self.renewed.subscribe();
        while !self.holds() {
            // The sender of the channel is `self`: it can't be gone.
            let _ = renewed.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_holds_under_an_acknowledged_commit_and_a_current_board() {
        let fence = Fence::default();
        assert!(!fence.holds(), "nothing is proved at the start");
        fence.new_generation();
        fence.renew_lease(Moment::now());
        assert!(!fence.holds(), "the board isn't proved");
        fence.prove_board(Moment::now());
        assert!(fence.holds());
    }

    #[test]
    fn a_commit_of_an_older_generation_proves_nothing() {
        let fence = Fence::default();
        fence.prove_board(Moment::now());
        let sent_before = Moment::now();
        std::thread::sleep(Duration::from_millis(2));
        fence.new_generation();
        fence.renew_lease(sent_before);
        assert!(!fence.holds());
        fence.renew_lease(Moment::now());
        assert!(fence.holds());
        fence.new_generation();
        assert!(!fence.holds(), "a rebalance ends the lease");
    }
}
