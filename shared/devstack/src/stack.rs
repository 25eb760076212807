//! The local stack of a checkout: what `make run`, `make stop` and the rest do.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};

use crate::process::Process;
use crate::programs::{self, Program};
use crate::settings::Settings;
use crate::{Kafka, KafkaConfig, Postgres, PostgresConfig, dist, place, port, probe, root};

/// A line for whoever reads along; that nobody does any more (`make run | head`) is no reason to stop half-way.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// The stack of this checkout, as its environment and `.env` describe it.
pub struct Stack {
    settings: Settings,
    local: PathBuf,
}

impl Stack {
    /// Reads the settings; a wrong one is an error that names it.
    pub fn read() -> Result<Stack> {
        Ok(Stack { settings: Settings::read(&root())?, local: root().join(".local") })
    }

    /// Brings up what doesn't run, anew what runs with other settings or an older build, and returns when all is ready.
    ///
    /// Nothing is started when a port is taken or a program is missing. It may be killed at any moment: the next one repairs it.
    pub fn up(&self) -> Result<()> {
        let _lock = self.lock()?;
        let (kafka, postgres) = (self.kafka(), self.postgres());
        let (simulator, herald) = (self.simulator()?, self.herald());
        let kafka_config = self.settings.foreign_kafka().is_none().then_some(&kafka);
        let postgres_config = self.settings.foreign_database().is_none().then_some(&postgres);
        let simulator = self.settings.foreign_provider().is_none().then_some(&simulator);

        // What it takes is there before anything starts.
        if kafka_config.is_some() {
            dist::java()?;
            dist::kafka()?;
        }
        if postgres_config.is_some() {
            dist::postgres(place::postgres_user()?)?;
        }
        let running_herald = current(&herald)?;
        let running_simulator = simulator.map(current).transpose()?.flatten();
        let running_kafka = match Kafka::find(&kafka)? {
            Some(old) if kafka_config.is_some() && !old.runs_as(&kafka) => {
                say!("kafka: stop it, its settings have changed");
                old.stop()?;
                None
            }
            found => found,
        };
        let running_postgres = match Postgres::find(&postgres)? {
            Some(old) if postgres_config.is_some() && !old.runs_as(&postgres) => {
                say!("postgres: stop it, its settings have changed");
                old.stop()?;
                None
            }
            found => found,
        };

        let mut ports: Vec<(SocketAddr, &str)> = Vec::new();
        if kafka_config.is_some() && running_kafka.is_none() {
            ports.push((port::local(kafka.port), "HERALD_LOCAL_KAFKA_PORT"));
            ports.push((port::local(kafka.controller_port), "HERALD_LOCAL_KAFKA_CONTROLLER_PORT"));
        }
        if postgres_config.is_some() && running_postgres.is_none() {
            ports.push((port::local(postgres.port), "HERALD_LOCAL_PG_PORT"));
        }
        if simulator.is_some() && running_simulator.is_none() {
            ports.push((self.settings.simulator, "HERALD_SIM_ADDR"));
        }
        if running_herald.is_none() {
            ports.push((self.settings.api, "HERALD_API_ADDR"));
            ports.push((self.settings.ops, "HERALD_OPS_ADDR"));
        }
        port::check_distinct(&ports)?;
        for (addr, variable) in ports {
            port::check_free(addr, variable)?;
        }

        let missing_kafka = kafka_config.filter(|_| running_kafka.is_none());
        let missing_postgres = postgres_config.filter(|_| running_postgres.is_none());
        let (new_kafka, new_postgres) = start_both(missing_kafka, missing_postgres)?;
        if let (Some(mut server), Some(config)) = (new_kafka.or(running_kafka), kafka_config) {
            server.wait_until_ready()?;
            say!("kafka: ready on port {} (pid {})", config.port, server.leave_running());
        }
        if let (Some(mut server), Some(config)) = (new_postgres.or(running_postgres), postgres_config) {
            server.wait_until_ready()?;
            say!("postgres: ready on port {} (pid {})", config.port, server.leave_running());
        }

        programs::herald("migrate", &herald.env)?;
        say!("postgres: the schema is current");
        programs::herald("topics", &herald.env)?;
        say!("kafka: the topics are there");
        if let Some(simulator) = simulator {
            bring_up(simulator, running_simulator)?;
        }
        bring_up(&herald, running_herald)?;
        say!("ready: the API is http://{}/api/v1/mailings", port::reachable(self.settings.api));
        Ok(())
    }

