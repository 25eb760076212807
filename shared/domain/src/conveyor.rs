//! How much may lie in message-events: a short conveyor, so that an end or a cancel is near and lag stays small.

use std::time::Duration;

use crate::lane::Closed;
use crate::traffic::KEPT;

/// Clients of one page at the most.
pub const MAX_PAGE: u64 = 5_000;
/// Smaller pages aren't worth a transaction while the senders still have something to read.
pub const MIN_PAGE: u64 = 250;
/// Clients that are planned while no lane is open, one page each [`CLOSED_INTERVAL`]: the lanes have something to probe with.
pub const CLOSED_PAGE: u64 = 250;
/// Between two pages while no lane is open.
pub const CLOSED_INTERVAL: Duration = Duration::from_secs(10);

/// The limit as long as no pace is known.
const FIRST_LIMIT: u64 = 1_000;
const MAX_LIMIT: u64 = 200_000;

/// The conveyor at one moment, over all partitions of message-events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conveyor {
    /// What lies in each partition: unread, or taken in and not settled, as [`open_for_pages`] counts it.
    pub lying: Vec<u64>,
    /// Records between the senders' positions and the ends.
    pub unread: u64,
    /// Calls that began in the last second in which something was open, a second; none: no pace was measured yet. Calls and
    /// not settlements: holding a message is no progress.
    pub pace: Option<u64>,
    /// No lane is open: see [`crate::lane::ClosedLanes::all`].
    pub closed: bool,
}

/// A scheduler's part of the planning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Shards that it owns.
    pub owned: u64,
    /// Shards there are.
    pub shards: u64,
    /// Clients that it planned since the conveyor was sampled.
    pub planned_since: u64,
    /// How long ago it planned its last page; none: never.
    pub last_page: Option<Duration>,
}

impl Conveyor {
    /// What may lie on the conveyor: two seconds of work, so that hardly a message waits until it isn't valid any more; one a
    /// partition at the least, 200,000 at the most.
    pub fn limit(&self) -> u64 {
        self.pace.map_or(FIRST_LIMIT, |pace| (2 * pace).max(self.partitions())).min(MAX_LIMIT)
    }

    fn partitions(&self) -> u64 {
        self.lying.len().max(1) as u64
    }

    /// What lies there, with no more of a partition than its part of the limit: a page fills all of them, and a sender that is
    /// slower than the others, or dead, must not let those starve. None: it is six times the limit, twelve seconds of work.
    fn full(&self) -> Option<u64> {
        let part = self.limit().div_ceil(self.partitions());
        let all: u64 = self.lying.iter().sum();
        (all < 6 * self.limit()).then(|| self.lying.iter().map(|lying| part.min(*lying)).sum())
    }

    /// How many clients the next page may plan, if it is worth planning one now.
    pub fn page(&self, share: Share) -> Option<u64> {
        let part = |room: u64| room * share.owned / share.shards.max(1);
        let ahead = self.unread + share.planned_since;
        if self.closed {
            let due = share.last_page.is_none_or(|last_page| last_page >= CLOSED_INTERVAL);
            let room = part(CLOSED_PAGE.saturating_sub(ahead));
            return (due && room > 0).then_some(room);
        }
        let room = part(self.limit().saturating_sub(self.full()? + share.planned_since));
        let least = if ahead > 0 { MIN_PAGE.min(self.limit() / 4).max(1) } else { 1 };
        (room >= least).then_some(room.min(MAX_PAGE))
    }
}

/// How many of a partition's open messages take room from others. Those that are being called don't: with a slow provider they
/// alone would be two seconds of work. Nor does what its owner's closed lanes keep to probe with: it stays as long as the
/// provider is in trouble.
pub fn open_for_pages(open: u64, calling: u64, closed: &Closed) -> u64 {
    match closed {
        Closed::All => 0,
        Closed::Codes(codes) => open.saturating_sub(calling).saturating_sub((KEPT * codes.len()) as u64),
    }
}

