//! Around every request: a request id, one log line, the metrics, and a problem document for a panic.

use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use crate::metrics::Metrics;
use crate::problem::{ApiError, Logged};

const REQUEST_ID: &str = "x-request-id";

pub(crate) fn layer(router: Router, metrics: Metrics) -> Router {
    router
        .layer(CatchPanicLayer::custom(|_| ApiError::Internal(anyhow::anyhow!("a handler panicked")).into_response()))
        .layer(middleware::from_fn_with_state(metrics, observe))
}

async fn observe(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let id = request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| is_fit(id))
        .cloned()
        .unwrap_or_else(|| HeaderValue::from_str(&Uuid::now_v7().to_string()).expect("a UUID is a header's value"));

    let mut response = next.run(request).await;

    let status = response.status();
    // The closed set of RFC 9110's methods and one more: a label must not be a caller's to choose.
    let label = if ["GET", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "PUT"].contains(&method.as_str()) {
        method.as_str()
    } else {
        "other"
    };
    let labels = [route.as_str(), label, status.as_str()];
    metrics.requests.with_label_values(&labels).inc();
    metrics.duration.with_label_values(&labels).observe(begun.elapsed().as_secs_f64());
    let duration_ms = begun.elapsed().as_millis() as u64;
    let request_id = id.to_str().unwrap_or_default();
    match response.extensions().get::<Logged>() {
        Some(Logged(error)) => {
            tracing::error!(request_id, %method, route, status = status.as_u16(), duration_ms, error, "request failed");
        }
        None => tracing::info!(request_id, %method, route, status = status.as_u16(), duration_ms, "request"),
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// A caller's id goes into the log: short, and of characters that ids have. Digits alone could be a phone number.
fn is_fit(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=64).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
        && bytes.iter().any(u8::is_ascii_alphabetic)
}
