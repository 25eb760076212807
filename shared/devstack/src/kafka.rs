//! Kafka on 127.0.0.1: one broker that is its own controller, or one of a few that are both.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::process::{Files, Process};
use crate::{dist, place, port, probe};

/// 22 characters of base64, as Kafka asks. Every local cluster may have the same: a data directory never leaves its checkout.
const CLUSTER_ID: &str = "HeraldLocalKafkaStackA";

/// A start takes 2–3 s on two idle cores; recovery after a kill on a slow, busy machine much longer.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(30);

/// How much the broker's virtual machine may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jvm {
    /// At most 512 MB and the serial collector: for tests and `make run`.
    Small,
    /// 1 GB and G1: for benchmarks.
    Large,
}

/// Where a broker lies and listens.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// Its data; made if missing. The pid file and the log lie beside it.
    pub dir: PathBuf,
    /// Where clients connect.
    pub port: u16,
    /// The broker's own controller. It may change between two starts, as `port` may.
    pub controller_port: u16,
    /// Its memory.
    pub jvm: Jvm,
    /// A second way to it.
    pub detour: Option<Detour>,
    /// Of a cluster the controllers' ports of all its brokers, in the order of their ids; they stay. Of a broker that is alone
    /// none. A broker of a cluster is ready when most of the others run.
    pub quorum: Vec<u16>,
}

impl KafkaConfig {
    /// A small broker that is alone.
    pub fn alone(dir: PathBuf, port: u16, controller_port: u16) -> Self {
        Self { dir, port, controller_port, jvm: Jvm::Small, detour: None, quorum: vec![] }
    }
}

/// A second listener, for clients that are to come through a proxy: a broker tells its clients where to go, so the proxy must
/// be what it tells them.
#[derive(Clone, Copy, Debug)]
pub struct Detour {
    /// Where the broker listens.
    pub port: u16,
    /// Where it says that it listens: the proxy's port.
    pub advertised: u16,
}

/// A running broker. Dropped, it is killed, unless [`Kafka::leave_running`] was called.
#[derive(Debug)]
pub struct Kafka {
    process: Process,
    port: u16,
    leave: bool,
}

impl Kafka {
    /// Starts a broker and returns when it takes requests. What was in the directory is kept, also after a kill.
    ///
    /// Fails if one already runs in this directory, if a program is missing, or if the broker ends or isn't ready after 120 s.
    pub fn start(config: &KafkaConfig) -> Result<Kafka> {
        if let Some(running) = Kafka::find(config)? {
            let pid = running.leave_running();
            bail!("Kafka already runs in {} (pid {pid})", config.dir.display());
        }
        let java = dist::java()?;
        let class_path = format!("{}/*", dist::kafka()?.display());
        let dir = prepare(config, &java, &class_path)?;

        let mut command = Command::new(&java);
        match config.jvm {
            Jvm::Small => command.args(["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC"]),
            Jvm::Large => command.args(["-Xms1g", "-Xmx1g", "-XX:+UseG1GC"]),
        };
        command
            .args(["-Djava.awt.headless=true", "-Dorg.slf4j.simpleLogger.showDateTime=true"])
            .arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ")
            .args(["-cp", &class_path, "kafka.Kafka"])
            .arg(dir.join("server.properties"));
        let files = Files::beside(&config.dir);
        let mut process = Process::spawn("Kafka", &command, None, &fingerprint(config), &files)?;
        process.wait_until(START, || probe::kafka(port::local(config.port)))?;
        Ok(Kafka { process, port: config.port, leave: false })
    }

    /// The broker of this directory, if it runs: perhaps not ready, perhaps with other settings.
    pub(crate) fn find(config: &KafkaConfig) -> Result<Option<Kafka>> {
        let process = Process::find("Kafka", &Files::beside(&config.dir))?;
        Ok(process.map(|process| Kafka { process, port: config.port, leave: true }))
    }

    /// Whether it was started with these settings.
    pub(crate) fn runs_as(&self, config: &KafkaConfig) -> bool {
        self.process.fingerprint() == fingerprint(config)
    }

    pub(crate) fn wait_until_ready(&mut self) -> Result<()> {
        let addr = port::local(self.port);
        self.process.wait_until(START, || probe::kafka(addr))
    }

    /// `127.0.0.1:<port>`, as clients want it.
    pub fn brokers(&self) -> String {
        port::local(self.port).to_string()
    }

    /// The process id of the broker itself.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends the broker in good order; one that hasn't ended after 30 s is killed.
    pub fn stop(mut self) -> Result<()> {
        self.process.end(Signal::SIGTERM, STOP)
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }

