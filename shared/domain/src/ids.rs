//! Numbers that identify clients, mailings and messages, and the partitions they go to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Defines a number that does nothing but identify: none is taken for another.
macro_rules! number {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// The number as tables and topics hold it.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl From<$inner> for $name {
            fn from(number: $inner) -> Self {
                Self(number)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A mailing's internal number, 1 to 2^30 − 1. The default, 0, is below every mailing.
    MailingNo(i64)
}
number! {
    /// A client's internal number, 1 to 2^33 − 1. The default, 0, is below every client: a walk begins there.
    ClientNo(i64)
}
number! {
    /// A partition of mailing-events, and all mailings in it.
    Shard(i32)
}
number! {
    /// A mailing's version: at least one more than the one before, and never less than the database clock in µs.
    Version(i64)
}

impl MailingNo {
    /// The shard in which the mailing is planned.
    pub fn shard(self, shards: u32) -> Shard {
        Shard(partition(self.0, shards))
    }
}

impl ClientNo {
    /// The partition of message-events, and of status-events, in which all records of the client's messages meet.
    pub fn partition(self, partitions: u32) -> i32 {
        partition(self.0, partitions)
    }
}

const CLIENT_BITS: u32 = 33;
const MAX_CLIENT_NO: i64 = (1 << CLIENT_BITS) - 1;
const MAX_MAILING_NO: i64 = (1 << 30) - 1;

/// A message's id: `mailing_no << 33 | client_no`, a positive 64-bit integer as the provider's contract asks.
///
/// Nothing allocates it: the same mailing and client always give the same id. In JSON of ours it is a decimal
/// string, for it passes 2^53 at mailing 1,048,576.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(i64);

/// A number that is outside its range, or text that is not such a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a message id")]
pub struct InvalidMessageId;

impl MessageId {
    /// Packs two numbers that the tables' checks keep in range (`client_no` < 2^33, `mailing_no` < 2^30, both positive).
    pub fn new(mailing_no: MailingNo, client_no: ClientNo) -> Result<Self, InvalidMessageId> {
        let in_range = (1..=MAX_MAILING_NO).contains(&mailing_no.0) && (1..=MAX_CLIENT_NO).contains(&client_no.0);
        in_range.then_some(Self(mailing_no.0 << CLIENT_BITS | client_no.0)).ok_or(InvalidMessageId)
    }

    /// The mailing's internal number.
    pub fn mailing_no(self) -> MailingNo {
        MailingNo(self.0 >> CLIENT_BITS)
    }

    /// The client's internal number.
    pub fn client_no(self) -> ClientNo {
        ClientNo(self.0 & MAX_CLIENT_NO)
    }

    /// The id as the provider reads it.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for MessageId {
    type Error = InvalidMessageId;

    fn try_from(id: i64) -> Result<Self, InvalidMessageId> {
        Self::new(MailingNo(id >> CLIENT_BITS), ClientNo(id & MAX_CLIENT_NO))
    }
}

impl FromStr for MessageId {
    type Err = InvalidMessageId;

    fn from_str(text: &str) -> Result<Self, InvalidMessageId> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidMessageId);
        }
        text.parse::<i64>().map_err(|_| InvalidMessageId)?.try_into()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.mailing_no(), self.client_no())
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Numbers of one filter are often evenly spaced; mixing first keeps them from piling up on a few partitions.
fn partition(number: i64, partitions: u32) -> i32 {
    (mix64(number.cast_unsigned()) % u64::from(partitions)).cast_signed() as i32
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). Frozen:
/// a message's records must meet in one partition for as long as topics are kept.
fn mix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_message_id_gives_back_its_two_numbers(mailing_no in 1..=MAX_MAILING_NO, client_no in 1..=MAX_CLIENT_NO) {
            let (mailing_no, client_no) = (MailingNo(mailing_no), ClientNo(client_no));
            let id = MessageId::new(mailing_no, client_no).unwrap();
            prop_assert!(id.get() > 0);
            prop_assert_eq!((id.mailing_no(), id.client_no()), (mailing_no, client_no));
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for (mailing_no, client_no) in [(0, 1), (1, 0), (-1, 1), (MAX_MAILING_NO + 1, 1), (1, MAX_CLIENT_NO + 1)] {
            assert_eq!(MessageId::new(MailingNo(mailing_no), ClientNo(client_no)), Err(InvalidMessageId));
        }
        for text in ["", "abc", "-5", "+8589934593", "99999999999999999999", "7"] {
            assert_eq!(text.parse::<MessageId>(), Err(InvalidMessageId), "{text:?}");
        }
    }

    #[test]
    fn the_partition_of_a_number_never_changes() {
        let partitions: Vec<i32> = (1..=8).map(|client_no| ClientNo(client_no).partition(12)).collect();
        assert_eq!(partitions, [1, 10, 8, 8, 0, 4, 4, 4]);
    }

    #[test]
    fn evenly_spaced_numbers_spread_over_all_partitions() {
        for step in [1, 2, 12, 1000, 4096] {
            let mut sizes = [0; 12];
            for i in 1..=12_000 {
                sizes[partition(i * step, 12) as usize] += 1;
            }
            assert!(sizes.iter().all(|size| (800..1200).contains(size)), "step {step}: {sizes:?}");
        }
    }
}