    /// The variable that points to somebody else's database or provider, where no demo starts by itself.
    pub fn not_ours(&self) -> Option<&'static str> {
        self.settings.foreign_database().or(self.settings.foreign_provider())
    }

    /// Becomes `herald demo` against this stack; returns only if that can't be started.
    pub fn demo(&self) -> Result<()> {
        programs::become_demo(&self.settings.for_herald())
    }

    /// Ends what [`Stack::up`] started, and nothing else.
    pub fn stop(&self) -> Result<()> {
        if !self.local.exists() {
            say!("nothing runs");
            return Ok(());
        }
        let _lock = self.lock()?;
        self.stop_locked()
    }

    /// [`Stack::stop`], then removes the data and the logs; what was fetched stays.
    pub fn reset(&self) -> Result<()> {
        if !self.local.exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        self.stop_locked()?;
        for name in ["kafka", "postgres", "log"] {
            place::remove(&self.local.join(name))?;
        }
        say!("the data is removed");
        Ok(())
    }

    fn stop_locked(&self) -> Result<()> {
        let mut stopped = Vec::new();
        for name in ["herald", "provider-sim"] {
            if let Some(pid) = programs::stop(name)? {
                say!("{name}: stopped (pid {pid})");
                stopped.push(pid);
            }
        }
        if let Some(kafka) = Kafka::find(&self.kafka())? {
            let pid = kafka.pid();
            kafka.stop()?;
            say!("kafka: stopped (pid {pid})");
            stopped.push(pid);
        }
        if let Some(postgres) = Postgres::find(&self.postgres())? {
            let pid = postgres.pid();
            postgres.stop()?;
            say!("postgres: stopped (pid {pid})");
            stopped.push(pid);
        }
        if stopped.is_empty() {
            say!("nothing runs");
        }
        Ok(())
    }

    /// Prints a line for each process: its pid, where it listens, and that it is ready or why not.
    pub fn status(&self) -> Result<()> {
        let (simulator, herald) = (self.simulator()?, self.herald());
        let (kafka, postgres) = (port::local(self.settings.kafka_port), port::local(self.settings.postgres_port));
        let kafka_pid = Kafka::find(&self.kafka())?.map(|found| found.pid());
        let postgres_pid = Postgres::find(&self.postgres())?.map(|found| found.pid());
        let simulator_pid = simulator.find()?.map(|found| found.pid());
        let herald_pid = herald.find()?.map(|found| found.pid());
        say!("{:13} {:>8}  {:21}  state", "process", "pid", "address");
        line("kafka", kafka_pid, kafka, self.settings.foreign_kafka(), || probe::kafka(kafka));
        line("postgres", postgres_pid, postgres, self.settings.foreign_database(), || probe::postgres(postgres));
        line(simulator.name, simulator_pid, simulator.addr, self.settings.foreign_provider(), || simulator.ready());
        line(herald.name, herald_pid, self.settings.api, None, || herald.ready());
        Ok(())
    }

    /// Becomes `tail` on the logs: followed on a terminal, else their last lines.
    pub fn logs(&self) -> Result<()> {
        let dir = self.local.join("log");
        let mut logs: Vec<PathBuf> = fs::read_dir(&dir)
            .with_context(|| format!("no logs yet in {}", dir.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .collect();
        logs.sort();
        let mut tail = Command::new("tail");
        tail.args(["-n", "50"]);
        if std::io::stdout().is_terminal() {
            tail.arg("-F");
        }
        Err(tail.args(logs).exec()).context("run tail")
    }

    fn kafka(&self) -> KafkaConfig {
        KafkaConfig::alone(self.local.join("kafka"), self.settings.kafka_port, self.settings.controller_port)
    }

    fn postgres(&self) -> PostgresConfig {
        PostgresConfig { dir: self.local.join("postgres"), port: self.settings.postgres_port, fsync: true }
    }

    fn simulator(&self) -> Result<Program> {
        let env = self.settings.for_simulator(&self.local.join("log/provider-calls.ndjson"))?;
        Ok(Program { name: "provider-sim", args: &[], env, addr: self.settings.simulator, path: "/stats" })
    }

    fn herald(&self) -> Program {
        let mut env = self.settings.for_herald();
        let state = self.local.join("herald").display().to_string();
        env.entry("HERALD_STATE_DIR".to_owned()).or_insert(state);
        Program { name: "herald", args: &["all"], env, addr: self.settings.ops, path: "/readyz" }
    }

    fn lock(&self) -> Result<File> {
        lock(&self.local.join("lock"), "another command on this stack")
    }
}

/// Two commands on one stack take turns.
pub(crate) fn lock(path: &std::path::Path, holder: &str) -> Result<File> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let lock = File::create(path).with_context(|| format!("create {}", path.display()))?;
    if lock.try_lock().is_err() {
        say!("waiting for {holder}");
        lock.lock()?;
    }
    Ok(lock)
}

/// Starts both servers at once; when one fails, the other doesn't stay.
pub(crate) fn start_both(
    kafka: Option<&KafkaConfig>,
    postgres: Option<&PostgresConfig>,
) -> Result<(Option<Kafka>, Option<Postgres>)> {
    thread::scope(|scope| {
        let kafka = scope.spawn(|| kafka.map(Kafka::start).transpose());
        let postgres = postgres.map(Postgres::start).transpose();
        let kafka = kafka.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((kafka?, postgres?))
    })
}

/// The running program, if it is of this build and has these settings; another one is stopped.
fn current(program: &Program) -> Result<Option<Process>> {
    let Some(running) = program.find()? else { return Ok(None) };
    if running.fingerprint() == program.fingerprint()? {
        return Ok(Some(running));
    }
    say!("{}: stop it, its build or its settings have changed", program.name);
    programs::stop(program.name)?;
    Ok(None)
}

fn bring_up(program: &Program, running: Option<Process>) -> Result<()> {
    let mut process = match running {
        Some(process) => process,
        None => program.start()?,
    };
    program.wait_until_ready(&mut process)?;
    say!("{}: ready on port {} (pid {})", program.name, program.addr.port(), process.pid());
    Ok(())
}

fn line(
    name: &str,
    pid: Option<u32>,
    addr: SocketAddr,
    foreign: Option<&str>,
    ready: impl FnOnce() -> Result<(), String>,
) {
    let state = match (foreign, pid) {
        (Some(variable), _) => format!("yours ({variable})"),
        (None, None) => "not running".to_owned(),
        (None, Some(_)) => match ready() {
            Ok(()) => "ready".to_owned(),
            Err(why_not) => format!("not ready: {}", why_not.lines().collect::<Vec<_>>().join(" ")),
        },
    };
    let pid = pid.filter(|_| foreign.is_none()).map_or("-".to_owned(), |pid| pid.to_string());
    let addr = if foreign.is_some() { "-".to_owned() } else { addr.to_string() };
    say!("{name:13} {pid:>8}  {addr:21}  {state}");
}
