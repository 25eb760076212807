use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{PATIENCE, eventually};

/// A program under test, as a process. Dropping it kills it.
pub struct Program {
    /// Its log's.
    pub name: String,
    child: Child,
    /// Its ops port, as `host:port`.
    pub ops: String,
    /// The port by which nobody else calls the provider, as the provider's log has it.
    pub sender: Option<u16>,
    log: PathBuf,
}

/// Where nothing listens, and no outgoing connection will.
pub fn free_addr() -> String {
    let [port] = devstack::free_ports().unwrap();
    format!("127.0.0.1:{port}")
}

/// Where `cargo build` has put the programs: beside this one, or beside the folder of this test binary.
fn binary(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let folder = this.parent().unwrap();
    let folder = if folder.ends_with("deps") { folder.parent().unwrap() } else { folder };
    let path = folder.join(name);
    assert!(path.exists(), "{} isn't built: run the tests by `make test`", path.display());
    path
}

/// A command with only the given settings.
pub(crate) fn command(binary_name: &str, args: &[&str], env: &[(String, String)]) -> Command {
    let mut command = Command::new(binary(binary_name));
    command.args(args);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("HERALD_") || text == "DATABASE_URL" {
            command.env_remove(&name);
        }
    }
    command.envs(env.iter().map(|(name, value)| (name, value))).env("RUST_LOG", "info").stdin(Stdio::null());
    // No `.env` of a checkout may reach a test.
    command.current_dir(std::env::temp_dir());
    command
}

impl Program {
    /// Starts it; `name` is its log's.
    pub(crate) fn start(binary: &str, args: &[&str], env: &[(String, String)], logs: &Path, name: &str) -> Self {
        let log = logs.join(format!("{name}.log"));
        let given = env.iter().find(|(name, _)| name == "HERALD_OPS_ADDR").map(|(_, addr)| addr.clone());
        let ops = given.unwrap_or_else(free_addr);
        let mut command = command(binary, args, env);
        if binary == "herald" {
            command.env("HERALD_OPS_ADDR", &ops);
        }
        let file = File::create(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap();
        Self { name: name.to_owned(), child, ops, sender: None, log }
    }

    /// Waits until `/readyz` says so.
    pub async fn ready(&mut self) {
        self.answers(&format!("http://{}/readyz", self.ops)).await;
    }

    /// Waits until the address answers well.
    pub(crate) async fn answers(&mut self, url: &str) {
        let started = Instant::now();
        loop {
            assert!(self.is_running(), "{} has ended:\n{}", self.name, self.log_tail());
            let answer = reqwest::get(url).await;
            if answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            if started.elapsed() > PATIENCE {
                let body = match answer {
                    Ok(answer) => answer.text().await.unwrap_or_default(),
                    Err(error) => error.to_string(),
                };
                panic!("{} isn't ready: {body}\n{}", self.name, self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether it hasn't ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; waits for the end, which must be in good order.
    pub async fn terminate(self) {
        self.signal(Signal::SIGTERM);
        self.ended().await;
    }

    /// Waits for the end that it was told to come to, which must be in good order.
    pub(crate) async fn ended(mut self) {
        let status: ExitStatus = eventually("the program to end", async || self.child.try_wait().unwrap()).await;
        assert!(status.success(), "{} ended with {status}:\n{}", self.name, self.log_tail());
    }

    /// What `/readyz` says of the parts that aren't ready; none while it doesn't answer.
    pub async fn unready(&self) -> Option<Vec<String>> {
        Some(self.parts(false).await?.into_iter().map(|(_, state)| state).collect())
    }

    /// The name and the state of each part of which `/readyz` says that it is ready, or that it isn't.
    pub async fn parts(&self, ready: bool) -> Option<Vec<(String, String)>> {
        let answer = reqwest::get(format!("http://{}/readyz", self.ops)).await.ok()?;
        let report: serde_json::Value = answer.json().await.ok()?;
        let parts = report["parts"].as_array()?.iter().filter(|part| part["ok"] == ready);
        let text = |part: &serde_json::Value, of: &str| part[of].as_str().unwrap().to_owned();
        Some(parts.map(|part| (text(part, "name"), text(part, "state"))).collect())
    }

    /// Whether `/livez` is well.
    pub async fn is_live(&self) -> bool {
        reqwest::get(format!("http://{}/livez", self.ops)).await.is_ok_and(|answer| answer.status().is_success())
    }

    /// Its `/metrics`.
    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.ops);
        reqwest::get(url).await.unwrap().text().await.unwrap()
    }

    /// The sum of a metric's series.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        let series = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{')));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
