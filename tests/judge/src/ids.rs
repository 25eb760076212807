//! Numbers and places that must not be mixed up. On the wire each is an integer like any other.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;

/// Bits of a message id that hold the client's number.
const CLIENT_BITS: u32 = 33;

/// A mailing's internal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, sqlx::Type)]
#[sqlx(transparent)]
pub struct MailingNo(pub i64);

/// A client's internal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, sqlx::Type)]
#[sqlx(transparent)]
pub struct ClientNo(pub i64);

/// A message's id: its mailing's and its client's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct MessageId(pub i64);

/// A place in message-events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct MessagePlace {
    /// The partition.
    pub partition: i32,
    /// The offset; negative in a status whose message has no record.
    pub offset: i64,
}

/// A place in status-events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusPlace {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl MessageId {
    /// The id of a mailing's message for a client.
    pub fn of(mailing: MailingNo, client: ClientNo) -> Self {
        Self(mailing.0 << CLIENT_BITS | client.0)
    }

    /// Its mailing.
    pub fn mailing(self) -> MailingNo {
        MailingNo(self.0 >> CLIENT_BITS)
    }

    /// Its client.
    pub fn client(self) -> ClientNo {
        ClientNo(self.0 & ((1 << CLIENT_BITS) - 1))
    }

    /// All ids of a mailing.
    pub(crate) fn all_of(mailing: MailingNo) -> Range<Self> {
        Self(mailing.0 << CLIENT_BITS)..Self((mailing.0 + 1) << CLIENT_BITS)
    }
}

impl fmt::Display for MailingNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ClientNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
