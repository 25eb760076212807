//! The topics, from `kafka/topics.toml`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// One of Herald's topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Mailings, whole, by version.
    MailingEvents,
    /// How far each mailing is planned.
    PlanningProgress,
    /// Planned messages.
    MessageEvents,
    /// What happened to them.
    StatusEvents,
    /// Records that could not be taken.
    DeadLetters,
    /// Which Postgres all this belongs to.
    Database,
}

/// A topic's entry in the list.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The `.vN` of its name.
    pub version: u32,
    /// What its records are keyed by, for people.
    pub key: String,
    /// Fixed for the topic's life.
    pub partitions: u32,
    /// `compact` or `delete`.
    pub cleanup: String,
    /// How long records are kept.
    pub retention_hours: Option<u64>,
    /// How long a segment is written to.
    pub segment_hours: Option<u64>,
    /// How long a record is safe from compaction.
    pub compaction_lag_hours: Option<u64>,
}

static SPECS: LazyLock<BTreeMap<String, Spec>> = LazyLock::new(|| {
    toml::from_str(include_str!("../../../kafka/topics.toml")).expect("kafka/topics.toml is checked by a test")
});

impl Topic {
    /// All of them, in the order of the list.
    pub const ALL: [Self; 6] = [
        Self::MailingEvents,
        Self::PlanningProgress,
        Self::MessageEvents,
        Self::StatusEvents,
        Self::DeadLetters,
        Self::Database,
    ];

    /// Its name without prefix and version.
    pub fn base(self) -> &'static str {
        match self {
            Self::MailingEvents => "mailing-events",
            Self::PlanningProgress => "planning-progress",
            Self::MessageEvents => "message-events",
            Self::StatusEvents => "status-events",
            Self::DeadLetters => "dead-letters",
            Self::Database => "database",
        }
    }

    /// Its entry in the list.
    pub fn spec(self) -> &'static Spec {
        &SPECS[self.base()]
    }
}

/// The topics of one installation.
#[derive(Clone, Debug)]
pub struct Topics {
    prefix: String,
    partitions: Option<u32>,
}

impl Topics {
    /// `partitions` replaces the count of every topic.
    pub fn new(prefix: impl Into<String>, partitions: Option<u32>) -> Self {
        Self { prefix: prefix.into(), partitions }
    }

    /// The topic's name in Kafka: `{prefix}.{base}.v{version}`.
    pub fn name(&self, topic: Topic) -> String {
        format!("{}.{}.v{}", self.prefix, topic.base(), topic.spec().version)
    }

    /// How many partitions it has.
    pub fn partitions(&self, topic: Topic) -> u32 {
        self.partitions.unwrap_or(topic.spec().partitions)
    }

    /// How many shards mailings are split into.
    pub fn shards(&self) -> u32 {
        self.partitions(Topic::MailingEvents)
    }

    /// The id of a consumer group: `{prefix}.{service}`.
    pub fn group(&self, service: &str) -> String {
        format!("{}.{service}", self.prefix)
    }

    /// The relay's transactional id. Who initializes it fences whoever had it.
    pub fn relay_id(&self) -> String {
        format!("{}.relay", self.prefix)
    }

    /// The transactional id of a shard's planner, likewise.
    pub fn planner_id(&self, shard: i32) -> String {
        format!("{}.planner-{shard}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_holds_each_topic_and_no_other() {
        assert_eq!(SPECS.len(), Topic::ALL.len());
        for topic in Topic::ALL {
            let spec = topic.spec();
            assert!(spec.partitions > 0 && ["compact", "delete"].contains(&spec.cleanup.as_str()), "{}", topic.base());
            assert_eq!(spec.cleanup == "delete", spec.retention_hours.is_some(), "{}", topic.base());
            assert!(!spec.key.is_empty());
        }
    }

    #[test]
    fn partners_have_as_many_partitions_as_each_other() {
        let partitions = |topic: Topic| topic.spec().partitions;
        assert_eq!(partitions(Topic::MailingEvents), partitions(Topic::PlanningProgress));
        assert_eq!(partitions(Topic::MessageEvents), partitions(Topic::StatusEvents));
    }

    #[test]
    fn names_carry_prefix_and_version() {
        let topics = Topics::new("herald", None);
        assert_eq!(topics.name(Topic::MailingEvents), "herald.mailing-events.v1");
        assert_eq!(topics.group("sender"), "herald.sender");
    }
}
