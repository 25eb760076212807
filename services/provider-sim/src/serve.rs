//! Connections. hyper is driven by hand because a call may end by a reset, which an axum service can't ask for.

use std::io;
use std::net::{IpAddr, SocketAddr};
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

/// The ports of one simulator and what serves them.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) sim: Sim,
    ip: IpAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    pub(crate) fn new(sim: Sim, ip: IpAddr, stop: CancellationToken) -> Self {
        Self { sim, ip, stop, tasks: TaskTracker::new() }
    }

    /// Serves at one more port until the stop; port 0 picks a free one.
    pub(crate) async fn listen(self: &Arc<Self>, port: u16) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((self.ip, port)).await?;
        let addr = listener.local_addr()?;
        self.tasks.spawn(accept(listener, addr.port(), Arc::clone(self)));
        Ok(addr)
    }

    /// Waits, after the stop, until no connection is left: calls that were open are logged as unanswered.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn accept(mut listener: TcpListener, port: u16, server: Arc<Server>) {
    let control = control::routes(Arc::clone(&server));
    loop {
        // axum's `accept` rides out errors, such as too many open files.
        let (stream, _) = tokio::select! {
            () = server.stop.cancelled() => return,
            accepted = Listener::accept(&mut listener) => accepted,
        };
        let connection = Connection { server: Arc::clone(&server), port, control: control.clone() };
        server.tasks.spawn(async move {
            tokio::select! {
                () = connection.server.stop.cancelled() => {}
                () = connection.serve(stream) => {}
            }
        });
    }
}

struct Connection {
    server: Arc<Server>,
    port: u16,
    control: Router,
}

impl Connection {
    async fn serve(&self, stream: TcpStream) {
        // Fails only for a connection that is gone, and then the first read says so.
        let _ = stream.set_nodelay(true);
        let mut connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(|request| self.route(request)));
        let ended = (&mut connection).await;
        if ended.is_err_and(|error| error.is_user()) {
            // Closing now sends a reset, which is what the client is to see, not an orderly end.
            let _ = connection.into_parts().io.into_inner().set_zero_linger();
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Body>, send::Dropped> {
        let path = request.uri().clone();
        match path.path().strip_prefix("/v1/send/") {
            Some(id) if request.method() == Method::POST => send::send(&self.server.sim, self.port, id, request).await,
            _ => self.control.clone().oneshot(request.map(Body::new)).await.map_err(|never| match never {}),
        }
    }
}
