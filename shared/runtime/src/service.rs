use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::{Health, Tasks, metrics};

/// What a service runs in. Clones are cheap and share everything.
#[derive(Clone, Debug)]
pub struct Service {
    /// What `/metrics` shows.
    pub registry: Registry,
    /// What `/livez` and `/readyz` show.
    pub health: Health,
    /// The tasks of which none may end before [`stop`](Self::stop).
    pub tasks: Tasks,
    /// Cancelled once, when the process is to take in nothing new and finish what it has.
    pub stop: CancellationToken,
}

impl Service {
    /// With `herald_build_info{version}` registered and, on Linux, the `process_…` metrics.
    pub fn new() -> Self {
        let stop = CancellationToken::new();
        Self {
            registry: metrics::registry().expect("a new registry has no duplicates"),
            health: Health::default(),
            tasks: Tasks::new(stop.clone()),
            stop,
        }
    }
}

impl Default for Service {
    fn default() -> Self {
        Self::new()
    }
}
