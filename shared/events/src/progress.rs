use chrono::{DateTime, Utc};
use domain::ids::{ClientNo, MailingNo};
use domain::planning::{PassProgress, Progress};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How far a mailing is planned, written in the transaction of the page it tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressRecord {
    /// Also the record's key. A number's progress under another id belongs to a mailing that a restore has undone.
    pub mailing_id: Uuid,
    /// The internal number.
    pub mailing_no: MailingNo,
    /// Clients above this number are not in the audience.
    pub audience_max: ClientNo,
    /// Clients up to this number are planned.
    pub cursor: ClientNo,
    /// All pages are planned.
    pub complete: bool,
    /// Clients planned.
    pub planned: i64,
    /// Rounds begun: message events, and what the planner settled without one.
    pub emitted: i64,
    /// Those of them that are second rounds or later.
    #[serde(default)]
    pub again: i64,
    /// The last pass; absent: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<Pass>,
}

/// A walk over the held messages of a mailing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// From 1, one more each pass of the mailing.
    pub seq: i64,
    /// When it began. Messages whose `not_before` is later stay held.
    pub due_before: DateTime<Utc>,
    /// The last message that it walked over; absent: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<HeldPlace>,
    /// The walk is over.
    pub done: bool,
}

/// A held message's place in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPlace {
    /// A pass goes by this, …
    pub not_before: DateTime<Utc>,
    /// … and then by the client's number.
    pub client_no: ClientNo,
}

impl ProgressRecord {
    /// The part that planning decides by.
    pub fn progress(&self) -> Progress {
        Progress {
            audience_max: self.audience_max,
            cursor: self.cursor,
            complete: self.complete,
            planned: self.planned,
            emitted: self.emitted,
            again: self.again,
            pass: self.pass.as_ref().map(|pass| PassProgress { began_at: pass.due_before, done: pass.done }),
        }
    }
}
