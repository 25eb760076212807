//! The ways to go wrong, and what each makes of a call.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, RetryAfter};
use crate::call::Outcome;

/// One way to go wrong. Only `reset_after` and an `answer` that says so accept the message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// This status, 300 to 599; a redirect points to the same address.
    Status(u16),
    /// A status with `Retry-After`: `{"status": 429, "seconds": 2}`, or another [`RetryAfter`].
    RetryAfter {
        /// 429 or 503.
        status: u16,
        /// The header's value.
        #[serde(flatten)]
        value: RetryAfter,
    },
    /// 200 with this `code`, which isn't 0.
    Code(i32),
    /// 200 with a body that is no JSON.
    Garbage,
    /// No answer until the client gives up.
    Hang,
    /// The message is accepted, then the connection is reset without an answer.
    ResetAfter,
    /// The connection is reset, the message is not accepted.
    ResetBefore,
    /// 503 without `Retry-After`.
    Outage,
    /// Any answer, put together by the rule.
    Answer(Answer),
}

impl Fault {
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Status(status) if !(300..600).contains(status) => {
                Err(format!("status {status} is not within 300..=599"))
            }
            Self::RetryAfter { status, .. } if *status != 429 && *status != 503 => {
                Err(format!("retry_after goes with 429 or 503, not {status}"))
            }
            Self::RetryAfter { value, .. } => value.check(),
            Self::Code(0) => Err("code 0 is success, not a fault".to_owned()),
            Self::Answer(answer) => answer.check(),
            _ => Ok(()),
        }
    }

    pub(crate) fn accepts(&self) -> bool {
        match self {
            Self::ResetAfter => true,
            Self::Answer(answer) => answer.accepts(),
            _ => false,
        }
    }

    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Status(status) => Outcome::Status(*status),
            Self::RetryAfter { status, .. } => Outcome::Throttled(*status),
            Self::Code(code) => Outcome::Code(*code),
            Self::Garbage => Outcome::Garbage,
            Self::Hang => Outcome::Hang,
            Self::ResetAfter => Outcome::ResetAfter,
            Self::ResetBefore => Outcome::ResetBefore,
            Self::Outage => Outcome::Outage,
            Self::Answer(answer) => answer.outcome(),
        }
    }

    /// How long the answer tells the client to wait, s.
    pub(crate) fn told(&self) -> Option<u32> {
        match self {
            Self::RetryAfter { value, .. } => value.told(),
            Self::Answer(answer) => answer.retry_after.as_ref()?.told(),
            _ => None,
        }
    }

    /// The answer that the client gets, of the call for `id`; none if the connection is left open or reset.
    pub(crate) fn answer(self, id: i64) -> Option<Answer> {
        match self {
            Self::Status(status) => {
                let mut answer = Answer { status, ..Answer::default() };
                if (300..400).contains(&status) {
                    answer.headers.insert("location".to_owned(), format!("/v1/send/{id}"));
                }
                Some(answer)
            }
            Self::RetryAfter { status, value } => {
                Some(Answer { status, retry_after: Some(value), ..Answer::default() })
            }
            Self::Code(code) => {
                Some(Answer { body: Some(format!(r#"{{"code":{code},"message":"Error"}}"#)), ..Answer::default() })
            }
            Self::Garbage => Some(Answer { body: Some("<html>all is well".to_owned()), ..Answer::default() }),
            Self::Outage => Some(Answer { status: StatusCode::SERVICE_UNAVAILABLE.as_u16(), ..Answer::default() }),
            Self::Answer(answer) => Some(answer),
            Self::Hang | Self::ResetAfter | Self::ResetBefore => None,
        }
    }
}
