//! The rules, a file each.

mod attempts;
mod audience;
mod bounds;
mod conservation;
mod counts;
mod cursors;
mod doubles;
mod offsets;
mod outcomes;
mod secrecy;
mod statuses;
mod times;

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
}

impl Verdict {
    /// Whether there is no violation.
    pub fn holds(&self) -> bool {
        self.findings.violations == 0
    }
}

/// One line, and one for each violation that is shown.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Findings { checked, violations, shown, note } = &self.findings;
        let note = note.as_ref().map_or(String::new(), |note| format!(", {note}"));
        let head = if self.holds() { "ok      " } else { "VIOLATED" };
        write!(f, "{head} {:2} {} ({checked} checked{note})", self.number, self.title)?;
        if !self.holds() {
            write!(f, ": {violations} violations")?;
        }
        shown.iter().try_for_each(|violation| write!(f, "\n            {violation}"))?;
        if shown.len() < *violations {
            write!(f, "\n            … and {} more", violations - shown.len())?;
        }
        Ok(())
    }
}

type Rule = (&'static str, fn(&Case<'_>) -> Findings);

const RULES: [Rule; 12] = [
    ("clients that match = messages planned = rows = counts, all terminal", conservation::check),
    ("nothing for a client outside the audience; ids, phones and texts right", audience::check),
    ("one terminal status a message and round, and the row shows it", statuses::check),
    ("what the provider took is what Herald says", outcomes::check),
    ("each message accepted once, or again for a reason", doubles::check),
    ("at most 4 attempts, and far enough apart", attempts::check),
    ("no call before the start, after the end, or while forbidden", times::check),
    ("commits never go back, nor pass an unsettled message", offsets::check),
    ("planning cursors rise, and pages tile", cursors::check),
    ("counts = COUNT(*), and planned = the sum in every answer", counts::check),
    ("open slots and memory within bounds", bounds::check),
    ("no phone, text or token in logs, metrics, keys and headers", secrecy::check),
];

/// Judges by every rule.
pub fn judge(evidence: &Evidence) -> Vec<Verdict> {
    let case = Case::of(evidence);
    let judged = RULES.iter().enumerate();
    judged.map(|(index, (title, check))| Verdict { number: index + 1, title, findings: check(&case) }).collect()
}
