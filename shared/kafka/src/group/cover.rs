//! Whether each partition of a topic has an owner in the group.
//!
//! A partition goes from one member to another by two rebalances, and between them it is nobody's; the second is asked for by who
//! gave it up (KIP-429). A member that dies before it has asked, and comes back as the same instance, is given what it had
//! after the first, without a rebalance (KIP-345), and nobody asks for the second.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

use crate::Result;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Whether each of so many partitions has an owner; none while the group assigns. Blocks.
pub(super) fn is_covered<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    group: &str,
    topic: &str,
    partitions: u32,
) -> Result<Option<bool>> {
    let list = consumer.fetch_group_list(Some(group), TIMEOUT)?;
    let Some(group) = list.groups().iter().find(|group| group.state() == "Stable") else {
        return Ok(None);
    };
    let assignments = group.members().iter().filter_map(|member| member.assignment());
    let owned: BTreeSet<i32> = assignments.filter_map(|bytes| partitions_of(bytes, topic)).flatten().collect();
    Ok(Some(owned.len() == partitions as usize))
}

/// The topic's partitions in a member's assignment. Kafka's ConsumerProtocolAssignment, which each version begins like this: int16
/// version, and an array of topics, each a string and an array of int32.
fn partitions_of(assignment: &[u8], topic: &str) -> Option<Vec<i32>> {
    let mut rest = assignment;
    let mut partitions = Vec::new();
    let _version: [u8; 2] = take(&mut rest)?;
    for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, behind) = rest.split_at_checked(length)?;
        rest = behind;
        for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
            let partition = i32::from_be_bytes(take(&mut rest)?);
            if name == topic.as_bytes() {
                partitions.push(partition);
            }
        }
    }
    Some(partitions)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_up_to_what_only_other_versions_have() {
        let bytes =
            b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\x03\0\0\0\x07\0\x02bc\0\0\0\x01\0\0\0\x05\xff\xff\xff\xff";
        assert_eq!(partitions_of(bytes, "a"), Some(vec![3, 7]));
        assert_eq!(partitions_of(bytes, "bc"), Some(vec![5]));
        assert_eq!(partitions_of(bytes, "b"), Some(vec![]));
        assert_eq!(partitions_of(&bytes[..20], "a"), None);
        assert_eq!(partitions_of(b"", "a"), None);
    }
}
