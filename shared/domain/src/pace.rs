//! How fast a sender may call: what the provider takes, found by its 429s.
//!
//! Unlimited until the provider throttles more than a few; then by a cubic curve, as AWS' adaptive retry has it: cut to 0.7
//! of what was observed, slowly back to where it was cut, and faster and faster beyond. Instants are what has passed on a
//! monotonic clock since the process began, so a leap of the wall clock changes nothing.

use std::time::Duration;

use crate::window::Window;

/// This share of the last second's answers must be throttled. A few that are evenly spread are those messages' business.
const THROTTLED_SHARE: f64 = 0.025;
/// So many standard deviations more than that share: of few answers a few are throttled by chance.
const DEVIATIONS: f64 = 2.0;
const CUT: f64 = 0.7;
/// How fast the curve rises: calls a second gained within the first second beyond the old pace.
const RISE: f64 = 0.4;
/// Between two cuts.
const CUT_INTERVAL: Duration = Duration::from_millis(500);
/// Without a cut for this long the pace is unlimited again: the curve has left all it knew far behind.
const FORGOTTEN: Duration = Duration::from_secs(60);
const LEAST: f64 = 1.0;

/// The pace of a sender, over all its calls.
#[derive(Clone, Debug)]
pub struct Pace {
    begun: Window<10>,
    answered: Window<10>,
    throttled: Window<10>,
    /// None: unlimited.
    last_cut: Option<Cut>,
    bucket: Bucket,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    at: Duration,
    /// The pace that was too fast.
    before: f64,
}

/// A bucket with room for the calls of [`Bucket::BURST`], or one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    next: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let second = || Window::new(Duration::from_millis(100));
        // Longer, for slow answers let calls begin in lumps.
        let begun = Window::new(Duration::from_millis(500));
        Self { begun, answered: second(), throttled: second(), last_cut: None, bucket: Bucket::default() }
    }
}

impl Pace {
    /// Calls a second that may begin now; none: as many as there are.
    pub fn limit(&self, now: Duration) -> Option<f64> {
        let cut = self.last_cut.filter(|cut| now < cut.at + FORGOTTEN)?;
        let seconds = (now - cut.at).as_secs_f64();
        let back_after = (cut.before * (1.0 - CUT) / RISE).cbrt();
        let curve = RISE * (seconds - back_after).powi(3) + cut.before;
        // A sender that has little to send learns nothing about what the provider takes.
        Some(curve.min(cut.before.max(2.0 * self.observed(now))).max(LEAST))
    }

    /// Calls a second that began: in the last five seconds, for after a lull the last one says too little, or in the last whole
    /// one, for of a pace that rises five say too little.
    pub fn observed(&self, now: Duration) -> f64 {
        self.begun.rate(now).max(self.begun.rate_of_last(2, now))
    }

    /// The share of the last second's answers that was throttled.
    pub fn throttled_share(&self, now: Duration) -> f64 {
        f64::from(self.throttled.count(now)) / f64::from(self.answered.count(now).max(1))
    }

    /// From when on a call may begin; none: now.
    pub fn next_at(&self, now: Duration) -> Option<Duration> {
        self.limit(now).and_then(|_| self.bucket.next_at(now))
    }

    /// A call begins. One that may not by [`Self::next_at`], a probe, is charged all the same.
    pub fn begin(&mut self, now: Duration) {
        if let Some(limit) = self.limit(now) {
            self.bucket.charge(limit, now);
        }
        self.begun.add(now);
    }

    /// Charges a call and begins it, or says when to ask again.
    pub fn try_take(&mut self, now: Duration) -> Result<(), Duration> {
        self.next_at(now).map_or(Ok(()), Err)?;
        self.begin(now);
        Ok(())
    }

    /// A call was answered. Returns whether the pace is to be cut.
    pub fn answered(&mut self, throttled: bool, now: Duration) -> bool {
        self.answered.add(now);
        if !throttled {
            return false;
        }
        self.throttled.add(now);
        let tolerated = THROTTLED_SHARE * f64::from(self.answered.count(now));
        let by_chance = DEVIATIONS * tolerated.sqrt();
        let recently = self.last_cut.is_some_and(|cut| now < cut.at + CUT_INTERVAL);
        !recently && f64::from(self.throttled.count(now)) >= tolerated + by_chance
    }

