//! What is kept and logged about one call.

use std::fmt;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

/// One `POST /v1/send/{msgId}`, as it ended.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// When the request's head had arrived, µs since the epoch.
    pub begun_at: i64,
    /// When the fate was decided, µs since the epoch: before the latency, after the wait for the rate. For a client
    /// that left before that, when it left.
    pub decided_at: i64,
    /// The message id of the path; 0 when the path holds no positive int64.
    pub id: i64,
    /// The how-manieth call for this id, from 1.
    pub call: u32,
    /// The port that it came to: its sender's own, when each sender was given one.
    pub sender: u16,
    /// The recipient; 0 when the body was not read.
    pub phone: i64,
    /// The number of the text, which the log gives in a line of its own; none without a log or a readable body.
    pub text_no: Option<u32>,
    /// Whether the provider took the message. Decided here and by nothing the client does afterwards.
    pub accepted: bool,
    /// Whether a whole answer was handed to the connection. The client may still have missed it.
    pub answered: bool,
    /// What `Retry-After` the answer bears, s.
    pub retry_after: Option<u32>,
    /// What became of the call.
    pub outcome: Outcome,
}

/// What became of a call; shown and serialized as the name in each comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// `ok`: taken, and the answer says so in some dress.
    Ok,
    /// `status_500`: this status, injected.
    Status(u16),
    /// `throttled_429`: this status with `Retry-After`.
    Throttled(u16),
    /// `code_1`: 200 with this code in the body.
    Code(i32),
    /// `garbage`: a 2xx that doesn't say whether the message was taken.
    Garbage,
    /// `hang`: not answered until the client gave up.
    Hang,
    /// `reset_before`: connection reset before the answer's end, message not taken.
    ResetBefore,
    /// `reset_after`: connection reset before the answer's end, message taken.
    ResetAfter,
    /// `outage`: 503.
    Outage,
    /// `unauthorized`: 401, no or another bearer token.
    Unauthorized,
    /// `malformed`: 400, path or body break the contract.
    Malformed,
    /// `cut_short`: the body didn't come whole, or was too long.
    CutShort,
    /// `gone`: the client gave up while its call waited for the rate.
    Gone,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Status(status) => write!(f, "status_{status}"),
            Self::Throttled(status) => write!(f, "throttled_{status}"),
            Self::Code(code) => write!(f, "code_{code}"),
            Self::Garbage => f.write_str("garbage"),
            Self::Hang => f.write_str("hang"),
            Self::ResetBefore => f.write_str("reset_before"),
            Self::ResetAfter => f.write_str("reset_after"),
            Self::Outage => f.write_str("outage"),
            Self::Unauthorized => f.write_str("unauthorized"),
            Self::Malformed => f.write_str("malformed"),
            Self::CutShort => f.write_str("cut_short"),
            Self::Gone => f.write_str("gone"),
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Wall clock, µs since the epoch.
pub(crate) fn now_us() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}
