use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What a proxy does with what comes its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It lets it through.
    Open,
    /// Connections stay open and nothing comes through, as in a network that has lost a machine; they are closed at the end.
    Lost,
    /// Every connection is reset, new ones too.
    Reset,
    /// Each connection takes so many bytes a second each way. With 0 all is held, and comes through at the end.
    Slow(u32),
}

/// A way to a server that can be made a bad one. Dropped, it ends with its connections.
pub(crate) struct Proxy {
    port: u16,
    target: Arc<AtomicU16>,
    way: watch::Sender<Way>,
}

impl Proxy {
    /// Listens on `port` of loopback and leads to `target` there.
    pub(crate) async fn start(port: u16, target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let target = Arc::new(AtomicU16::new(target));
        let leads_to = Arc::clone(&target);
        let (way, state) = watch::channel(Way::Open);
        tokio::spawn(async move {
            let mut ended = state.clone();
            loop {
                tokio::select! {
                    Ok((client, _)) = listener.accept() => { tokio::spawn(lead(client, leads_to.load(Relaxed), state.clone())); }
                    Err(_) = ended.wait_for(|_| false) => return,
                }
            }
        });
        Self { port, target, way }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// New connections lead to `target`.
    pub(crate) fn lead_to(&self, target: u16) {
        self.target.store(target, Relaxed);
    }

    pub(crate) fn be(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn lead(mut client: TcpStream, target: u16, mut state: watch::Receiver<Way>) {
    let Ok(way) = state.wait_for(|way| *way != Way::Lost).await.map(|way| *way) else { return };
    if way == Way::Reset {
        let _ = client.set_zero_linger();
        return;
    }
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (there, back) = (state.clone(), state.clone());
    let broken = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let both = async {
            tokio::try_join!(pump(client_reads, server_writes, there), pump(server_reads, client_writes, back))
        };
        tokio::select! {
            _ = both => return,
            way = state.wait_for(|way| matches!(way, Way::Lost | Way::Reset)) => way.map(|way| *way),
        }
    };
    match broken {
        Ok(Way::Reset) => {
            let _ = (client.set_zero_linger(), server.set_zero_linger());
        }
        Ok(_) => {
            let _ = state.wait_for(|way| *way != Way::Lost).await;
        }
        Err(_) => {}
    }
}

/// Shares of a second's bytes in which a slow way takes them.
const SHARES: u32 = 20;

/// Takes bytes one way until they end, as fast as the way is.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut state: watch::Receiver<Way>) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let way = *state.borrow_and_update();
            let Way::Slow(rate) = way else {
                to.write_all(rest).await?;
                break;
            };
            let share = rest.len().min(rate.div_ceil(SHARES) as usize);
            to.write_all(&rest[..share]).await?;
            rest = &rest[share..];
            let changed = state.changed();
            let ended = match rate {
                0 => changed.await.is_err(),
                rate => {
                    let pause = Duration::from_secs(1) * u32::try_from(share).unwrap() / rate;
                    tokio::time::timeout(pause, changed).await.is_ok_and(|changed| changed.is_err())
                }
            };
            if ended {
                return Ok(());
            }
        }
    }
}
