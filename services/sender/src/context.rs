use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;

use crate::board::Board;
use crate::fence::Fence;
use crate::lanes::Lanes;
use crate::metrics::Metrics;
use crate::provider::Provider;
use crate::statuses::Statuses;

/// What every message of a sender shares.
pub(crate) struct SenderContext {
    pub(crate) board: Arc<Board>,
    pub(crate) fence: Arc<Fence>,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) provider: Provider,
    pub(crate) statuses: Statuses,
    pub(crate) retry_delays: Vec<Duration>,
    pub(crate) metrics: Metrics,
    /// Something that nobody waits for has panicked.
    pub(crate) panicked: Arc<Notify>,
}

impl SenderContext {
    /// Runs work that nobody waits for; a panic in it ends the process instead of leaving something open for ever.
    ///
    /// No `async`: each block would hold the work once as an argument and once while it runs, and there are thousands of them.
    pub(crate) fn supervise<W: Future<Output = ()>>(
        &self,
        what: &'static str,
        work: W,
    ) -> impl Future<Output = ()> + use<W> {
        let panicked = Arc::clone(&self.panicked);
        AssertUnwindSafe(work).catch_unwind().map(move |done| {
            if done.is_err() {
                tracing::error!("{what} panicked");
                panicked.notify_one();
            }
        })
    }
}
