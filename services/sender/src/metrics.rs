use std::time::Duration;

use domain::delivery::Outcome;
use domain::status::Status;
use series::{exponential_buckets, metrics};

metrics! {
    /// What a sender measures, from the process's start.
    #[derive(Clone)]
    pub(crate) struct Metrics {
        /// Provider calls on the wire.
        pub(crate) active_sends: IntGauge = "herald_active_sends",
        /// Messages by the status they were given.
        pub(crate) messages: IntCounterVec = "herald_messages_total"["status"],
        /// Provider calls by what they returned.
        pub(crate) attempts: IntCounterVec = "herald_delivery_attempts_total"["outcome"],
        /// How long provider calls took.
        pub(crate) attempt_duration: HistogramVec = "herald_delivery_attempt_duration_seconds"["outcome"]
            in exponential_buckets(0.001, 2.5, 14),
        /// From planned to terminal.
        pub(crate) delivery_lag: Histogram = "herald_delivery_lag_seconds" in exponential_buckets(0.001, 2.5, 14),
        /// Messages taken in and not settled.
        pub(crate) open_slots: IntGauge = "herald_sender_open_slots",
        /// Messages that wait in their slot for a lane or the pace.
        pub(crate) queued: IntGauge = "herald_sender_queued_messages",
        /// Messages that wait for a mailing that mailing-events doesn't hold.
        pub(crate) missing_mailing: IntGauge = "herald_sender_slots_without_mailing",
        /// How long the fence has kept the sender from calling; 0 while it holds or nothing is to be called.
        pub(crate) fence_closed: Gauge = "herald_sender_fence_closed_seconds",
        /// 1 while the provider isn't called for an operator code, by why.
        pub(crate) lane_closed: IntGaugeVec = "herald_lane_closed"["operator", "reason"],
        /// Calls a second that the sender allows itself; 0: as many as there are.
        pub(crate) pace_limit: Gauge = "herald_pace_limit",
        /// Share of the last second's answers that were throttled.
        pub(crate) throttled_share: Gauge = "herald_throttled_share",
        /// Statuses written and not acknowledged by Kafka.
        pub(crate) unacknowledged: IntGauge = "herald_sender_unacknowledged_statuses",
        /// Statuses read by replays.
        pub(crate) replayed: IntCounter = "herald_sender_replayed_statuses_total",
        /// Offsets of message-events that were deleted before a sender had passed them.
        pub(crate) skipped: IntCounter = "herald_sender_skipped_records_total",
    }
}

impl Metrics {
    /// Counts a call by its outcome.
    pub(crate) fn measure(&self, outcome: &Outcome, latency: Duration) {
        let label = match outcome {
            Outcome::Accepted => "accepted",
            Outcome::Rejected => "rejected",
            Outcome::Retryable(_) => "retryable",
            Outcome::Ambiguous(_) => "ambiguous",
            Outcome::Throttled(_) => "throttled",
        };
        self.attempts.with_label_values(&[label]).inc();
        self.attempt_duration.with_label_values(&[label]).observe(latency.as_secs_f64());
    }

    /// Counts a message by the status it was given.
    pub(crate) fn count(&self, status: &Status) {
        self.messages.with_label_values(&[status.as_str()]).inc();
    }

    /// Shows each known label value from the start: a series that appears with its first event has no rate.
    pub(crate) fn with_zeros(self) -> Self {
        for status in ["succeeded", "failed", "expired", "cancelled", "unknown", "retrying", "held"] {
            self.messages.with_label_values(&[status]);
        }
        for outcome in ["accepted", "rejected", "retryable", "ambiguous", "throttled"] {
            self.attempts.with_label_values(&[outcome]);
            self.attempt_duration.with_label_values(&[outcome]);
        }
        self
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
        let metrics = Metrics::register(&registry).unwrap().with_zeros();
        metrics.lane_closed.with_label_values(&["900", "outage"]);
        let series = |family: &MetricFamily| {
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
                "herald_lane_closed operator,reason",
                "herald_messages_total status",
                "herald_pace_limit ",
                "herald_sender_fence_closed_seconds ",
                "herald_sender_open_slots ",
                "herald_sender_queued_messages ",
                "herald_sender_replayed_statuses_total ",
                "herald_sender_skipped_records_total ",
                "herald_sender_slots_without_mailing ",
                "herald_sender_unacknowledged_statuses ",
                "herald_throttled_share ",
            ]
        );
    }
}
