use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::metrics::Shutdowns;
use crate::{Service, ops};

/// Serves the ops port and waits for SIGTERM, SIGINT, a cancelled `service.stop`, or the first task that fails; then
/// it is not ready, cancels `service.stop` and waits for the tasks, at most `drain`. A second signal ends the process
/// at once with 128 + its number.
///
/// # Errors
/// The ops port is taken, a task failed, or tasks were still running when `drain` was over.
pub async fn run(ops_addr: SocketAddr, service: Service, drain: Duration) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let shutdowns = Shutdowns::register(&service.registry)?;
    let listener = TcpListener::bind(ops_addr)
        .await
        .with_context(|| format!("the ops port {ops_addr} (HERALD_OPS_ADDR) can't be opened"))?;
    tracing::info!(ops.addr = %listener.local_addr()?, "serving /livez, /readyz and /metrics");
    let router = ops::router(&service);
    let ops = tokio::spawn(async move { axum::serve(listener, router).await });
    let process = service.health.readiness("process");
    process.ready();

    tokio::select! {
        (name, _) = signals.next() => tracing::info!(signal = name, "stopping"),
        () = service.stop.cancelled() => tracing::info!("stopping"),
        () = service.tasks.failed() => tracing::error!("stopping: a task failed"),
    }
    shutdowns.started.inc();
    process.not_ready("stopping");
    service.stop.cancel();
    tokio::spawn(async move {
        let (_, number) = signals.next().await;
        std::process::exit(128 + number);
    });

    let drained = tokio::time::timeout(drain, service.tasks.ended()).await;
    if drained.is_ok() {
        shutdowns.completed.inc();
        tracing::info!("stopped");
    }
    ops.abort();
    if let Some(failure) = service.tasks.take_failure() {
        return Err(failure);
    }
    if drained.is_err() {
        bail!("still running {drain:?} after the stop: {}", service.tasks.running().join(", "));
    }
    Ok(())
}

struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Its name and number.
    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.term.recv() => ("SIGTERM", SignalKind::terminate().as_raw_value()),
            _ = self.int.recv() => ("SIGINT", SignalKind::interrupt().as_raw_value()),
        }
    }
}
