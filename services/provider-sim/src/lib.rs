//! The provider simulator: the provider's contract with switchable faults, and the judge of every test: it counts the
//! calls of each message and keeps a log of them.
//!
//! ```text
//! POST /v1/send/{msgId}   Authorization: Bearer <token>   {"id": int64, "phone": int64, "text": string}
//! 200 {"code": 0, "message": "OK"}
//! ```
//!
//! Beside that: `GET /stats`, `GET /calls/{msgId}` (the first 8 ended calls), `PUT /faults` (answers with the rules
//! that it replaces), `POST /senders` (opens a port for one more sender and answers `{"port": …}`), `POST /reset`
//! (clears the counters), `GET /livez`. Every port serves all of it; the log names the port of each call.
//!
//! A call goes: head read, body read, its turn by the rate, **decided**, the latency, answered. What is decided stays:
//! a client that leaves during the latency leaves an accepted message behind, as with any provider.
//!
//! The log holds phones and texts: it is the provider's own and not for anybody else's eyes.

mod answer;
mod book;
mod call;
mod control;
mod draw;
mod fault;
mod faults;
mod log;
mod pace;
mod send;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use http::HeaderValue;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use crate::answer::{Answer, Encoding, RetryAfter};
pub use crate::book::{Book, Stats};
pub use crate::call::{Call, Outcome};
pub use crate::draw::Latency;
pub use crate::fault::Fault;
pub use crate::faults::{Cohort, Faults, Rule};

use crate::faults::InForce;
use crate::log::Log;
use crate::pace::Pace;
use crate::serve::Server;

/// What a simulator is started with.
#[derive(Clone, clap::Parser)]
#[command(name = "provider-sim", about = "Simulates the message provider, with faults, and keeps count", version)]
pub struct Config {
    /// Where to listen; port 0 picks a free one
    #[arg(long, env = "HERALD_SIM_ADDR", default_value = "127.0.0.1:8090")]
    pub addr: SocketAddr,

    /// File to append a line a call to; none without it
    #[arg(long, env = "HERALD_SIM_LOG")]
    pub log: Option<PathBuf>,

    /// Bearer token that callers must show
    #[arg(long, env = "HERALD_PROVIDER_TOKEN", hide_env_values = true)]
    pub token: String,

    /// Decides with message id and call number who meets a fault
    #[arg(long, env = "HERALD_SIM_SEED", default_value_t = 0)]
    pub seed: u64,

    /// How long an answer takes: 50ms, or 20ms..80ms
    #[arg(long, env = "HERALD_SIM_LATENCY", default_value = "0ms")]
    pub latency: Latency,

    /// Calls a second that it can take, the others wait; 0 is no limit
    #[arg(long, env = "HERALD_SIM_RATE", default_value_t = 0)]
    pub rate: u32,

    /// How long an idle connection is kept, 2s by gunicorn; for ever without it
    #[arg(long, env = "HERALD_SIM_KEEP_ALIVE", value_parser = humantime::parse_duration)]
    pub keep_alive: Option<Duration>,

    /// Faults from the start, as PUT /faults takes them: [{"fault": {"status": 429}, "over_per_second": 50}]
    ///
    /// The first rule that applies decides.
    ///
    /// A fault is "hang", "reset_before", "reset_after" (the message is taken), "outage" (503), "garbage" (200),
    /// {"status": 500}, {"code": 1}, {"retry_after": {"status": 429, "seconds": 2}} (or "date": 5, which is in 5 s, or
    /// "text": "soon") or {"answer": {…}}, any answer: status, accepted, unreadable, body, size, encoding (gzip, deflate,
    /// raw_deflate, br), retry_after, headers, cut_after. {"answer": {}} is the usual success.
    ///
    /// Beside the fault stand delay_ms, by which its answer is late, and whom it meets: probability, first_calls (of a
    /// message), cohort (ids by {"modulus": 2, "remainder": 1}), operator_codes ([916]), over_per_second (the calls above
    /// so many in any second).
    #[arg(long, env = "HERALD_SIM_FAULTS", default_value = "[]")]
    pub faults: Faults,
}

