//! What was looked at during a run: one line of the samples' file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A look at everything. What couldn't be asked at that moment is none.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// When the committed offsets had been read, µs since the epoch.
    pub at: i64,
    /// What the senders' group has committed.
    pub committed: Option<Vec<Committed>>,
    /// Where each partition of status-events ended, asked after the commits had been read.
    #[serde(default)]
    pub status_ends: Option<BTreeMap<i32, i64>>,
    /// Counts and rows of the live mailings, of one snapshot.
    pub snapshot: Option<Vec<Snapshot>>,
    /// What the API answers about its mailings.
    pub answers: Option<Vec<Answer>>,
    /// The processes that could be asked.
    pub processes: Vec<Process>,
}

/// A partition's commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Committed {
    /// Its number in message-events.
    pub partition: i32,
    /// None: nothing is committed.
    pub offset: Option<i64>,
    /// `v1 bookmark=… position=… open=…`, and what newer senders add.
    pub metadata: String,
}

impl Committed {
    /// A value of the metadata, by its name.
    pub(crate) fn word(&self, name: &str) -> Option<&str> {
        self.metadata.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

/// A mailing's messages by status, by both ways to count them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Internal number.
    pub mailing_no: i64,
    /// By the counters.
    pub counts: BTreeMap<String, i64>,
    /// By counting rows.
    pub rows: BTreeMap<String, i64>,
    /// Held messages by reason, by the counters.
    #[serde(default)]
    pub held_counts: BTreeMap<String, i64>,
    /// Held messages by reason, by counting rows of `held`.
    #[serde(default)]
    pub held: BTreeMap<String, i64>,
}

/// What the API said of one mailing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Public id.
    pub mailing: Uuid,
    /// `audience` is null at first.
    pub counts: BTreeMap<String, Option<i64>>,
}

/// A process's own figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Its ops address.
    pub ops: String,
    /// `herald_sender_open_slots`; none if it isn't a sender.
    pub open_slots: Option<f64>,
    /// `herald_sender_unacknowledged_statuses`, likewise.
    pub unacknowledged: Option<f64>,
    /// `process_resident_memory_bytes`.
    pub memory: Option<f64>,
    /// All of `/metrics`, now and then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
}
