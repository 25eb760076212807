use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry, exponential_buckets,
    register_histogram_vec_with_registry, register_histogram_with_registry, register_int_counter_vec_with_registry,
    register_int_counter_with_registry, register_int_gauge_with_registry,
};

/// What a sender measures, from the process's start.
#[derive(Clone)]
pub(crate) struct Metrics {
    /// Calls on the wire.
    pub(crate) active_sends: IntGauge,
    /// Messages by the status they were given.
    pub(crate) messages: IntCounterVec,
    /// Calls by what they returned.
    pub(crate) attempts: IntCounterVec,
    /// How long they took.
    pub(crate) attempt_duration: HistogramVec,
    /// From planned to terminal.
    pub(crate) delivery_lag: Histogram,
    /// Messages taken in and not settled.
    pub(crate) open_slots: IntGauge,
    /// Statuses written and not acknowledged.
    pub(crate) unacknowledged: IntGauge,
    /// Statuses found by replays.
    pub(crate) replayed: IntCounter,
    /// Offsets that retention took before a sender had read them.
    pub(crate) skipped: IntCounter,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let seconds = exponential_buckets(0.001, 2.5, 14)?;
        let metrics = Self {
            active_sends: register_int_gauge_with_registry!(
                "herald_active_sends",
                "Provider calls on the wire",
                registry
            )?,
            messages: register_int_counter_vec_with_registry!(
                "herald_messages_total",
                "Messages by the status they were given",
                &["status"],
                registry
            )?,
            attempts: register_int_counter_vec_with_registry!(
                "herald_delivery_attempts_total",
                "Provider calls by what they returned",
                &["outcome"],
                registry
            )?,
            attempt_duration: register_histogram_vec_with_registry!(
                "herald_delivery_attempt_duration_seconds",
                "How long provider calls took",
                &["outcome"],
                seconds.clone(),
                registry
            )?,
            delivery_lag: register_histogram_with_registry!(
                "herald_delivery_lag_seconds",
                "From planned to terminal",
                seconds,
                registry
            )?,
            open_slots: register_int_gauge_with_registry!(
                "herald_sender_open_slots",
                "Messages taken in and not settled",
                registry
            )?,
            unacknowledged: register_int_gauge_with_registry!(
                "herald_sender_unacknowledged_statuses",
                "Statuses written and not acknowledged by Kafka",
                registry
            )?,
            replayed: register_int_counter_with_registry!(
                "herald_sender_replayed_statuses_total",
                "Statuses read by replays",
                registry
            )?,
            skipped: register_int_counter_with_registry!(
                "herald_sender_skipped_records_total",
                "Offsets of message-events that were deleted before a sender had passed them",
                registry
            )?,
        };
        for status in ["succeeded", "failed", "expired", "cancelled", "unknown", "retrying"] {
            metrics.messages.with_label_values(&[status]);
        }
        for outcome in ["accepted", "rejected", "retryable", "ambiguous", "throttled"] {
            metrics.attempts.with_label_values(&[outcome]);
            metrics.attempt_duration.with_label_values(&[outcome]);
        }
        Ok(metrics)
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
                "herald_active_sends ",
                "herald_delivery_attempt_duration_seconds outcome",
                "herald_delivery_attempts_total outcome",
                "herald_delivery_lag_seconds ",
                "herald_messages_total status",
                "herald_sender_open_slots ",
                "herald_sender_replayed_statuses_total ",
                "herald_sender_skipped_records_total ",
                "herald_sender_unacknowledged_statuses ",
            ]
        );
    }
}
