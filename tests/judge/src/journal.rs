//! The conductor's journal: what was done to the run, and therefore what it may be excused by.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A line of the journal. Its instant, µs since the epoch, is read just before the thing is done.
///
/// | event | means |
/// |---|---|
/// | `mailing` | the run has this mailing (`id`) |
/// | `kill` | SIGKILL, also by the process's own hand at a `point` of its code; without `reached` it never came there |
/// | `term` | an orderly end was asked for |
/// | `stop`, `cont` | SIGSTOP and SIGCONT |
/// | `start` | it was started (again); `ops` is where, and `port` the provider's that it alone calls, if it is a sender |
/// | `cut`, `heal` | connections to it (its `role`) were cut, and let through again; with the `name` of the one cut off, if not all are |
/// | `slow` | likewise, but something comes through |
/// | `fault` | anything else. Of the role `kafka`: committed offsets were deleted or moved by hand. Of the role `provider`: other fault rules, which the `note` is |
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: i64,
    /// What.
    pub event: String,
    /// To whom: `api`, `scheduler`, `sender`, `projector`, `kafka`, `postgres` or `provider`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Which of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its ops address, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<String>,
    /// The provider's port that no other sender calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The point of the code at which it was to die.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
    /// It came to that point.
    #[serde(default)]
    pub reached: bool,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The mailing's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
}

impl Entry {
    pub(crate) fn is(&self, role: &str, events: &[&str]) -> bool {
        self.role.as_deref() == Some(role) && events.contains(&self.event.as_str())
    }
}