    /// Cuts the pace. What was answered before says nothing about the new one.
    pub fn cut(&mut self, now: Duration) {
        let observed = self.observed(now);
        let before = self.limit(now).map_or(observed, |limit| limit.min(observed)).max(LEAST);
        self.last_cut = Some(Cut { at: now, before });
        self.forgive();
    }

    /// Forgets the last second's answers: somebody else was to blame for them.
    pub(crate) fn forgive(&mut self) {
        self.answered.clear();
        self.throttled.clear();
    }
}

impl Bucket {
    /// What may begin at once after a pause: timers are this coarse.
    const BURST: Duration = Duration::from_millis(20);

    pub(crate) fn next_at(self, now: Duration) -> Option<Duration> {
        (now < self.next).then_some(self.next)
    }

    pub(crate) fn charge(&mut self, rate: f64, now: Duration) {
        self.next = self.next.max(now.saturating_sub(Self::BURST)) + Duration::from_secs_f64(1.0 / rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// A second of calls at an even pace, of which each `nth` is throttled.
    fn second(pace: &mut Pace, from: f64, calls: u32, nth: u32) -> bool {
        let mut due = false;
        for call in 0..calls {
            let now = at(from + f64::from(call) / f64::from(calls));
            pace.begin(now);
            due |= pace.answered(call % nth == nth - 1, now);
        }
        due
    }

    #[test]
    fn nothing_is_limited_until_more_than_a_few_are_throttled() {
        let mut pace = Pace::default();
        assert!(!second(&mut pace, 0.0, 1_000, u32::MAX));
        assert!(!second(&mut pace, 1.0, 1_000, 50), "2 %");
        assert_eq!((pace.limit(at(2.0)), pace.next_at(at(2.0))), (None, None));
        assert!(second(&mut pace, 2.0, 1_000, 20), "5 %");
    }

    #[test]
    fn a_cut_pace_comes_back_along_the_cubic() {
        let mut pace = Pace::default();
        second(&mut pace, 0.0, 1_000, u32::MAX);
        pace.cut(at(1.0));
        let limit = |pace: &Pace, seconds| pace.limit(at(seconds)).unwrap();
        assert!((690.0..710.0).contains(&limit(&pace, 1.0)), "{}", limit(&pace, 1.0));
        for i in 1..14 {
            second(&mut pace, f64::from(i), 900, u32::MAX);
        }
        let back = limit(&pace, 1.0 + 750f64.cbrt());
        assert!((990.0..1_010.0).contains(&back), "{back}");
        assert!(limit(&pace, 5.0) > 900.0);
        assert!(limit(&pace, 14.0) > 1_010.0);
        assert_eq!(pace.limit(at(61.0)), None, "after a minute it is unlimited");
    }

    #[test]
    fn a_sender_with_little_to_send_stays_where_it_was_cut() {
        let mut pace = Pace::default();
        second(&mut pace, 0.0, 100, u32::MAX);
        pace.cut(at(1.0));
        assert_eq!(pace.limit(at(50.0)).map(f64::round), Some(100.0));
    }

    #[test]
    fn it_is_cut_at_most_twice_a_second_and_never_below_one() {
        let mut pace = Pace::default();
        second(&mut pace, 0.0, 4, 1);
        pace.cut(at(1.0));
        assert!(!pace.answered(true, at(1.4)));
        assert!(pace.answered(true, at(1.5)));
        for i in 0..20 {
            pace.cut(at(2.0 + f64::from(i)));
        }
        assert_eq!(pace.limit(at(21.0)), Some(1.0));
    }

    #[test]
    fn a_limited_pace_lets_one_go_after_the_other() {
        let mut pace = Pace::default();
        second(&mut pace, 0.0, 1_000, u32::MAX);
        pace.cut(at(1.0));
        let mut begun = 0;
        let mut now = at(1.0);
        while now < at(2.0) {
            match pace.try_take(now) {
                Ok(()) => begun += 1,
                Err(next_at) => now = next_at,
            }
        }
        assert!((700..860).contains(&begun), "{begun}");
    }
}
