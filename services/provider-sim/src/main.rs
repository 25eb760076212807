//! The provider simulator as a program.

use std::io::IsTerminal;

use anyhow::Context;
use clap::Parser;
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
