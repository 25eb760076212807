//! Connections. hyper is driven by hand because a call may end by a reset, which an axum service can't ask for.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::serve::Listener;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::{Sim, control, send};

/// The ports of one simulator and what serves them.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) sim: Sim,
    ip: IpAddr,
    keep_alive: Option<Duration>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    pub(crate) fn new(sim: Sim, ip: IpAddr, keep_alive: Option<Duration>, stop: CancellationToken) -> Self {
        Self { sim, ip, keep_alive, stop, tasks: TaskTracker::new() }
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
        let busy = server.keep_alive.map(|_| watch::Sender::new(false));
        let connection = Connection { server: Arc::clone(&server), port, control: control.clone(), busy };
        server.tasks.spawn(async move {
            tokio::select! {
                () = connection.server.stop.cancelled() => {}
                () = connection.serve(stream) => {}
                () = connection.idle_too_long() => {}
            }
        });
    }
}

struct Connection {
    server: Arc<Server>,
    port: u16,
    control: Router,
    /// Whether a request is open; none if an idle connection is kept for ever.
    busy: Option<watch::Sender<bool>>,
}

impl Connection {
    async fn serve(&self, stream: TcpStream) {
        // Fails only for a connection that is gone, and then the first read says so.
        let _ = stream.set_nodelay(true);
        let mut connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(|request| self.serve_one(request)));
        let ended = (&mut connection).await;
        if ended.is_err_and(|error| error.is_user()) {
            // Closing now sends a reset, which is what the client is to see, not an orderly end.
            let _ = connection.into_parts().io.into_inner().set_zero_linger();
        }
    }

    /// Ends when no request has been open for as long as an idle connection is kept.
    async fn idle_too_long(&self) {
        let (Some(keep_alive), Some(busy)) = (self.server.keep_alive, &self.busy) else {
            return std::future::pending().await;
        };
        let mut busy = busy.subscribe();
        // The sender is this connection's own: it isn't gone.
        while busy.wait_for(|busy| !*busy).await.is_ok() {
            if timeout(keep_alive, busy.wait_for(|busy| *busy)).await.is_err() {
                return;
            }
        }
    }

    async fn serve_one(&self, request: Request<Incoming>) -> Result<Response<Body>, send::Dropped> {
        if let Some(busy) = &self.busy {
            busy.send_replace(true);
        }
        let answer = self.route(request).await;
        if let Some(busy) = &self.busy {
            busy.send_replace(false);
        }
        answer
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Body>, send::Dropped> {
        let path = request.uri().clone();
        match path.path().strip_prefix("/v1/send/") {
            Some(id) if request.method() == Method::POST => send::send(&self.server.sim, self.port, id, request).await,
            _ => self.control.clone().oneshot(request.map(Body::new)).await.map_err(|never| match never {}),
        }
    }
}
