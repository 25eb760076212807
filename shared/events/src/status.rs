use chrono::{DateTime, Utc};
use domain::ids::MessageId;
use domain::status::{Reason, Standing, Status};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Something that happened to a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusEvent {
    /// Also the record's key.
    pub message_id: MessageId,
    /// The mailing's public id; one that isn't this number's is dead-lettered by the projector.
    pub mailing_id: Uuid,
    /// The client's public id.
    pub client_id: Uuid,
    /// The round of the message record.
    pub round: i32,
    /// Calls made so far, the throttled ones not counted; of a `started` the one that is about to begin.
    pub attempt: i32,
    /// How many calls of an `at_most_once` message were announced so far. An answer or a take-back clears the doubt of an
    /// announcement up to its own number, so a copy that arrives late clears no later one.
    #[serde(default, skip_serializing_if = "crate::codec::is_zero")]
    pub announced: i32,
    /// Whether the message is settled by this.
    pub kind: Kind,
    /// The message's status now.
    pub status: Status,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The provider's HTTP status, of the attempt that led here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// How long that attempt took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<i32>,
    /// The next attempt (retrying) or round (held) begins no earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<DateTime<Utc>>,
    /// The client's operator code, 900–999: which lane a held message waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_code: Option<i16>,
    /// For people, see [`mask_detail`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The message record's.
    pub planned_at: DateTime<Utc>,
    /// By the sender's clock.
    pub occurred_at: DateTime<Utc>,
    /// Where the message record lies; a sender that takes the partition over matches by it.
    pub source: Source,
}

/// What a status event is to recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A call is about to begin, of an `at_most_once` mailing. Nothing of the message has changed yet: its status is
    /// `created`, and readers that only want to know what became of it pass this by.
    Started,
    /// The message stays open. With the status `created` it takes a `started` back: the call was not made.
    Open,
    /// Its round is over.
    Settled,
}

/// Coordinates in message-events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The partition; the status lies in the same one of status-events.
    pub partition: i32,
    /// The offset; -1: the record is lost, and `herald replan` has settled its message.
    pub offset: i64,
}

impl StatusEvent {
    /// What decides whether it is shown.
    pub fn standing(&self) -> Standing {
        Standing { round: self.round, status: self.status.clone(), attempt: self.attempt, not_before: self.not_before }
    }

    /// Whether it tells of an attempt that failed, rather than of a message that settled without one.
    pub fn tells_of_failed_attempt(&self) -> bool {
        self.status == Status::Retrying
            || (self.status == Status::Failed && matches!(self.reason, Some(Reason::Rejected | Reason::Exhausted)))
    }
}

/// Makes a text of the provider's or of a library fit for a status event: at most 200 characters, and runs of four or
/// more digits, which may be part of a phone number, as `#`.
pub fn mask_detail(detail: &str) -> String {
    let mut masked = String::new();
    let mut digits = String::new();
    for character in detail.chars().take(200).chain(['\n']) {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        masked.push_str(if digits.len() < 4 { &digits } else { "#" });
        digits.clear();
        masked.push(if character.is_control() { ' ' } else { character });
    }
    masked.trim_end().to_owned()
}
