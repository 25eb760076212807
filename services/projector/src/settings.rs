use std::time::Duration;

use runtime::config::parse_duration;

/// What a projector can be told.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub struct Settings {
    /// How many statuses are written in one transaction at most.
    #[arg(
        long, env = "HERALD_PROJECTOR_BATCH", default_value_t = 5000,
        value_parser = clap::value_parser!(u32).range(1..=20_000)
    )]
    pub projector_batch: u32,
    /// How long a rebalance, which waits for Postgres, may take before Kafka gives the partitions away.
    #[arg(long, env = "HERALD_PROJECTOR_MAX_POLL_INTERVAL", default_value = "5m", value_parser = parse_duration)]
    pub projector_max_poll_interval: Duration,
}

impl Settings {
    /// How long giving a partition up waits for a transaction under way: more than the server's
    /// statement timeout (60 s).
    pub(crate) const REVOKE_DEADLINE: Duration = Duration::from_secs(65);

    /// Checks pairs of settings.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            Self::REVOKE_DEADLINE * 2 <= self.projector_max_poll_interval,
            "HERALD_PROJECTOR_MAX_POLL_INTERVAL ({:?}) must be at least {:?}: giving a partition up waits for a transaction",
            self.projector_max_poll_interval,
            Self::REVOKE_DEADLINE * 2
        );
        Ok(())
    }
}
