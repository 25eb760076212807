//! Connections. hyper is driven by hand because a call may end by a reset, which an axum service can't ask for.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::serve::Listener;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::{Sim, control, send};

/// Serves until `stop`, then drops every connection: calls still open are logged as unanswered.
pub(crate) async fn accept(mut listener: TcpListener, sim: Arc<Sim>, stop: CancellationToken) {
    let control = control::routes(Arc::clone(&sim));
    let connections = TaskTracker::new();
    loop {
        // axum's `accept` rides out errors, such as too many open files.
        let (stream, _) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = Listener::accept(&mut listener) => accepted,
        };
        let (sim, control, stop) = (Arc::clone(&sim), control.clone(), stop.clone());
        connections.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = serve(stream, &sim, &control) => {}
            }
        });
    }
    connections.close();
    connections.wait().await;
}

async fn serve(stream: TcpStream, sim: &Sim, control: &Router) {
    // Fails only for a connection that is gone, and then the first read says so.
    let _ = stream.set_nodelay(true);
    let mut connection = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(|request| route(sim, control, request)));
    let ended = (&mut connection).await;
    if ended.is_err_and(|error| error.is_user()) {
        // Closing now sends a reset, which is what the client is to see, not an orderly end.
        let _ = connection.into_parts().io.into_inner().set_zero_linger();
    }
}

async fn route(sim: &Sim, control: &Router, request: Request<Incoming>) -> Result<Response<Body>, send::Dropped> {
    let path = request.uri().clone();
    match path.path().strip_prefix("/v1/send/") {
        Some(id) if request.method() == Method::POST => send::send(sim, id, request).await,
        _ => control.clone().oneshot(request.map(Body::new)).await.map_err(|never| match never {}),
    }
}
