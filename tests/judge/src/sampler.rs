//! Looks at a run while it lasts.

mod asking;
mod offsets;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::sample::Sample;
use asking::{Database, Http};
use offsets::{Group, Offsets};

const INTERVAL: Duration = Duration::from_millis(200);
/// All of `/metrics` goes into every 25th sample.
const METRICS_EVERY: u64 = 25;

/// What to look at.
#[derive(clap::Args, Clone, Debug)]
pub struct Watched {
    /// Kafka's bootstrap servers.
    #[arg(long)]
    pub brokers: String,
    /// The topics' prefix.
    #[arg(long)]
    pub prefix: String,
    /// Herald's database.
    #[arg(long)]
    pub database_url: String,
    /// The API's address, as `http://host:port`; several, separated by commas, are asked in turn.
    #[arg(long, value_delimiter = ',')]
    pub api: Vec<String>,
    /// The processes' ops addresses, as `host:port`, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub ops: Vec<String>,
    /// Where samples are appended, a line each.
    #[arg(long)]
    pub samples: PathBuf,
}

/// Samples until SIGTERM. What can't be asked is left out: the run kills what it asks.
pub async fn run(watched: &Watched) -> anyhow::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(&watched.samples);
    let mut file = file.with_context(|| format!("open {}", watched.samples.display()))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let group = Group::watch(&watched.brokers, &watched.prefix)?;
    let mut database = Database::new(&watched.database_url);
    let http = Http::new()?;
    for number in 0.. {
        let begun = Instant::now();
        let sample = look(watched, &group, &mut database, &http, number).await;
        append(&mut file, &sample)?;
        // On a busy machine looking must not become the load.
        let pause = INTERVAL.saturating_sub(begun.elapsed()).max(INTERVAL / 2);
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
    Ok(())
}

async fn look(watched: &Watched, group: &Group, database: &mut Database, http: &Http, number: u64) -> Sample {
    let api = watched.api.get(number as usize % watched.api.len().max(1));
    let with_metrics = number.is_multiple_of(METRICS_EVERY);
    let (offsets, snapshot, answers, processes) = tokio::join!(
        group.offsets(),
        database.snapshot(),
        http.answers(api),
        http.processes(&watched.ops, with_metrics),
    );
    let Offsets { at, committed, status_ends } = offsets;
    Sample { at, committed, status_ends, snapshot, answers, processes }
}

fn append(file: &mut File, sample: &Sample) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(sample)?;
    line.push(b'\n');
    file.write_all(&line).context("write a sample")
}
