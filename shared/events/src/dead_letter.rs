use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A record that a reader could not take, by its coordinates. The record itself stays where it is until its topic's
/// retention: it may hold personal data, which a dead letter does not repeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The topic as named in Kafka.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Who could not take it: `scheduler`, `sender`, `projector`.
    pub reader: String,
    /// Why, without any value of the record.
    pub reason: String,
    /// By the reader's clock.
    pub occurred_at: DateTime<Utc>,
}
