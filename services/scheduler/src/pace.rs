//! How fast the senders call.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use domain::conveyor::calls_begun;

/// The pace is an average over this long.
const WINDOW: Duration = Duration::from_secs(1);
/// Senders commit this often: over less time nothing is measured.
const LEAST: Duration = Duration::from_millis(100);

/// Measures the pace from the calls that the senders' commits count.
#[derive(Default)]
pub(crate) struct Pace {
    /// By partition; none: it has no commit.
    calls: Vec<Option<u64>>,
    begun: u64,
    /// Calls begun by past moments, oldest first, since the conveyor was last empty: an idle second is no pace.
    history: VecDeque<(Instant, u64)>,
    measured: Option<u64>,
}

impl Pace {
    /// Takes a sample and returns the pace, calls a second. `empty`: nothing lies on the conveyor.
    pub(crate) fn sample(&mut self, calls: Vec<Option<u64>>, empty: bool, now: Instant) -> Option<u64> {
        self.calls.resize(calls.len(), None);
        // A commit that comes counts all calls that were ever made, which is no pace.
        let pairs = self.calls.iter().zip(&calls).filter_map(|(before, now)| before.zip(*now));
        let (before, later): (Vec<u64>, Vec<u64>) = pairs.unzip();
        self.begun += calls_begun(&before, &later);
        self.calls = calls;

        self.history.push_back((now, self.begun));
        while self.history.len() > 2 && now - self.history[1].0 >= WINDOW {
            self.history.pop_front();
        }
        let (since, before) = self.history[0];
        if now - since >= LEAST {
            let pace = ((self.begun - before) as f64 / (now - since).as_secs_f64()) as u64;
            // No call is no pace: what lies there may be in a partition that nobody reads, and must not keep others away.
            let pace = Some(pace).filter(|pace| *pace > 0);
            // Calls that emptied the conveyor would have gone on: it was no slower than this.
            self.measured = if empty { self.measured.max(pace) } else { pace };
        }
        if empty {
            self.history.clear();
            self.history.push_back((now, self.begun));
        }
        self.measured
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples each 100 ms: calls by then, and whether the conveyor was empty.
    fn paces(samples: &[(u64, bool)]) -> Vec<Option<u64>> {
        let (mut pace, began) = (Pace::default(), Instant::now());
        let at = |index: usize| began + LEAST * u32::try_from(index).unwrap();
        samples
            .iter()
            .enumerate()
            .map(|(index, (calls, empty))| pace.sample(vec![Some(*calls)], *empty, at(index)))
            .collect()
    }

    #[test]
    fn the_pace_is_that_of_the_last_second_in_which_something_was_open() {
        assert_eq!(paces(&[(50, true), (50, true)]), [None, None], "nothing was measured");
        assert_eq!(paces(&[(0, false), (20, false), (60, false)]), [None, Some(200), Some(300)]);
        assert_eq!(paces(&[(7, false), (7, false), (7, false)]), [None; 3], "nobody calls for what lies there");
        assert_eq!(
            paces(&[(0, false), (20, false), (20, true), (20, true)]).last(),
            Some(&Some(200)),
            "idle is no pace"
        );
        assert_eq!(paces(&[(0, false), (20, false), (120, true), (320, true)]).last(), Some(&Some(2_000)), "it grows");
        let steady: Vec<(u64, bool)> =
            (0..30).map(|n| (if n < 15 { n * 100 } else { 1_500 + (n - 15) }, false)).collect();
        assert_eq!(paces(&steady).last(), Some(&Some(10)), "what was before the last second doesn't count");
    }

    #[test]
    fn a_commit_that_comes_is_no_pace() {
        let (mut pace, began) = (Pace::default(), Instant::now());
        pace.sample(vec![Some(5), None], false, began);
        let measured = pace.sample(vec![Some(15), Some(1_000_000)], false, began + WINDOW);
        assert_eq!(measured, Some(10));
    }
}
