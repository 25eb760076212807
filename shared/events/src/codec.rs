//! JSON in and out, with the size cap.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::topics::Topic;

/// The most bytes an event may have; also what the topics and producers allow. One record over the broker's limit would
/// fail its whole batch (librdkafka#488), so the encoder refuses first.
pub const MAX_EVENT_BYTES: usize = 16 * 1024;

/// A type that travels in one of the topics.
pub trait Event: Serialize + DeserializeOwned {}

impl Event for crate::MailingEvent {}
impl Event for crate::ProgressRecord {}
impl Event for crate::MessageEvent {}
impl Event for crate::StatusEvent {}
impl Event for crate::DeadLetter {}
impl Event for crate::DatabaseRecord {}

/// An event that can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Over [`MAX_EVENT_BYTES`].
    #[error("the event has {0} bytes, more than {MAX_EVENT_BYTES}")]
    TooLarge(usize),
    /// A value JSON can't hold.
    #[error("the event can't be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// A record that Herald did not write.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No payload.
    #[error("the record has no value")]
    Empty,
    /// Not the JSON of the topic's event. The text names the place and the kind of fault, never a value.
    #[error("not the topic's event: {category} at line {line}, column {column}")]
    Json {
        /// `syntax`, `data`, or `eof`.
        category: &'static str,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
}

/// Leaves a number out of an event that has nothing to count.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
pub(crate) fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// Writes an event.
pub fn encode<E: Event>(event: &E) -> Result<Vec<u8>, EncodeError> {
    let bytes = serde_json::to_vec(event)?;
    if bytes.len() > MAX_EVENT_BYTES { Err(EncodeError::TooLarge(bytes.len())) } else { Ok(bytes) }
}

/// Reads an event.
pub fn decode<E: Event>(payload: Option<&[u8]>) -> Result<E, DecodeError> {
    let payload = payload.ok_or(DecodeError::Empty)?;
    serde_json::from_slice(payload).map_err(|error| DecodeError::Json {
        category: match error.classify() {
            serde_json::error::Category::Data => "data",
            serde_json::error::Category::Eof => "eof",
            _ => "syntax",
        },
        line: error.line(),
        column: error.column(),
    })
}

/// Whether a record of the topic is garbage, and why. A tombstone isn't: compacted topics have them.
pub fn garbage(topic: Topic, payload: Option<&[u8]>) -> Option<DecodeError> {
    if payload.is_none() && topic.spec().cleanup == "compact" {
        return None;
    }
    match topic {
        Topic::MailingEvents => decode::<crate::MailingEvent>(payload).err(),
        Topic::PlanningProgress => decode::<crate::ProgressRecord>(payload).err(),
        Topic::MessageEvents => decode::<crate::MessageEvent>(payload).err(),
        Topic::StatusEvents => decode::<crate::StatusEvent>(payload).err(),
        Topic::DeadLetters => decode::<crate::DeadLetter>(payload).err(),
        Topic::Database => decode::<crate::DatabaseRecord>(payload).err(),
    }
}
