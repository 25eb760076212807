//! What the judge judges by. Instants are µs since the epoch.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::ids::{ClientNo, MailingNo, MessageId, MessagePlace, StatusPlace};
use crate::journal::Entry;
use crate::sample::Sample;
use crate::wire::{MailingEvent, MessageEvent, ProgressEvent, StatusEvent};

/// All there is to know of a run, after its end.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The table `clients`.
    pub clients: Vec<Client>,
    /// The table `mailings`.
    pub mailings: Vec<Mailing>,
    /// The table `messages`.
    pub rows: Vec<Row>,
    /// The table `steps`.
    pub steps: Vec<Step>,
    /// The table `held`.
    pub held: Vec<Held>,
    /// The table `held_counts`, summed over partitions.
    pub held_counts: BTreeMap<(MailingNo, String), i64>,
    /// The table `mailing_counts`, summed over partitions.
    pub counts: Vec<Count>,
    /// The table `mailing_settled_rounds`, summed over partitions.
    pub settled_rounds: BTreeMap<MailingNo, i64>,
    /// The table `mailing_progress`.
    pub mirrors: Vec<Mirror>,
    /// The topic mailing-events.
    pub mailing_events: Vec<Record<MailingEvent>>,
    /// The topic planning-progress.
    pub progress: Vec<Record<ProgressEvent>>,
    /// The topic message-events.
    pub message_events: Vec<Record<MessageEvent>>,
    /// The topic status-events.
    pub status_events: Vec<Record<StatusEvent>>,
    /// The topic dead-letters.
    pub dead_letters: Vec<Record<serde_json::Value>>,
    /// The provider's log.
    pub calls: Vec<Call>,
    /// The conductor's journal.
    pub journal: Vec<Entry>,
    /// What was looked at during the run.
    pub samples: Vec<Sample>,
    /// Logs, each with its name.
    pub logs: Vec<(String, String)>,
    /// The provider's bearer token.
    pub token: String,
    /// Partitions of message-events.
    pub partitions: usize,
    /// Bytes that no process may exceed; unchecked if none.
    pub memory_limit: Option<u64>,
}

/// A row of `clients`. A deleted one has no phone, code and tag.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Client {
    /// Internal number.
    pub client_no: ClientNo,
    /// Public id.
    pub id: Uuid,
    /// The digits.
    pub phone: Option<i64>,
    /// The operator's code.
    pub operator_code: Option<i16>,
    /// The tag.
    pub tag: Option<String>,
    /// When it was last changed, its deletion included.
    pub updated_at: i64,
}

/// A row of `mailings`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Mailing {
    /// Internal number.
    pub mailing_no: MailingNo,
    /// Public id.
    pub id: Uuid,
    /// What is sent.
    pub text: String,
    /// The filter's codes; empty: any.
    pub operator_codes: Vec<i16>,
    /// The filter's tags; empty: any.
    pub tags: Vec<String>,
    /// Nothing is planned before.
    pub starts_at: i64,
    /// No call begins at or after.
    pub ends_at: i64,
    /// The state's word.
    pub state: String,
    /// The delivery mode's word.
    pub delivery: String,
    /// When planning began.
    pub started_at: Option<i64>,
}

/// A row of `messages`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Row {
    /// Its mailing's number.
    pub mailing_no: MailingNo,
    /// Its client's number.
    pub client_no: ClientNo,
    /// Its client's public id.
    pub client_id: Uuid,
    /// The status's word.
    pub status: String,
    /// The reason's word.
    pub reason: Option<String>,
    /// The round shown.
    pub round: i32,
    /// The highest round that is over.
    pub settled_round: i32,
}

/// A row of `steps`: what a message went through before the status that its row shows.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Step {
    /// Its mailing's number.
    pub mailing_no: MailingNo,
    /// Its client's number.
    pub client_no: ClientNo,
    /// Where the status lies that told of it.
    pub status_partition: i32,
    /// Likewise.
    pub status_offset: i64,
    /// Attempts made by then.
    pub attempt: i32,
}

