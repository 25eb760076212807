//! The rules, a file each.

mod attempts;
mod audience;
mod bounds;
mod conservation;
mod counts;
mod cursors;
mod doubles;
mod given_up;
mod held;
mod offsets;
mod outcomes;
mod points;
mod rounds;
mod secrecy;
mod statuses;
mod tally;
mod times;
mod uncalled;
mod validity;

use std::fmt;

use crate::case::Case;
use crate::evidence::Evidence;

/// Violations of one rule that are shown; the others are counted.
const SHOWN: usize = 20;

/// What came of one rule.
#[derive(Debug)]
pub struct Verdict {
    /// From 1.
    pub number: usize,
    title: &'static str,
    /// The run has given the rule something to look at.
    has_occasion: bool,
    findings: Findings,
}

/// What a rule has looked at and found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// How many things were looked at: a rule that had nothing to look at proves nothing.
    checked: usize,
    violations: usize,
    shown: Vec<String>,
    note: Option<String>,
}

impl Findings {
    /// Looks at one more thing.
    fn check(&mut self, holds: bool, violation: impl FnOnce() -> String) {
        self.checked += 1;
        if !holds {
            self.object(violation());
        }
    }

    fn object(&mut self, violation: String) {
        self.violations += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(violation);
        }
    }

    /// Objects if a part of the rule had nothing to look at: whoever should have seen it is blind.
    fn must_have_seen(&mut self, what: &str, times: usize) {
        if times == 0 {
            self.object(format!("nothing was seen of {what}: it proves nothing"));
        }
    }
}

impl Verdict {
    /// Whether there is no violation, and the rule has looked at something if there was anything to look at.
    pub fn holds(&self) -> bool {
        self.findings.violations == 0 && !self.is_blind()
    }

    fn is_blind(&self) -> bool {
        self.findings.checked == 0 && self.has_occasion
    }
}

/// One line, and one for each violation that is shown.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Findings { checked, violations, shown, note } = &self.findings;
        let note = note.as_ref().map_or(String::new(), |note| format!(", {note}"));
        let head = if *violations > 0 {
            "VIOLATED"
        } else if self.is_blind() {
            "BLIND   "
        } else {
            "ok      "
        };
        write!(f, "{head} {:2} {} ", self.number, self.title)?;
        if *checked == 0 {
            write!(f, "(nothing to look at{note})")?;
        } else {
            write!(f, "({checked} checked{note})")?;
        }
        if *violations > 0 {
            write!(f, ": {violations} violations")?;
        }
        shown.iter().try_for_each(|violation| write!(f, "\n            {violation}"))?;
        if shown.len() < *violations {
            write!(f, "\n            … and {} more", violations - shown.len())?;
        }
        Ok(())
    }
}

struct Rule {
    title: &'static str,
    /// Whether a run has something for it to look at.
    has_occasion: fn(&Case<'_>) -> bool,
    check: fn(&Case<'_>) -> Findings,
}

impl Rule {
    /// A rule for which each run has something to look at.
    const fn always(title: &'static str, check: fn(&Case<'_>) -> Findings) -> Self {
        Self { title, has_occasion: |_| true, check }
    }

    const fn when(has_occasion: fn(&Case<'_>) -> bool, title: &'static str, check: fn(&Case<'_>) -> Findings) -> Self {
        Self { title, has_occasion, check }
    }
}

const RULES: [Rule; 19] = [
    Rule::always("clients that match = messages planned = rows = counts, all terminal", conservation::check),
    Rule::always("nothing for a client outside the audience; ids, phones and texts right", audience::check),
    Rule::always("one terminal status a message and round, and the row shows it", statuses::check),
    Rule::always("what the provider took is what Herald says", outcomes::check),
    Rule::always("each message accepted once, or again for a reason", doubles::check),
    Rule::always("at most 4 attempts, and far enough apart", attempts::check),
    Rule::always("no call before the start, after the end, or while forbidden", times::check),
    Rule::always("commits never go back, nor pass a message whose status isn't in Kafka", offsets::check),
    Rule::always("planning cursors rise, and pages tile", cursors::check),
    Rule::always("counts = COUNT(*), and planned = the sum in every answer", counts::check),
    Rule::always("open slots and memory within bounds", bounds::check),
    Rule::always("no phone, text or token in logs, metrics, keys and headers", secrecy::check),
    Rule::when(uncalled::has_occasion, "settled without a call only when it is due", uncalled::check),
    Rule::when(given_up::has_occasion, "unknown by a lost answer, exhausted by 4 attempts", given_up::check),
    Rule::when(points::has_occasion, "each crash point was reached by most that were to die there", points::check),
    Rule::when(rounds::has_occasion, "a round begins when the one before is over, and so do calls", rounds::check),
    Rule::when(validity::has_occasion, "no call when its planning is old, or before it is due", validity::check),
    Rule::when(held::has_occasion, "rows held = their sums by reason, and none at the end", held::check),
    Rule::always("attempts told = calls made, the throttled ones not counted", tally::check),
];

/// Judges by every rule.
pub fn judge(evidence: &Evidence) -> Vec<Verdict> {
    let case = Case::of(evidence);
    let verdict = |(index, rule): (usize, &Rule)| Verdict {
        number: index + 1,
        title: rule.title,
        has_occasion: (rule.has_occasion)(&case),
        findings: (rule.check)(&case),
    };
    RULES.iter().enumerate().map(verdict).collect()
}
