//! Gathers the evidence after a run's end.

mod files;
mod kafka;
mod tables;

use std::path::PathBuf;

use crate::evidence::Evidence;

pub(crate) use kafka::partitions;

/// Where the evidence lies.
#[derive(clap::Args, Clone, Debug)]
pub struct Sources {
    /// Kafka's bootstrap servers.
    #[arg(long)]
    pub brokers: String,
    /// The topics' prefix.
    #[arg(long)]
    pub prefix: String,
    /// Herald's database.
    #[arg(long)]
    pub database_url: String,
    /// The provider simulator's log of calls.
    #[arg(long)]
    pub provider_log: PathBuf,
    /// The conductor's journal.
    #[arg(long)]
    pub journal: PathBuf,
    /// What `sample` has written.
    #[arg(long)]
    pub samples: PathBuf,
    /// A folder whose files `*.log` are the processes' logs.
    #[arg(long)]
    pub logs: PathBuf,
    /// The provider's bearer token.
    #[arg(long)]
    pub token: String,
    /// What no process may exceed, in MB; 0: unchecked, for services in one process or built for debugging.
    #[arg(long, default_value_t = 96)]
    pub memory_limit_mb: u64,
}

/// Gathers it all. Blocks for as long as the topics take to read, so it wants a runtime with more than one thread.
pub async fn evidence(sources: &Sources) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence {
        calls: files::calls(&sources.provider_log)?,
        journal: files::lines(&sources.journal)?,
        samples: files::lines(&sources.samples)?,
        logs: files::logs(&sources.logs)?,
        token: sources.token.clone(),
        memory_limit: (sources.memory_limit_mb > 0).then_some(sources.memory_limit_mb * 1_000_000),
        ..Evidence::default()
    };
    tables::read(&sources.database_url, &mut evidence).await?;
    tokio::task::block_in_place(|| kafka::read(&sources.brokers, &sources.prefix, &mut evidence))?;
    Ok(evidence)
}
