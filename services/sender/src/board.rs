//! The table of the mailings' newest versions that a sender decides by.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use domain::delivery::MailingOrder;
use events::topics::Topic;
use events::{MailingEvent, decode};
use kafka::{Isolation, Moment, Record, TableReader};
use runtime::health::{Heartbeat, Readiness};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::fence::Fence;

/// How often the board asks where mailing-events ends. Three tries fit into the second that a proof is good for.
const PROOF_INTERVAL: Duration = Duration::from_millis(300);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// Mailings by id. An entry stays until its tombstone.
pub(crate) struct Board {
    mailings: RwLock<HashMap<Uuid, MailingOrder>>,
    changed: watch::Sender<()>,
}

impl Default for Board {
    fn default() -> Self {
        Self { mailings: RwLock::default(), changed: watch::Sender::new(()) }
    }
}

impl Board {
    /// Takes an event in; a lower version than the entry's changes nothing.
    fn take(&self, event: &MailingEvent) {
        let mut mailings = self.mailings.write().expect("not poisoned");
        if mailings.get(&event.mailing_id).is_some_and(|known| known.version >= event.version) {
            return;
        }
        mailings.insert(event.mailing_id, event.order());
        drop(mailings);
        self.changed.send_replace(());
    }

    /// The mailing, if the board holds it at `version` or higher.
    pub(crate) fn at_least(&self, mailing: Uuid, version: i64) -> Option<MailingOrder> {
        let mailings = self.mailings.read().expect("not poisoned");
        mailings.get(&mailing).filter(|known| known.version >= version).cloned()
    }

    /// Waits until it does.
    pub(crate) async fn wait(&self, mailing: Uuid, version: i64) -> MailingOrder {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(order) = self.at_least(mailing, version) {
                return order;
            }
            let _ = changed.changed().await;
        }
    }
}

/// Reads mailing-events into the board.
pub(crate) struct Reader {
    kafka: kafka::Cluster,
    board: Arc<Board>,
    fence: Arc<Fence>,
}

impl Reader {
    pub(crate) fn new(kafka: kafka::Cluster, board: Arc<Board>, fence: Arc<Fence>) -> Self {
        Self { kafka, board, fence }
    }

    /// Reads until told to stop. A failing read only delays the proof, and with it every attempt.
    pub(crate) fn run(&self, stop: &CancellationToken, ready: &Readiness, beat: &Heartbeat) -> anyhow::Result<()> {
        let topic = self.kafka.topics.name(Topic::MailingEvents);
        let partitions: Vec<i32> = (0..self.kafka.topics.partitions(Topic::MailingEvents).cast_signed()).collect();
        let table = loop {
            beat.beat();
            match TableReader::from_start(&self.kafka, &topic, &partitions, Isolation::Committed) {
                Ok(table) => break table,
                Err(_) if stop.is_cancelled() => return Ok(()),
                Err(error) => tracing::warn!(%error, "the board can't be read yet"),
            }
        };
        while !stop.is_cancelled() {
            beat.beat();
            match self.prove(&table, stop) {
                Ok(()) => ready.ready(),
                Err(error) => {
                    tracing::warn!(%error, "the board could not be proved current");
                    ready.not_ready(format!("mailing-events can't be read: {error}"));
                }
            }
            let until = Instant::now() + PROOF_INTERVAL;
            while let Some(left) = until.checked_duration_since(Instant::now()).filter(|_| !stop.is_cancelled()) {
                if let Some(record) = table.poll(left.min(Duration::from_millis(20)))? {
                    self.take(&record);
                }
            }
        }
        Ok(())
    }

    /// Reads to where the topic ends now; then the board was current when the question was sent.
    fn prove(&self, table: &TableReader, stop: &CancellationToken) -> anyhow::Result<()> {
        let sent = Moment::now();
        let ends = table.ends(ASK_TIMEOUT)?;
        while !table.has_reached(&ends)? {
            if stop.is_cancelled() || sent.age() > Duration::from_secs(30) {
                anyhow::bail!("the end was not reached");
            }
            let mut wait = Duration::from_millis(5);
            while let Some(record) = table.poll(wait)? {
                self.take(&record);
                wait = Duration::ZERO;
            }
        }
        self.fence.prove_board(sent);
        Ok(())
    }

    /// The scheduler, which reads the same topic as a group, dead-letters what can't be decoded.
    fn take(&self, record: &Record) {
        if record.payload.is_none() {
            return;
        }
        match decode::<MailingEvent>(record.payload.as_deref()) {
            Ok(event) => self.board.take(&event),
            Err(error) => tracing::warn!(
                kafka.partition = record.partition,
                kafka.offset = record.offset,
                %error,
                "a mailing event can't be decoded"
            ),
        }
    }
}
