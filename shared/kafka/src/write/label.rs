//! What transactional records say of their transaction, for the case that the broker forgets it.

use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use uuid::Uuid;

const HEADER: &str = "transaction";
const ID: usize = size_of::<Uuid>();
const COUNT: usize = size_of::<u32>();

/// On a transaction's first and last record in each partition: its id, how many of these there are, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) id: Uuid,
    pub(super) records: u32,
    pub(super) producer: String,
}

/// On each record that only ends what hangs: whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    pub(super) producer: String,
}

impl Label {
    pub(super) fn header(&self) -> Vec<u8> {
        [self.id.as_bytes().as_slice(), &self.records.to_be_bytes(), self.producer.as_bytes()].concat()
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (id, rest) = value.split_at_checked(ID)?;
        let (records, producer) = rest.split_at_checked(COUNT)?;
        Some(Self {
            id: Uuid::from_slice(id).ok()?,
            records: u32::from_be_bytes(records.try_into().ok()?),
            producer: String::from_utf8(producer.to_vec()).ok()?,
        })
    }

    pub(super) fn of(message: &BorrowedMessage<'_>) -> Option<Self> {
        if is_closing(message) { None } else { Self::parse(value(message)?) }
    }
}

impl Closing {
    /// Such a record has no value.
    pub(super) const KEY: &str = "closing";

    pub(super) fn header(&self) -> Vec<u8> {
        self.producer.clone().into_bytes()
    }

    fn parse(value: &[u8]) -> Option<Self> {
        Some(Self { producer: String::from_utf8(value.to_vec()).ok()? })
    }

    pub(super) fn of(message: &BorrowedMessage<'_>) -> Option<Self> {
        if is_closing(message) { Self::parse(value(message)?) } else { None }
    }
}

/// Whether the record says nothing. Its reader passes it by.
pub(crate) fn is_closing(message: &BorrowedMessage<'_>) -> bool {
    message.payload().is_none() && message.key() == Some(Closing::KEY.as_bytes())
}

pub(super) fn headers(value: &[u8]) -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(1).insert(Header { key: HEADER, value: Some(value) })
}

fn value<'a>(message: &'a BorrowedMessage<'_>) -> Option<&'a [u8]> {
    message.headers()?.iter().find(|header| header.key == HEADER)?.value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_header_says_is_read_back_and_anything_else_says_nothing() {
        let label = Label { id: Uuid::now_v7(), records: 70_000, producer: "herald.planner-3".to_owned() };
        assert_eq!(Label::parse(&label.header()), Some(label));
        let closing = Closing { producer: "herald.relay".to_owned() };
        assert_eq!(Closing::parse(&closing.header()), Some(closing));
        assert_eq!((Label::parse(b""), Label::parse(&[7; ID + COUNT - 1]), Closing::parse(&[255])), (None, None, None));
    }
}
