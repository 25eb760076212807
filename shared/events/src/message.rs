use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::ids::{MessageId, Version};
use domain::mailing::Delivery;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A planned message: all that a sender needs to call the provider. Its `Debug` shows neither phone nor text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageEvent {
    /// Also the record's key.
    pub message_id: MessageId,
    /// The mailing's public id.
    pub mailing_id: Uuid,
    /// The version under which it was planned; a sender decides nothing before its board holds it.
    pub mailing_version: Version,
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

impl fmt::Debug for MessageEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Field by field: a new one doesn't compile until somebody has decided whether it may be shown.
        let Self {
            message_id,
            mailing_id,
            mailing_version,
            client_id,
            phone,
            text,
            operator_code,
            ends_at,
            window,
            delivery,
            round,
            attempts,
            planned_at,
        } = self;
        f.debug_struct("MessageEvent")
            .field("message_id", message_id)
            .field("mailing_id", mailing_id)
            .field("mailing_version", mailing_version)
            .field("client_id", client_id)
            .field("phone", &phone.map(|_| "…"))
            .field("text", &text.as_ref().map(|_| "…"))
            .field("operator_code", operator_code)
            .field("ends_at", ends_at)
            .field("window", window)
            .field("delivery", delivery)
            .field("round", round)
            .field("attempts", attempts)
            .field("planned_at", planned_at)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_phone_nor_text() {
        let event: MessageEvent = serde_json::from_str(
            r#"{"message_id": "60129542147", "mailing_id": "01900000-0000-7000-8000-000000000001", "mailing_version": 1,
                "client_id": "01900000-0000-7000-8000-000000000002", "phone": 79123456789, "text": "dear reader",
                "operator_code": 912, "ends_at": "2026-05-01T12:00:00Z", "delivery": "at_least_once", "round": 3,
                "planned_at": "2026-05-01T11:00:00Z"}"#,
        )
        .unwrap();
        let shown = format!("{event:?} {event:#?}");
        assert!(!shown.contains("79123456789") && !shown.contains("dear reader"), "{shown}");
        assert!(shown.contains("round: 3"), "{shown}");
    }
}