impl Config {
    /// A free port on loopback and an instant provider without faults or log.
    pub fn new(token: &str) -> Self {
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            log: None,
            token: token.to_owned(),
            seed: 0,
            latency: Latency::default(),
            rate: 0,
            keep_alive: None,
            faults: Faults::default(),
        }
    }
}

/// The state that all connections share.
#[derive(Debug)]
struct Sim {
    bearer: HeaderValue,
    seed: u64,
    latency: Latency,
    pace: Pace,
    faults: Mutex<InForce>,
    book: Book,
    log: Option<Log>,
}

impl Sim {
    fn new(config: &Config) -> anyhow::Result<Self> {
        anyhow::ensure!(!config.token.is_empty(), "the provider's token is empty");
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", config.token))
            .context("the provider's token is no header value")?;
        bearer.set_sensitive(true);
        Ok(Self {
            bearer,
            seed: config.seed,
            latency: config.latency,
            pace: Pace::new(config.rate),
            faults: Mutex::new(InForce::new(config.faults.clone())),
            book: Book::new(),
            log: config.log.as_deref().map(Log::open).transpose()?,
        })
    }

    fn faults(&self) -> MutexGuard<'_, InForce> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_faults(&self, faults: Faults) -> Faults {
        std::mem::replace(&mut *self.faults(), InForce::new(faults)).into_faults()
    }

    fn stats(&self) -> anyhow::Result<Stats> {
        let stats = self.book.stats();
        self.log.as_ref().map_or(Ok(()), Log::flush)?;
        Ok(stats)
    }

    fn reset(&self) {
        if let Some(log) = &self.log {
            log.reset(call::now_us());
        }
        self.book.reset();
    }
}

/// A simulator at work in this process; dropped, it stops without waiting.
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    server: Arc<Server>,
    stop: DropGuard,
}

/// Listens and serves in the background. Fails if the address is taken, the log can't be opened or the token is empty.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    let stop = CancellationToken::new();
    let server = Arc::new(Server::new(Sim::new(&config)?, config.addr.ip(), config.keep_alive, stop.clone()));
    let addr = server.listen(config.addr.port()).await.with_context(|| format!("listen on {}", config.addr))?;
    Ok(Running { addr, server, stop: stop.drop_guard() })
}

impl Running {
    /// The counters. Every ended call in them has its line in the log's file, for which this waits (blocking, far below
    /// a millisecond); fails if the log couldn't be written.
    pub fn stats(&self) -> anyhow::Result<Stats> {
        self.server.sim.stats()
    }

    /// The first 8 ended calls of a message, by number.
    pub fn calls(&self, id: i64) -> Vec<Call> {
        self.server.sim.book.calls(id)
    }

    /// Replaces the rules from the next decision on, and returns the old ones.
    pub fn set_faults(&self, faults: Faults) -> Faults {
        self.server.sim.set_faults(faults)
    }

    /// Opens a port for one more sender: its calls bear the port as their `sender`.
    pub async fn add_sender(&self) -> anyhow::Result<SocketAddr> {
        self.server.listen(0).await.context("listen on one more port")
    }

    /// The counters and calls of this moment.
    pub fn book(&self) -> &Book {
        &self.server.sim.book
    }

    /// Waits until `condition` holds; fails after 30 s, with the counters of then.
    pub async fn wait_for(&self, mut condition: impl FnMut(&Book) -> bool) -> anyhow::Result<()> {
        /// Calls announce nothing: they'd pay for it where nobody waits.
        const LOOK: Duration = Duration::from_millis(2);
        const PATIENCE: Duration = Duration::from_secs(30);
        let met = async {
            while !condition(self.book()) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let met = tokio::time::timeout(PATIENCE, met).await;
        met.with_context(|| format!("waited {PATIENCE:?} in vain: {:?}", self.book().stats()))
    }

    /// Clears the counters, not the log.
    pub fn reset(&self) {
        self.server.sim.reset();
    }

    /// Drops all connections, ends the log and returns the last counters. Fails if the log is incomplete.
    pub async fn stop(self) -> anyhow::Result<Stats> {
        drop(self.stop);
        self.server.ended().await;
        self.server.sim.stats()
    }
}
