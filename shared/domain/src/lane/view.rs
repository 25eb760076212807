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

impl Closed {
    /// Whether the lane is closed.
    pub fn contains(&self, code: OperatorCode) -> bool {
        match self {
            Self::All => true,
            Self::Codes(codes) => codes.contains(&code),
        }
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
