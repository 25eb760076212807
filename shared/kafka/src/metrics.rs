use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

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
        let metrics = Self {
            lag: IntGaugeVec::new(
                Opts::new(
                    "kafka_consumergroup_lag",
                    "Records between the committed offset and the end, by librdkafka's statistics",
                ),
                &["group", "topic", "partition"],
            )?,
            rebalances: IntCounterVec::new(
                Opts::new("herald_kafka_rebalances_total", "Partitions given to and taken from this member"),
                &["group", "event"],
            )?,
            dead_letters: IntCounterVec::new(
                Opts::new("herald_dead_letters_total", "Records that could not be taken"),
                &["reader", "topic"],
            )?,
            stopped: IntGaugeVec::new(
                Opts::new(
                    "herald_reader_stopped",
                    "1 while a partition is read no further, for too much can't be decoded",
                ),
                &["topic", "partition"],
            )?,
        };
        registry.register(Box::new(metrics.lag.clone()))?;
        registry.register(Box::new(metrics.rebalances.clone()))?;
        registry.register(Box::new(metrics.dead_letters.clone()))?;
        registry.register(Box::new(metrics.stopped.clone()))?;
        Ok(metrics)
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
