//! The retry schedule. `backoff` is unmaintained (RUSTSEC-2025-0012) and used in this module only: replacing it, for
//! instance by `backon`, is one commit.

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff;

/// A retry comes within ±20 % of its delay; the rest of that is for timers and the network.
const JITTER: f64 = 0.15;

/// The delay, made shorter or longer at random, so that messages that failed together don't return together.
pub(crate) fn jittered(delay: Duration) -> Duration {
    ExponentialBackoffBuilder::new()
        .with_initial_interval(delay)
        .with_max_interval(delay)
        .with_randomization_factor(JITTER)
        .with_max_elapsed_time(None)
        .build()
        .next_backoff()
        .unwrap_or(delay)
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
}
