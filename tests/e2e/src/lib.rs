//! What the tests share: a whole installation of real processes, and ways to look at it from outside.
//!
//! Everything here panics when something isn't as it should be: its users are tests.

#![expect(clippy::unwrap_used, reason = "a failure here is a test's failure")]

mod api;
mod audience;
mod calls;
pub mod chaos;
mod conservation;
mod program;
mod provider;
mod proxy;
mod secrecy;
mod servers;
mod topics;
mod world;

pub use api::{Api, instant};
pub use audience::Audience;
pub use calls::{Call, Calls};
pub use program::{Program, free_addr};
pub use proxy::Way;
pub use servers::{PostgresEnd, Servers};
pub use world::{Options, World};

use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine; a condition that isn't met by then is a failure.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `condition` answers something.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
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
pub fn now_us() -> i64 {
    chrono::Utc::now().timestamp_micros()
}
