use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::ids::MessageId;
use domain::mailing::Delivery;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A planned message: all that a sender needs to call the provider. It holds personal data; its `Debug` is never logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageEvent {
    /// Also the record's key.
    pub message_id: MessageId,
    /// The mailing's public id.
    pub mailing_id: Uuid,
    /// The version under which it was planned; a sender decides nothing before its board holds it.
    pub mailing_version: i64,
    /// The client's public id.
    pub client_id: Uuid,
    /// Absent: the client was erased since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<i64>,
    /// Absent with the phone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Arc<str>>,
    /// The client's operator code, 900–999.
    pub operator_code: i16,
    /// The mailing's end when it was planned; the board's counts.
    pub ends_at: DateTime<Utc>,
    /// When the client may be written to, by its own clock; absent: at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<LocalWindow>,
    /// Which risk its mailing takes.
    pub delivery: Delivery,
    /// 1, and one more each time a pass plans it again.
    pub round: i32,
    /// Calls made in earlier rounds.
    #[serde(default, skip_serializing_if = "crate::codec::is_zero")]
    pub attempts: i32,
    /// When its page was read.
    pub planned_at: DateTime<Utc>,
}

/// A local window, as instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalWindow {
    /// No call before.
    pub opens_at: DateTime<Utc>,
    /// No call at or after.
    pub closes_at: DateTime<Utc>,
}
