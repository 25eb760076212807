//! What tests and people ask the simulator, beside sending.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Serialize;

use crate::book::Stats;
use crate::call::Call;
use crate::faults::Faults;
use crate::serve::Server;

type Shared = State<Arc<Server>>;
type Broken = (StatusCode, String);

pub(crate) fn routes(server: Arc<Server>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok"))
        .route("/stats", get(stats))
        .route("/calls/{id}", get(calls))
        .route("/faults", put(set_faults))
        .route("/senders", post(add_sender))
        .route("/reset", post(reset))
        .with_state(server)
}

async fn stats(State(server): Shared) -> Result<Json<Stats>, Broken> {
    // Waits for the log's writer.
    let stats = tokio::task::spawn_blocking(move || server.sim.stats()).await.map_err(|error| broken(&error))?;
    stats.map(Json).map_err(|error| broken(&*error))
}

async fn calls(State(server): Shared, Path(id): Path<i64>) -> Json<Vec<Call>> {
    Json(server.sim.book.calls(id))
}

async fn set_faults(State(server): Shared, Json(faults): Json<Faults>) -> Json<Faults> {
    Json(server.sim.set_faults(faults))
}

#[derive(Serialize)]
struct Port {
    port: u16,
}

async fn add_sender(State(server): Shared) -> Result<(StatusCode, Json<Port>), Broken> {
    let addr = server.listen(0).await.map_err(|error| broken(&error))?;
    Ok((StatusCode::CREATED, Json(Port { port: addr.port() })))
}

async fn reset(State(server): Shared) -> StatusCode {
    server.sim.reset();
    StatusCode::NO_CONTENT
}

fn broken(reason: &dyn std::fmt::Display) -> Broken {
    (StatusCode::INTERNAL_SERVER_ERROR, reason.to_string())
}
