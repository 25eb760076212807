//! The events as they are on the wire, as far as the judge looks at them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use crate::ids::{MailingNo, MessageId, MessagePlace};

/// A record of mailing-events.
#[derive(Clone, Debug, Deserialize)]
pub struct MailingEvent {
    /// Public id.
    pub mailing_id: Uuid,
    /// Internal number.
    pub mailing_no: MailingNo,
    /// Rises with each change.
    pub version: i64,
    /// The state's word.
    pub state: String,
    /// No call begins at or after.
    pub ends_at: DateTime<Utc>,
}

/// A record of planning-progress.
#[derive(Clone, Debug, Deserialize)]
pub struct ProgressEvent {
    /// Public id.
    pub mailing_id: Uuid,
    /// Internal number.
    pub mailing_no: MailingNo,
    /// Clients above are not in the audience.
    pub audience_max: i64,
    /// Clients up to this one are planned.
    pub cursor: i64,
    /// All pages are planned.
    pub complete: bool,
    /// Clients planned.
    pub planned: i64,
    /// Message events of all rounds.
    pub emitted: i64,
    /// Those of rounds above the first.
    pub again: Option<i64>,
    /// The walk over rows under way.
    pub pass: Option<serde_json::Value>,
}

/// A record of message-events.
#[derive(Clone, Debug, Deserialize)]
pub struct MessageEvent {
    /// The message's id.
    #[serde(deserialize_with = "decimal")]
    pub message_id: MessageId,
    /// The mailing's public id.
    pub mailing_id: Uuid,
    /// The client's public id.
    pub client_id: Uuid,
    /// The recipient; none for an erased client.
    pub phone: Option<i64>,
    /// What is said; none for an erased client.
    pub text: Option<String>,
    /// The operator's code.
    pub operator_code: i16,
    /// When the client may be called, in local time's sense.
    pub window: Option<Window>,
    /// From 1.
    pub round: i32,
    /// Attempts of the rounds before.
    pub attempts: Option<i32>,
    /// When its page was read.
    pub planned_at: Option<DateTime<Utc>>,
}

/// A local window, as two instants.
#[derive(Clone, Debug, Deserialize)]
pub struct Window {
    /// No call begins before.
    pub opens_at: DateTime<Utc>,
    /// No call begins at or after.
    pub closes_at: DateTime<Utc>,
}

/// A record of status-events.
#[derive(Clone, Debug, Deserialize)]
pub struct StatusEvent {
    /// The message's id.
    #[serde(deserialize_with = "decimal")]
    pub message_id: MessageId,
    /// The mailing's public id.
    pub mailing_id: Uuid,
    /// The client's public id.
    pub client_id: Uuid,
    /// The round of the message's record.
    pub round: i32,
    /// Calls made so far.
    pub attempt: i32,
    /// Calls of an `at_most_once` message that were announced so far.
    #[serde(default)]
    pub announced: i32,
    /// `started`, `open` or `settled`.
    pub kind: String,
    /// The status's word.
    pub status: String,
    /// The reason's word.
    pub reason: Option<String>,
    /// For people.
    pub detail: Option<String>,
    /// The next attempt or round begins no earlier.
    pub not_before: Option<DateTime<Utc>>,
    /// Where the message's record lies.
    pub source: MessagePlace,
}

fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MessageId, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(MessageId).map_err(serde::de::Error::custom)
}

impl StatusEvent {
    /// The round is over for the message.
    pub fn settles(&self) -> bool {
        self.kind == "settled"
    }

    /// The message's reason in one word.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The message has no record in message-events: the planner settled it.
    pub fn has_no_record(&self) -> bool {
        self.source.offset < 0
    }

    /// It tells what came of a call, rather than of a message that settled or waits without one.
    pub fn tells_of_answer(&self) -> bool {
        match self.status.as_str() {
            "succeeded" | "retrying" => true,
            "failed" => matches!(self.reason(), Some("rejected" | "exhausted")),
            "unknown" => self.reason() != Some("sender_lost"),
            _ => false,
        }
    }

    /// The table of steps shows it.
    pub fn is_step(&self) -> bool {
        let by_answer = matches!(self.reason(), Some("rejected" | "exhausted"));
        matches!(self.status.as_str(), "retrying" | "held") || (self.status == "failed" && by_answer)
    }
}

/// Nothing more happens to a message with this status by itself. An unknown word counts: only such are ever added.
pub fn is_terminal(status: &str) -> bool {
    !matches!(status, "created" | "retrying" | "held")
}
