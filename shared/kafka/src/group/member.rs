use events::DecodeError;

use crate::{CommittedPartition, Error, Moment, Record};

/// A partition that has just been given to this member.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// The partition.
    pub partition: i32,
    /// Where it begins and ends, and what the group had committed.
    pub at: CommittedPartition,
}

/// Where to begin with an assigned partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start(pub i64);

/// What to commit for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The partition.
    pub partition: i32,
    /// The next offset to read, as it is.
    pub offset: i64,
    /// ASCII; a commit without metadata erases what was there.
    pub metadata: String,
}

/// Whether a member can take more of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// It can.
    More,
    /// Not until [`Member::has_room`] says so; what it was given last is taken all the same.
    Full,
}

/// The reader behind a [`GroupConsumer`](crate::GroupConsumer).
///
/// The committing thread calls [`checkpoints`](Self::checkpoints), [`commit_acknowledged`](Self::commit_acknowledged) and
/// [`commit_refused`](Self::commit_refused); the polling thread calls nearly all else. Those that may block say so.
pub trait Member: Send + Sync + 'static {
    /// Takes partitions over, or (with none) hears that the group has a new generation. Answers where to begin, one each.
    /// May block for as long as `max.poll.interval.ms` allows.
    fn assigned(&self, partitions: &[Assigned]) -> Vec<Start>;

    /// Gives partitions up. If they are `lost` they are already another's, and nothing is committed; else it finishes what is
    /// under way and answers the last commits. May block likewise.
    fn revoked(&self, partitions: &[i32], lost: bool) -> Vec<Commit>;

    /// Takes a record of an assigned partition. If this returns an error, the member must have kept nothing of the record.
    fn take(&self, record: Record) -> std::result::Result<Intake, DecodeError>;

    /// Hears that records which can't be decoded are dead letters by now and passed, up to this offset.
    /// [`read_to`](Self::read_to) says so, too.
    fn garbage_skipped(&self, partition: i32, offset: i64);

    /// Hears whether partitions are read no further, and why. Called by any thread.
    fn reading_stopped(&self, why: Option<String>);

    /// Whether a partition that was full can take more again.
    fn has_room(&self, partition: i32) -> bool;

    /// Hears the consumer's position in a partition: it passes control and aborted records too, and no garbage without a
    /// letter.
    fn read_to(&self, partition: i32, position: i64);

    /// What may be committed now.
    fn checkpoints(&self) -> Vec<Commit>;

    /// Hears that a commit sent at `sent` was acknowledged: this member was in the group then.
    fn commit_acknowledged(&self, sent: Moment);

    /// Hears that a commit was refused, or not answered in time. Members that act on no proof needn't listen.
    fn commit_refused(&self, _error: &Error) {}
}
