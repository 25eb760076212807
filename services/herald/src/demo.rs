//! A demonstration through the API, as a caller would use it.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::json;

use crate::cli;

/// Without a terminal, a line this often.
const LINE_INTERVAL: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct Imported {
    imported: u64,
    rejected: u64,
}

#[derive(Deserialize)]
struct Mailing {
    id: String,
    state: String,
    waiting_for: Option<String>,
    counts: serde_json::Map<String, serde_json::Value>,
}

pub(crate) async fn run(settings: cli::Demo) -> anyhow::Result<()> {
    let base = format!("http://{}/api/v1", settings.api_addr);
    let http = reqwest::Client::builder().no_proxy().build()?;
    // A tag of its own: the audience is the clients of this demo and no other's.
    let tag = format!("demo-{}", uuid::Uuid::now_v7());

    let imported: Imported = answer(
        http.post(format!("{base}/clients/import"))
            .header("content-type", "text/csv")
            .body(clients(settings.clients, &tag)),
    )
    .await
    .context("load the clients")?;
    if imported.rejected > 0 {
        bail!("{} of the demo's clients were rejected", imported.rejected);
    }
    println!("loaded {} clients with the tag {tag}", grouped(imported.imported));

    let begun = Instant::now();
    let request = json!({"text": "Hello from Herald", "filter": {"tags": [tag]}});
    let mailing: Mailing =
        answer(http.post(format!("{base}/mailings")).json(&request)).await.context("create the mailing")?;
    let url = format!("{base}/mailings/{}", mailing.id);
    let mailing = watch(&http, &url, imported.imported, begun).await?;
    let seconds = begun.elapsed().as_secs_f64();

    let counts: Vec<String> = ["planned", "succeeded", "failed", "expired", "cancelled", "unknown"]
        .iter()
        .map(|name| format!("{name} {}", grouped(count(&mailing, name))))
        .collect();
    println!("\n{}", counts.join(", "));
    println!("api       {base}/mailings");
    println!("docs      {base}/docs/");
    println!("metrics   http://{}/metrics", settings.ops_addr);
    println!("mailing   {url}");
    println!("messages  curl '{url}/messages?limit=10'");
    let succeeded = count(&mailing, "succeeded");
    println!(
        "{}: {} messages in {seconds:.1} s, {} a second",
        mailing.state,
        grouped(succeeded),
        grouped((succeeded as f64 / seconds) as u64)
    );
    Ok(())
}

/// Numbers that no provider but the simulator may be sent: the demo's phones are invented.
fn clients(count: u32, tag: &str) -> String {
    let mut csv = String::from("phone_number,tag\n");
    for i in 0..count {
        csv.push_str(&format!("79{:02}{:07},{tag}\n", i % 100, i));
    }
    csv
}

/// Shows the mailing's progress until it is finished.
async fn watch(http: &reqwest::Client, url: &str, audience: u64, begun: Instant) -> anyhow::Result<Mailing> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} ETA {eta}")?;
    let bar = if std::io::stdout().is_terminal() { ProgressBar::new(audience) } else { ProgressBar::hidden() };
    bar.set_style(style);
    let mut last_line = Instant::now();
    loop {
        let mailing: Mailing = answer(http.get(url)).await.context("read the mailing")?;
        let settled: u64 =
            ["succeeded", "failed", "expired", "cancelled", "unknown"].iter().map(|name| count(&mailing, name)).sum();
        bar.set_position(settled);
        match mailing.state.as_str() {
            "finished" => {
                bar.finish();
                return Ok(mailing);
            }
            "paused" | "cancelled" => bail!("the mailing is {}", mailing.state),
            _ => {}
        }
        if !std::io::stdout().is_terminal() && last_line.elapsed() >= LINE_INTERVAL {
            last_line = Instant::now();
            let rate = settled as f64 / begun.elapsed().as_secs_f64();
            let left = audience.saturating_sub(settled) as f64 / rate.max(1.0);
            let waiting = mailing.waiting_for.as_deref().map_or(String::new(), |wait| format!(", waiting for {wait}"));
            println!("{settled}/{audience} {rate:.0} a second, ETA {left:.0} s{waiting}");
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn count(mailing: &Mailing, name: &str) -> u64 {
    mailing.counts.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0)
}

async fn answer<T: serde::de::DeserializeOwned>(request: reqwest::RequestBuilder) -> anyhow::Result<T> {
    let response = request.send().await.context("the API can't be reached: is it running (`make run`)?")?;
    let status = response.status();
    let body = response.text().await?;
    if !status.is_success() {
        bail!("the API answered {status}: {body}");
    }
    Ok(serde_json::from_str(&body)?)
}

/// 10000 as 10,000.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
