use prometheus::{
    IntCounterVec, IntGaugeVec, Registry, register_int_counter_vec_with_registry, register_int_gauge_vec_with_registry,
};

/// What this crate measures.
#[derive(Clone)]
pub struct Metrics {
    pub(crate) lag: IntGaugeVec,
    pub(crate) rebalances: IntCounterVec,
    pub(crate) dead_letters: IntCounterVec,
    pub(crate) stopped: IntGaugeVec,
}

impl Metrics {
    /// Registers the series. Several services of one process share one `Metrics`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            lag: register_int_gauge_vec_with_registry!(
                "kafka_consumergroup_lag",
                "Records between the committed offset and the end, by librdkafka's statistics",
                &["group", "topic", "partition"],
                registry
            )?,
            rebalances: register_int_counter_vec_with_registry!(
                "herald_kafka_rebalances_total",
                "Partitions given to and taken from this member",
                &["group", "event"],
                registry
            )?,
            dead_letters: register_int_counter_vec_with_registry!(
                "herald_dead_letters_total",
                "Records that could not be taken",
                &["reader", "topic"],
                registry
            )?,
            stopped: register_int_gauge_vec_with_registry!(
                "herald_reader_stopped",
                "1 while a partition is read no further, for too much can't be decoded",
                &["topic", "partition"],
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
        let metrics = Metrics::register(&registry).unwrap();
        metrics.lag.with_label_values(&["group", "topic", "0"]);
        metrics.rebalances.with_label_values(&["group", "assigned"]);
        metrics.dead_letters.with_label_values(&["reader", "topic"]);
        metrics.stopped.with_label_values(&["topic", "0"]);
        let series = |family: &prometheus::proto::MetricFamily| {
            let labels = family.get_metric()[0].get_label().iter().map(|label| label.name());
            format!("{} {}", family.name(), labels.collect::<Vec<_>>().join(","))
        };
        let found: Vec<String> = registry.gather().iter().map(series).collect();
        assert_eq!(
            found,
            [
                "herald_dead_letters_total reader,topic",
                "herald_kafka_rebalances_total event,group",
                "herald_reader_stopped partition,topic",
                "kafka_consumergroup_lag group,partition,topic",
            ]
        );
    }
}
