use prometheus::{
    Histogram, IntCounter, IntGauge, Registry, exponential_buckets, register_histogram_with_registry,
    register_int_counter_with_registry, register_int_gauge_with_registry,
};

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
    /// Mailings that were paused because Kafka has lost something of them.
    pub(crate) paused: IntCounter,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            planned: register_int_counter_with_registry!(
                "herald_messages_planned_total",
                "Message events committed",
                registry
            )?,
            schedule_lag: register_histogram_with_registry!(
                "herald_schedule_lag_seconds",
                "From a mailing's start to its first page",
                exponential_buckets(0.005, 2.5, 12)?,
                registry
            )?,
            unread: register_int_gauge_with_registry!(
                "herald_conveyor_unread_messages",
                "Message events that no sender has taken in",
                registry
            )?,
            open: register_int_gauge_with_registry!(
                "herald_conveyor_open_messages",
                "Messages taken in and not settled, by all senders",
                registry
            )?,
            shards: register_int_gauge_with_registry!(
                "herald_scheduler_shards",
                "Shards that this process owns",
                registry
            )?,
            paused: register_int_counter_with_registry!(
                "herald_mailings_paused_total",
                "Mailings paused because Kafka has lost something of them",
                registry
            )?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_are_named_as_documented() {
        let registry = Registry::new();
        Metrics::register(&registry).unwrap();
        let series = |family: &prometheus::proto::MetricFamily| {
            let labels = family.get_metric()[0].get_label().iter().map(|label| label.name());
            format!("{} {}", family.name(), labels.collect::<Vec<_>>().join(","))
        };
        let found: Vec<String> = registry.gather().iter().map(series).collect();
        assert_eq!(
            found,
            [
                "herald_conveyor_open_messages ",
                "herald_conveyor_unread_messages ",
                "herald_mailings_paused_total ",
                "herald_messages_planned_total ",
                "herald_schedule_lag_seconds ",
                "herald_scheduler_shards ",
            ]
        );
    }
}
