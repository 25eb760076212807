//! Herald's own programs: built beside this one, run with the stack's settings.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::process::{Files, Process};
use crate::{place, port, probe, root};

const START: Duration = Duration::from_secs(60);

/// A drain takes at most 10 s; what is left is flushing and committing.
const STOP: Duration = Duration::from_secs(20);

/// A program that runs in the background until it is stopped.
pub(crate) struct Program {
    /// Of the binary, the pid file and the log.
    pub(crate) name: &'static str,
    pub(crate) args: &'static [&'static str],
    pub(crate) env: BTreeMap<String, String>,
    /// Where it says that it is ready.
    pub(crate) addr: SocketAddr,
    pub(crate) path: &'static str,
}

impl Program {
    pub(crate) fn find(&self) -> Result<Option<Process>> {
        Process::find(self.name, &files(self.name))
    }

    pub(crate) fn ready(&self) -> Result<(), String> {
        probe::http(port::reachable(self.addr), self.path)
    }

    pub(crate) fn start(&self) -> Result<Process> {
        let mut command = command(self.name, &self.env)?;
        command.args(self.args);
        Process::spawn(self.name, &command, None, &self.fingerprint()?, &files(self.name))
    }

    pub(crate) fn wait_until_ready(&self, process: &mut Process) -> Result<()> {
        process.wait_until(START, || self.ready())
    }

    /// Changes with the settings and with every build.
    pub(crate) fn fingerprint(&self) -> Result<String> {
        let built = binary(self.name)?.metadata()?.modified()?.duration_since(UNIX_EPOCH)?;
        let text = format!("{built:?} {:?} {:?}", self.args, self.env);
        Ok(place::hash(text.as_bytes()))
    }
}

/// Ends a program of the stack; answers its pid if it ran.
pub(crate) fn stop(name: &str) -> Result<Option<u32>> {
    let Some(mut process) = Process::find(name, &files(name))? else { return Ok(None) };
    process.end(Signal::SIGTERM, STOP)?;
    Ok(Some(process.pid()))
}

/// Runs `herald <verb>` to its end, and shows what it says only when it fails.
pub(crate) fn herald(verb: &str, env: &BTreeMap<String, String>) -> Result<()> {
    let output = command("herald", env)?.arg(verb).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("herald {verb} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

pub(crate) fn command(name: &str, env: &BTreeMap<String, String>) -> Result<Command> {
    let mut command = Command::new(binary(name)?);
    command.current_dir(root()).envs(env);
    Ok(command)
}

fn binary(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    match path.exists() {
        true => Ok(path),
        false => bail!("{} isn't built: run cargo build", path.display()),
    }
}

fn files(name: &str) -> Files {
    Files::beside(&root().join(".local").join(name))
}

/// Replaces this program by `herald demo`.
pub(crate) fn become_demo(env: &BTreeMap<String, String>) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let mut command = command("herald", env)?;
    Err(command.arg("demo").exec()).context("run herald demo")
}
