//! How much may lie in message-events: a short conveyor, so that an end or a cancel is near and lag stays small.

/// Clients of one page at the most.
pub const MAX_PAGE: u64 = 5_000;
/// Smaller pages aren't worth a transaction while the senders still have something to read.
pub const MIN_PAGE: u64 = 250;

const MIN_LIMIT: u64 = 1_000;
const MAX_LIMIT: u64 = 200_000;

/// The conveyor at one moment, over all partitions of message-events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conveyor {
    /// Records between the senders' positions and the ends.
    pub unread: u64,
    /// Messages taken in and not settled.
    pub open: u64,
    /// How fast messages were settled in the last second in which something was open, a second.
    pub pace: u64,
}

/// A scheduler's part of the planning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Shards that it owns.
    pub owned: u64,
    /// Shards there are.
    pub shards: u64,
    /// Clients that it planned since the conveyor was sampled.
    pub planned_since: u64,
}

impl Conveyor {
    /// What may lie on the conveyor: two seconds of work, within 1,000 and 200,000.
    pub fn limit(&self) -> u64 {
        (2 * self.pace).clamp(MIN_LIMIT, MAX_LIMIT)
    }

    /// How many clients the next page may plan, if it is worth planning one now.
    pub fn page(&self, share: Share) -> Option<u64> {
        let filled = self.unread + self.open + share.planned_since;
        let room = self.limit().saturating_sub(filled) * share.owned / share.shards.max(1);
        let least = if self.unread + share.planned_since > 0 { MIN_PAGE } else { 1 };
        (room >= least).then_some(room.min(MAX_PAGE))
    }
}

/// How many client numbers the next page should span, so that it yields about `wanted` clients.
///
/// `span` brought `found` clients; the answer at most quadruples it, and stays within 1,000 and 1,000,000 numbers.
pub fn next_span(span: i64, found: u64, wanted: u64) -> i64 {
    let ideal = i128::from(span) * i128::from(wanted) / i128::from(found.max(1));
    let bounded = ideal.min(i128::from(span) * 4).clamp(1_000, 1_000_000);
    i64::try_from(bounded).unwrap_or(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(owned: u64, planned_since: u64) -> Share {
        Share { owned, shards: 6, planned_since }
    }

    #[test]
    fn a_page_fills_the_schedulers_part_of_the_room() {
        let conveyor = |unread, open, pace| Conveyor { unread, open, pace };
        let cases = [
            ("an empty conveyor holds a thousand", conveyor(0, 0, 0), share(6, 0), Some(1_000)),
            ("half the shards, half the room", conveyor(0, 0, 0), share(3, 0), Some(500)),
            ("own pages count at once", conveyor(0, 0, 0), share(6, 900), None),
            ("two seconds of pace", conveyor(500, 500, 2_000), share(6, 0), Some(3_000)),
            ("a page has an upper bound", conveyor(0, 0, 40_000), share(6, 0), Some(5_000)),
            ("the conveyor has an upper bound", conveyor(199_000, 0, 1_000_000), share(6, 0), Some(1_000)),
            ("full", conveyor(1_000, 0, 0), share(6, 0), None),
            ("small pages wait while something is unread", conveyor(800, 0, 0), share(6, 0), None),
            ("small pages are planned for idle senders", conveyor(0, 900, 0), share(1, 0), Some(16)),
            ("no shard, no page", conveyor(0, 0, 0), share(0, 0), None),
        ];
        for (name, conveyor, share, expected) in cases {
            assert_eq!(conveyor.page(share), expected, "{name}");
        }
    }

    #[test]
    fn a_span_follows_the_yield() {
        assert_eq!(next_span(5_000, 5_000, 5_000), 5_000);
        assert_eq!(next_span(5_000, 500, 1_000), 10_000);
        assert_eq!(next_span(5_000, 0, 5_000), 20_000);
        assert_eq!(next_span(1_000_000, 0, 5_000), 1_000_000);
        assert_eq!(next_span(1_000_000, 1_000_000, 5), 1_000);
    }
}
