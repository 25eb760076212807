//! A client of the simulator, as a sender would be, and a reader of its log.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::path::Path;

use provider_sim::{Config, Faults, Running, Stats};
use serde_json::{Value, json};

pub(crate) const TOKEN: &str = "local";
pub(crate) const PHONE: i64 = 79_001_234_567;

pub(crate) async fn start_with(faults: Value) -> Running {
    let config = Config { faults: rules(faults), ..Config::new(TOKEN) };
    provider_sim::start(config).await.unwrap()
}

pub(crate) fn rules(faults: Value) -> Faults {
    serde_json::from_value(faults).unwrap()
}

pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

pub(crate) fn call(client: &reqwest::Client, sim: &Running, id: i64) -> reqwest::RequestBuilder {
    call_at(client, sim.addr, id)
}

pub(crate) fn call_at(client: &reqwest::Client, addr: SocketAddr, id: i64) -> reqwest::RequestBuilder {
    client
        .post(format!("http://{addr}/v1/send/{id}"))
        .bearer_auth(TOKEN)
        .json(&json!({"id": id, "phone": PHONE, "text": "Sale: «все» по 5"}))
}

pub(crate) fn call_phone(client: &reqwest::Client, sim: &Running, id: i64, phone: i64) -> reqwest::RequestBuilder {
    call(client, sim, id).json(&json!({"id": id, "phone": phone, "text": "hi"}))
}

/// The counters as soon as no call is open.
pub(crate) async fn settled(sim: &Running) -> Stats {
    sim.wait_for(|book| book.stats().in_flight == 0).await.unwrap();
    sim.stats().unwrap()
}

pub(crate) fn log_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn logged_calls(path: &Path) -> Vec<Value> {
    log_lines(path).into_iter().filter(|line| line.get("begun_at").is_some()).collect()
}
