//! What the services' own tests share: an [`Installation`] on the real Kafka and Postgres, a service that [runs](Running) in
//! the test's process, and conditions to wait for.
//!
//! Everything here panics when something isn't as it should be: its users are tests.

#![expect(clippy::unwrap_used, reason = "a failure here is a test's failure")]

mod installation;
mod rows;
mod running;
mod senders;

pub use installation::{Installation, client, database_pool, outgoing, run_on_server};
pub use running::Running;
pub use senders::{Senders, Taken};

use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine. A condition that isn't met by then is a failure.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `condition` answers something.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(met) = condition().await {
            return met;
        }
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    eventually(what, async || condition().await.then_some(())).await;
}
