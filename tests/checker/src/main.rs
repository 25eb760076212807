//! The judge as a program: `sample` beside a run, `judge` after it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use checker::collect::{self, Sources};
use checker::sampler::{self, Watched};

#[derive(Parser)]
#[command(about = "Judges whether a run of Herald kept its promises")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Looks at a run every 200 ms until SIGTERM, and appends what it sees to a file.
    Sample(Watched),
    /// Holds the rules against what a run has left behind; prints a line a rule, and exits with 1 if one is broken.
    Judge(Sources),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().verb {
        Verb::Sample(watched) => {
            sampler::run(&watched).await?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Judge(sources) => {
            let verdicts = checker::judge(&collect::evidence(&sources).await?);
            for verdict in &verdicts {
                println!("{verdict}");
            }
            Ok(if verdicts.iter().all(checker::Verdict::holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
