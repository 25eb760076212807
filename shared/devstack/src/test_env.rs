//! A Kafka and a Postgres for one run of a command, most often `cargo test`.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::settings::is_ours;
use crate::stack::{lock, start_both};
use crate::{Kafka, KafkaConfig, Postgres, PostgresConfig, free_ports, place, root};

/// What a signal does: it reaches the command if that runs, else the command isn't started any more.
#[derive(Default)]
struct Interrupt {
    command: Option<Pid>,
    signals: Vec<Signal>,
}

/// Runs a command with fresh servers under `.local/test`, and answers its exit code.
///
/// The command finds them by `HERALD_TEST_DATABASE_URL` and `DATABASE_URL` (the same, of a superuser) and
/// `HERALD_TEST_KAFKA_BROKERS`; nothing else that begins with `HERALD_` reaches it. The servers are stopped whatever happens,
/// also on Ctrl-C. Without Kafka if `postgres_only`. `build` is how long the build before it took, for the last line.
pub fn run_with_servers(command: &[String], postgres_only: bool, build: Option<Duration>) -> Result<u8> {
    let interrupt = Arc::new(Mutex::new(Interrupt::default()));
    forward_signals(&interrupt)?;
    let dir = root().join(".local/test");
    let _lock = lock(&root().join(".local/test.lock"), "another test run in this checkout")?;
    let [port, controller_port, postgres_port] = free_ports()?;
    let kafka = KafkaConfig::alone(dir.join("kafka"), port, controller_port);
    let postgres = PostgresConfig { dir: dir.join("postgres"), port: postgres_port, fsync: false };
    remove_remains(&kafka, &postgres)?;

    let began = Instant::now();
    let (kafka_server, postgres_server) = start_both((!postgres_only).then_some(&kafka), Some(&postgres))?;
    let postgres_server = postgres_server.context("Postgres was asked for")?;
    let stack = began.elapsed();

    let mut child = Command::new(&command[0]);
    child.args(&command[1..]).process_group(0);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_ours) {
            child.env_remove(name);
        }
    }
    child.env("HERALD_TEST_DATABASE_URL", postgres_server.url()).env("DATABASE_URL", postgres_server.url());
    if let Some(kafka) = &kafka_server {
        child.env("HERALD_TEST_KAFKA_BROKERS", kafka.brokers());
    }
    let began = Instant::now();
    let code = run(&mut child, &interrupt).with_context(|| format!("run {}", command[0]))?;
    let tests = began.elapsed();

    kafka_server.map(Kafka::kill).transpose()?;
    postgres_server.kill()?;
    place::remove(&kafka.dir)?;
    place::remove(&postgres.dir)?;
    let build = build.map_or(String::new(), |build| format!("build {} s, ", build.as_secs()));
    eprintln!("{build}stack {} s, {} {} s", stack.as_secs(), command[0], tests.as_secs());
    Ok(code)
}

/// Of a run that was killed before it could clean up.
fn remove_remains(kafka: &KafkaConfig, postgres: &PostgresConfig) -> Result<()> {
    Kafka::find(kafka)?.map(Kafka::kill).transpose()?;
    Postgres::find(postgres)?.map(Postgres::kill).transpose()?;
    place::remove(&kafka.dir)?;
    place::remove(&postgres.dir)
}

/// The command has a process group of its own, so a signal reaches all that it started, once, wherever it came from.
fn forward_signals(interrupt: &Arc<Mutex<Interrupt>>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let interrupt = Arc::clone(interrupt);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let Ok(signal) = Signal::try_from(signal) else { continue };
            let mut interrupt = interrupt.lock().unwrap_or_else(PoisonError::into_inner);
            // Who asks a third time wants it at once.
            let sent = if interrupt.signals.len() < 2 { signal } else { Signal::SIGKILL };
            if let Some(group) = interrupt.command {
                // It may just have ended.
                let _ = killpg(group, sent);
            }
            interrupt.signals.push(signal);
        }
    })?;
    Ok(())
}

fn run(command: &mut Command, interrupt: &Mutex<Interrupt>) -> Result<u8> {
    let lock = || interrupt.lock().unwrap_or_else(PoisonError::into_inner);
    let mut child = {
        let mut interrupt = lock();
        if let Some(signal) = interrupt.signals.first() {
            return Ok(code_of_signal(*signal as i32));
        }
        let child = command.spawn()?;
        interrupt.command = Some(Pid::from_raw(i32::try_from(child.id())?));
        child
    };
    let status = child.wait()?;
    let mut interrupt = lock();
    interrupt.command = None;
    Ok(match (interrupt.signals.first(), status.code()) {
        (Some(signal), _) => code_of_signal(*signal as i32),
        (None, Some(code)) => u8::try_from(code)?,
        (None, None) => code_of_signal(std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0)),
    })
}

/// As shells tell it.
fn code_of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(255)
}
