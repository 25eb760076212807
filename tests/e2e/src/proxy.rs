use std::net::Ipv4Addr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A way to a server that can be cut: then connections stay open and nothing comes through, as in a network that has lost a
/// machine. Dropped, it ends with its connections.
pub(crate) struct Proxy {
    port: u16,
    cut: watch::Sender<bool>,
}

impl Proxy {
    /// Listens on `port` of loopback and leads to `target` there.
    pub(crate) async fn start(port: u16, target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (cut, state) = watch::channel(false);
        tokio::spawn(async move {
            let mut ended = state.clone();
            loop {
                tokio::select! {
                    Ok((client, _)) = listener.accept() => { tokio::spawn(lead(client, target, state.clone())); }
                    Err(_) = ended.wait_for(|_| false) => return,
                }
            }
        });
        Self { port, cut }
    }

    /// As clients want it.
    pub(crate) fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// New connections come through again; those that were cut are closed.
    pub(crate) fn heal(&self) {
        self.cut.send_replace(false);
    }
}

async fn lead(mut client: TcpStream, target: u16, mut state: watch::Receiver<bool>) {
    if state.wait_for(|cut| !cut).await.is_err() {
        return;
    }
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        Ok(_) = state.wait_for(|cut| *cut) => {}
        else => return,
    }
    // Held until it is healed.
    let _ = state.wait_for(|cut| !cut).await;
}
