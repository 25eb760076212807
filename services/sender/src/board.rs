//! The table of the mailings' newest versions that a sender decides by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use domain::delivery::MailingOrder;
use domain::ids::Version;
use events::topics::Topic;
use events::{MailingEvent, decode};
use kafka::{Isolation, Moment, Record, TableReader};
use runtime::health::{Heartbeat, Readiness};
use series::prometheus::IntGauge;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::fence::Fence;

/// How often the board asks where mailing-events ends. Three tries fit into the second that a proof is good for.
const PROOF_INTERVAL: Duration = Duration::from_millis(300);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a proof is tried. The loop must beat more often than this and a few calls take.
const PROOF_PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries of the first read.
const PAUSE: Duration = Duration::from_millis(200);
/// A mailing's event is published before its messages are planned, so after this long something is missing.
const MISSING: Duration = Duration::from_secs(10);

type Entry = watch::Sender<Option<MailingOrder>>;

/// Mailings by id. An entry stays for the life of the process.
pub(crate) struct Board {
    mailings: RwLock<HashMap<Uuid, Entry>>,
    /// The messages that wait for each mailing that isn't here, and since when one does.
    missing: Mutex<HashMap<Uuid, Missing>>,
    waiting: IntGauge,
}

struct Missing {
    since: Instant,
    messages: usize,
    told: bool,
}

impl Board {
    /// `waiting` shows how many messages wait for a mailing that isn't here.
    pub(crate) fn new(waiting: IntGauge) -> Self {
        Self { mailings: RwLock::default(), missing: Mutex::default(), waiting }
    }

    /// Takes an event in; a lower version than the entry's changes nothing.
    fn take(&self, event: &MailingEvent) {
        self.entry(event.mailing_id).send_if_modified(|known| {
            let newer = known.as_ref().is_none_or(|known| known.version < event.version);
            if newer {
                *known = Some(event.order());
            }
            newer
        });
    }

    /// The mailing, if the board holds it at `version` or higher.
    pub(crate) fn at_least(&self, mailing: Uuid, version: Version) -> Option<MailingOrder> {
        let mailings = self.mailings.read().expect("not poisoned");
        let known = mailings.get(&mailing)?.borrow();
        known.as_ref().filter(|known| known.version >= version).cloned()
    }

    /// Waits until it does.
    pub(crate) async fn wait(&self, mailing: Uuid, version: Version) -> MailingOrder {
        if let Some(order) = self.at_least(mailing, version) {
            return order;
        }
        let mut changes = self.changes(mailing);
        let _missing = self.miss(mailing);
        loop {
            if let Some(order) = self.at_least(mailing, version) {
                return order;
            }
            // The entry lives in `self`: its channel can't be closed.
            let _ = changes.changed().await;
        }
    }

    /// Tells of each version that the board gets of the mailing from now on.
    pub(crate) fn changes(&self, mailing: Uuid) -> watch::Receiver<Option<MailingOrder>> {
        self.entry(mailing).subscribe()
    }

    fn entry(&self, mailing: Uuid) -> Entry {
        if let Some(entry) = self.mailings.read().expect("not poisoned").get(&mailing) {
            return entry.clone();
        }
        self.mailings.write().expect("not poisoned").entry(mailing).or_default().clone()
    }

    fn miss(&self, mailing: Uuid) -> MissGuard<'_> {
        let mut missing = self.missing.lock().expect("not poisoned");
        let entry =
            missing.entry(mailing).or_insert_with(|| Missing { since: Instant::now(), messages: 0, told: false });
        entry.messages += 1;
        self.waiting.inc();
        MissGuard { board: self, mailing }
    }

    /// Mailings that messages have been waiting for since before `moment`; each is logged once.
    fn missing_since(&self, moment: Instant) -> Option<String> {
        let mut missing = self.missing.lock().expect("not poisoned");
        let mut long: Vec<(&Uuid, &mut Missing)> = missing.iter_mut().filter(|(_, it)| it.since < moment).collect();
        for (mailing, it) in long.iter_mut().filter(|(_, it)| !it.told) {
            tracing::error!(mailing.id = %mailing, messages = it.messages, "mailing-events doesn't hold a mailing whose messages are here, see `herald replan`");
            it.told = true;
        }
        let first = long.iter().min_by_key(|(_, it)| it.since).map(|(mailing, _)| **mailing)?;
        Some(format!("messages wait for mailing {first}, which mailing-events doesn't hold; {} in all", long.len()))
    }
}

struct MissGuard<'a> {
    board: &'a Board,
    mailing: Uuid,
}

impl Drop for MissGuard<'_> {
    fn drop(&mut self) {
        let mut missing = self.board.missing.lock().expect("not poisoned");
        self.board.waiting.dec();
        if let Some(entry) = missing.get_mut(&self.mailing) {
            entry.messages -= 1;
            if entry.messages == 0 {
                missing.remove(&self.mailing);
            }
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
    /// The longest time between two beats.
    pub(crate) const BEAT_LIMIT: Duration = Duration::from_secs(30);

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
                Err(error) => {
                    ready.not_ready(format!("mailing-events can't be read yet: {error}"));
                    std::thread::sleep(PAUSE);
                }
            }
        };
        while !stop.is_cancelled() {
            beat.beat();
            match self.prove(&table, stop) {
                Ok(()) => {
                    ready.set(Instant::now().checked_sub(MISSING).and_then(|since| self.board.missing_since(since)))
                }
                Err(error) => ready.not_ready(format!("mailing-events can't be read: {error}")),
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
            if stop.is_cancelled() || sent.age() > PROOF_PATIENCE {
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

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn event(mailing: Uuid, version: i64) -> MailingEvent {
        let example = include_bytes!("../../../kafka/examples/mailing-events.v1/scheduled.json");
        MailingEvent { mailing_id: mailing, version: version.into(), ..decode(Some(example)).unwrap() }
    }

    fn board() -> (Board, IntGauge) {
        let waiting = IntGauge::new("waiting", "waiting").unwrap();
        (Board::new(waiting.clone()), waiting)
    }

    #[tokio::test]
    async fn a_message_waits_for_its_mailing_at_its_version() {
        let (board, waiting) = board();
        let mailing = Uuid::from_u128(1);
        board.take(&event(mailing, 4));
        {
            let mut wait = std::pin::pin!(board.wait(mailing, 5.into()));
            assert!(wait.as_mut().now_or_never().is_none());
            assert_eq!(waiting.get(), 1);
            board.take(&event(Uuid::from_u128(2), 9));
            assert!(wait.as_mut().now_or_never().is_none());
            board.take(&event(mailing, 6));
            assert_eq!(wait.await.version, 6.into());
        }
        assert_eq!(waiting.get(), 0);
        board.take(&event(mailing, 5));
        assert_eq!(board.at_least(mailing, 1.into()).unwrap().version, 6.into(), "a lower version changes nothing");
    }

    #[tokio::test]
    async fn a_mailing_that_is_missing_for_long_is_named() {
        let (board, _) = board();
        let before = Instant::now();
        let mailing = Uuid::from_u128(1);
        let mut wait = Box::pin(board.wait(mailing, 1.into()));
        assert!(wait.as_mut().now_or_never().is_none());
        assert_eq!(board.missing_since(before), None, "not long enough");
        let reason = board.missing_since(Instant::now()).unwrap();
        assert!(reason.contains(&mailing.to_string()), "{reason}");
        drop(wait);
        assert_eq!(board.missing_since(Instant::now()), None, "its partition was taken away");
    }
}
