//! rdkafka behind four small types, and the pure ledger of open offsets.
//!
//! [`GroupConsumer`] reads as a member of a consumer group, on a thread of its own; [`TableReader`] reads partitions
//! whole, without a group; [`TransactionalProducer`] writes a set of records or none, [`Producer`] one record at a time;
//! [`Admin`] knows topics and offsets. Nothing of rdkafka's types passes this crate's border.

mod admin;
mod cluster;
mod database;
mod error;
mod garbage;
mod group;
pub mod ledger;
mod member;
mod metrics;
mod moment;
mod producer;
mod record;
mod table;
mod transaction;
mod watermarks;

pub use admin::{Admin, CommittedPartition, GroupView, check_topics};
pub use cluster::{Cluster, check_properties};
pub use database::{database_partition, database_record, follow_marks, recorded_mark};
pub use error::{Error, Result};
pub use garbage::{DeadLetters, Skips};
pub use group::{GroupConsumer, GroupSettings};
pub use member::{Assigned, Commit, Intake, Member, Start};
pub use metrics::Metrics;
pub use moment::Moment;
pub use producer::Producer;
pub use record::{Outgoing, Record};
pub use table::{Isolation, TableReader, high_watermarks};
pub use transaction::TransactionalProducer;
