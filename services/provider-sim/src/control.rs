//! What tests and people ask the simulator, beside sending.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};

use crate::Sim;
use crate::book::Stats;
use crate::call::Call;
use crate::faults::Faults;

pub(crate) fn routes(sim: Arc<Sim>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok"))
        .route("/stats", get(stats))
        .route("/calls/{id}", get(calls))
        .route("/faults", put(set_faults))
        .route("/reset", post(reset))
        .with_state(sim)
}

async fn stats(State(sim): State<Arc<Sim>>) -> Result<Json<Stats>, (StatusCode, String)> {
    let broken = |reason: String| (StatusCode::INTERNAL_SERVER_ERROR, reason);
    // Waits for the log's writer.
    let stats = tokio::task::spawn_blocking(move || sim.stats()).await.map_err(|error| broken(error.to_string()))?;
    stats.map(Json).map_err(|error| broken(error.to_string()))
}

async fn calls(State(sim): State<Arc<Sim>>, Path(id): Path<i64>) -> Json<Vec<Call>> {
    Json(sim.book.calls(id))
}

async fn set_faults(State(sim): State<Arc<Sim>>, Json(faults): Json<Faults>) -> Json<Faults> {
    Json(sim.set_faults(faults))
}

async fn reset(State(sim): State<Arc<Sim>>) -> StatusCode {
    sim.reset();
    StatusCode::NO_CONTENT
}
