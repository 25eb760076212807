use std::fmt::Write;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, Utc};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::build::Build;
use crate::figures::Figures;
use crate::installation::{Installation, SERVICES, Servers};
use crate::usage::Usage;

/// The measured mailing.
pub(crate) const MESSAGES: usize = 100_000;

/// A mailing before it opens the services' connections and fills their caches.
const WARM_UP: usize = 2_000;

/// A mailing that isn't finished by then never will be.
const PATIENCE: Duration = Duration::from_secs(600);

/// Seldom enough that asking costs the api nothing that is seen; when the mailing was finished the answer says.
const GLANCE: Duration = Duration::from_millis(100);

/// Starts a build with nothing sent before, sends the mailing, and ends it again.
pub(crate) async fn measure(servers: &mut Servers, build: &Build, latency: &str) -> anyhow::Result<Figures> {
    let installation = Installation::start(servers, build, latency).await?;
    let mut figures = Figures::default();
    let began = Instant::now();
    import(&installation).await?;
    figures.add("import_clients_per_second", (MESSAGES + WARM_UP) as f64 / began.elapsed().as_secs_f64());
    send(&installation, "warm-up", WARM_UP).await?;

    let parts = installation.parts();
    let usage = || parts.iter().map(|(_, pid)| Usage::of(*pid)).collect::<anyhow::Result<Vec<_>>>();
    let before = usage()?;
    let times = send(&installation, "bench", MESSAGES).await?;
    let after = usage()?;
    times.add_to(&mut figures);
    let mut sum = 0.0;
    for (((part, _), before), after) in parts.iter().zip(&before).zip(&after) {
        let cpu = (after.cpu - before.cpu).as_secs_f64() * 1e6 / MESSAGES as f64;
        figures.add(format!("cpu_us_per_message_{part}"), cpu);
        sum += cpu;
    }
    figures.add("cpu_us_per_message_sum", sum);
    for ((part, _), after) in parts.iter().zip(&after).filter(|((part, _), _)| SERVICES.contains(part)) {
        figures.add(format!("peak_memory_mb_{part}"), after.peak_memory as f64 / 1e6);
    }
    installation.stop().await?;
    Ok(figures)
}

async fn import(installation: &Installation) -> anyhow::Result<()> {
    let mut csv = "phone_number,mobile_operator_code,tag\n".to_owned();
    for number in 0..MESSAGES + WARM_UP {
        let tag = if number < WARM_UP { "warm-up" } else { "bench" };
        writeln!(csv, "{},916,{tag}", 79_160_000_000 + number as u64)?;
    }
    let request = installation.http.post(format!("{}/clients/import", installation.api));
    let answer: Value = request.header(CONTENT_TYPE, "text/csv").body(csv).send().await?.json().await?;
    anyhow::ensure!(answer["imported"] == MESSAGES + WARM_UP, "not all were imported: {answer}");
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
    fn add_to(&self, figures: &mut Figures) {
        let seconds = |from: DateTime<Utc>, to: DateTime<Utc>| (to - from).as_seconds_f64();
        figures.add("messages_per_second", MESSAGES as f64 / seconds(self.posted, self.finished));
        figures.add("calls_per_second", MESSAGES as f64 / seconds(self.first_call, self.last_call));
        figures.add("first_call_ms", seconds(self.posted, self.first_call) * 1e3);
    }
}

async fn send(installation: &Installation, tag: &str, messages: usize) -> anyhow::Result<Times> {
    let posted = Utc::now();
    let request = json!({"text": "a text of the benchmark", "filter": {"tags": [tag]}});
    let mailing = installation.ask("/mailings", Some(&request)).await?;
    let path = format!("/mailings/{}", mailing["id"].as_str().context("its id")?);
    let shown = loop {
        tokio::time::sleep(GLANCE).await;
        let shown = installation.ask(&path, None).await?;
        if shown["state"] == "finished" {
            break shown;
        }
        anyhow::ensure!(Utc::now() - posted < chrono::Duration::from_std(PATIENCE)?, "it doesn't finish: {shown}");
    };
    anyhow::ensure!(shown["counts"]["succeeded"] == messages, "not all succeeded: {shown}");
    let finished = shown["finished_at"].as_str().context("finished_at")?.parse()?;
    let (first_call, last_call) = calls(installation, posted, messages).await?;
    Ok(Times { posted, first_call, last_call, finished })
}

/// The first and the last call since then, by the provider's log.
async fn calls(
    installation: &Installation,
    since: DateTime<Utc>,
    expected: usize,
) -> anyhow::Result<(DateTime<Utc>, DateTime<Utc>)> {
    installation.calls_are_logged().await?;
    let mut begun = vec![];
    for line in fs::read_to_string(&installation.calls)?.lines() {
        // The other lines give the texts.
        if let Some(at) = serde_json::from_str::<Value>(line)?["begun_at"].as_i64() {
            begun.extend((at >= since.timestamp_micros()).then_some(at));
        }
    }
    anyhow::ensure!(begun.len() == expected, "{} calls for {expected} messages", begun.len());
    let instant = |micros: Option<&i64>| micros.copied().and_then(DateTime::from_timestamp_micros).context("a call");
    Ok((instant(begun.iter().min())?, instant(begun.iter().max())?))
}
