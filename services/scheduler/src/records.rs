//! What becomes of clients, encoded before its transaction is opened.

use domain::ids::MessageId;
use events::topics::{Topic, Topics};
use events::{EncodeError, Event, MessageEvent, ProgressRecord, StatusEvent, encode};
use kafka::Outgoing;

/// A transaction stays small in bytes too, because an open one holds up every reader.
pub(crate) const MAX_BYTES: usize = 2 * 1024 * 1024;

/// Message events and statuses of one transaction.
#[derive(Default)]
pub(crate) struct Records {
    messages: Vec<Encoded>,
    statuses: Vec<Encoded>,
    bytes: usize,
}

struct Encoded {
    id: MessageId,
    payload: Vec<u8>,
}

impl Records {
    pub(crate) fn plan(&mut self, event: &MessageEvent) -> Result<(), EncodeError> {
        let encoded = self.encode(event.message_id, event)?;
        self.messages.push(encoded);
        Ok(())
    }

    pub(crate) fn settle(&mut self, event: &StatusEvent) -> Result<(), EncodeError> {
        let encoded = self.encode(event.message_id, event)?;
        self.statuses.push(encoded);
        Ok(())
    }

    fn encode<E: Event>(&mut self, id: MessageId, event: &E) -> Result<Encoded, EncodeError> {
        let payload = encode(event)?;
        self.bytes += payload.len();
        Ok(Encoded { id, payload })
    }

    /// How many message events there are.
    pub(crate) fn planned(&self) -> u64 {
        self.messages.len() as u64
    }

    /// How many statuses there are.
    pub(crate) fn settled(&self) -> u64 {
        self.statuses.len() as u64
    }

    /// Clients in all.
    pub(crate) fn clients(&self) -> u64 {
        self.planned() + self.settled()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= MAX_BYTES
    }

    /// The records of the transaction, the progress last.
    pub(crate) fn outgoing<'a>(
        self,
        topics: &Topics,
        names: &'a Names,
        progress: Outgoing<'a>,
    ) -> impl Iterator<Item = Outgoing<'a>> {
        let partitions = topics.partitions(Topic::MessageEvents);
        let to = move |topic: &'a str| {
            move |Encoded { id, payload }| Outgoing {
                topic,
                partition: id.client_no().partition(partitions),
                key: id.to_string(),
                payload,
            }
        };
        let messages = self.messages.into_iter().map(to(&names.messages));
        messages.chain(self.statuses.into_iter().map(to(&names.statuses))).chain([progress])
    }
}

/// The names of the topics that a planner writes to.
pub(crate) struct Names {
    pub(crate) messages: String,
    pub(crate) statuses: String,
    pub(crate) progress: String,
}

impl Names {
    pub(crate) fn new(topics: &Topics) -> Self {
        Self {
            messages: topics.name(Topic::MessageEvents),
            statuses: topics.name(Topic::StatusEvents),
            progress: topics.name(Topic::PlanningProgress),
        }
    }
}

/// The progress record of a shard.
pub(crate) fn progress_record<'a>(
    topic: &'a str,
    shard: i32,
    progress: &ProgressRecord,
) -> Result<Outgoing<'a>, EncodeError> {
    Ok(Outgoing { topic, partition: shard, key: progress.mailing_id.to_string(), payload: encode(progress)? })
}
