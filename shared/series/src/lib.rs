//! A crate's series in one struct: each has one line, and its doc comment is the help text that Prometheus shows.
//!
//! ```
//! use series::{Registry, exponential_buckets, metrics};
//!
//! metrics! {
//!     struct Metrics {
//!         /// Calls on the wire.
//!         calls: IntGauge = "herald_calls",
//!         /// Answers by what they said.
//!         answers: IntCounterVec = "herald_answers_total"["outcome"],
//!         /// How long each took.
//!         duration: HistogramVec = "herald_answer_duration_seconds"["outcome"] in exponential_buckets(0.001, 2.5, 14),
//!     }
//! }
//!
//! let metrics = Metrics::register(&Registry::new())?;
//! metrics.calls.inc();
//! metrics.answers.with_label_values(&["accepted"]).inc();
//! metrics.duration.with_label_values(&["accepted"]).observe(0.02);
//! # Ok::<(), series::prometheus::Error>(())
//! ```

pub use prometheus::{self, Registry, exponential_buckets};

/// Declares a struct of series, and its `register(&Registry)`.
///
/// A series is a field: its type in prometheus' words, its name, its labels in brackets if it has any, and behind `in` the
/// buckets of a histogram.
#[macro_export]
macro_rules! metrics {
    (
        $(#[$attribute:meta])*
        $visible:vis struct $struct:ident {
            $(
                $(#[doc = $help:literal])+
                $field_visible:vis $field:ident: $kind:ident = $series:literal $([$($label:literal),+])? $(in $buckets:expr)?
            ),* $(,)?
        }
    ) => {
        $(#[$attribute])*
        $visible struct $struct {
            $($(#[doc = $help])+ $field_visible $field: $crate::prometheus::$kind,)*
        }

        impl $struct {
            /// Registers the series; fails if one of that name is there.
            $visible fn register(registry: &$crate::Registry) -> $crate::prometheus::Result<Self> {
                Ok(Self {
                    $($field: {
                        let help = concat!($($help),+).trim();
                        let series = $crate::metrics!(@ $kind, $series, help, [$($($label),+)?], $($buckets)?);
                        registry.register(Box::new(series.clone()))?;
                        series
                    },)*
                })
            }
        }
    };
    (@ $kind:ident, $series:literal, $help:ident, [],) => {
        $crate::prometheus::$kind::with_opts($crate::prometheus::Opts::new($series, $help))?
    };
    (@ $kind:ident, $series:literal, $help:ident, [$($label:literal),+],) => {
        $crate::prometheus::$kind::new($crate::prometheus::Opts::new($series, $help), &[$($label),+])?
    };
    (@ $kind:ident, $series:literal, $help:ident, [], $buckets:expr) => {
        $crate::prometheus::$kind::with_opts(
            $crate::prometheus::HistogramOpts::new($series, $help).buckets($buckets?)
        )?
    };
    (@ $kind:ident, $series:literal, $help:ident, [$($label:literal),+], $buckets:expr) => {
        $crate::prometheus::$kind::new(
            $crate::prometheus::HistogramOpts::new($series, $help).buckets($buckets?), &[$($label),+]
        )?
    };
}

#[cfg(test)]
mod tests {
    use super::{Registry, exponential_buckets};

    metrics! {
        struct Metrics {
            /// Calls on
            /// the wire.
            calls: IntGauge = "calls",
            /// Answers.
            answers: IntCounterVec = "answers_total"["outcome", "code"],
            /// How long calls took.
            duration: Histogram = "duration_seconds" in exponential_buckets(1.0, 2.0, 3),
            /// How long answers took.
            by_outcome: HistogramVec = "answer_seconds"["outcome"] in exponential_buckets(1.0, 2.0, 2),
        }
    }

    #[test]
    fn a_doc_comment_is_the_help_text_and_labels_and_buckets_are_as_declared() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        metrics.calls.set(3);
        metrics.answers.with_label_values(&["accepted", "916"]).inc();
        metrics.duration.observe(3.0);
        metrics.by_outcome.with_label_values(&["accepted"]).observe(1.5);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "# HELP calls Calls on the wire.",
            "calls 3",
            r#"answers_total{code="916",outcome="accepted"} 1"#,
            r#"duration_seconds_bucket{le="4"} 1"#,
            "duration_seconds_sum 3",
            r#"answer_seconds_bucket{outcome="accepted",le="1"} 0"#,
            r#"answer_seconds_bucket{outcome="accepted",le="2"} 1"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} isn't in\n{text}");
        }
        assert!(Metrics::register(&registry).is_err(), "one name twice");
    }
}
