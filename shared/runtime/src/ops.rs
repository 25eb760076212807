use std::time::Instant;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus::{Registry, TextEncoder};

use crate::Service;
use crate::health::{Health, Report};

/// `/livez` and `/readyz` (200, or 503 when a part is unwell; JSON with every part) and `/metrics` (Prometheus text).
pub(crate) fn router(service: &Service) -> Router {
    let probes =
        Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).with_state(service.health.clone());
    Router::new().route("/metrics", get(metrics)).with_state(service.registry.clone()).merge(probes)
}

async fn livez(State(health): State<Health>) -> Response {
    answer(health.live(Instant::now()))
}

async fn readyz(State(health): State<Health>) -> Response {
    answer(health.ready(Instant::now()))
}

async fn metrics(State(registry): State<Registry>) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics can't be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn answer(report: Report) -> Response {
    let code = if report.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(report)).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    async fn ask(service: &Service, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router(service).oneshot(request).await.unwrap();
        let code = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_probes_name_each_part_and_its_state() {
        let service = Service::new();
        let postgres = service.health.readiness("postgres");
        let (code, body) = ask(&service, "/readyz").await;
        assert_eq!(code, 503);
        assert_eq!(
            serde_json::from_str::<Value>(&body).unwrap(),
            json!({"ok": false, "parts": [{"name": "postgres", "ok": false, "state": "starting"}]})
        );
        postgres.ready();
        assert_eq!(ask(&service, "/readyz").await.0, 200);
    }

    #[tokio::test]
    async fn a_missing_dependency_is_not_a_dead_loop() {
        let service = Service::new();
        let _postgres = service.health.readiness("postgres");
        let _planner = service.health.heartbeat("planner-3", Duration::from_secs(3600));
        let (code, body) = ask(&service, "/livez").await;
        assert_eq!(code, 200);
        assert_eq!(
            serde_json::from_str::<Value>(&body).unwrap(),
            json!({"ok": true, "parts": [{"name": "planner-3", "ok": true, "state": "beating"}]})
        );

        let _stuck = service.health.heartbeat("planner-4", Duration::ZERO);
        assert_eq!(ask(&service, "/livez").await.0, 503);
    }

    #[tokio::test]
    async fn the_metrics_say_which_version_runs() {
        let (code, body) = ask(&Service::new(), "/metrics").await;
        assert_eq!(code, 200);
        let line = format!("herald_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        assert!(body.contains(&line), "{body}");
        #[cfg(target_os = "linux")]
        assert!(body.contains("process_resident_memory_bytes"), "{body}");
    }
}