/// Calls begun between two samples, from what each partition's commits count: the count goes on at a takeover, and one that
/// falls says nothing.
pub fn calls_begun(before: &[u64], now: &[u64]) -> u64 {
    before.iter().zip(now).map(|(before, now)| now.saturating_sub(*before)).sum()
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
        Share { owned, shards: 6, planned_since, last_page: None }
    }

    fn conveyor(unread: u64, open: u64, pace: impl Into<Option<u64>>) -> Conveyor {
        let even = |all: u64| (0..12).map(move |number| all / 12 + u64::from(number < all % 12));
        let lying = even(unread + open).collect();
        Conveyor { lying, unread, pace: pace.into(), closed: false }
    }

    #[test]
    fn a_page_fills_the_schedulers_part_of_the_room() {
        let cases = [
            ("an empty conveyor holds a thousand", conveyor(0, 0, None), share(6, 0), Some(1_000)),
            ("half the shards, half the room", conveyor(0, 0, None), share(3, 0), Some(500)),
            ("own pages count at once", conveyor(0, 0, None), share(6, 900), None),
            ("two seconds of pace", conveyor(500, 500, 2_000), share(6, 0), Some(3_000)),
            ("a page has an upper bound", conveyor(0, 0, 40_000), share(6, 0), Some(5_000)),
            ("the conveyor has an upper bound", conveyor(199_000, 0, 1_000_000), share(6, 0), Some(1_000)),
            ("full", conveyor(1_000, 0, None), share(6, 0), None),
            ("small pages wait while something is unread", conveyor(800, 0, None), share(6, 0), None),
            ("small pages are planned for idle senders", conveyor(0, 900, None), share(1, 0), Some(16)),
            ("a slow provider has a short conveyor", conveyor(0, 0, 50), share(6, 0), Some(100)),
            ("and small pages", conveyor(50, 20, 50), share(6, 0), Some(30)),
            ("one a partition", conveyor(0, 0, 0), share(6, 0), Some(12)),
            ("no shard, no page", conveyor(0, 0, None), share(0, 0), None),
        ];
        for (name, conveyor, share, expected) in cases {
            assert_eq!(conveyor.page(share), expected, "{name}");
        }
    }

    #[test]
    fn partitions_that_nobody_empties_leave_room_for_the_others_up_to_six_times_the_limit() {
        let crowded = |number: u64, each: u64| {
            let lying = (0..12).map(|partition| if partition < number { each } else { 0 }).collect();
            Conveyor { lying, unread: number * each, pace: Some(600), closed: false }
        };
        let cases = [
            ("nothing lies there", crowded(0, 0), Some(1_200)),
            ("a third is full", crowded(4, 100), Some(800)),
            ("and fuller", crowded(4, 500), Some(800)),
            ("six times the limit", crowded(4, 1_800), None),
            ("all are full", crowded(12, 100), None),
        ];
        for (name, conveyor, expected) in cases {
            assert_eq!(conveyor.page(share(6, 0)), expected, "{name}");
        }
        assert_eq!(crowded(4, 500).page(share(6, 800)), None, "what was planned since may lie anywhere");
    }

    #[test]
    fn while_no_lane_is_open_a_small_page_is_planned_each_ten_seconds() {
        let closed = |unread, open| Conveyor { closed: true, ..conveyor(unread, open, 3) };
        let after = |seconds| Share { last_page: Some(Duration::from_secs(seconds)), ..share(6, 0) };
        let cases = [
            ("the first", closed(0, 0), share(6, 0), Some(250)),
            ("too early", closed(0, 0), after(9), None),
            ("the next, however many wait", closed(0, 900), after(10), Some(250)),
            ("half the shards, half of it", closed(0, 0), share(3, 0), Some(125)),
            ("nobody reads", closed(250, 0), after(20), None),
        ];
        for (name, conveyor, share, expected) in cases {
            assert_eq!(conveyor.page(share), expected, "{name}");
        }
    }

    #[test]
    fn what_closed_lanes_keep_and_what_is_being_called_takes_no_room() {
        let code = |code| crate::client::OperatorCode::new(code).unwrap();
        let closed = |codes: &[i64]| Closed::Codes(codes.iter().map(|number| code(*number)).collect());
        let cases = [
            ("no lane is closed", 20, 0, closed(&[]), 20),
            ("one", 20, 0, closed(&[900]), 12),
            ("three", 20, 0, closed(&[900, 901, 902]), 0),
            ("all", 900, 0, Closed::All, 0),
            ("some are being called", 20, 15, closed(&[]), 5),
            ("of two counts taken one after the other", 20, 21, closed(&[]), 0),
        ];
        for (name, open, calling, closed, expected) in cases {
            assert_eq!(open_for_pages(open, calling, &closed), expected, "{name}");
        }
    }

    #[test]
    fn a_count_of_calls_that_falls_counts_nothing() {
        assert_eq!(calls_begun(&[10, 7, 0], &[15, 3, 2]), 7);
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