    /// SIGSTOP: connections stay open, nothing is answered.
    pub fn suspend(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// SIGCONT after [`Kafka::suspend`].
    pub fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    /// Lets the broker outlive this program, and answers its process id.
    pub fn leave_running(mut self) -> u32 {
        self.leave = true;
        self.process.pid()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if !self.leave {
            // Nobody is there to hear of an error; the pid file stays, so the next start finds the broker.
            let _ = self.process.kill();
        }
    }
}

fn fingerprint(config: &KafkaConfig) -> String {
    let KafkaConfig { port, controller_port, jvm, .. } = config;
    format!("{port} {controller_port} {jvm:?} {} {}", place::hash(properties(config, "").as_bytes()), dist::version())
}

/// Writes the settings, and formats the data directory unless that was done.
fn prepare(config: &KafkaConfig, java: &Path, class_path: &str) -> Result<PathBuf> {
    let dir = place::make(&config.dir, None)?;
    let data = dir.join("data");
    if !data.exists() {
        let unfinished = place::unfinished(&data)?;
        place::make(&unfinished, None)?;
        let (settings, made) = (unfinished.join("format.properties"), unfinished.join("data"));
        write(&settings, properties(config, &escape(&made.to_string_lossy())))?;
        let output = Command::new(java)
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .args(["-cp", class_path, "kafka.tools.StorageTool", "format"])
            .args(["--cluster-id", CLUSTER_ID])
            .args(config.quorum.is_empty().then_some("--standalone"))
            .arg("--config")
            .arg(&settings)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!("Kafka can't make its data directory: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        fs::rename(&made, &data).with_context(|| format!("name {}", data.display()))?;
        place::remove(&unfinished)?;
    }
    write(&dir.join("server.properties"), properties(config, &escape(&data.to_string_lossy())))?;
    Ok(dir)
}

fn write(path: &Path, text: String) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn properties(config: &KafkaConfig, data: &str) -> String {
    let KafkaConfig { port, controller_port, detour, quorum, .. } = config;
    let way = |port: fn(&Detour) -> u16| detour.map_or(String::new(), |d| format!(",DETOUR://127.0.0.1:{}", port(&d)));
    let (listens, advertised) = (way(|detour| detour.port), way(|detour| detour.advertised));
    let id = quorum.iter().position(|other| other == controller_port).map_or(1, |index| index + 1);
    let voters: Vec<String> = (1..).zip(quorum).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
    let controllers = match quorum.is_empty() {
        true => format!("bootstrap.servers=127.0.0.1:{controller_port}"),
        false => format!("voters={}", voters.join(",")),
    };
    let copies = quorum.len().max(1);
    let in_sync = copies / 2 + 1;
    format!(
        "\
process.roles=broker,controller
node.id={id}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{listens}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{advertised}
controller.listener.names=CONTROLLER
controller.quorum.{controllers}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,DETOUR:PLAINTEXT
log.dirs={data}

# `herald topics` is the only one who creates topics.
auto.create.topics.enable=false
default.replication.factor={copies}
min.insync.replicas={in_sync}

# Four partitions instead of fifty: groups and transactions load sooner after a start.
offsets.topic.num.partitions=4
offsets.topic.replication.factor={copies}
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor={copies}
share.coordinator.state.topic.min.isr={in_sync}

# Groups settle at once, tests may shorten sessions, and a dead planner's page holds readers up for a second only.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
"
    )
}

/// A value in a Java properties file, which is read as Latin-1: a home directory may be named in any script.
fn escape(value: &str) -> String {
    let mut escaped = String::new();
    for unit in value.encode_utf16() {
        match char::from_u32(u32::from(unit)) {
            Some('\\') => escaped.push_str("\\\\"),
            Some(plain) if plain.is_ascii() => escaped.push(plain),
            _ => {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_three_brokers_each_has_its_id_and_two_must_have_what_is_acknowledged() {
        let config = |controller_port, quorum| {
            let dir = PathBuf::from("x");
            KafkaConfig { quorum, ..KafkaConfig::alone(dir, 1, controller_port) }
        };
        let second = properties(&config(6, vec![5, 6, 7]), "x");
        for line in [
            "node.id=2",
            "controller.quorum.voters=1@127.0.0.1:5,2@127.0.0.1:6,3@127.0.0.1:7",
            "default.replication.factor=3",
            "min.insync.replicas=2",
            "offsets.topic.replication.factor=3",
            "transaction.state.log.replication.factor=3",
            "transaction.state.log.min.isr=2",
        ] {
            assert!(second.lines().any(|other| other == line), "{line} isn't in {second}");
        }
        let alone = properties(&config(6, vec![]), "x");
        for line in ["node.id=1", "controller.quorum.bootstrap.servers=127.0.0.1:6", "min.insync.replicas=1"] {
            assert!(alone.lines().any(|other| other == line), "{line} isn't in {alone}");
        }
    }

    #[test]
    fn a_path_in_any_script_survives_the_properties_file() {
        assert_eq!(escape("/home/jürgen/\\x 🚀"), "/home/j\\u00fcrgen/\\\\x \\ud83d\\ude80");
    }
}
