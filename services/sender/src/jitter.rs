//! The retry schedule. `backoff` is unmaintained (RUSTSEC-2025-0012) and used in this module only: replacing it, for
//! instance by `backon`, is one commit.

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff;

use crate::timing::JITTER_PERCENT;

/// The delay, made shorter or longer at random, so that messages that failed together don't return together.
pub(crate) fn jittered(delay: Duration) -> Duration {
    ExponentialBackoffBuilder::new()
        .with_initial_interval(delay)
        .with_max_interval(delay)
        .with_randomization_factor(JITTER_PERCENT as f64 / 100.0)
        .with_max_elapsed_time(None)
        .build()
        .next_backoff()
        .unwrap_or(delay)
}

/// A number from 0 to 1, from the same source as the jitter.
pub(crate) fn random() -> f64 {
    let interval = ExponentialBackoffBuilder::new()
        .with_initial_interval(Duration::from_secs(1))
        .with_randomization_factor(1.0)
        .build()
        .next_backoff();
    interval.unwrap_or_default().as_secs_f64() / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_stays_within_its_jitter() {
        for delay in [1, 2, 4].map(Duration::from_secs) {
            for _ in 0..1_000 {
                let jittered = jittered(delay).as_secs_f64() / delay.as_secs_f64();
                assert!((0.85..=1.15).contains(&jittered), "{jittered}");
            }
        }
    }

    #[test]
    fn a_random_number_lies_between_0_and_1_and_is_not_always_the_same() {
        let numbers: Vec<f64> = (0..1_000).map(|_| random()).collect();
        assert!(numbers.iter().all(|number| (0.0..=1.0).contains(number)));
        assert!(numbers.iter().any(|number| *number < 0.2) && numbers.iter().any(|number| *number > 0.8));
    }
}
