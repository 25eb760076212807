//! The whole application, on a database of the test's own.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use chrono::{TimeDelta, Utc};
use domain::mark::DatabaseMark;
use events::topics::Topics;
use kafka::Cluster;
use prometheus::Registry;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::watch;
use tower::ServiceExt;

pub struct App {
    router: Router,
    pub registry: Registry,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl App {
    /// On the Postgres that Herald ran with, as far as Kafka knows.
    pub async fn new(pool: PgPool) -> Self {
        let known = store::mark::read(&mut pool.acquire().await.unwrap()).await.unwrap();
        Self::knowing(pool, Some(known))
    }

    pub fn knowing(pool: PgPool, known: Option<DatabaseMark>) -> Self {
        let registry = Registry::new();
        let metrics = api::Metrics::register(&registry).unwrap();
        let (_, known) = watch::channel(known);
        // Nothing listens on port 1.
        let kafka = Cluster::new(Topics::new("api", Some(6)), "127.0.0.1:1", vec![], "test");
        Self { router: api::router(pool, &kafka, known, metrics).unwrap(), registry }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8(bytes.to_vec()).unwrap()));
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn call(&self, method: &str, path: &str, media_type: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("content-type", media_type);
        self.send(request.body(body.into()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, "application/json", body.to_string()).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.call("PATCH", path, "application/json", body.to_string()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Request::delete(path).body(Body::empty()).unwrap()).await
    }

    pub async fn import(&self, media_type: &str, body: impl Into<Body>) -> Answer {
        self.call("POST", "/api/v1/clients/import", media_type, body).await
    }

    /// Creates a mailing that starts in an hour and returns its address.
    pub async fn create_mailing(&self) -> String {
        let starts_at = Utc::now() + TimeDelta::hours(1);
        let answer =
            self.post("/api/v1/mailings", &json!({"text": "hello", "filter": "readers", "starts_at": starts_at})).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.headers["location"].to_str().unwrap().to_owned()
    }

    /// All items of a list, in pages of `limit`.
    pub async fn pages(&self, path: &str, limit: usize) -> Vec<Value> {
        let (mut items, mut cursor) = (vec![], String::new());
        loop {
            let answer = self.get(&format!("{path}limit={limit}{cursor}")).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let page = answer.body["items"].as_array().unwrap();
            assert!(page.len() <= limit);
            items.extend(page.iter().cloned());
            match answer.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }
}

impl Answer {
    /// The problem's code, once the answer is one in every respect.
    #[track_caller]
    pub fn problem(&self) -> &str {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        assert!(self.headers.contains_key("x-request-id"), "{self:?}");
        assert_eq!(self.body["status"], self.status, "{self:?}");
        let code = self.body["code"].as_str().unwrap();
        assert_eq!(self.body["type"], format!("/problems/{code}"), "{self:?}");
        assert!(!self.body["title"].as_str().unwrap().is_empty() && !self.body["detail"].as_str().unwrap().is_empty());
        code
    }

    /// Pointer and code of each bad field, sorted.
    #[track_caller]
    pub fn bad_fields(&self) -> Vec<(String, String)> {
        assert_eq!((self.status, self.problem()), (422, "invalid_fields"), "{self:?}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let errors = self.body["errors"].as_array().unwrap();
        let mut found: Vec<_> = errors.iter().map(|error| (text(&error["pointer"]), text(&error["code"]))).collect();
        found.sort();
        found
    }
}
