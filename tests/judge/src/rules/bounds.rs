//! Rule 11. What is open or not acknowledged is bounded, and so is memory.

use crate::case::{CALL_TIMEOUT, Case};
use crate::faults::CutOff;
use crate::rules::Findings;

/// Messages taken in and not settled, in a partition; each has one status under way at most.
const SLOTS: f64 = 1_000.0;

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    let (mut most_open, mut most_statuses, mut most_memory) = (0.0_f64, 0.0_f64, 0.0_f64);
    let mut seen = [0_usize; 4];
    for sample in &case.evidence.samples {
        for process in &sample.processes {
            let (ops, at) = (&process.ops, sample.at);
            if let Some(open) = process.open_slots {
                seen[0] += 1;
                most_open = most_open.max(open);
                let within = open <= SLOTS * case.evidence.partitions as f64;
                findings.check(within, || format!("{ops} had {open} open slots at {at}"));
            }
            if let Some(statuses) = process.unacknowledged {
                seen[1] += 1;
                most_statuses = most_statuses.max(statuses);
                let within = statuses <= SLOTS * case.evidence.partitions as f64;
                findings.check(within, || format!("{ops} had {statuses} unacknowledged statuses at {at}"));
            }
            if let Some(memory) = process.memory {
                seen[2] += 1;
                most_memory = most_memory.max(memory);
                let within = case.evidence.memory_limit.is_none_or(|limit| memory <= limit as f64);
                findings.check(within, || format!("{ops} took {memory} bytes at {at}"));
            }
        }
        for commit in sample.committed.iter().flatten() {
            let Some(open) = commit.word("open").and_then(|open| open.parse::<u64>().ok()) else { continue };
            seen[3] += 1;
            let bounded = open as f64 <= SLOTS;
            findings.check(bounded, || format!("partition {} had {open} messages open", commit.partition));
        }
    }
    let parts = ["open slots", "unacknowledged statuses", "memory", "what commits say is open"];
    parts.iter().zip(seen).for_each(|(part, times)| findings.must_have_seen(part, times));
    for cut in &case.faults.cut_off {
        nothing_begun(case, cut, &mut findings);
    }
    findings.note = Some(format!(
        "at most {most_open} open slots, {most_statuses} unacknowledged statuses and {:.0} MB",
        most_memory / 1e6
    ));
    findings
}

/// A sender that can't prove anything any more begins no call and settles no message without one: when its calls have ended
/// it writes no further status.
fn nothing_begun(case: &Case<'_>, cut: &CutOff, findings: &mut Findings) {
    let silent = |at: i64| cut.forbidden().start + CALL_TIMEOUT <= at && at < cut.until;
    let samples = case.evidence.samples.iter().filter(|sample| silent(sample.at));
    let mut least = f64::INFINITY;
    for sample in samples {
        let process = sample.processes.iter().find(|process| Some(&process.ops) == cut.ops.as_ref());
        let Some(statuses) = process.and_then(|process| process.unacknowledged) else { continue };
        findings.check(statuses <= least, || {
            format!(
                "{} wrote statuses while it was cut off: it had {statuses} at {}, and {least} before",
                cut.name, sample.at
            )
        });
        least = least.min(statuses);
    }
}
