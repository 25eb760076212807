//! Whether the pace or one lane is to blame for 429s.

use std::collections::BTreeMap;
use std::time::Duration;

use super::state::Lane;
use crate::client::OperatorCode;

/// How improbable it must be that one lane has all the 429s by chance.
const BY_CHANCE: f64 = 0.01;
/// With so many 429s or more, all of one lane, it is not waited for more of them: it has most of the calls.
const MANY_THROTTLED: u32 = 7;

pub(super) enum Blame {
    /// The pace is too fast for the provider.
    Pace,
    /// Only this lane's calls are throttled.
    Lane(OperatorCode),
    /// So far only one lane's, but that may be chance.
    Unclear,
}

/// Whose the 429s of the last ten seconds are.
pub(super) fn blame(lanes: &BTreeMap<OperatorCode, Lane>, now: Duration) -> Blame {
    let answered: u32 = lanes.values().map(|lane| lane.answered.count(now)).sum();
    let mut throttled = lanes.iter().filter(|(_, lane)| lane.throttled.count(now) > 0);
    let (Some((code, lane)), None) = (throttled.next(), throttled.next()) else { return Blame::Pace };
    let (own, count) = (lane.answered.count(now), lane.throttled.count(now));
    let by_chance = (f64::from(own) / f64::from(answered)).powf(f64::from(count));
    if own == answered || lane.is_closed() {
        Blame::Pace
    } else if by_chance < BY_CHANCE {
        Blame::Lane(*code)
    } else if count < MANY_THROTTLED {
        Blame::Unclear
    } else {
        Blame::Pace
    }
}
