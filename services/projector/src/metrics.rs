use prometheus::{Histogram, Registry, exponential_buckets, register_histogram_with_registry};

/// What a projector measures, a value for each transaction.
#[derive(Clone)]
pub(crate) struct Metrics {
    /// Rows of `messages` written.
    pub(crate) batch_rows: Histogram,
    /// How old its newest status was when it was written.
    pub(crate) lag: Histogram,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            batch_rows: register_histogram_with_registry!(
                "herald_projector_batch_rows",
                "Rows of messages written in a transaction",
                exponential_buckets(1.0, 4.0, 8)?,
                registry
            )?,
            lag: register_histogram_with_registry!(
                "herald_projection_lag_seconds",
                "Age of a transaction's newest status when it was written",
                exponential_buckets(0.01, 2.5, 14)?,
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
        let names: Vec<String> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
        assert_eq!(names, ["herald_projection_lag_seconds", "herald_projector_batch_rows"]);
    }
}
