//! rdkafka behind four small types, and the pure ledger of open offsets.
//!
//! [`GroupConsumer`] reads as a member of a consumer group, on a thread of its own; [`TableReader`] reads partitions
//! whole, without a group; [`TransactionalProducer`] writes a set of records or none, [`Producer`] one record at a time;
//! [`Admin`] knows the topics. Nothing of rdkafka's types passes this crate's border.

mod admin;
mod cluster;
mod error;
mod garbage;
mod group;
pub mod ledger;
mod mark;
mod metrics;
mod moment;
mod read;
mod record;
mod write;

pub use admin::{Admin, check_topics};
pub use cluster::{Cluster, check_properties};
pub use error::{Error, Result};
pub use garbage::{DeadLetters, Skips};
pub use group::{Assigned, Commit, GroupConsumer, GroupSettings, Intake, Member, Start};
pub use mark::{database_partition, database_record, follow_marks, recorded_mark};
pub use metrics::Metrics;
pub use moment::Moment;
pub use read::{CommittedPartition, GroupView, Isolation, TableReader, high_watermarks};
pub use record::{Outgoing, Record};
pub use write::{Producer, TransactionalProducer};
