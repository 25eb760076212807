//! Rule 6. Attempts are few and far enough apart. A `Retry-After` that the provider told is waited for.

use crate::case::Case;
use crate::evidence::Call;
use crate::ids::MessageId;
use crate::rules::Findings;

const ATTEMPTS: usize = 4;
/// Before the second, third and fourth attempt, µs, each 20 % shorter at the least.
const GAPS: [i64; 3] = [800_000, 1_600_000, 3_200_000];
/// A longer `Retry-After` is taken for this long, s: where a message waits in its slot for a day, and where it is held.
const LONGEST_WAIT: [i64; 2] = [86_400, 60];

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    for (id, calls) in &case.calls {
        let rounds = case.rounds_of(*id).len().max(1);
        for life in lives(case, calls) {
            let attempts = life.iter().filter(|call| is_attempt(case, call)).count();
            findings.check(attempts <= ATTEMPTS * rounds, || format!("message {id} had {attempts} attempts"));
            // Whoever got a text each time got no more than so many, also over rounds.
            let ambiguous = life.iter().filter(|call| call.is_attempt() && call.is_ambiguous()).count();
            findings.check(ambiguous <= ATTEMPTS, || format!("message {id} had {ambiguous} attempts in doubt"));
            // In a later round attempts are counted from another number, which the provider can't see.
            if rounds == 1 {
                gaps(case, *id, life, &mut findings);
            }
        }
    }
    findings
}

/// The calls between two faults by which a sender may have lost count.
fn lives<'a>(case: &Case<'_>, calls: &'a [&'a Call]) -> impl Iterator<Item = &'a [&'a Call]> {
    calls.chunk_by(|call, next| !case.faults.meet(call.sender, call.begun_at, next.begun_at))
}

/// A refused probe uses none up.
fn is_attempt(case: &Case<'_>, call: &Call) -> bool {
    call.is_attempt() && !case.may_be_probe(call)
}

fn gaps(case: &Case<'_>, id: MessageId, life: &[&Call], findings: &mut Findings) {
    let longest = LONGEST_WAIT[usize::from(case.plans_again())];
    let mut attempt = 0;
    for pair in life.windows(2) {
        if let Some(told) = pair[0].retry_after {
            let gap = pair[1].begun_at - pair[0].decided_at;
            findings.check(gap >= told.min(longest) * 1_000_000, || {
                format!("message {id} was to wait {told} s, and was called again after {gap} µs")
            });
        }
        if !is_attempt(case, pair[0]) {
            continue;
        }
        let least = GAPS.get(attempt).or(GAPS.last()).copied().unwrap_or(0);
        attempt += 1;
        let gap = pair[1].begun_at - pair[0].decided_at;
        findings.check(gap >= least, || format!("message {id} was called again {gap} µs after attempt {attempt}"));
    }
}
