//! `make bench`: 100,000 clients, an instant provider, the services as separate processes, all on this machine.
//!
//! Figures of different machines, or of different runs on a busy one, can't be compared; ratios within one run can.

mod usage;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use anyhow::Context;
use chrono::{DateTime, Utc};
use devstack::{Jvm, Kafka, KafkaConfig, Postgres, PostgresConfig, free_ports};
use e2e::{Audience, Options, World};
use serde_json::{Value, json};

use usage::Usage;

const CLIENTS: usize = 100_000;
const RUNS: usize = 3;

fn main() -> anyhow::Result<()> {
    // Postgres' own user walks into it.
    let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir()?;
    let [port, controller_port, postgres_port] = free_ports()?;
    let kafka = KafkaConfig::alone(folder.path().join("kafka"), port, controller_port);
    let kafka = Kafka::start(&KafkaConfig { jvm: Jvm::Large, ..kafka })?;
    let postgres =
        Postgres::start(&PostgresConfig { dir: folder.path().join("postgres"), port: postgres_port, fsync: true })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&kafka, &postgres))
}

async fn measure(kafka: &Kafka, postgres: &Postgres) -> anyhow::Result<()> {
    let options = Options {
        partitions: None,
        brokers: Some(kafka.brokers()),
        postgres: Some(postgres.url()),
        ..Options::default()
    };
    let world = World::new("bench", options).await;
    let mut services = vec![];
    for role in ["api", "scheduler", "sender", "projector"] {
        services.push(world.start(&[role]).await);
    }
    let began = Instant::now();
    world.import(&Audience::of(CLIENTS, 916, "bench")).await;
    println!("import: {:.0} clients a second", CLIENTS as f64 / began.elapsed().as_secs_f64());

    let mut processes = vec![("Kafka", kafka.pid()), ("Postgres", postgres.pid()), ("simulator", world.provider_pid())];
    processes.extend(["api", "scheduler", "sender", "projector"].into_iter().zip(services.iter().map(|one| one.pid())));
    for run in 1..=RUNS {
        println!("\nrun {run} of {RUNS}: {CLIENTS} messages");
        let before: Vec<Usage> = processes.iter().map(|(_, pid)| Usage::of(*pid)).collect::<anyhow::Result<_>>()?;
        let times = send(&world).await?;
        times.print();
        println!("  {:<10} {:>16} {:>14}", "process", "CPU µs/message", "peak memory MB");
        for ((name, pid), before) in processes.iter().zip(before) {
            let after = Usage::of(*pid)?;
            let cpu = (after.cpu - before.cpu).as_secs_f64() * 1e6 / CLIENTS as f64;
            println!("  {name:<10} {cpu:>16.1} {:>14.0}", after.peak_memory as f64 / 1e6);
        }
    }
    for service in services {
        service.terminate().await;
    }
    world.clean_up().await;
    Ok(())
}

/// When what of one mailing happened.
struct Times {
    posted: DateTime<Utc>,
    first_call: DateTime<Utc>,
    last_call: DateTime<Utc>,
    finished: DateTime<Utc>,
}

impl Times {
    fn print(&self) {
        let seconds = |from: DateTime<Utc>, to: DateTime<Utc>| (to - from).as_seconds_f64();
        println!("  first call {:.0} ms after the POST", seconds(self.posted, self.first_call) * 1e3);
        println!(
            "  {:.0} calls a second from the first to the last",
            CLIENTS as f64 / seconds(self.first_call, self.last_call)
        );
        println!(
            "  {:.0} messages a second from the POST to finished, each with its row",
            CLIENTS as f64 / seconds(self.posted, self.finished)
        );
    }
}

async fn send(world: &World) -> anyhow::Result<Times> {
    let before = world.provider_stats().await["calls"].as_u64().context("calls")?;
    let posted = Utc::now();
    let mailing = world.api.create_mailing(&json!({"text": "a text of the benchmark", "filter": "bench"})).await;
    let shown = world.api.finished(&mailing).await;
    anyhow::ensure!(shown["counts"]["succeeded"] == CLIENTS, "not all succeeded: {shown}");
    let calls = world.provider_stats().await["calls"].as_u64().context("calls")? - before;
    anyhow::ensure!(calls == CLIENTS as u64, "{calls} calls for {CLIENTS} messages");
    let calls = world.calls().await;
    let of_this = calls.all().map(|call| call.begun_at).filter(|at| *at >= posted.timestamp_micros());
    let (first, last) = of_this.fold((i64::MAX, 0), |(first, last), at| (first.min(at), last.max(at)));
    let instant = |micros| DateTime::from_timestamp_micros(micros).context("a time of the provider's log");
    Ok(Times { posted, first_call: instant(first)?, last_call: instant(last)?, finished: finished_at(&shown)? })
}

fn finished_at(mailing: &Value) -> anyhow::Result<DateTime<Utc>> {
    Ok(mailing["finished_at"].as_str().context("finished_at")?.parse()?)
}
