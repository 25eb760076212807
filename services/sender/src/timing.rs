//! The times that the sender's guarantees stand on, and their relations.

use std::time::Duration;

use domain::decision::{SLOT_WAIT, VALIDITY};

/// An attempt begins, and a message is settled without one, only under a commit sent less than this ago and acknowledged in
/// this generation.
pub(crate) const LEASE: Duration = Duration::from_secs(5);
/// And while the board was proved current by a request sent less than this ago.
pub(crate) const PROOF: Duration = Duration::from_secs(1);
/// How long a `held` status is tried for. It is no evidence, so none may arrive when the partition's next owner has begun.
pub(crate) const HELD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the group waits for a silent sender before it gives its partitions away.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(12);
/// The longest call. One that is longer outlives the drain of a revoked partition.
pub(crate) const LONGEST_CALL: Duration = Duration::from_secs(60);
/// How long a revoked partition waits for the acknowledgement of its statuses, beside the calls on the wire.
pub(crate) const ACKNOWLEDGEMENT: Duration = Duration::from_secs(6);
/// A retry's delay is made this much longer or shorter at random.
pub(crate) const JITTER_PERCENT: u64 = 15;
/// The longest delay of a retry: with its jitter it is a wait that a message may have in its slot.
pub(crate) const LONGEST_RETRY: Duration = Duration::from_millis(4_347);

// A sender that was cut off begins no call, and no `held` of it arrives, when the next owner of its partitions replays.
const _: () = assert!(LEASE.as_millis() + HELD_TIMEOUT.as_millis() < SESSION_TIMEOUT.as_millis());
// A board that is proved a few times a second keeps its proof over one that is late.
const _: () = assert!(PROOF.as_millis() < LEASE.as_millis());
// What waits in its slot is still valid when its wait is over.
const _: () = assert!(SLOT_WAIT.num_milliseconds() < VALIDITY.num_milliseconds());
const _: () = assert!(
    LONGEST_RETRY.as_millis() as u64 * (100 + JITTER_PERCENT) / 100 <= SLOT_WAIT.num_milliseconds().cast_unsigned()
);
