//! Herald: one binary, a subcommand for each service and each verb.

mod check;
mod cli;
mod demo;
mod recovery;
mod services;
mod skip;
mod verbs;

use runtime::config::Environment;

use crate::cli::Command;

fn main() -> std::process::ExitCode {
    runtime::crash::arm();
    let parsed = Environment::load().and_then(|environment| check::read(std::env::args_os(), &environment));
    let command = parsed.unwrap_or_else(|error| error.exit()).command.command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("herald: the runtime can't be started: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(command));
    // What still blocks a thread (a client closing while Kafka is away) must not hold the process up: all that matters
    // is acknowledged, or will be done again.
    runtime.shutdown_background();
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("herald: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::All(all) => services::all(all).await,
        Command::Api(api) => services::api(api).await,
        Command::Scheduler(scheduler) => services::scheduler(scheduler).await,
        Command::Sender(sender) => services::sender(sender).await,
        Command::Projector(projector) => services::projector(projector).await,
        Command::Migrate(migrate) => verbs::migrate(migrate).await,
        Command::Topics(topics) => verbs::topics(topics).await,
        Command::Skip(skip) => skip::run(skip).await,
        Command::Recover(recover) => recovery::recover(recover).await,
        Command::Replan(settings) => recovery::replan(settings).await,
        Command::Openapi => verbs::openapi(),
        Command::Demo(demo) => demo::run(demo).await,
        Command::Config(config) => verbs::config(&config),
    }
}
