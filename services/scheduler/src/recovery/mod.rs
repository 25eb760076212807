//! What an operator does after a loss: [`recover()`] when Postgres is older than Kafka, [`replan()`] when Kafka has lost
//! something of a mailing.

mod recover;
mod remains;
mod replan;

pub use recover::{Recovered, recover};
pub use replan::{Replanned, replan};
