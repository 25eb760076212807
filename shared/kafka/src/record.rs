use rdkafka::Message;
use rdkafka::message::BorrowedMessage;

/// A record as read, detached from librdkafka's fetch buffer.
#[derive(Clone, Debug)]
pub struct Record {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// When it was produced, ms since the epoch, by the producer's clock.
    pub timestamp_ms: i64,
    /// The value.
    pub payload: Option<Vec<u8>>,
}

impl Record {
    pub(crate) fn detach(message: &BorrowedMessage<'_>) -> Self {
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            payload: message.payload().map(<[u8]>::to_vec),
        }
    }
}

/// A record to write.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// The topic's name in Kafka.
    pub topic: &'a str,
    /// Set by us, never by the partitioner: a message's records must meet in one partition.
    pub partition: i32,
    /// The key.
    pub key: String,
    /// The value.
    pub payload: Vec<u8>,
}
