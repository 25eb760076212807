//! What is told of lanes: to the planner, and to people.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::client::OperatorCode;
use crate::status::Reason;

/// Which lanes are closed, as a sender tells the planner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// All, whatever their code.
    All,
    /// These; none as a rule.
    Codes(BTreeSet<OperatorCode>),
}

impl Default for Closed {
    fn default() -> Self {
        Self::Codes(BTreeSet::new())
    }
}

impl Closed {
    /// Whether the lane is closed.
    pub fn contains(&self, code: OperatorCode) -> bool {
        match self {
            Self::All => true,
            Self::Codes(codes) => codes.contains(&code),
        }
    }
}

/// The closed lanes of all senders, by the partitions that they own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClosedLanes {
    /// By the number of the partition.
    pub by_partition: Vec<Closed>,
}

impl ClosedLanes {
    /// Whether the lane is closed for messages of this partition.
    pub fn contains(&self, partition: i32, code: OperatorCode) -> bool {
        let closed = usize::try_from(partition).ok().and_then(|partition| self.by_partition.get(partition));
        closed.is_some_and(|closed| closed.contains(code))
    }

    /// Whether no lane is open: senders that own over half of the partitions say so.
    pub fn all(&self) -> bool {
        2 * self.by_partition.iter().filter(|closed| **closed == Closed::All).count() > self.by_partition.len()
    }
}

/// A lane as it is shown to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneView {
    /// The operator code.
    pub code: OperatorCode,
    /// Why it is closed; none: it is open.
    pub closed: Option<Reason>,
    /// It has opened and isn't at its full rate yet.
    pub ramp: bool,
    /// Since when it is so.
    pub since: Duration,
    /// Probes since it was closed.
    pub probes: u64,
}
