use series::{exponential_buckets, metrics};

metrics! {
    /// What a scheduler measures, from the process's start.
    #[derive(Clone)]
    pub(crate) struct Metrics {
        /// Message events committed.
        pub(crate) planned: IntCounter = "herald_messages_planned_total",
        /// Messages that the planner has settled, because nobody may call any more.
        pub(crate) settled: IntCounter = "herald_messages_settled_by_planner_total",
        /// From a mailing's start to its first page.
        pub(crate) schedule_lag: Histogram = "herald_schedule_lag_seconds" in exponential_buckets(0.005, 2.5, 12),
        /// Message events that no sender has taken in.
        pub(crate) unread: IntGauge = "herald_conveyor_unread_messages",
        /// Messages taken in and not settled, by all senders.
        pub(crate) open: IntGauge = "herald_conveyor_open_messages",
        /// Shards that this process owns.
        pub(crate) shards: IntGauge = "herald_scheduler_shards",
        /// Mailings paused because Kafka has lost something of them.
        pub(crate) paused: IntCounter = "herald_mailings_paused_total",
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
        Metrics::register(&registry).unwrap();
        let series = |family: &MetricFamily| {
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
                "herald_messages_settled_by_planner_total ",
                "herald_schedule_lag_seconds ",
                "herald_scheduler_shards ",
            ]
        );
    }
}