/// A row of `held`: a message that waits to be planned again.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Held {
    /// Its mailing's number.
    pub mailing_no: MailingNo,
    /// Its client's number.
    pub client_no: ClientNo,
    /// The round that is over.
    pub round: i32,
    /// The reason's word.
    pub reason: String,
}

/// How many rows a counter says that a mailing has in a status.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Count {
    /// The mailing's number.
    pub mailing_no: MailingNo,
    /// The status's word.
    pub status: String,
    /// Rows.
    pub n: i64,
}

/// A row of `mailing_progress`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Mirror {
    /// The mailing's number.
    pub mailing_no: MailingNo,
    /// Clients planned.
    pub planned: i64,
    /// Message events of all rounds.
    pub emitted: i64,
    /// Those of rounds above the first.
    pub again: i64,
    /// All pages are planned.
    pub complete: bool,
}

/// A record of a topic.
#[derive(Clone, Debug)]
pub struct Record<T> {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp. Its producer's clock when it was handed over: never later than its append.
    pub at: i64,
    /// Its key, as text.
    pub key: String,
    /// Its headers, as text.
    pub headers: Vec<(String, String)>,
    /// Whether it is seen read-committed.
    pub visible: bool,
    /// What it says; none for a tombstone and for what can't be decoded.
    pub event: Option<T>,
}

/// A call, as the provider saw it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its head had arrived.
    pub begun_at: i64,
    /// Its fate was decided.
    pub decided_at: i64,
    /// The message id of its path; 0 if that held none.
    pub id: MessageId,
    /// The provider's port that it came to: its sender's own, if each was given one.
    pub sender: Option<u16>,
    /// The recipient; 0 if the body was not read.
    pub phone: i64,
    /// The text, if the body was read.
    pub text: Option<String>,
    /// Whether the provider took the message.
    pub accepted: bool,
    /// Whether a whole answer was handed to the connection.
    pub answered: bool,
    /// The seconds of the answer's `Retry-After`, if it had one.
    pub retry_after: Option<i64>,
    /// The word of the provider's log.
    pub outcome: String,
}

impl Row {
    /// Its message's id.
    pub fn id(&self) -> MessageId {
        MessageId::of(self.mailing_no, self.client_no)
    }
}

impl Step {
    /// Its message's id.
    pub fn id(&self) -> MessageId {
        MessageId::of(self.mailing_no, self.client_no)
    }

    /// Where the status lies that told of it.
    pub fn place(&self) -> StatusPlace {
        StatusPlace { partition: self.status_partition, offset: self.status_offset }
    }
}

impl Held {
    /// Its message's id.
    pub fn id(&self) -> MessageId {
        MessageId::of(self.mailing_no, self.client_no)
    }
}

impl Record<MessageEvent> {
    /// Where it lies.
    pub fn place(&self) -> MessagePlace {
        MessagePlace { partition: self.partition, offset: self.offset }
    }
}

impl Record<StatusEvent> {
    /// Where it lies.
    pub fn place(&self) -> StatusPlace {
        StatusPlace { partition: self.partition, offset: self.offset }
    }
}

impl Call {
    /// Whether it was an attempt: a throttled call costs none.
    pub(crate) fn is_attempt(&self) -> bool {
        !self.outcome.starts_with("throttled_") && self.outcome != "status_429"
    }

    /// Whether the caller can't know what came of it: no answer that can be read and is definite was given.
    pub(crate) fn is_ambiguous(&self) -> bool {
        let definite = ["ok", "outage", "unauthorized", "malformed"].contains(&self.outcome.as_str())
            || self.is_one_of(&["status_3", "status_4", "status_5", "throttled_", "code_"]);
        !self.answered || !definite
    }

    /// Whether it was the provider's definite no to all or to now, rather than to the message.
    pub(crate) fn is_refusal(&self) -> bool {
        let ours = ["status_3", "status_401", "status_402", "status_403", "status_404", "status_405", "status_408"];
        let refused = ["outage", "unauthorized"].contains(&self.outcome.as_str());
        (refused || self.is_one_of(&["status_5", "code_"]) || self.is_one_of(&ours)) && self.answered
    }

    fn is_one_of(&self, kinds: &[&str]) -> bool {
        kinds.iter().any(|kind| self.outcome.starts_with(kind))
    }
}
