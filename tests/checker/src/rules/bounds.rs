//! Rule 11. What is open is bounded, and so is memory.

use crate::case::Case;
use crate::rules::Findings;
use crate::sample::Committed;

/// Messages taken in and not settled, in a partition.
const SLOTS: f64 = 1_000.0;

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    let (mut most_open, mut most_memory) = (0.0_f64, 0.0_f64);
    for sample in &case.evidence.samples {
        for process in &sample.processes {
            let (ops, at) = (&process.ops, sample.at);
            if let Some(open) = process.open_slots {
                most_open = most_open.max(open);
                let within = open <= SLOTS * case.evidence.partitions as f64;
                findings.check(within, || format!("{ops} had {open} open slots at {at}"));
            }
            if let Some(memory) = process.memory {
                most_memory = most_memory.max(memory);
                let within = case.evidence.memory_limit.is_none_or(|limit| memory <= limit as f64);
                findings.check(within, || format!("{ops} took {memory} bytes at {at}"));
            }
        }
        for commit in sample.committed.iter().flatten() {
            let open = word(commit, "open=");
            let bounded = open.is_none_or(|open| open as f64 <= SLOTS);
            findings.check(bounded, || format!("partition {} had {open:?} messages open", commit.partition));
        }
    }
    findings.note = Some(format!("at most {most_open} open slots and {:.0} MB", most_memory / 1e6));
    findings
}

fn word(commit: &Committed, name: &str) -> Option<i64> {
    commit.metadata.split(' ').find_map(|word| word.strip_prefix(name)?.parse().ok())
}
