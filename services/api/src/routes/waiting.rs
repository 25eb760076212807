//! What messages wait for.

use chrono::{DateTime, Utc};
use serde::Serialize;
use store::held::HeldSum;
use utoipa::ToSchema;

use super::clients::rfc3339;

/// Messages that wait for the same thing.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(example = json!({"reason": "outage", "messages": 4000, "until": "2026-05-01T12:00:10.000000Z"}))]
pub(crate) struct Waiting {
    /// `paused`, `stopped`, `window`, `throttled`, `outage`, `rate`, `contract`, `configuration`, `stale`.
    reason: String,
    /// How many.
    messages: i64,
    /// The first of them is planned again no earlier. Null: that has no time, somebody must resume.
    #[schema(format = DateTime)]
    until: Option<String>,
}

impl From<HeldSum> for Waiting {
    fn from(sum: HeldSum) -> Self {
        Self {
            until: until(Some(sum.reason.as_str()), sum.earliest),
            reason: sum.reason.into(),
            messages: sum.messages,
        }
    }
}

/// Until when somebody waits who isn't due before `not_before`.
pub(super) fn until(reason: Option<&str>, not_before: Option<DateTime<Utc>>) -> Option<String> {
    // What waits for people has the moment at which it was held.
    not_before.filter(|_| !matches!(reason, Some("paused" | "stopped"))).map(rfc3339)
}
