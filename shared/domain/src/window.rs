//! Counts over the last moments, in as little memory as there are slices of it.

use std::time::Duration;

/// A count over the last `SLICES` slices of time, the current one included.
#[derive(Clone, Debug)]
pub(crate) struct Window<const SLICES: usize> {
    slice: Duration,
    counts: [u32; SLICES],
    newest: u64,
}

impl<const SLICES: usize> Window<SLICES> {
    pub(crate) fn new(slice: Duration) -> Self {
        Self { slice, counts: [0; SLICES], newest: 0 }
    }

    pub(crate) fn add(&mut self, now: Duration) {
        let index = self.index(now);
        if index > self.newest {
            for passed in (self.newest + 1..=index).take(SLICES) {
                *self.at(passed) = 0;
            }
            self.newest = index;
        }
        *self.at(self.newest) += 1;
    }

    pub(crate) fn count(&self, now: Duration) -> u32 {
        let oldest = (self.index(now) + 1).saturating_sub(SLICES as u64);
        (oldest..=self.newest).map(|index| self.counts[(index % SLICES as u64) as usize]).sum()
    }

    /// How many a second: over all slices or since the first that counted something, but over one slice at least.
    pub(crate) fn rate(&self, now: Duration) -> f64 {
        let oldest = (self.index(now) + 1).saturating_sub(SLICES as u64);
        let first = (oldest..=self.newest).find(|index| self.counts[(index % SLICES as u64) as usize] > 0);
        let Some(first) = first else { return 0.0 };
        let since = now.saturating_sub(self.slice.mul_f64(first as f64)).max(self.slice);
        f64::from(self.count(now)) / since.as_secs_f64()
    }

    /// How many a second over the last so many slices that are over.
    pub(crate) fn rate_of_last(&self, slices: u64, now: Duration) -> f64 {
        let current = self.index(now);
        let slice = |index: u64| self.counts[(index % SLICES as u64) as usize];
        let counted = (current.saturating_sub(slices)..current).filter(|index| *index <= self.newest).map(slice);
        f64::from(counted.sum::<u32>()) / (self.slice.as_secs_f64() * slices as f64)
    }

    pub(crate) fn clear(&mut self) {
        self.counts = [0; SLICES];
    }

    fn index(&self, now: Duration) -> u64 {
        (now.as_nanos() / self.slice.as_nanos()) as u64
    }

    fn at(&mut self, index: u64) -> &mut u32 {
        &mut self.counts[(index % SLICES as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLICE: Duration = Duration::from_millis(100);

    proptest! {
        #[test]
        fn a_window_counts_what_lies_within_its_slices(gaps in prop::collection::vec(0u64..900, 1..80)) {
            let mut window = Window::<10>::new(SLICE);
            let mut times: Vec<u64> = Vec::new();
            let mut now = 0;
            for gap in gaps {
                now += gap;
                times.push(now);
                window.add(Duration::from_millis(now));
                let within = times.iter().filter(|time| *time / 100 + 10 > now / 100).count();
                prop_assert_eq!(window.count(Duration::from_millis(now)) as usize, within);
            }
            prop_assert_eq!(window.count(Duration::from_millis(now + 1_000)), 0);
        }
    }

    #[test]
    fn a_rate_counts_from_the_first_call() {
        let mut window = Window::<10>::new(SLICE);
        assert_eq!(window.rate(Duration::from_secs(7)), 0.0);
        for i in 0..20 {
            window.add(Duration::from_millis(7_000 + i));
        }
        assert_eq!(window.rate(Duration::from_millis(7_020)), 200.0, "but over one slice");
        assert_eq!(window.rate(Duration::from_millis(7_200)), 100.0);
        assert_eq!(window.rate(Duration::from_secs(9)), 0.0);
    }
}
