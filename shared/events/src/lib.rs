//! What travels in Kafka: the topics, the event types and their JSON.
//!
//! Readers ignore unknown fields and keep unknown words (see `domain::status`), so the older of two versions understands
//! the newer. Each wire form is pinned by a golden example under `kafka/examples/`.

mod codec;
mod dead_letter;
mod mailing;
mod mark;
mod message;
mod progress;
mod status;
pub mod topics;

pub use codec::{DecodeError, EncodeError, Event, MAX_EVENT_BYTES, decode, encode, garbage};
pub use dead_letter::DeadLetter;
pub use mailing::{MailingEvent, MailingFilter};
pub use mark::DatabaseRecord;
pub use message::{LocalWindow, MessageEvent};
pub use progress::{HeldPlace, Pass, ProgressRecord};
pub use status::{Kind, Source, StatusEvent, mask_detail};
