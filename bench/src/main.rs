//! `make bench`: 100,000 messages with the services apart, measured of this tree and, in turn with it, of an older commit.
//!
//! Figures of different machines, or of different days, can't be compared; ratios within one bench can.

mod build;
mod figures;
mod installation;
mod program;
mod results;
mod run;
mod usage;

use clap::Parser;

use build::Build;
use figures::Figures;
use installation::Servers;
use results::Results;

#[derive(Parser)]
#[command(about = "Measures 100,000 messages, of this tree and of an older commit")]
struct Args {
    /// Counted runs of each build
    #[arg(long, env = "BENCH_RUNS", default_value_t = 5)]
    runs: usize,
    /// A commit to compare this tree with
    #[arg(long, env = "BENCH_BASE")]
    base: Option<String>,
    /// How long the provider takes, as `HERALD_SIM_LATENCY` has it
    #[arg(long, env = "BENCH_LATENCY", default_value = "0ms")]
    latency: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    anyhow::ensure!(args.runs > 0, "BENCH_RUNS must be at least 1");
    let mut builds = vec![Build::this()?];
    if let Some(base) = args.base.as_deref().filter(|base| !base.is_empty()) {
        builds.push(Build::base(base)?);
    }
    // Kafka and Postgres lie in process groups of their own, so Ctrl-C must end this program by its drops.
    tokio::select! {
        done = bench(&args, &builds) => done,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}

/// Kafka's CPU a message halves over the first six runs.
const WARM_UPS: usize = 3;

async fn bench(args: &Args, builds: &[Build]) -> anyhow::Result<()> {
    let mut servers = Servers::start()?;
    println!("first {WARM_UPS} runs of each that don't count: Kafka's Java compiles itself while it runs");
    for build in std::iter::repeat_n(builds, WARM_UPS).flatten() {
        run::measure(&mut servers, build, &args.latency).await?;
    }
    let mut results = Results::create(builds, &args.latency)?;
    let mut measured: Vec<Vec<Figures>> = builds.iter().map(|_| vec![]).collect();
    for number in 1..=args.runs {
        // Whoever is the first of a pair finds a Kafka that has compiled less.
        let mut pair: Vec<_> = builds.iter().zip(&mut measured).collect();
        if number % 2 == 0 {
            pair.reverse();
        }
        for (build, measured) in pair {
            let figures = run::measure(&mut servers, build, &args.latency).await?;
            println!("run {number} of {}, {}: {}", args.runs, build.name, figures.line());
            results.add(build, number, &figures)?;
            measured.push(figures);
        }
    }
    figures::print(builds, &measured);
    println!("\neach run is in {}", results.path().display());
    Ok(())
}
