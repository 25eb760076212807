use series::metrics;

metrics! {
    /// What this crate measures. Several services of one process share one `Metrics`.
    #[derive(Clone)]
    pub struct Metrics {
        /// Records between the committed offset and the end, by librdkafka's statistics.
        pub(crate) lag: IntGaugeVec = "kafka_consumergroup_lag"["group", "topic", "partition"],
        /// Partitions given to and taken from this member.
        pub(crate) rebalances: IntCounterVec = "herald_kafka_rebalances_total"["group", "event"],
        /// Commits that were refused or not answered: until one is acknowledged nothing proves that the member is in its group.
        pub(crate) commits_refused: IntCounterVec = "herald_kafka_commits_refused_total"["group"],
        /// Commits that moved a partition back while it was owned: what lies between is read again.
        pub(crate) commits_gone_back: IntCounterVec = "herald_kafka_commits_gone_back_total"["group"],
        /// Records that could not be taken.
        pub(crate) dead_letters: IntCounterVec = "herald_dead_letters_total"["reader", "topic"],
        /// 1 while a partition is read no further, for too much can't be decoded.
        pub(crate) stopped: IntGaugeVec = "herald_reader_stopped"["topic", "partition"],
    }
}

#[cfg(test)]
mod tests {
    use series::Registry;
    use series::prometheus::proto::MetricFamily;

    use super::*;

    #[test]
    fn the_series_are_named_as_documented() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        metrics.lag.with_label_values(&["group", "topic", "0"]);
        metrics.rebalances.with_label_values(&["group", "assigned"]);
        metrics.commits_refused.with_label_values(&["group"]);
        metrics.commits_gone_back.with_label_values(&["group"]);
        metrics.dead_letters.with_label_values(&["reader", "topic"]);
        metrics.stopped.with_label_values(&["topic", "0"]);
        let series = |family: &MetricFamily| {
            let labels = family.get_metric()[0].get_label().iter().map(|label| label.name());
            format!("{} {}", family.name(), labels.collect::<Vec<_>>().join(","))
        };
        let found: Vec<String> = registry.gather().iter().map(series).collect();
        assert_eq!(
            found,
            [
                "herald_dead_letters_total reader,topic",
                "herald_kafka_commits_gone_back_total group",
                "herald_kafka_commits_refused_total group",
                "herald_kafka_rebalances_total event,group",
                "herald_reader_stopped partition,topic",
                "kafka_consumergroup_lag group,partition,topic",
            ]
        );
    }
}
