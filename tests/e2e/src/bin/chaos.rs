//! `make chaos`: plays the long runs, each with each seed, and lets the judge speak after each.

use std::process::ExitCode;

use e2e::chaos::{play, scores};

/// Plays runs under fire.
#[derive(clap::Parser)]
struct Cli {
    /// Seeds, separated by blanks; one is drawn if there is none.
    #[arg(long, default_value = "")]
    seeds: String,
    /// Which runs; all if none is named.
    runs: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli: Cli = clap::Parser::parse();
    let mut seeds: Vec<u64> = cli.seeds.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    if seeds.is_empty() {
        seeds.push(rand::random());
    }
    let runs = if cli.runs.is_empty() { scores::ALL.map(str::to_owned).to_vec() } else { cli.runs };
    let mut failed = vec![];
    for run in &runs {
        for seed in &seeds {
            println!("\n{run}, seed {seed}");
            let score = scores::by_name(run, *seed);
            let score = score.ok_or_else(|| anyhow::anyhow!("there is no run {run}: {}", scores::ALL.join(", ")))?;
            let runtime = tokio::runtime::Runtime::new()?;
            // A thread of its own: a run that fails must not end the others.
            if std::thread::spawn(move || runtime.block_on(play(score))).join().is_err() {
                failed.push(format!("{run} with seed {seed}"));
            }
        }
    }
    if failed.is_empty() {
        println!("\nthe judge has no objection");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nfailed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}
