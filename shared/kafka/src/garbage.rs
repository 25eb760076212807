//! Records that a member can't decode: held, reviewed, and passed as dead letters or not at all.

mod dead_letters;
mod quarantine;
mod reviewer;
mod skips;

pub use dead_letters::DeadLetters;
pub(crate) use quarantine::Quarantine;
pub(crate) use reviewer::Reviewer;
pub use skips::Skips;
