use prometheus::{
    Gauge, HistogramVec, IntCounterVec, IntGauge, Registry, exponential_buckets, register_gauge_with_registry,
    register_histogram_vec_with_registry, register_int_counter_vec_with_registry, register_int_gauge_with_registry,
};

/// What the api measures.
#[derive(Clone)]
pub struct Metrics {
    /// Status 499: the caller left before the answer.
    pub(crate) requests: IntCounterVec,
    pub(crate) duration: HistogramVec,
    pub(crate) outbox_rows: IntGauge,
    pub(crate) outbox_age: Gauge,
}

impl Metrics {
    /// Registers the series.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let labels = &["route", "method", "status"];
        Ok(Self {
            requests: register_int_counter_vec_with_registry!(
                "herald_http_requests_total",
                "Requests by route template",
                labels,
                registry
            )?,
            duration: register_histogram_vec_with_registry!(
                "herald_http_request_duration_seconds",
                "Until the answer's head",
                labels,
                exponential_buckets(0.001, 3.0, 10)?,
                registry
            )?,
            outbox_rows: register_int_gauge_with_registry!(
                "herald_outbox_unpublished_rows",
                "Events that Kafka has not acknowledged",
                registry
            )?,
            outbox_age: register_gauge_with_registry!(
                "herald_outbox_oldest_unpublished_age_seconds",
                "How old the oldest of them is",
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
