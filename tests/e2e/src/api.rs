use chrono::{DateTime, Utc};
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;

use crate::eventually;

/// The REST API, as a caller uses it.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    addr: String,
    base: String,
}

impl Api {
    /// At `host:port`.
    pub fn new(addr: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, addr: addr.to_owned(), base: format!("http://{addr}/api/v1") }
    }

    /// Its address, `host:port`.
    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    /// Imports a CSV of so many good clients.
    pub(crate) async fn import(&self, csv: String, clients: usize) {
        let request =
            self.http.post(format!("{}/clients/import", self.base)).header(CONTENT_TYPE, "text/csv").body(csv);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["imported"], clients, "{answer}");
    }

    /// Creates a mailing and returns its id.
    pub async fn create_mailing(&self, mailing: &Value) -> String {
        let answer = self.http.post(format!("{}/mailings", self.base)).json(mailing).send().await.unwrap();
        let (status, body) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 201, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// Reads what must answer 200.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}{path}", self.base)).send().await.unwrap();
        let (status, body) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 200, "GET {path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// As it is, for answers that aren't 200.
    pub async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> reqwest::Result<reqwest::Response> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await
    }

    /// Reads a mailing.
    pub async fn mailing(&self, id: &str) -> Value {
        self.get(&format!("/mailings/{id}")).await
    }

    /// Waits until the mailing is finished and returns it.
    pub async fn finished(&self, id: &str) -> Value {
        eventually("the mailing to finish", async || {
            let mailing = self.mailing(id).await;
            (mailing["state"] == "finished").then_some(mailing)
        })
        .await
    }

    /// Waits until at least `n` messages of the mailing have a row with one of the statuses.
    pub async fn reached(&self, id: &str, statuses: &[&str], n: i64) {
        eventually("statuses to arrive", async || {
            let counts = self.mailing(id).await["counts"].clone();
            let sum: i64 = statuses.iter().map(|status| counts[status].as_i64().unwrap()).sum();
            (sum >= n).then_some(())
        })
        .await;
    }

    /// All messages of a mailing.
    pub async fn messages(&self, id: &str) -> Vec<Value> {
        let mut messages = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/mailings/{id}/messages?limit=1000{cursor}")).await;
            messages.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return messages,
            }
        }
    }
}

/// An instant of a JSON value.
pub fn instant(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}
