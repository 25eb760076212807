//! Around every request: a request id, one log line, the metrics, and a problem document for a panic.

use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use uuid::Uuid;

use crate::metrics::Metrics;
use crate::problem::{ApiError, Logged};

const REQUEST_ID: &str = "x-request-id";

/// The status of a request whose caller left before the answer; no answer has it. nginx calls it so too.
const LEFT: u16 = 499;

pub(crate) fn layer(router: Router, metrics: Metrics) -> Router {
    router
        .layer(CatchPanicLayer::custom(|_| ApiError::Internal(anyhow::anyhow!("a handler panicked")).into_response()))
        .layer(middleware::from_fn_with_state(metrics, observe))
}

async fn observe(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| is_fit(id))
        .cloned()
        .unwrap_or_else(|| HeaderValue::from_str(&Uuid::now_v7().to_string()).expect("a UUID is a header's value"));
    let mut observed = Observed {
        metrics,
        begun: Instant::now(),
        method: label(request.method()),
        route: request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned(),
        id: id.clone(),
        told: false,
    };

    let span = tracing::info_span!("request", request_id = observed.id());
    let mut response = next.run(request).instrument(span).await;

    let error = response.extensions().get::<Logged>().map(|Logged(error)| error.as_str());
    observed.tell(response.status().as_u16(), error);
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// A request under way. When its caller leaves, its future is dropped, and only this is there to tell of it.
struct Observed {
    metrics: Metrics,
    begun: Instant,
    method: &'static str,
    route: String,
    id: HeaderValue,
    told: bool,
}

impl Observed {
    fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    fn tell(&mut self, status: u16, error: Option<&str>) {
        self.told = true;
        let (method, route, request_id) = (self.method, self.route.as_str(), self.id());
        let labels = [route, method, &status.to_string()];
        self.metrics.requests.with_label_values(&labels).inc();
        self.metrics.duration.with_label_values(&labels).observe(self.begun.elapsed().as_secs_f64());
        let duration_ms = self.begun.elapsed().as_millis() as u64;
        match error {
            Some(error) => tracing::error!(request_id, method, route, status, duration_ms, error, "request failed"),
            None if status == LEFT => {
                tracing::info!(request_id, method, route, status, duration_ms, "request ended without an answer");
            }
            None => tracing::info!(request_id, method, route, status, duration_ms, "request"),
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        if !self.told {
            self.tell(LEFT, None);
        }
    }
}

/// The closed set of RFC 9110's methods and one more: a label must not be a caller's to choose, nor a line of the log.
fn label(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "PUT"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// A caller's id goes into the log: short, of characters that ids have, and without what could be a phone number.
fn is_fit(id: &HeaderValue) -> bool {
    const PHONE_DIGITS: usize = 11;
    let bytes = id.as_bytes();
    (1..=64).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
        && bytes.iter().any(u8::is_ascii_alphabetic)
        && !bytes.windows(PHONE_DIGITS).any(|run| run.iter().all(u8::is_ascii_digit))
}
