//! Reading without being a member: partitions whole, their ends, and what a group has committed.

mod committed;
mod table;
mod watermarks;

pub use committed::{CommittedPartition, GroupView};
pub(crate) use committed::{committed, committed_partitions};
pub(crate) use table::asking;
pub use table::{Isolation, TableReader, high_watermarks};
pub(crate) use watermarks::{End, Place, ends};
