//! rdkafka behind four small types, and the pure ledger of open offsets.
//!
//! [`GroupConsumer`] reads as a member of a consumer group, on a thread of its own; [`TableReader`] reads partitions
//! whole, without a group; [`TransactionalProducer`] writes a set of records or none, [`Producer`] one record at a time;
//! [`Admin`] knows topics and offsets. Nothing of rdkafka's types passes this crate's border.

mod admin;
mod client;
mod dead_letters;
mod error;
mod group;
pub mod ledger;
mod metrics;
mod moment;
mod producer;
mod record;
mod table;
mod transaction;
mod watermarks;

pub use admin::{Admin, CommittedPartition, GroupView};
pub use client::{Client, check_properties};
pub use dead_letters::DeadLetters;
pub use error::{Error, Result};
pub use group::{Assigned, Commit, Flow, GroupConsumer, GroupSettings, Member, Start};
pub use metrics::Metrics;
pub use moment::Moment;
pub use producer::Producer;
pub use record::{Outgoing, Record};
pub use table::{Isolation, TableReader};
pub use transaction::TransactionalProducer;
