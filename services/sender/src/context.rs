use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::board::Board;
use crate::clock::Clock;
use crate::fence::Fence;
use crate::metrics::Metrics;
use crate::provider::Provider;
use crate::statuses::Statuses;

/// What every message of a sender shares.
pub(crate) struct SenderContext {
    pub(crate) board: Arc<Board>,
    pub(crate) fence: Arc<Fence>,
    pub(crate) clock: Clock,
    pub(crate) provider: Provider,
    /// The places to call: one for each call at once.
    pub(crate) calls: Semaphore,
    pub(crate) statuses: Statuses,
    pub(crate) retry_delays: Vec<Duration>,
    pub(crate) metrics: Metrics,
}
