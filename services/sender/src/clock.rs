use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// A wall clock that has moved by more than this beside the monotonic one has leapt. Services assume no greater difference
/// between their clocks.
const LEAP: TimeDelta = TimeDelta::milliseconds(500);
/// A leap that isn't taken back within this time is the new truth.
const DOUBT: Duration = Duration::from_secs(60);

/// The wall clock, but it never goes back within the process: a clock set back must not reopen a mailing that has ended.
///
/// After a leap it goes on as the monotonic clock does, and isn't trusted for a minute: nothing may be decided by it then, for
/// a mailing that is taken for ended stays `expired`.
#[derive(Default)]
pub(crate) struct Clock(Mutex<Option<Reading>>);

#[derive(Clone, Copy, Debug)]
struct Reading {
    monotonic: Instant,
    wall: DateTime<Utc>,
    /// The latest time that was told.
    latest: DateTime<Utc>,
    leapt_at: Option<Instant>,
}

impl Clock {
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.read().latest
    }

    /// Whether something may be decided by it.
    pub(crate) fn is_trusted(&self) -> bool {
        self.read().leapt_at.is_none()
    }

    fn read(&self) -> Reading {
        let (monotonic, wall) = (Instant::now(), Utc::now());
        let mut last = self.0.lock().expect("not poisoned");
        let reading = last.map_or_else(|| Reading::first(monotonic, wall), |last| last.next(monotonic, wall));
        *last = Some(reading);
        reading
    }
}

impl Reading {
    fn first(monotonic: Instant, wall: DateTime<Utc>) -> Self {
        Self { monotonic, wall, latest: wall, leapt_at: None }
    }

    fn next(self, monotonic: Instant, wall: DateTime<Utc>) -> Self {
        let passed = TimeDelta::from_std(monotonic.saturating_duration_since(self.monotonic)).unwrap_or_default();
        let expected = self.wall + passed;
        let leapt_at = ((wall - expected).abs() > LEAP).then(|| self.leapt_at.unwrap_or(monotonic));
        let doubted = leapt_at.filter(|leapt_at| monotonic.saturating_duration_since(*leapt_at) < DOUBT);
        // The slow steps of a clock that is being mended are followed.
        let wall = if doubted.is_some() { expected } else { wall };
        Self { monotonic, wall, latest: wall.max(self.latest), leapt_at: doubted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_is_not_believed_for_a_minute_and_forgotten_when_it_is_taken_back() {
        let (began, noon) = (Instant::now(), "2026-05-01T12:00:00Z".parse::<DateTime<Utc>>().unwrap());
        let hour = TimeDelta::hours(1);
        // Seconds on the monotonic clock, what the wall clock is off by, what is told to be off by, and whether it is trusted.
        let rows = [
            ("an even pace", 1, TimeDelta::zero(), TimeDelta::zero(), true),
            ("a small step", 2, TimeDelta::milliseconds(400), TimeDelta::milliseconds(400), true),
            (
                "another one, as of a clock that is mended",
                3,
                TimeDelta::milliseconds(800),
                TimeDelta::milliseconds(800),
                true,
            ),
            ("a leap ahead", 4, hour, TimeDelta::milliseconds(800), false),
            ("still there", 30, hour, TimeDelta::milliseconds(800), false),
            ("taken back", 31, TimeDelta::milliseconds(800), TimeDelta::milliseconds(800), true),
            ("a leap ahead again", 40, hour, TimeDelta::milliseconds(800), false),
            ("after a minute it is the truth", 100, hour, hour, true),
            ("a leap back", 110, TimeDelta::zero(), hour, false),
            ("after a minute, but time doesn't go back", 171, TimeDelta::zero(), hour - TimeDelta::seconds(61), true),
        ];
        let mut reading = Reading::first(began, noon);
        for (name, seconds, off, told, trusted) in rows {
            let passed = TimeDelta::seconds(seconds);
            reading = reading.next(began + passed.to_std().unwrap(), noon + passed + off);
            assert_eq!((reading.latest - noon - passed, reading.leapt_at.is_none()), (told, trusted), "{name}");
        }
    }
}
