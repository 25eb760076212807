use series::{exponential_buckets, metrics};

metrics! {
    /// What a projector measures, a value for each transaction.
    #[derive(Clone)]
    pub(crate) struct Metrics {
        /// Rows of messages written in a transaction.
        pub(crate) batch_rows: Histogram = "herald_projector_batch_rows" in exponential_buckets(1.0, 4.0, 8),
        /// Age of a transaction's newest status when it was written.
        pub(crate) lag: Histogram = "herald_projection_lag_seconds" in exponential_buckets(0.01, 2.5, 14),
    }
}

#[cfg(test)]
mod tests {
    use series::Registry;

    use super::*;

    #[test]
    fn the_series_are_named_as_documented() {
        let registry = Registry::new();
        Metrics::register(&registry).unwrap();
        let names: Vec<String> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
        assert_eq!(names, ["herald_projection_lag_seconds", "herald_projector_batch_rows"]);
    }
}
