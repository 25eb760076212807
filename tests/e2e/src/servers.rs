use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use devstack::{Detour, Kafka, KafkaConfig, Postgres, PostgresConfig, free_ports};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

use crate::eventually;
use crate::proxy::{Proxy, Way};

/// A Kafka and a Postgres of one's own, to be broken.
pub struct Servers {
    brokers: Vec<Broker>,
    postgres_config: PostgresConfig,
    postgres: Option<Postgres>,
    /// A way to Postgres that can be made a bad one.
    pub(crate) postgres_proxy: Proxy,
    folder: TempDir,
}

struct Broker {
    config: KafkaConfig,
    running: Option<Kafka>,
    /// A way to it that can be made a bad one.
    proxy: Proxy,
}

/// How a Postgres ends.
#[derive(Clone, Copy, Debug)]
pub enum PostgresEnd {
    /// SIGKILL.
    Kill,
    /// In good order, and its clients' connections with it.
    Fast,
    /// At once, with a word to its clients.
    Immediate,
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap().unwrap()
}

fn addrs(ports: impl Iterator<Item = u16>) -> String {
    ports.map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
}

impl Servers {
    /// Starts both, with one broker.
    pub async fn start() -> Self {
        Self::with_brokers(1).await
    }

    /// Starts both, or with no broker Postgres alone. Of three brokers each has a copy of everything, and two must have what
    /// is acknowledged.
    pub async fn with_brokers(brokers: usize) -> Self {
        // Postgres' own user walks into it.
        let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        let controllers: Vec<u16> = (0..brokers).flat_map(|_| free_ports::<1>().unwrap()).collect();
        let mut cluster = vec![];
        for (number, controller_port) in (1..).zip(&controllers) {
            let [port, detour, proxy] = free_ports().unwrap();
            let config = KafkaConfig {
                detour: Some(Detour { port: detour, advertised: proxy }),
                quorum: if brokers > 1 { controllers.clone() } else { vec![] },
                ..KafkaConfig::alone(folder.path().join(format!("kafka-{number}")), port, *controller_port)
            };
            cluster.push(Broker { config, running: None, proxy: Proxy::start(proxy, detour).await });
        }
        let [port, proxy] = free_ports().unwrap();
        let mut servers = Self {
            brokers: cluster,
            postgres_proxy: Proxy::start(proxy, port).await,
            postgres_config: PostgresConfig { dir: folder.path().join("postgres"), port, fsync: false },
            postgres: None,
            folder,
        };
        servers.start_kafka().await;
        servers.start_postgres().await;
        servers
    }

    /// Where Kafka is, also while it is away.
    pub fn brokers(&self) -> String {
        addrs(self.brokers.iter().map(|broker| broker.config.port))
    }

    /// Where Postgres is, likewise.
    pub fn url(&self) -> String {
        format!("postgres://herald@127.0.0.1:{}/herald", self.postgres_config.port)
    }

    /// Postgres' own port, and that of the way to it that can be made a bad one.
    pub(crate) fn postgres_ports(&self) -> [u16; 2] {
        [self.postgres_config.port, self.postgres_proxy.port()]
    }

    /// The way to Kafka that can be made a bad one.
    pub(crate) fn detour(&self) -> String {
        addrs(self.brokers.iter().map(|broker| broker.proxy.port()))
    }

    pub(crate) fn make_detour(&self, way: Way) {
        self.brokers.iter().for_each(|broker| broker.proxy.be(way));
    }

    /// Starts Kafka, again with what it had.
    pub async fn start_kafka(&mut self) {
        // At once: none of several is ready alone.
        let configs = self.brokers.iter().map(|broker| broker.config.clone());
        let starts: Vec<_> = configs.map(|config| tokio::spawn(blocking(move || Kafka::start(&config)))).collect();
        for (broker, start) in self.brokers.iter_mut().zip(starts) {
            broker.running = Some(start.await.unwrap());
        }
    }

    /// SIGKILL.
    pub async fn kill_kafka(&mut self) {
        for index in 0..self.brokers.len() {
            self.kill_broker(index).await;
        }
    }

    /// Ends Kafka in good order.
    pub async fn stop_kafka(&mut self) {
        for broker in &mut self.brokers {
            let kafka = broker.running.take().expect("it runs");
            blocking(move || kafka.stop()).await;
        }
    }

    /// SIGKILL to one broker.
    pub(crate) async fn kill_broker(&mut self, index: usize) {
        let kafka = self.brokers[index].running.take().expect("it runs");
        blocking(move || kafka.kill()).await;
    }

    /// Starts one broker again, and returns when every copy of every partition has caught up.
    pub(crate) async fn start_broker(&mut self, index: usize) {
        let config = self.brokers[index].config.clone();
        self.brokers[index].running = Some(blocking(move || Kafka::start(&config)).await);
        let consumer = ClientConfig::new().set("bootstrap.servers", self.brokers()).create().unwrap();
        let consumer: Arc<BaseConsumer> = Arc::new(consumer);
        eventually("the copies to catch up", async || {
            let consumer = Arc::clone(&consumer);
            let ask = move || consumer.fetch_metadata(None, Duration::from_secs(5));
            let metadata = tokio::task::spawn_blocking(ask).await.unwrap().ok()?;
            let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            partitions.all(|partition| partition.isr().len() == partition.replicas().len()).then_some(())
        })
        .await;
    }

    /// Starts Postgres, again with what it had.
    pub async fn start_postgres(&mut self) {
        let config = self.postgres_config.clone();
        self.postgres = Some(blocking(move || Postgres::start(&config)).await);
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

    /// Lets Postgres begin a timeline when it starts, as after a failover.
    pub fn promote_postgres(&self) {
        let data = self.postgres_config.dir.join("data");
        std::fs::write(data.join("recovery.signal"), "").unwrap();
        let mut settings = File::options().append(true).open(data.join("postgresql.auto.conf")).unwrap();
        // There is no archive: what it has is all there is.
        writeln!(settings, "restore_command = 'false'").unwrap();
    }

    /// Ends Postgres in good order.
    pub async fn stop_postgres(&mut self) {
        self.end_postgres(PostgresEnd::Fast).await;
    }

    /// SIGKILL.
    pub async fn kill_postgres(&mut self) {
        self.end_postgres(PostgresEnd::Kill).await;
    }

    pub(crate) async fn end_postgres(&mut self, end: PostgresEnd) {
        let postgres = self.postgres.take().expect("it runs");
        blocking(move || match end {
            PostgresEnd::Kill => postgres.kill(),
            PostgresEnd::Fast => postgres.stop(),
            PostgresEnd::Immediate => postgres.stop_at_once(),
        })
        .await;
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
