//! What is drawn for a call. The same seed, message id and call number give the same draw, whatever the order and timing
//! of calls: a run replays.

use std::str::FromStr;
use std::time::Duration;

/// How long an answer takes: uniform between the two, `50ms` or `20ms..80ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl Latency {
    pub(crate) fn of(&self, seed: u64, id: i64, call: u32) -> Duration {
        /// No rule has this index, so latency and faults are drawn apart.
        const SALT: u64 = u64::MAX;
        self.min + self.max.saturating_sub(self.min).mul_f64(draw(seed, id, call, SALT))
    }
}

impl FromStr for Latency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let parse = |text: &str| humantime::parse_duration(text).map_err(|error| format!("{text:?}: {error}"));
        let latency = Self { min: parse(min)?, max: parse(max)? };
        if latency.min > latency.max {
            return Err(format!("{min} is longer than {max}"));
        }
        Ok(latency)
    }
}

/// A number in 0..1 that depends on nothing but its arguments.
pub(crate) fn draw(seed: u64, id: i64, call: u32, salt: u64) -> f64 {
    let mixed = [id as u64, u64::from(call), salt].into_iter().fold(mix(seed), |state, word| mix(state ^ word));
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_one_duration_or_a_range() {
        let ms = Duration::from_millis;
        assert_eq!("0ms".parse(), Ok(Latency::default()));
        assert_eq!("20ms..80ms".parse(), Ok(Latency { min: ms(20), max: ms(80) }));
        assert!("80ms..20ms".parse::<Latency>().is_err());
        assert!("soon".parse::<Latency>().is_err());
        let range = Latency { min: ms(20), max: ms(80) };
        assert!((1..1_000).all(|id| (ms(20)..ms(80)).contains(&range.of(1, id, 1))));
    }
}
