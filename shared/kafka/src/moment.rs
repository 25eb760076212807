use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

/// A moment whose age counts by the monotonic *and* the wall clock: whichever says more. The monotonic clock may stand
/// still while a machine is suspended, the wall clock may be set back.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// How long ago it was.
    pub fn age(&self) -> Duration {
        Self::now().since(*self)
    }

    /// How long after `earlier` it is; zero if it is before.
    pub fn since(&self, earlier: Self) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        self.monotonic.saturating_duration_since(earlier.monotonic).max(wall)
    }

    #[cfg(test)]
    pub(crate) fn after(self, monotonic: Duration, wall: Duration) -> Self {
        Self { monotonic: self.monotonic + monotonic, wall: self.wall + wall }
    }
}

/// Lets one log line a second through, and counts those that it holds back.
#[derive(Debug, Default)]
pub(crate) struct OncePerSecond(Mutex<(Option<Instant>, u64)>);

impl OncePerSecond {
    /// Whether to log now; if so, how many lines were held back since the last one.
    pub(crate) fn held_back(&self) -> Option<u64> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Option<u64> {
        let (last, held_back) = &mut *self.0.lock().expect("not poisoned");
        if last.is_some_and(|last| now.saturating_duration_since(last) < Duration::from_secs(1)) {
            *held_back += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_that_says_more_counts() {
        let (start, s) = (Moment::now(), Duration::from_secs);
        assert_eq!(start.after(s(3), s(3)).since(start), s(3));
        assert_eq!(start.after(s(0), s(20)).since(start), s(20), "the machine was suspended");
        assert_eq!(start.after(s(3), s(0)).since(start), s(3), "the wall clock was set back");
        assert_eq!(start.since(start.after(s(3), s(3))), s(0));
    }

    #[test]
    fn one_line_a_second_is_logged_and_says_how_many_were_not() {
        let (lines, start) = (OncePerSecond::default(), Instant::now());
        let found = [0, 10, 900, 1_000, 1_100, 2_500].map(|ms| lines.at(start + Duration::from_millis(ms)));
        assert_eq!(found, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
