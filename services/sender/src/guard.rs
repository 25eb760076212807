//! Notices that message-events went back under a running sender: it was deleted and made anew, or cut off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::topics::Topic;
use kafka::GroupView;
use tokio_util::sync::CancellationToken;

use crate::member::SenderMember;

/// Between two looks at where the log ends. An empty log brings no record that could tell.
const LOOK: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(2);
/// How soon an order to stop, or a record that shouldn't be, is heard.
const TURN: Duration = Duration::from_millis(200);

/// Looks until told to stop. Blocks.
///
/// # Errors
/// The log went back. What is committed on the way out makes the next start replay it whole.
pub(crate) fn run(kafka: &kafka::Cluster, member: &Arc<SenderMember>, stop: &CancellationToken) -> anyhow::Result<()> {
    let topic = kafka.topics.name(Topic::MessageEvents);
    let view = GroupView::new(kafka, &kafka.topics.group("sender"), Topic::MessageEvents)?;
    let mut looked_at = Instant::now();
    while !stop.is_cancelled() {
        std::thread::sleep(TURN);
        if looked_at.elapsed() >= LOOK {
            looked_at = Instant::now();
            // Asked in this order, no position of a healthy log is beyond its end.
            let positions = member.positions();
            match view.ends_of(Topic::MessageEvents, TIMEOUT) {
                Ok(ends) => member.compare(&positions, &ends),
                Err(error) => tracing::debug!(%error, "asking where message-events ends"),
            }
        }
        if let Some(partition) = member.went_back() {
            anyhow::bail!(
                "{topic}/{partition} went back under the sender: it was made anew or cut off. The sender starts from its \
                 beginning; what was in the old one and unsent is lost, see `herald replan`"
            );
        }
    }
    Ok(())
}
