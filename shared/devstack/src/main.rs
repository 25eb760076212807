//! `devstack`: the local stack from the command line. Its verbs are what the Makefile's targets call.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use devstack::{Stack, check_working_directory, run_with_servers};
use nix::sys::stat::{Mode, umask};

/// Kafka, Postgres, the provider simulator and Herald on this machine.
#[derive(Parser)]
enum Verb {
    /// Brings everything up, then runs the demo.
    Run,
    /// Brings everything up.
    Up,
    /// Runs the demo against what is up.
    Demo,
    /// Ends what `up` started.
    Stop,
    /// Ends what `up` started and removes its data.
    Reset,
    /// Shows each process.
    Status,
    /// Shows the logs.
    Logs,
    /// Runs a command with a Kafka and a Postgres of its own, and answers its exit code.
    TestEnv {
        /// Starts no Kafka.
        #[arg(long)]
        postgres_only: bool,
        /// How long the build before it took, for the last line.
        #[arg(long, value_name = "SECONDS")]
        build: Option<u64>,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    // Postgres may run as another user, who must be able to read what is unpacked and made here.
    umask(Mode::from_bits_truncate(0o022));
    match run(Verb::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<u8> {
    check_working_directory()?;
    match verb {
        Verb::Run => {
            let stack = Stack::read()?;
            stack.up()?;
            match stack.not_ours() {
                Some(variable) => println!("{variable} isn't the local stack's: `make demo` runs the demo there"),
                None => stack.demo()?,
            }
        }
        Verb::Up => Stack::read()?.up()?,
        Verb::Demo => Stack::read()?.demo()?,
        Verb::Stop => Stack::read()?.stop()?,
        Verb::Reset => Stack::read()?.reset()?,
        Verb::Status => Stack::read()?.status()?,
        Verb::Logs => Stack::read()?.logs()?,
        Verb::TestEnv { postgres_only, build, command } => {
            return run_with_servers(&command, postgres_only, build.map(Duration::from_secs));
        }
    }
    Ok(0)
}
