//! What can be seen of a process only from outside: exit codes, signals, a full disk. Each test starts this test
//! binary again as the process under test.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::Service;

const ROLE: &str = "RUNTIME_TEST_ROLE";

/// Not a test but the process under test, when `ROLE` is set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_under_test() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    runtime::telemetry::init();
    let service = Service::new();
    let stop = service.stop.clone();
    let registry = service.registry.clone();
    service.tasks.spawn("worker", async move {
        match role.as_str() {
            "ends early" => return Ok(()),
            "panics" => panic!("about +79990000001"),
            _ => {}
        }
        // Registered once signals are caught.
        while !registry.gather().iter().any(|family| family.name() == "herald_shutdowns_started_total") {
            tokio::task::yield_now().await;
        }
        println!("up");
        stop.cancelled().await;
        println!("asked");
        if role == "hangs" {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let drain = match std::env::var("RUNTIME_TEST_DRAIN_MS") {
        Ok(millis) => Duration::from_millis(millis.parse().unwrap()),
        Err(_) => Duration::from_secs(60),
    };
    let ops_addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let result = runtime::run(ops_addr, service, drain).await;
    if let Err(error) = &result {
        println!("error: {error:#}");
    }
    std::process::exit(i32::from(result.is_err()));
}

fn command(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "process_under_test", "--nocapture"])
        .env(ROLE, role)
        .env_remove("RUST_LOG")
        .env_remove("RUST_BACKTRACE")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

struct Process {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    fn wait_for(&mut self, line: &str) {
        let mut read = String::new();
        while !read.trim_end().ends_with(line) {
            read.clear();
            assert_ne!(self.stdout.read_line(&mut read).unwrap(), 0, "no {line:?}");
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

#[test]
fn a_signal_stops_the_tasks_and_the_process_exits_with_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut process = Process::start(&mut command("works"));
        process.wait_for("up");
        process.signal(signal);
        process.wait_for("asked");
        assert_eq!(process.exit_code(), Some(0));
    }
}

#[test]
fn a_second_signal_exits_at_once() {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let mut process = Process::start(&mut command("hangs"));
        process.wait_for("up");
        process.signal(Signal::SIGTERM);
        process.wait_for("asked");
        process.signal(signal);
        assert_eq!(process.exit_code(), Some(code));
    }
}

#[test]
fn a_task_that_outlives_the_drain_is_named() {
    let mut process = Process::start(command("hangs").env("RUNTIME_TEST_DRAIN_MS", "50"));
    process.wait_for("up");
    process.signal(Signal::SIGTERM);
    process.wait_for("error: still running 50ms after the stop: worker");
    assert_eq!(process.exit_code(), Some(1));
}

#[test]
fn a_task_that_ends_early_ends_the_process() {
    let mut process = Process::start(&mut command("ends early"));
    process.wait_for("error: task worker ended before it was asked to");
    assert_eq!(process.exit_code(), Some(1));
}

#[test]
fn a_panic_ends_the_process_and_logs_its_place_without_its_message() {
    let output = command("panics").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("tests/process.rs"), "{log}");
    assert!(!log.contains("+7999"), "{log}");
}

#[test]
fn a_log_that_can_not_be_written_harms_nothing() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut process = Process::start(command("works").stderr(full));
    process.wait_for("up");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exit_code(), Some(0));
}
