use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use runtime::Service;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::{PATIENCE, until};

/// How long a service has to end in good order.
const DRAIN: Duration = Duration::from_secs(20);

/// A service in the test's process.
pub struct Running {
    service: Service,
    ops: SocketAddr,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Runs a service whose tasks `start` has spawned.
    pub async fn start(start: impl AsyncFnOnce(&Service) -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let service = Service::new();
        start(&service).await?;
        let ops = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let ended = tokio::spawn(runtime::run(ops, service.clone(), DRAIN));
        Ok(Self { service, ops, ended })
    }

    /// Stops it and waits until it has ended in good order.
    pub async fn stop(self) {
        self.service.stop.cancel();
        self.ended.await.unwrap().unwrap();
    }

    /// Waits until `/readyz` says that it is ready.
    pub async fn ready(&self) {
        until("it is ready", async || self.readyz().await.starts_with("HTTP/1.1 200")).await;
    }

    /// What `/readyz` says; empty while it can't be asked.
    pub async fn readyz(&self) -> String {
        self.get("/readyz").await.unwrap_or_default()
    }

    /// What `/metrics` says.
    pub async fn metrics(&self) -> String {
        self.get("/metrics").await.unwrap_or_default()
    }

    async fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.ops).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Waits for a service that ends by itself, and returns why.
    pub async fn failure(self) -> String {
        let ended = tokio::time::timeout(PATIENCE, self.ended).await.expect("it goes on");
        format!("{:#}", ended.unwrap().unwrap_err())
    }
}
