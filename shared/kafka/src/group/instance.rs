//! A member that joins as an instance with a name of its own (KIP-345). Nothing else in this crate depends on it.
//!
//! A process that is started again as the same instance gets its partitions back at once. That costs three cares: another
//! process may join as the same instance, which fences this one; a partition may stay without an owner; and the group may
//! give the partitions back without a word after another has owned them, which is why a silent member counts them as lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use events::topics::Topic;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tokio_util::sync::CancellationToken;

use super::membership::{Context, Membership};
use crate::{Cluster, Error, Result};

/// How often an instance that has come back looks whether each partition has an owner.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(2);

/// Looks after partitions without an owner.
///
/// A partition goes from one member to another by two rebalances and has no owner in between; the member that gave it up asks
/// for the second (KIP-429). A member that dies before it has asked, and comes back as the same instance, is given what it
/// had after the first, without a rebalance, and nobody asks for the second.
pub(super) struct Instance {
    partitions: u32,
    rejoin: AtomicBool,
}

impl Instance {
    /// The cluster's instance, if it has a name; `config` is told of it.
    pub(super) fn of(cluster: &Cluster, topic: Topic, config: &mut ClientConfig) -> Option<Self> {
        config.set("group.instance.id", cluster.instance.as_ref()?);
        Some(Self { partitions: cluster.topics.partitions(topic), rejoin: AtomicBool::new(false) })
    }

    /// Whether to leave and join again, so that the group assigns all partitions. Answers yes once.
    pub(super) fn must_rejoin(&self) -> bool {
        self.rejoin.swap(false, Ordering::Relaxed)
    }

    /// Looks until each partition has an owner, which is so at the first look unless this instance came back in the middle of
    /// a rebalance. If one stays without an owner for longer than a rebalance can last, this member must rejoin.
    pub(super) fn look_for_owners(
        &self,
        consumer: &BaseConsumer<Context>,
        context: &Context,
        left: &CancellationToken,
    ) {
        let patience = context.settings.session_timeout * 2;
        let mut since: Option<Instant> = None;
        while !left.is_cancelled() {
            std::thread::park_timeout(LOOK_INTERVAL);
            match self.all_owned(consumer, context) {
                Ok(Some(true)) => return,
                Ok(Some(false)) if since.get_or_insert_with(Instant::now).elapsed() > patience => {
                    tracing::warn!(group = context.group, "a partition has no owner: joining again");
                    self.rejoin.store(true, Ordering::Relaxed);
                    since = None;
                }
                Ok(Some(false)) => {}
                Ok(None) => since = None,
                Err(error) => tracing::debug!(%error, group = context.group, "looking at the group"),
            }
        }
    }

    /// Whether each partition has an owner; none while the group assigns. Blocks.
    fn all_owned(&self, consumer: &BaseConsumer<Context>, context: &Context) -> Result<Option<bool>> {
        let list = consumer.fetch_group_list(Some(&context.group), TIMEOUT)?;
        let Some(group) = list.groups().iter().find(|group| group.state() == "Stable") else {
            return Ok(None);
        };
        let assignments = group.members().iter().filter_map(|member| member.assignment());
        let owned: BTreeSet<i32> =
            assignments.filter_map(|bytes| partitions_of(bytes, &context.topic)).flatten().collect();
        Ok(Some(owned.len() == self.partitions as usize))
    }
}

/// Whether the group knows another process as this instance.
pub(super) fn is_fenced(error: &Error) -> bool {
    let fenced = RDKafkaErrorCode::FencedInstanceId;
    matches!(error, Error::Kafka(KafkaError::MessageConsumptionFatal(code)) if *code == fenced)
}

/// Makes the membership that follows one that was fenced: the partitions are lost, and it joins without a name.
pub(super) fn go_on_without(cluster: &Cluster, fenced: Membership) -> Result<Membership> {
    let context = Arc::clone(fenced.consumer.context());
    drop(fenced);
    context.lose();
    tracing::warn!(
        group = context.group,
        "the group knows another as this instance: it goes on without a state directory. Two processes must not have one, \
         nor a copy of it"
    );
    let mut cluster = cluster.clone();
    cluster.instance = None;
    let (settings, stop, member) = (context.settings.clone(), context.stop.clone(), Arc::clone(&context.member));
    Membership::new(&cluster, settings, &context.metrics, stop, member)
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
