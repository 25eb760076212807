//! What the tests share.

mod api;
mod audience;
mod calls;
mod conservation;
mod program;
mod provider;
mod secrecy;
mod topics;
mod world;

pub(crate) use api::{Api, instant};
pub(crate) use audience::Audience;
pub(crate) use calls::Call;
pub(crate) use program::Program;
pub(crate) use world::{Options, World};

use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine; a condition that isn't met by then is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `condition` answers something.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(met) = condition().await {
            return met;
        }
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// µs since the epoch, as the provider's log has them.
pub(crate) fn now_us() -> i64 {
    chrono::Utc::now().timestamp_micros()
}
