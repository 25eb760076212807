//! Rule 10. Counters are what they count, at every moment, and so is every answer.

use crate::case::Case;
use crate::rules::Findings;

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    let (mut snapshots, mut answers) = (0, 0);
    for sample in &case.evidence.samples {
        for snapshot in sample.snapshot.iter().flatten() {
            snapshots += 1;
            // A counter that went back to 0 stays.
            let counts: Vec<_> = snapshot.counts.iter().filter(|(_, n)| **n != 0).collect();
            let rows: Vec<_> = snapshot.rows.iter().collect();
            findings.check(counts == rows, || {
                format!("mailing {} at {}: counts {counts:?}, rows {rows:?}", snapshot.mailing_no, sample.at)
            });
        }
        for answer in sample.answers.iter().flatten() {
            answers += 1;
            let n = |name: &str| answer.counts.get(name).copied().flatten();
            let others = answer.counts.iter().filter(|(name, _)| !matches!(name.as_str(), "audience" | "planned"));
            let sum: i64 = others.filter_map(|(_, n)| *n).sum();
            findings.check(n("planned") == Some(sum), || {
                format!("the API said of mailing {} at {}: {:?}", answer.mailing, sample.at, answer.counts)
            });
        }
    }
    findings.must_have_seen("counters and rows", snapshots);
    findings.must_have_seen("the API's counts", answers);
    findings
}
