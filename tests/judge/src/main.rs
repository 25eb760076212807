//! The judge as a program: `sample` beside a run, `judge` after it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use judge::collect::{self, Sources};
use judge::figures::{Figure, Targets, figures};
use judge::sampler::{self, Watched};

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
    /// Holds the rules against what a run has left behind; prints a line a rule and a line a figure, and exits with 1 if one
    /// is broken or misses its target.
    Judge {
        #[command(flatten)]
        sources: Sources,
        #[command(flatten)]
        targets: Box<Targets>,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().verb {
        Verb::Sample(watched) => {
            sampler::run(&watched).await?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Judge { sources, targets } => {
            let evidence = collect::evidence(&sources).await?;
            let (verdicts, figures) = (judge::judge(&evidence), figures(&evidence, &targets));
            verdicts.iter().for_each(|verdict| println!("{verdict}"));
            figures.iter().for_each(|figure| println!("{figure}"));
            let good = verdicts.iter().all(judge::Verdict::holds) && figures.iter().all(Figure::holds);
            Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
