//! Rule 15. Of the processes that were to die at a point of the code most did, at each point: else nothing was tried there.

use std::collections::BTreeMap;

use crate::case::Case;
use crate::journal::Entry;
use crate::rules::Findings;

pub(crate) fn has_occasion(case: &Case<'_>) -> bool {
    case.evidence.journal.iter().any(|entry| entry.point.is_some())
}

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    let mut points: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    for Entry { role, point, reached, .. } in &case.evidence.journal {
        let Some(point) = point else { continue };
        let (all, came) = points.entry((role.as_deref().unwrap_or_default(), point)).or_default();
        *all += 1;
        *came += usize::from(*reached);
    }
    for ((role, point), (all, came)) in points {
        findings.check(came * 2 > all, || format!("{came} of {all} {role}s came to {point}"));
    }
    findings
}
