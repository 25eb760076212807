//! The provider simulator as a program.

use std::io::IsTerminal;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use provider_sim::Config;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// One thread: a call is cheaper when nothing moves between cores, and the other core is the sender's.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match dotenvy::dotenv() {
        Err(error) if !error.not_found() => return Err(error).context("read .env"),
        _ => {}
    }
    check_names()?;
    let config = Config::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        log.init();
    } else {
        log.json().init();
    }

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let seed = config.seed;
    let running = provider_sim::start(config).await?;
    tracing::info!(addr = %running.addr, seed, "the provider simulator listens");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let stats = running.stop().await?;
    tracing::info!(calls = stats.calls, accepted = stats.accepted, duplicates = stats.duplicates, "stopped");
    Ok(())
}

/// A misspelt variable must not be ignored in silence: a test would judge a provider that it didn't ask for.
fn check_names() -> anyhow::Result<()> {
    let command = Config::command();
    let known: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str()).collect();
    for (name, value) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let ours = name.starts_with("HERALD_SIM_") && !value.is_empty();
        anyhow::ensure!(
            !ours || known.contains(&&*name),
            "{name} is not a setting of the provider simulator; there are {}",
            known.join(", ")
        );
    }
    Ok(())
}
