//! The counters and the log agree with the clients and with each other.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{TOKEN, call, call_at, client, log_lines, logged_calls, rules, settled};
use provider_sim::{Config, Latency, Running, Stats};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::task::JoinSet;

async fn start_logged(log: &Path, faults: Value) -> Running {
    let config = Config { log: Some(log.to_owned()), faults: rules(faults), seed: 7, ..Config::new(TOKEN) };
    provider_sim::start(config).await.unwrap()
}

/// Calls each of `ids` `times` times, from `callers` at once; returns how many were answered by success.
async fn call_all(sim: &Running, ids: std::ops::Range<i64>, times: usize, callers: usize) -> u64 {
    let client = client();
    let ids: Vec<i64> = ids.collect();
    let mut tasks = JoinSet::new();
    for part in ids.chunks(ids.len().div_ceil(callers)) {
        let requests: Vec<_> = part.iter().flat_map(|id| (0..times).map(|_| call(&client, sim, *id))).collect();
        tasks.spawn(async move {
            let mut good = 0;
            for request in requests {
                if let Ok(answer) = request.send().await {
                    let (status, body) = (answer.status(), answer.text().await.unwrap());
                    good += u64::from(status == 200 && body.contains("\"code\":0"));
                }
            }
            good
        });
    }
    tasks.join_all().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_exact_under_concurrency_and_the_log_has_one_line_a_call() {
    let log = NamedTempFile::new().unwrap();
    let faults = json!([{"fault": {"status": 500}, "probability": 0.2}, {"fault": "reset_after", "probability": 0.1}]);
    let sim = start_logged(log.path(), faults).await;
    let good = call_all(&sim, 1..1_001, 3, 50).await;
    let stats = settled(&sim).await;
    let calls = logged_calls(log.path());

    assert_eq!(stats.calls, 3_000);
    assert_eq!(calls.len(), 3_000);
    let named: BTreeSet<_> = calls.iter().map(|call| (call["id"].as_i64(), call["call"].as_u64())).collect();
    assert_eq!(named.len(), 3_000);
    let accepted: Vec<i64> =
        calls.iter().filter(|call| call["accepted"] == true).filter_map(|call| call["id"].as_i64()).collect();
    assert_eq!(stats.accepted, accepted.len() as u64);
    assert_eq!(stats.accepted, good + stats.by_outcome["reset_after"]);
    assert_eq!(stats.distinct_accepted, accepted.iter().collect::<BTreeSet<_>>().len() as u64);
    let twice = (1..1_001).filter(|id| accepted.iter().filter(|other| *other == id).count() > 1).count();
    assert_eq!(stats.duplicates, twice as u64);
    assert_eq!(stats.by_outcome.values().sum::<u64>(), 3_000);
    assert!((1..=50).contains(&stats.max_in_flight), "{}", stats.max_in_flight);
    assert!(stats.first_call_at < stats.last_call_at);
}

#[tokio::test]
async fn a_text_is_logged_once_and_before_its_calls() {
    let log = NamedTempFile::new().unwrap();
    let sim = start_logged(log.path(), json!([])).await;
    call_all(&sim, 1..11, 1, 2).await;
    sim.stop().await.unwrap();
    let lines = log_lines(log.path());
    assert_eq!(lines.len(), 11);
    assert_eq!(lines[0], json!({"text_no": 0, "text": "Sale: «все» по 5"}));
    assert!(lines[1..].iter().all(|line| line["text_no"] == 0 && line["outcome"] == "ok"));
}

#[tokio::test]
async fn the_same_seed_gives_the_same_fates_in_any_order() {
    let faults = json!([{"fault": "garbage", "probability": 0.3}, {"fault": "reset_before", "probability": 0.3}]);
    let mut runs = Vec::new();
    for callers in [1, 40] {
        let log = NamedTempFile::new().unwrap();
        let sim = start_logged(log.path(), faults.clone()).await;
        call_all(&sim, 1..201, 2, callers).await;
        sim.stop().await.unwrap();
        let fate = |call: Value| (call["id"].as_i64(), call["call"].as_u64(), call["outcome"].to_string());
        runs.push(logged_calls(log.path()).into_iter().map(fate).collect::<BTreeSet<_>>());
    }
    assert_eq!(runs[0].len(), 400);
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn a_rate_spaces_the_calls() {
    let sim = provider_sim::start(Config { rate: 200, ..Config::new(TOKEN) }).await.unwrap();
    let begun = Instant::now();
    call_all(&sim, 1..61, 1, 60).await;
    assert!(begun.elapsed() >= Duration::from_millis(59 * 5), "{:?}", begun.elapsed());
    let calls: Vec<_> = (1..61).map(|id| sim.calls(id)[0].clone()).collect();
    let first = calls.iter().map(|call| call.begun_at).min().unwrap();
    let mut decided: Vec<i64> = calls.iter().map(|call| call.decided_at - first).collect();
    decided.sort_unstable();
    // Never early, by 1 ms for the two clocks; a busy machine may be late.
    assert!((0..).zip(&decided).all(|(turn, at)| *at >= turn * 5_000 - 1_000), "{decided:?}");
}

#[tokio::test]
async fn a_call_whose_client_leaves_the_queue_was_never_taken() {
    let sim = provider_sim::start(Config { rate: 1, ..Config::new(TOKEN) }).await.unwrap();
    let client = client();
    call(&client, &sim, 1).send().await.unwrap();
    let error = call(&client, &sim, 2).timeout(Duration::from_millis(50)).send().await.unwrap_err();
    assert!(error.is_timeout());
    let stats = settled(&sim).await;
    assert_eq!((stats.calls, stats.accepted, stats.by_outcome["gone"]), (2, 1, 1));
}

#[tokio::test]
async fn calls_open_at_the_stop_are_logged_as_unanswered() {
    let log = NamedTempFile::new().unwrap();
    let minute = Duration::from_secs(60);
    let latency = Latency { min: minute, max: minute };
    let sim =
        provider_sim::start(Config { log: Some(log.path().to_owned()), latency, ..Config::new(TOKEN) }).await.unwrap();
    let open = tokio::spawn(call(&client(), &sim, 1).send());
    sim.wait_for(|book| book.stats().in_flight > 0 && !log_lines(log.path()).is_empty()).await.unwrap();
    let stats = sim.stop().await.unwrap();
    assert!(open.await.unwrap().is_err());
    assert_eq!((stats.calls, stats.accepted, stats.in_flight), (1, 1, 0));
    let calls = logged_calls(log.path());
    assert_eq!(calls.len(), 1);
    assert!(calls[0]["accepted"] == true && calls[0]["answered"] == false);
}

#[tokio::test]
async fn a_reset_clears_the_counters_and_marks_the_log() {
    let log = NamedTempFile::new().unwrap();
    let sim = start_logged(log.path(), json!([{"fault": "hang", "cohort": {"modulus": 100, "remainder": 99}}])).await;
    let client = client();
    let hanging = tokio::spawn(call(&client, &sim, 99).timeout(Duration::from_millis(300)).send());
    call_all(&sim, 1..11, 1, 1).await;
    sim.wait_for(|book| book.stats().in_flight > 0).await.unwrap();
    let base = format!("http://{}", sim.addr);
    assert_eq!(client.post(format!("{base}/reset")).send().await.unwrap().status(), 204);
    call_all(&sim, 1..4, 1, 1).await;
    assert!(hanging.await.unwrap().unwrap_err().is_timeout());

    let stats = settled(&sim).await;
    assert_eq!((stats.calls, stats.accepted, stats.distinct_accepted, stats.duplicates), (3, 3, 3, 0));
    assert_eq!(stats.max_in_flight, 2);
    let over_http: Stats = client.get(format!("{base}/stats")).send().await.unwrap().json().await.unwrap();
    assert_eq!(over_http, stats);
    let calls: Value = client.get(format!("{base}/calls/1")).send().await.unwrap().json().await.unwrap();
    assert_eq!(calls.as_array().map(Vec::len), Some(1));
    assert_eq!(client.get(format!("{base}/livez")).send().await.unwrap().status(), 200);

    let lines = log_lines(log.path());
    assert_eq!(lines.iter().filter(|line| line.get("reset_at").is_some()).count(), 1);
    assert_eq!(logged_calls(log.path()).len(), 14);
}

#[tokio::test]
async fn a_call_bears_the_port_of_its_sender_in_log_and_counters() {
    let log = NamedTempFile::new().unwrap();
    let sim = start_logged(log.path(), json!([])).await;
    let client = client();
    let opened: Value = client.post(format!("http://{}/senders", sim.addr)).send().await.unwrap().json().await.unwrap();
    let second = SocketAddr::new(sim.addr.ip(), u16::try_from(opened["port"].as_u64().unwrap()).unwrap());
    let addrs = [sim.addr, second, sim.add_sender().await.unwrap()];
    for (id, addr) in (1..).zip(addrs) {
        // What the request says of the address doesn't count: a sender may come through a proxy.
        call_at(&client, addr, id).header("host", "elsewhere:1").send().await.unwrap();
    }
    let ports = addrs.map(|addr| addr.port());
    assert_eq!([1, 2, 3].map(|id| sim.calls(id)[0].sender), ports);
    let calls: Value = client.get(format!("http://{second}/calls/3")).send().await.unwrap().json().await.unwrap();
    assert_eq!(calls[0]["sender"], ports[2]);
    sim.stop().await.unwrap();
    let logged: Vec<u64> = logged_calls(log.path()).iter().map(|call| call["sender"].as_u64().unwrap()).collect();
    assert_eq!(logged, ports.map(u64::from));
    assert!(client.get(format!("http://{second}/livez")).send().await.is_err());
}
