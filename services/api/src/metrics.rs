use series::{exponential_buckets, metrics};

metrics! {
    /// What the api measures.
    #[derive(Clone)]
    pub struct Metrics {
        /// Requests by route template; status 499: the caller left before the answer.
        pub(crate) requests: IntCounterVec = "herald_http_requests_total"["route", "method", "status"],
        /// Until the answer's head.
        pub(crate) duration: HistogramVec = "herald_http_request_duration_seconds"["route", "method", "status"]
            in exponential_buckets(0.001, 3.0, 10),
        /// Events that Kafka has not acknowledged.
        pub(crate) outbox_rows: IntGauge = "herald_outbox_unpublished_rows",
        /// Age of the oldest event that Kafka has not acknowledged.
        pub(crate) outbox_age: Gauge = "herald_outbox_oldest_unpublished_age_seconds",
    }
}

#[cfg(test)]
mod tests {
    use series::Registry;

    use super::*;

    #[test]
    fn the_series_are_named_as_documented() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let labels = ["/api/v1/clients", "GET", "200"];
        metrics.requests.with_label_values(&labels).inc();
        metrics.duration.with_label_values(&labels).observe(0.1);
        let series = registry.gather().into_iter().map(|family| {
            let labels: Vec<String> =
                family.get_metric()[0].get_label().iter().map(|it| it.name().to_owned()).collect();
            format!("{}{labels:?}", family.name())
        });
        let documented = [
            r#"herald_http_request_duration_seconds["method", "route", "status"]"#,
            r#"herald_http_requests_total["method", "route", "status"]"#,
            "herald_outbox_oldest_unpublished_age_seconds[]",
            "herald_outbox_unpublished_rows[]",
        ];
        assert_eq!(series.collect::<Vec<_>>(), documented);
    }
}
