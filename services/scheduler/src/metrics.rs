use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry, exponential_buckets};

/// What a scheduler measures, from the process's start.
#[derive(Clone)]
pub(crate) struct Metrics {
    /// Message events committed.
    pub(crate) planned: IntCounter,
    /// From a mailing's start to its first page.
    pub(crate) schedule_lag: Histogram,
    /// Message events that no sender has taken in.
    pub(crate) unread: IntGauge,
    /// Messages that senders have taken in and not settled.
    pub(crate) open: IntGauge,
    /// Shards that this process owns.
    pub(crate) shards: IntGauge,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let buckets = exponential_buckets(0.005, 2.5, 12)?;
        let metrics = Self {
            planned: IntCounter::new("herald_messages_planned_total", "Message events committed")?,
            schedule_lag: Histogram::with_opts(
                HistogramOpts::new("herald_schedule_lag_seconds", "From a mailing's start to its first page")
                    .buckets(buckets),
            )?,
            unread: IntGauge::new("herald_conveyor_unread_messages", "Message events that no sender has taken in")?,
            open: IntGauge::new("herald_conveyor_open_messages", "Messages taken in and not settled, by all senders")?,
            shards: IntGauge::new("herald_scheduler_shards", "Shards that this process owns")?,
        };
        registry.register(Box::new(metrics.planned.clone()))?;
        registry.register(Box::new(metrics.schedule_lag.clone()))?;
        registry.register(Box::new(metrics.unread.clone()))?;
        registry.register(Box::new(metrics.open.clone()))?;
        registry.register(Box::new(metrics.shards.clone()))?;
        Ok(metrics)
    }
}
