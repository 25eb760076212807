//! One call to the provider.

use std::time::{Duration, Instant};

use domain::delivery::Outcome;
use domain::ids::MessageId;
use domain::status::Reason;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use runtime::health::Readiness;
use serde::Serialize;

use super::complaint::Complaint;
use super::contract::{Answer, MAX_ANSWER};
use super::gate::{Gate, GatedBody};
use crate::Settings;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The provider's client.
pub(crate) struct Provider {
    client: reqwest::Client,
    send_url: String,
    authorization: HeaderValue,
    complaint: Complaint,
}

/// What the provider is asked to send.
#[derive(Serialize)]
pub(crate) struct Request<'a> {
    pub(crate) id: i64,
    pub(crate) phone: i64,
    pub(crate) text: &'a str,
}

/// A finished attempt, or none.
pub(crate) enum Call {
    /// The gate was closed when the connection was ready: nothing was sent.
    NotBegun,
    /// The attempt was made.
    Made { outcome: Outcome, code: Option<i32>, latency: Duration, detail: Option<String> },
}

impl Provider {
    pub(crate) fn new(settings: &Settings, ready: Readiness) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(settings.provider_timeout)
            .redirect(Policy::none())
            .http1_only()
            .no_proxy()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(settings.sender_concurrency)
            .pool_idle_timeout(settings.provider_idle_timeout)
            .build()?;
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", settings.provider_token.expose()))
            .map_err(|_| anyhow::anyhow!("HERALD_PROVIDER_TOKEN has characters that a header can't hold"))?;
        authorization.set_sensitive(true);
        let url = reqwest::Url::parse(&settings.provider_url)
            .map_err(|error| anyhow::anyhow!("HERALD_PROVIDER_URL is not a URL: {error}"))?;
        let send_url = format!("{}/v1/send", url.as_str().trim_end_matches('/'));
        ready.ready();
        Ok(Self { client, send_url, authorization, complaint: Complaint::new(ready) })
    }

    /// Calls the provider. `may_begin` is asked when the connection is ready to be written to: waiting for one may take
    /// long, and what was true before may not be then. If it says no, nothing is sent.
    pub(crate) async fn call(
        &self,
        message: MessageId,
        request: &Request<'_>,
        may_begin: impl FnOnce() -> bool + Send + Sync + 'static,
    ) -> Call {
        let bytes = serde_json::to_vec(request).expect("integers and a text");
        let (body, begun) = GatedBody::new(bytes.into(), may_begin);
        let asked = Instant::now();
        let answer = self
            .client
            .post(format!("{}/{message}", self.send_url))
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(reqwest::Body::wrap(body))
            .send()
            .await;
        let result = match answer {
            Ok(answer) => read(answer).await,
            Err(error) => Err(error),
        };
        let begun = *begun.lock().expect("not poisoned");
        let latency = begun.and_then(Gate::opened_at).unwrap_or(asked).elapsed();
        match (begun, result) {
            (Some(Gate::Closed), Err(_)) => Call::NotBegun,
            (_, Ok((http_status, answer))) => {
                let outcome = answer.outcome();
                if outcome == Outcome::Retryable(Reason::Configuration) {
                    self.complaint.hear(http_status, Instant::now());
                }
                let detail = (outcome != Outcome::Accepted).then(|| answer.detail());
                Call::Made { outcome, code: Some(i32::from(http_status)), latency, detail }
            }
            (_, Err(error)) => {
                let (reason, detail) = if error.is_timeout() && !error.is_connect() {
                    (Reason::Timeout, "no complete answer in time")
                } else if error.is_connect() {
                    (Reason::Connection, "the connection could not be made")
                } else {
                    (Reason::Connection, "the connection broke")
                };
                let outcome = match begun {
                    Some(_) => Outcome::Ambiguous(reason),
                    None => Outcome::Retryable(reason),
                };
                Call::Made { outcome, code: None, latency, detail: Some(detail.to_owned()) }
            }
        }
    }
}

/// The HTTP status and the answer. An error is that of a success whose body breaks off before it says enough.
async fn read(mut response: reqwest::Response) -> reqwest::Result<(u16, Answer)> {
    let http_status = response.status().as_u16();
    let mut body = Vec::new();
    let broken = loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_ANSWER => body.extend_from_slice(&chunk),
            Ok(_) => break None,
            Err(error) => break Some(error),
        }
    };
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let answer = Answer::read(http_status, retry_after, &body);
    match broken {
        Some(error) if answer.needs_its_rest() => Err(error),
        _ => Ok((http_status, answer)),
    }
}
