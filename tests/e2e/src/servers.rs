use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use devstack::{Detour, Jvm, Kafka, KafkaConfig, Postgres, PostgresConfig, free_ports};
use tempfile::TempDir;

use crate::proxy::Proxy;

/// A Kafka and a Postgres of one's own, to be broken.
pub struct Servers {
    kafka_config: KafkaConfig,
    postgres_config: PostgresConfig,
    kafka: Option<Kafka>,
    postgres: Option<Postgres>,
    /// The way to Kafka that can be cut.
    pub(crate) proxy: Proxy,
    folder: TempDir,
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap().unwrap()
}

impl Servers {
    /// Starts both.
    pub async fn start() -> Self {
        // Postgres' own user walks into it.
        let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        let [port, controller_port, postgres_port, detour, proxy] = free_ports().unwrap();
        let way = Detour { port: detour, advertised: proxy };
        let mut servers = Self {
            kafka_config: KafkaConfig {
                dir: folder.path().join("kafka"),
                port,
                controller_port,
                jvm: Jvm::Small,
                detour: Some(way),
            },
            proxy: Proxy::start(proxy, detour).await,
            postgres_config: PostgresConfig { dir: folder.path().join("postgres"), port: postgres_port, fsync: false },
            kafka: None,
            postgres: None,
            folder,
        };
        servers.start_kafka().await;
        servers.start_postgres().await;
        servers
    }

    /// Where Kafka is, also while it is away.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.kafka_config.port)
    }

    /// Where Postgres is, likewise.
    pub fn url(&self) -> String {
        format!("postgres://herald@127.0.0.1:{}/herald", self.postgres_config.port)
    }

    /// Starts Kafka, again with what it had.
    pub async fn start_kafka(&mut self) {
        let config = self.kafka_config.clone();
        self.kafka = Some(blocking(move || Kafka::start(&config)).await);
    }

    /// SIGKILL.
    pub async fn kill_kafka(&mut self) {
        let kafka = self.kafka.take().expect("it runs");
        blocking(move || kafka.kill()).await;
    }

    /// Ends Kafka in good order.
    pub async fn stop_kafka(&mut self) {
        let kafka = self.kafka.take().expect("it runs");
        blocking(move || kafka.stop()).await;
    }

    /// Starts Postgres, again with what it had.
    pub async fn start_postgres(&mut self) {
        let config = self.postgres_config.clone();
        self.postgres = Some(blocking(move || Postgres::start(&config)).await);
    }

    /// SIGKILL.
    pub async fn kill_postgres(&mut self) {
        let postgres = self.postgres.take().expect("it runs");
        blocking(move || postgres.kill()).await;
    }

    /// Copies what Postgres holds, while it is stopped.
    pub fn back_up_postgres(&self) {
        copy(&self.postgres_config.dir.join("data"), &self.folder.path().join("backup"));
    }

    /// Puts the copy in the place of what Postgres holds, while it is stopped or killed.
    pub fn restore_postgres(&self) {
        let data = self.postgres_config.dir.join("data");
        std::fs::remove_dir_all(&data).unwrap();
        copy(&self.folder.path().join("backup"), &data);
    }

    /// Ends Postgres in good order.
    pub async fn stop_postgres(&mut self) {
        let postgres = self.postgres.take().expect("it runs");
        blocking(move || postgres.stop()).await;
    }
}

/// With its owner, who needn't be us.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

impl Drop for Servers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("what Kafka and Postgres hold is kept in {}", self.folder.path().display());
            self.folder.disable_cleanup(true);
        }
    }
}
