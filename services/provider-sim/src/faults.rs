//! Which calls go wrong, and how. The same seed, rules, message id and call number give the same fate, whatever the
//! order and timing of calls: a run replays.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The rules in force, in order; the first that applies to a call decides it, and a call to which none applies is
/// accepted. In JSON a list of rules: `[{"fault": {"status": 500}, "probability": 0.1}, {"fault": "hang"}]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Rule>")]
pub struct Faults(Vec<Rule>);

/// A fault and whom it meets: all conditions that are given must hold, none given means every call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What goes wrong.
    pub fault: Fault,
    /// The share of calls that it meets, 0 to 1, drawn for each call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Only the first so many calls of each message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_calls: Option<u32>,
    /// Only these messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cohort: Option<Cohort>,
}

/// The messages whose `id % modulus == remainder`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cohort {
    /// At least 1. A power of two up to 2^33 counts by client alone.
    pub modulus: i64,
    /// Below the modulus.
    pub remainder: i64,
}

/// One way to go wrong. Only `reset_after` accepts the message.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// This status, 300 to 599; a redirect points to the same address.
    Status(u16),
    /// A status with `Retry-After`.
    RetryAfter {
        /// 429 or 503.
        status: u16,
        /// The header's value.
        seconds: u32,
    },
    /// 200 with this `code`, which isn't 0.
    Code(i32),
    /// 200 with a body that is no JSON.
    Garbage,
    /// No answer until the client gives up.
    Hang,
    /// The message is accepted, then the connection is reset without an answer.
    ResetAfter,
    /// The connection is reset, the message is not accepted.
    ResetBefore,
    /// 503 without `Retry-After`.
    Outage,
}

impl Rule {
    /// The fault for every call; narrow it by struct update.
    pub fn always(fault: Fault) -> Self {
        Self { fault, probability: None, first_calls: None, cohort: None }
    }

    fn check(&self) -> Result<(), String> {
        match self.fault {
            Fault::Status(status) if !(300..600).contains(&status) => {
                return Err(format!("status {status} is not within 300..=599"));
            }
            Fault::RetryAfter { status, .. } if status != 429 && status != 503 => {
                return Err(format!("retry_after goes with 429 or 503, not {status}"));
            }
            Fault::Code(0) => return Err("code 0 is success, not a fault".to_owned()),
            _ => {}
        }
        if let Some(probability) = self.probability
            && !(0.0..=1.0).contains(&probability)
        {
            return Err(format!("probability {probability} is not within 0..=1"));
        }
        match self.cohort {
            Some(Cohort { modulus, remainder }) if modulus < 1 || !(0..modulus).contains(&remainder) => {
                Err(format!("there is no remainder {remainder} by modulus {modulus}"))
            }
            _ => Ok(()),
        }
    }

    fn applies(&self, seed: u64, index: usize, id: i64, call: u32) -> bool {
        self.first_calls.is_none_or(|first| call <= first)
            && self.cohort.is_none_or(|cohort| id % cohort.modulus == cohort.remainder)
            && self.probability.is_none_or(|probability| draw(seed, id, call, index as u64) < probability)
    }
}

impl Faults {
    pub(crate) fn meeting(&self, seed: u64, id: i64, call: u32) -> Option<Fault> {
        let rule = self.0.iter().enumerate().find(|(index, rule)| rule.applies(seed, *index, id, call));
        rule.map(|(_, rule)| rule.fault)
    }
}

impl TryFrom<Vec<Rule>> for Faults {
    type Error = String;

    /// Fails on a rule that makes no sense, with its position.
    fn try_from(rules: Vec<Rule>) -> Result<Self, String> {
        for (index, rule) in rules.iter().enumerate() {
            rule.check().map_err(|reason| format!("rule {index}: {reason}"))?;
        }
        Ok(Self(rules))
    }
}

impl FromStr for Faults {
    type Err = serde_json::Error;

    fn from_str(json: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(json)
    }
}

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
fn draw(seed: u64, id: i64, call: u32, salt: u64) -> f64 {
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
    fn the_first_rule_that_applies_decides() {
        let faults: Faults = r#"[
            {"fault": "hang", "first_calls": 1, "cohort": {"modulus": 10, "remainder": 3}},
            {"fault": {"status": 500}, "first_calls": 2},
            {"fault": {"retry_after": {"status": 429, "seconds": 2}}, "probability": 0.0},
            {"fault": {"code": 7}, "cohort": {"modulus": 2, "remainder": 0}}
        ]"#
        .parse()
        .unwrap();
        let cases = [
            ("cohort and first call", 13, 1, Some(Fault::Hang)),
            ("first call outside the cohort", 14, 1, Some(Fault::Status(500))),
            ("second call of the cohort", 13, 2, Some(Fault::Status(500))),
            ("third call, even id", 14, 3, Some(Fault::Code(7))),
            ("third call, odd id", 13, 3, None),
        ];
        for (name, id, call, expected) in cases {
            assert_eq!(faults.meeting(1, id, call), expected, "{name}");
        }
    }

    #[test]
    fn a_probability_is_met_and_replays_by_seed_id_and_call() {
        let faults = Faults::try_from(vec![Rule { probability: Some(0.05), ..Rule::always(Fault::Garbage) }]).unwrap();
        let fates = |seed| (1..=100_000).map(|id| faults.meeting(seed, id, 1).is_some()).collect::<Vec<_>>();
        let share = |fates: &[bool]| fates.iter().filter(|met| **met).count();
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
        assert!((4_700..5_300).contains(&share(&fates(7))), "{}", share(&fates(7)));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        let refused = [
            r#"[{"fault": {"status": 200}}]"#,
            r#"[{"fault": {"retry_after": {"status": 500, "seconds": 1}}}]"#,
            r#"[{"fault": {"code": 0}}]"#,
            r#"[{"fault": "hang", "probability": 1.5}]"#,
            r#"[{"fault": "hang", "cohort": {"modulus": 0, "remainder": 0}}]"#,
            r#"[{"fault": "hang", "cohort": {"modulus": 2, "remainder": 2}}]"#,
            r#"[{"fault": "hang", "first_call": 1}]"#,
            r#"[{"fault": "sulk"}]"#,
        ];
        for json in refused {
            assert!(json.parse::<Faults>().is_err(), "{json}");
        }
    }

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
