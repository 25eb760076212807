//! One HTTP call to the provider.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::delivery::{Answer, Outcome};
use domain::ids::MessageId;
use domain::status::Reason;
use http_body::{Body, Frame, SizeHint};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use runtime::health::Readiness;
use serde::{Deserialize, Serialize};

use crate::Settings;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Under the shortest keep-alive that is common (Node's 5 s): a connection that the server closes under a write costs an
/// attempt whose fate can't be known.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Longer answers aren't the contract's.
const MAX_ANSWER: usize = 64 * 1024;

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

#[derive(Deserialize)]
struct AnswerBody {
    code: i64,
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
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .build()?;
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", settings.provider_token.expose()))
            .map_err(|_| anyhow::anyhow!("HERALD_PROVIDER_TOKEN has characters that a header can't hold"))?;
        authorization.set_sensitive(true);
        let url = reqwest::Url::parse(&settings.provider_url)
            .map_err(|error| anyhow::anyhow!("HERALD_PROVIDER_URL is not a URL: {error}"))?;
        let send_url = format!("{}/v1/send", url.as_str().trim_end_matches('/'));
        ready.ready();
        Ok(Self { client, send_url, authorization, complaint: Complaint { ready, last: Mutex::default() } })
    }

    /// Calls the provider. `may_begin` is asked when the connection is ready to be written to: waiting for one may take
    /// long, and what was true before may not be then. If it says no, nothing is sent.
    pub(crate) async fn call(
        &self,
        message: MessageId,
        request: &Request<'_>,
        may_begin: impl FnOnce() -> bool + Send + Sync + 'static,
    ) -> Call {
        let begun = Arc::new(Mutex::new(None));
        let body = GatedBody {
            gate: Some(Box::new(may_begin)),
            bytes: Some(Bytes::from(serde_json::to_vec(request).expect("integers and a text"))),
            begun: Arc::clone(&begun),
        };
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
            Ok(answer) => self.read(answer).await,
            Err(error) => Err(error),
        };
        let begun = *begun.lock().expect("not poisoned");
        let latency = begun.and_then(Gate::opened_at).unwrap_or(asked).elapsed();
        match (begun, result) {
            (Some(Gate::Closed), Err(_)) => Call::NotBegun,
            (_, Ok(answer)) => {
                self.complaint.hear(answer.http_status);
                let outcome = answer.outcome();
                let detail = (outcome != Outcome::Accepted).then(|| match answer.code {
                    Some(code) => format!("HTTP {} with code {code}", answer.http_status),
                    None if answer.http_status == 200 => "HTTP 200 with an answer that can't be read".to_owned(),
                    None => format!("HTTP {}", answer.http_status),
                });
                Call::Made { outcome, code: Some(i32::from(answer.http_status)), latency, detail }
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

    async fn read(&self, mut answer: reqwest::Response) -> reqwest::Result<Answer> {
        let http_status = answer.status().as_u16();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| parse_retry_after(value.to_str().ok()?));
        let code = match read_code(&mut answer).await {
            // Only a success depends on its body.
            Err(error) if http_status == 200 => return Err(error),
            read => read.unwrap_or_default(),
        };
        Ok(Answer { http_status, code, retry_after })
    }
}

/// `code` of the body, if it is the contract's.
async fn read_code(answer: &mut reqwest::Response) -> reqwest::Result<Option<i64>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(serde_json::from_slice::<AnswerBody>(&body).ok().map(|body| body.code))
}

/// Both forms of RFC 9110 §10.2.3; a date in the past is no wait. At most a day, so that a mistaken header doesn't keep a
/// slot for ever.
fn parse_retry_after(value: &str) -> Option<Duration> {
    let wait = match value.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = chrono::DateTime::parse_from_rfc2822(value.trim()).ok()?;
            (at.to_utc() - chrono::Utc::now()).to_std().unwrap_or_default()
        }
    };
    Some(wait.min(Duration::from_secs(86_400)))
}

/// Says once a minute, and in `/readyz`, that the provider refuses our configuration rather than a message.
struct Complaint {
    ready: Readiness,
    last: Mutex<Option<Instant>>,
}

impl Complaint {
    fn hear(&self, http_status: u16) {
        let ours = matches!(http_status, 401 | 403 | 300..=399);
        let mut last = self.last.lock().expect("not poisoned");
        if !ours {
            if last.take().is_some() {
                self.ready.ready();
            }
        } else if last.is_none_or(|last| last.elapsed() > Duration::from_secs(60)) {
            *last = Some(Instant::now());
            self.ready.not_ready(format!("the provider answers {http_status}: check its URL and token"));
            tracing::error!(code = http_status, "the provider refuses our configuration");
        }
    }
}

#[derive(Clone, Copy)]
enum Gate {
    Opened(Instant),
    Closed,
}

impl Gate {
    fn opened_at(self) -> Option<Instant> {
        match self {
            Self::Opened(at) => Some(at),
            Self::Closed => None,
        }
    }
}

/// A request body whose first poll, which hyper makes when it holds a connection and before it flushes the head, asks
/// the gate. A closed gate fails the body, and hyper drops the connection with nothing written.
struct GatedBody {
    gate: Option<Box<dyn FnOnce() -> bool + Send + Sync>>,
    bytes: Option<Bytes>,
    begun: Arc<Mutex<Option<Gate>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the gate is closed")]
struct GateClosed;

impl Body for GatedBody {
    type Data = Bytes;
    type Error = GateClosed;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, GateClosed>>> {
        if let Some(gate) = self.gate.take() {
            let open = gate();
            let state = if open { Gate::Opened(Instant::now()) } else { Gate::Closed };
            *self.begun.lock().expect("not poisoned") = Some(state);
            if !open {
                return Poll::Ready(Some(Err(GateClosed)));
            }
        }
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        assert_eq!(parse_retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("9999999"), Some(Duration::from_secs(86_400)));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("soon"), None);
    }
}
