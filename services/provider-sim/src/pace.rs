//! The rate that the provider can take: calls wait in a queue, first come, first served.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Pace {
    gap: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    /// Calls a second; 0 is no limit.
    pub(crate) fn new(rate: u32) -> Self {
        let gap = Duration::from_secs(1).checked_div(rate).unwrap_or_default();
        Self { gap, next: Mutex::new(Instant::now()) }
    }

    /// When the call may be taken; none is at once. Each call moves the next one's turn, time unused is lost.
    pub(crate) fn turn(&self) -> Option<Instant> {
        if self.gap.is_zero() {
            return None;
        }
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = Instant::now().max(*next);
        *next = turn + self.gap;
        Some(turn)
    }
}
