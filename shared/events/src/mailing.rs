use chrono::{DateTime, Utc};
use domain::delivery::MailingOrder;
use domain::ids::{MailingNo, Version};
use domain::mailing::{Delivery, State};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A mailing as it is since `version`, whole. Of two events readers keep the one with the higher version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailingEvent {
    /// The public id; also the record's key.
    pub mailing_id: Uuid,
    /// The internal number, part of the ids of its messages.
    pub mailing_no: MailingNo,
    /// At least one more than before, and never less than the database clock in µs.
    pub version: Version,
    /// Its state by the caller's word; the scheduler's own steps (`running`, `finished`) make no version.
    pub state: State,
    /// What is sent.
    pub text: String,
    /// Whom it is for.
    pub filter: MailingFilter,
    /// Nothing is planned before.
    pub starts_at: DateTime<Utc>,
    /// No call begins at or after.
    pub ends_at: DateTime<Utc>,
    /// Which risk it takes.
    pub delivery: Delivery,
    /// When this version was written.
    pub occurred_at: DateTime<Utc>,
}

/// The filter's wire form; an empty list means any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailingFilter {
    /// Operator codes, 900–999.
    pub mobile_operator_codes: Vec<i16>,
    /// Tags.
    pub tags: Vec<String>,
}

impl MailingEvent {
    /// The part that senders decide by.
    pub fn order(&self) -> MailingOrder {
        MailingOrder { version: self.version, state: self.state.clone(), ends_at: self.ends_at }
    }
}
