//! What the consumer's thread tells a shard's thread.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use domain::ids::Version;
use events::MailingEvent;
use kafka::Moment;
use runtime::health::Heartbeat;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How late an order to stop may be noticed by a wait.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// Shared by the consumer's thread and the shard's thread.
pub(crate) struct ShardHandle {
    pub(crate) stop: CancellationToken,
    state: Mutex<HandleState>,
    changed: Condvar,
    /// Owned by the handle, not by the thread: when the thread panics the heartbeat must go stale instead of being dropped.
    beat: Heartbeat,
}

struct HandleState {
    woken: bool,
    position: i64,
    /// Versions whose event was read.
    published: HashMap<Uuid, Version>,
    /// When the newest acknowledged commit was sent.
    confirmed: Option<Moment>,
}

impl ShardHandle {
    /// `position` is where the shard's events are read from.
    pub(crate) fn new(position: i64, beat: Heartbeat) -> Self {
        let state = HandleState { woken: false, position, published: HashMap::new(), confirmed: None };
        Self { stop: CancellationToken::new(), state: Mutex::new(state), changed: Condvar::new(), beat }
    }

    pub(crate) fn beat(&self) {
        self.beat.beat();
    }

    /// Waits until an event comes or the shard is given up, for `pause` at most.
    pub(crate) fn sleep(&self, pause: Duration) {
        self.wait(pause, |state| std::mem::take(&mut state.woken));
    }

    /// Waits until a commit that was sent after `since` is acknowledged, for `timeout` at most. Returns whether one was.
    pub(crate) fn is_confirmed_since(&self, since: Moment, timeout: Duration) -> bool {
        let mut confirmed = false;
        self.wait(timeout, |state| {
            confirmed = state.confirmed.is_some_and(|sent| sent.age() < since.age());
            confirmed
        });
        confirmed
    }

    /// An event was read: its version is published, and there may be something to do.
    pub(crate) fn published(&self, event: &MailingEvent) {
        self.update(|state| {
            state.published.insert(event.mailing_id, event.version);
            state.woken = true;
        });
    }

    pub(crate) fn read_to(&self, position: i64) {
        self.update(|state| state.position = state.position.max(position));
    }

    pub(crate) fn position(&self) -> i64 {
        self.state.lock().expect("not poisoned").position
    }

    pub(crate) fn confirm(&self, sent: Moment) {
        self.update(|state| state.confirmed = Some(sent));
    }

    pub(crate) fn has_published(&self, mailing: Uuid, version: Version) -> bool {
        let state = self.state.lock().expect("not poisoned");
        state.published.get(&mailing).is_some_and(|published| *published >= version)
    }

    /// The mailing is finished.
    pub(crate) fn forget(&self, mailing: Uuid) {
        self.state.lock().expect("not poisoned").published.remove(&mailing);
    }

    fn update(&self, change: impl FnOnce(&mut HandleState)) {
        change(&mut self.state.lock().expect("not poisoned"));
        self.changed.notify_all();
    }

    /// Waits until `done`, told to stop, or for `timeout`.
    fn wait(&self, timeout: Duration, mut done: impl FnMut(&mut HandleState) -> bool) {
        let until = Instant::now() + timeout;
        let mut state = self.state.lock().expect("not poisoned");
        while !done(&mut state) && !self.stop.is_cancelled() {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            // The stop token doesn't notify: it is looked at often enough for a rebalance not to wait.
            state = self.changed.wait_timeout(state, left.min(STOP_CHECK)).expect("not poisoned").0;
        }
    }
}
