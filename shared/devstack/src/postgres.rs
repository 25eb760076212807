//! One Postgres server on 127.0.0.1: role `herald` (superuser, no password), database `herald`.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::process::{Files, GLANCE, Process, command_line};
use crate::{dist, place, port, probe};

/// A start takes well under a second; recovery after a kill in the middle of a large load much longer.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(30);

/// For how long the children of a killed server may hold its shared memory.
const ORPHANS: Duration = Duration::from_secs(30);

/// Where a server lies and listens.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// Its data; made if missing. The pid file and the log lie beside it.
    pub dir: PathBuf,
    /// Where clients connect; over TCP only, there is no socket file.
    pub port: u16,
    /// Off is faster and right for tests: what was committed still outlives a killed process, though not a crash of the machine.
    pub fsync: bool,
}

/// A running server. Dropped, it is killed, unless [`Postgres::leave_running`] was called.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    port: u16,
    leave: bool,
}

impl Postgres {
    /// Starts a server and returns when it lets the role `herald` in. What was in the directory is kept, also after a kill.
    ///
    /// Fails if one already runs in this directory, if a program is missing, or if the server ends or isn't ready after 120 s.
    pub fn start(config: &PostgresConfig) -> Result<Postgres> {
        if let Some(running) = Postgres::find(config)? {
            let pid = running.leave_running();
            bail!("Postgres already runs in {} (pid {pid})", config.dir.display());
        }
        let user = place::postgres_user()?;
        let programs = dist::postgres(user)?.join("bin");
        let dir = place::make(&config.dir, user)?;
        let data = dir.join("data");
        initialise(&programs, &data, user)?;
        remove_stale_lock(&data)?;

        let mut command = Command::new(programs.join("postgres"));
        command.arg("-D").arg(&data).env("LC_ALL", "C");
        let port = config.port.to_string();
        let fsync = if config.fsync { "on" } else { "off" };
        for (name, value) in [
            ("port", port.as_str()),
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""),
            ("max_connections", "300"),
            ("shared_buffers", "256MB"),
            ("fsync", fsync),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
        ] {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let files = Files::beside(&config.dir);
        let orphans_until = Instant::now() + ORPHANS;
        loop {
            let fingerprint = fingerprint(config);
            let mut process = Process::spawn("Postgres", &command, user, &fingerprint, &files)?;
            let addr = port::local(config.port);
            let ready = process.wait_until(START, || probe::postgres(addr));
            let held = process.log().contains("pre-existing shared memory block");
            match ready {
                Ok(()) => return Ok(Postgres { process, port: config.port, leave: false }),
                Err(_) if held && Instant::now() < orphans_until => thread::sleep(GLANCE),
                Err(error) => {
                    process.kill()?;
                    return Err(error);
                }
            }
        }
    }

    /// The server of this directory, if it runs: perhaps not ready, perhaps with other settings.
    pub(crate) fn find(config: &PostgresConfig) -> Result<Option<Postgres>> {
        let process = Process::find("Postgres", &Files::beside(&config.dir))?;
        Ok(process.map(|process| Postgres { process, port: config.port, leave: true }))
    }

    /// Whether it was started with these settings.
    pub(crate) fn runs_as(&self, config: &PostgresConfig) -> bool {
        self.process.fingerprint() == fingerprint(config)
    }

    pub(crate) fn wait_until_ready(&mut self) -> Result<()> {
        let addr = port::local(self.port);
        self.process.wait_until(START, || probe::postgres(addr))
    }

    /// `postgres://herald@127.0.0.1:<port>/herald`: the superuser, who needs no password.
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// The process id of the server itself, not of one of its children.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends the server in good order, and its clients' connections with it; one that hasn't ended after 30 s is killed.
    pub fn stop(mut self) -> Result<()> {
        self.process.end(Signal::SIGINT, STOP)
    }

    /// Ends the server at once, as after a crash: nothing is flushed, and its next start recovers.
    pub fn stop_at_once(mut self) -> Result<()> {
        self.process.end(Signal::SIGQUIT, STOP)
    }

    /// SIGKILL to the server; its children notice and end by themselves. Returns when the server is gone.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }

    /// Lets the server outlive this program, and answers its process id.
    pub fn leave_running(mut self) -> u32 {
        self.leave = true;
        self.process.pid()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if !self.leave {
            // Nobody is there to hear of an error; the pid file stays, so the next start finds the server.
            let _ = self.process.kill();
        }
    }
}

pub(crate) fn url(port: u16) -> String {
    format!("postgres://herald@{}/herald", port::local(port))
}

fn fingerprint(config: &PostgresConfig) -> String {
    format!("{} fsync={} {}", config.port, config.fsync, dist::version())
}

/// Makes the data directory with its role and database.
fn initialise(programs: &Path, data: &Path, user: Option<(u32, u32)>) -> Result<()> {
    if data.exists() {
        return Ok(());
    }
    let unfinished = place::unfinished(data)?;
    let program = |name: &str| {
        let mut command = Command::new(programs.join(name));
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        // initdb looks for its own directory, and this one may be closed to its user.
        command.current_dir("/").env("LC_ALL", "C").arg("-D").arg(&unfinished);
        command
    };
    run(
        program("initdb")
            .args(["--username=herald", "--auth=trust", "--encoding=UTF8", "--locale=C"])
            .args(["--no-instructions", "--no-sync"]),
        "",
    )?;
    // A server of one user on its standard input: the database exists before anybody can connect.
    let mut single = Command::new(programs.join("postgres"));
    single.arg("--single").args(program("postgres").get_args()).arg("template1");
    single.current_dir("/").env("LC_ALL", "C");
    if let Some((uid, gid)) = user {
        single.uid(uid).gid(gid);
    }
    run(&mut single, "CREATE DATABASE herald;\n")?;
    fs::rename(&unfinished, data).with_context(|| format!("name {}", data.display()))
}

fn run(command: &mut Command, input: &str) -> Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("run {name}"))?;
    let mut stdin = child.stdin.take().context("the input is a pipe")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("No space left on device") {
        bail!("the disk is full: Postgres can't make its data directory");
    }
    if !output.status.success() || errors.contains("ERROR") || errors.contains("FATAL") {
        bail!("{name} failed: {errors}");
    }
    Ok(())
}

/// Postgres refuses to start beside a lock file whose pid is alive, although after a restart of the machine or the container
/// that pid is often somebody else's.
fn remove_stale_lock(data: &Path) -> Result<()> {
    let lock = data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&lock) else {
        return Ok(());
    };
    let pid = text.lines().next().and_then(|pid| pid.parse().ok());
    let Some(command_line) = pid.and_then(command_line) else {
        return Ok(());
    };
    if command_line.contains(&*data.to_string_lossy()) {
        return Ok(());
    }
    fs::remove_file(&lock).with_context(|| format!("remove {}", lock.display()))
}
