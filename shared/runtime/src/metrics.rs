use prometheus::{IntGauge, Opts, Registry};
use series::metrics;

/// With `herald_build_info{version}` and, on Linux, the `process_…` series.
pub(crate) fn registry() -> prometheus::Result<Registry> {
    let registry = Registry::new();
    let build = IntGauge::with_opts(
        Opts::new("herald_build_info", "1, labelled with the version that runs")
            .const_label("version", env!("CARGO_PKG_VERSION")),
    )?;
    build.set(1);
    registry.register(Box::new(build))?;
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(registry)
}

metrics! {
    /// Their difference over all processes is the number of stops that were cut off.
    pub(crate) struct Shutdowns {
        /// Stops that began.
        pub(crate) started: IntCounter = "herald_shutdowns_started_total",
        /// Stops that all tasks took part in.
        pub(crate) completed: IntCounter = "herald_shutdowns_completed_total",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_are_named_as_documented() {
        let registry = registry().unwrap();
        Shutdowns::register(&registry).unwrap();
        let series =
            registry.gather().into_iter().filter(|family| family.name().starts_with("herald_")).map(|family| {
                let labels: Vec<String> =
                    family.get_metric()[0].get_label().iter().map(|it| it.name().to_owned()).collect();
                format!("{}{labels:?}", family.name())
            });
        let documented = [
            r#"herald_build_info["version"]"#,
            "herald_shutdowns_completed_total[]",
            "herald_shutdowns_started_total[]",
        ];
        assert_eq!(series.collect::<Vec<_>>(), documented);
    }
}
