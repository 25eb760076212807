use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::calls::Calls;
use crate::program::{Program, free_addr};
use crate::{World, eventually};

/// The provider simulator, as a process: its clock and its log are its own.
pub(crate) struct Provider {
    pub(crate) url: String,
    pub(crate) program: Program,
}

impl Provider {
    pub(crate) fn start(folder: &std::path::Path, env: &[(&str, String)]) -> Self {
        let addr = free_addr();
        let mut settings: Vec<(String, String)> =
            env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        settings.push(("HERALD_SIM_ADDR".to_owned(), addr.clone()));
        settings.push(("HERALD_SIM_LOG".to_owned(), log(folder).display().to_string()));
        let program = Program::start("provider-sim", &[], &settings, folder, "provider");
        Self { url: format!("http://{addr}"), program }
    }

    /// Opens a port for one more sender. Written by hand and blocking (it is loopback): who starts a program isn't async.
    pub(crate) fn add_sender(&self) -> u16 {
        let mut stream = TcpStream::connect(self.url.strip_prefix("http://").unwrap()).unwrap();
        let request = "POST /senders HTTP/1.1\r\nhost: sim\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let opened: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        u16::try_from(opened["port"].as_u64().unwrap()).unwrap()
    }

    pub(crate) async fn ready(&mut self) {
        self.program.answers(&format!("{}/livez", self.url)).await;
    }
}

/// Phones and texts are in it, so it isn't a log of Herald's: the search for secrets passes it by.
fn log(folder: &std::path::Path) -> std::path::PathBuf {
    folder.join("calls.ndjson")
}

impl World {
    /// Replaces the provider's faults by rules as `provider-sim --help` lists them; `[]` heals it.
    pub async fn faults(&self, rules: Value) {
        let request = reqwest::Client::new().put(format!("{}/faults", self.provider.url)).json(&rules);
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    /// The provider's counters; all ended calls in them are in its log.
    pub async fn provider_stats(&self) -> Value {
        reqwest::get(format!("{}/stats", self.provider.url)).await.unwrap().json().await.unwrap()
    }

    /// The first 8 ended calls for a message, as the provider's log has them.
    pub async fn calls_for(&self, message: i64) -> Vec<Value> {
        reqwest::get(format!("{}/calls/{message}", self.provider.url)).await.unwrap().json().await.unwrap()
    }

    /// Waits until so many calls have begun.
    pub async fn called(&self, calls: u64) {
        eventually("calls to the provider", async || {
            (self.provider_stats().await["calls"].as_u64().unwrap() >= calls).then_some(())
        })
        .await;
    }

    /// Waits until the provider has accepted so many messages.
    pub async fn accepted(&self, messages: u64) {
        eventually("the provider to accept messages", async || {
            (self.provider_stats().await["distinct_accepted"].as_u64().unwrap() >= messages).then_some(())
        })
        .await;
    }

    /// Reads the provider's log, in which every call is that has ended.
    pub async fn calls(&self) -> Calls {
        self.provider_stats().await;
        Calls::read(&log(self.folder()))
    }
}
