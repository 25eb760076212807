use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use devstack::{Jvm, Kafka, KafkaConfig, Postgres, PostgresConfig, free_ports};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::build::{Build, beside_this};
use crate::program::Program;

const TOKEN: &str = "bench";

/// The services, as `herald` names them.
pub(crate) const SERVICES: [&str; 4] = ["api", "scheduler", "sender", "projector"];

/// The Kafka of all runs, and the place of each run's own Postgres. A new broker would be slow until its Java is compiled.
pub(crate) struct Servers {
    kafka: Kafka,
    runs: usize,
    folder: TempDir,
}

impl Servers {
    pub(crate) fn start() -> anyhow::Result<Self> {
        // Postgres' own user walks into it.
        let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir()?;
        let [port, controller_port] = free_ports()?;
        let alone = KafkaConfig::alone(folder.path().join("kafka"), port, controller_port);
        let kafka = Kafka::start(&KafkaConfig { jvm: Jvm::Large, ..alone })?;
        Ok(Self { kafka, runs: 0, folder })
    }
}

/// One build's services with a Postgres, topics and a provider that nothing was sent through before.
pub(crate) struct Installation {
    kafka: u32,
    postgres: Postgres,
    simulator: Program,
    services: Vec<Program>,
    provider: String,
    /// The REST API's URL.
    pub(crate) api: String,
    /// The provider's log of calls.
    pub(crate) calls: PathBuf,
    pub(crate) http: reqwest::Client,
    folder: PathBuf,
}

impl Installation {
    /// Returns when all is ready. The simulator is always this tree's: what measures must not differ between builds.
    pub(crate) async fn start(servers: &mut Servers, build: &Build, latency: &str) -> anyhow::Result<Self> {
        servers.runs += 1;
        let folder = servers.folder.path().join(format!("run-{}", servers.runs));
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let [postgres_port, simulator_port, api_port] = free_ports()?;
        let postgres =
            Postgres::start(&PostgresConfig { dir: folder.join("postgres"), port: postgres_port, fsync: true })?;

        let provider_addr = format!("127.0.0.1:{simulator_port}");
        let provider = format!("http://{provider_addr}");
        let calls = folder.join("calls.ndjson");
        let settings = [
            ("HERALD_PROVIDER_TOKEN", TOKEN.to_owned()),
            ("HERALD_SIM_ADDR", provider_addr),
            ("HERALD_SIM_LATENCY", latency.to_owned()),
            ("HERALD_SIM_LOG", calls.display().to_string()),
        ];
        let mut simulator = Program::start(&beside_this("provider-sim")?, None, &settings, &folder)?;
        simulator.answers(&http, &format!("{provider}/livez")).await?;

        let api = format!("127.0.0.1:{api_port}");
        let mut settings = vec![
            ("DATABASE_URL", postgres.url()),
            ("HERALD_KAFKA_BROKERS", servers.kafka.brokers()),
            ("HERALD_TOPIC_PREFIX", format!("bench-{}", servers.runs)),
            ("HERALD_API_ADDR", api.clone()),
            ("HERALD_PROVIDER_URL", provider.clone()),
            ("HERALD_PROVIDER_TOKEN", TOKEN.to_owned()),
        ];
        for verb in ["migrate", "topics"] {
            Program::start(&build.herald, Some(verb), &settings, &folder)?.ended().await?;
        }
        let mut services = vec![];
        for (service, port) in SERVICES.into_iter().zip(free_ports::<4>()?) {
            let ops = format!("127.0.0.1:{port}");
            settings.push(("HERALD_OPS_ADDR", ops.clone()));
            let mut program = Program::start(&build.herald, Some(service), &settings, &folder)?;
            settings.pop();
            program.answers(&http, &format!("http://{ops}/readyz")).await?;
            services.push(program);
        }
        let (kafka, api) = (servers.kafka.pid(), format!("http://{api}/api/v1"));
        Ok(Self { kafka, postgres, simulator, services, provider, api, calls, http, folder })
    }

    /// The process ids of all parts, by name.
    pub(crate) fn parts(&self) -> Vec<(&'static str, u32)> {
        let mut parts =
            vec![("kafka", self.kafka), ("postgres", self.postgres.pid()), ("simulator", self.simulator.pid())];
        parts.extend(SERVICES.into_iter().zip(self.services.iter().map(Program::pid)));
        parts
    }

    /// Sends JSON, or asks with GET when there is none; fails unless the answer is a success.
    pub(crate) async fn ask(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.api);
        let request = match body {
            Some(body) => self.http.post(url).json(body),
            None => self.http.get(url),
        };
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        anyhow::ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Returns once each call that has ended is in the provider's log.
    pub(crate) async fn calls_are_logged(&self) -> anyhow::Result<()> {
        self.http.get(format!("{}/stats", self.provider)).send().await?.error_for_status()?;
        Ok(())
    }

    /// Ends all but Kafka in good order, so that no group member is waited for in the next run.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for service in &self.services {
            kill(Pid::from_raw(service.pid().cast_signed()), Signal::SIGTERM)?;
        }
        for service in self.services {
            service.ended().await?;
        }
        self.postgres.stop()?;
        drop(self.simulator);
        Ok(fs::remove_dir_all(self.folder)?)
    }
}
