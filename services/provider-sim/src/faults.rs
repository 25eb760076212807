//! Which calls go wrong, and how. The same seed, rules, message id and call number give the same fate, whatever the
//! order and timing of calls: a run replays. Only a rule with `over_per_second` goes by the time of calls.

use std::collections::VecDeque;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::draw::draw;
use crate::fault::Fault;

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
    /// How much later than others the answer comes, ms. Whether the message is accepted is decided before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub delay_ms: u64,
    /// The share of calls that it meets, 0 to 1, drawn for each call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Only the first so many calls of each message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_calls: Option<u32>,
    /// Only these messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cohort: Option<Cohort>,
    /// Only phones with these operator codes, the digits 2 to 4 of a phone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_codes: Option<Vec<i16>>,
    /// Only the calls above so many in any second, of those that meet the other conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_per_second: Option<u32>,
}

fn is_zero(ms: &u64) -> bool {
    *ms == 0
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

impl Rule {
    /// The fault for every call; narrow it by struct update.
    pub fn always(fault: Fault) -> Self {
        Self {
            fault,
            delay_ms: 0,
            probability: None,
            first_calls: None,
            cohort: None,
            operator_codes: None,
            over_per_second: None,
        }
    }

    fn check(&self) -> Result<(), String> {
        self.fault.check()?;
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

    /// Whether all conditions hold that don't depend on other calls.
    fn applies(&self, seed: u64, index: usize, call: Called) -> bool {
        let Called { id, call, phone, .. } = call;
        self.first_calls.is_none_or(|first| call <= first)
            && self.cohort.is_none_or(|cohort| id % cohort.modulus == cohort.remainder)
            && self.operator_codes.as_ref().is_none_or(|codes| codes.contains(&operator_code(phone)))
            && self.probability.is_none_or(|probability| draw(seed, id, call, index as u64) < probability)
    }
}

fn operator_code(phone: i64) -> i16 {
    (phone / 10_000_000 % 1_000) as i16
}

/// What rules go by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Called {
    pub(crate) id: i64,
    pub(crate) call: u32,
    pub(crate) phone: i64,
    /// µs since the epoch.
    pub(crate) at: i64,
}

/// The rules, and what passed by those with a limit.
#[derive(Debug)]
pub(crate) struct InForce {
    faults: Faults,
    passed: Vec<Passed>,
}

impl InForce {
    pub(crate) fn new(faults: Faults) -> Self {
        let passed = faults.0.iter().map(|_| Passed::default()).collect();
        Self { faults, passed }
    }

    pub(crate) fn into_faults(self) -> Faults {
        self.faults
    }

    /// The rule that decides the call, which counts for the limits of the rules before it.
    pub(crate) fn meeting(&mut self, seed: u64, call: Called) -> Option<&Rule> {
        let mut rules = self.faults.0.iter().zip(&mut self.passed).enumerate();
        rules.find_map(|(index, (rule, passed))| {
            let met = rule.applies(seed, index, call)
                && rule.over_per_second.is_none_or(|limit| !passed.pass(limit, call.at));
            met.then_some(rule)
        })
    }
}

/// The calls that a limit let pass within the last second.
#[derive(Debug, Default)]
struct Passed(VecDeque<i64>);

impl Passed {
    fn pass(&mut self, limit: u32, now: i64) -> bool {
        const WINDOW: i64 = 1_000_000;
        while self.0.front().is_some_and(|at| now - at >= WINDOW) {
            self.0.pop_front();
        }
        let has_room = self.0.len() < limit as usize;
        if has_room {
            self.0.push_back(now);
        }
        has_room
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

#[cfg(test)]
mod tests {
    use super::*;

    const PHONE: i64 = 79_161_234_567;

    fn met(faults: &Faults, seed: u64, id: i64, call: u32) -> Option<Fault> {
        InForce::new(faults.clone())
            .meeting(seed, Called { id, call, phone: PHONE, at: 0 })
            .map(|rule| rule.fault.clone())
    }

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
            assert_eq!(met(&faults, 1, id, call), expected, "{name}");
        }
    }

    #[test]
    fn a_probability_is_met_and_replays_by_seed_id_and_call() {
        let faults = Faults::try_from(vec![Rule { probability: Some(0.05), ..Rule::always(Fault::Garbage) }]).unwrap();
        let fates = |seed| (1..=100_000).map(|id| met(&faults, seed, id, 1).is_some()).collect::<Vec<_>>();
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
            r#"[{"fault": {"retry_after": {"status": 429}}}]"#,
            r#"[{"fault": {"retry_after": {"status": 429, "date": 9000000000000000}}}]"#,
            r#"[{"fault": {"answer": {"status": 101}}}]"#,
            r#"[{"fault": {"answer": {"stat": 200}}}]"#,
            r#"[{"fault": {"answer": {"headers": {"a b": "c"}}}}]"#,
            r#"[{"fault": {"answer": {"encoding": "zip"}}}]"#,
            r#"[{"fault": {"answer": {"retry_after": {"text": "a\nb"}}}}]"#,
            r#"[{"fault": "sulk"}]"#,
        ];
        for json in refused {
            assert!(json.parse::<Faults>().is_err(), "{json}");
        }
    }

    #[test]
    fn a_rule_for_operators_meets_their_phones_only() {
        let faults: Faults = r#"[{"fault": "hang", "operator_codes": [916, 917]}]"#.parse().unwrap();
        let mut rules = InForce::new(faults);
        let phones = [79_161_234_567, 79_170_000_000, 79_181_234_567, 79_261_691_691, 0];
        let met = phones.map(|phone| rules.meeting(1, Called { id: 1, call: 1, phone, at: 0 }).is_some());
        assert_eq!(met, [true, true, false, false, false]);
    }

    #[test]
    fn a_limit_lets_so_many_calls_pass_in_any_second() {
        let faults: Faults = r#"[
            {"fault": {"status": 429}, "over_per_second": 3, "operator_codes": [916]},
            {"fault": "hang", "probability": 0.0}
        ]"#
        .parse()
        .unwrap();
        let mut rules = InForce::new(faults);
        let mut passes = |phone, at: i64| rules.meeting(1, Called { id: 1, call: 1, phone, at: at * 1_000 }).is_none();
        let mut log = vec![];
        for at in (0..3_000).step_by(100) {
            // What the rule isn't for doesn't count for its limit, nor does what it has met.
            assert!((0..10).all(|_| passes(79_171_234_567, at)));
            log.extend((0..2).filter(|_| passes(PHONE, at)).map(|_| at));
        }
        assert_eq!(log, [0, 0, 100, 1_000, 1_000, 1_100, 2_000, 2_000, 2_100]);
    }
}
