//! Rule 17. No call begins later than 60 s after its planning, or before it is due: `Retry-After`, the wait before a retry,
//! and what a held message waits for outlive the sender that was told.

use crate::case::{CONNECTING, Case};
use crate::evidence::Call;
use crate::ids::MessageId;
use crate::rules::Findings;
use crate::wire::StatusEvent;

const SECOND: i64 = 1_000_000;
/// From a page's reading until its messages are planned anew.
const VALID: i64 = 60 * SECOND;
/// A longer `Retry-After` is taken for this, s.
const LONGEST_WAIT: i64 = 60;

pub(crate) fn has_occasion(case: &Case<'_>) -> bool {
    case.plans_again() && !case.calls.is_empty()
}

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    if !has_occasion(case) {
        return findings;
    }
    for (id, calls) in &case.calls {
        calls.iter().for_each(|call| still_valid(case, call, &mut findings));
        calls.windows(2).for_each(|pair| as_told(case, pair[0], pair[1], &mut findings));
        due(case, *id, calls, &mut findings);
    }
    findings
}

/// The round of a call is the last that was planned before.
fn still_valid(case: &Case<'_>, call: &Call, findings: &mut Findings) {
    let begun = case.rounds_of(call.id).iter().filter(|record| record.at <= call.begun_at);
    let last = begun.max_by_key(|record| record.at).and_then(|record| record.event.as_ref()?.planned_at);
    let Some(planned) = last.map(|at| at.timestamp_micros()) else { return };
    findings.check(call.begun_at <= planned + VALID + CONNECTING, || {
        let seconds = (call.begun_at - planned) / SECOND;
        format!("a call for {} began at {}, {seconds} s after its planning", call.id, call.begun_at)
    });
}

/// What the provider told is kept, unless the sender could tell nobody.
fn as_told(case: &Case<'_>, call: &Call, next: &Call, findings: &mut Findings) {
    // A shorter wait isn't written.
    let Some(told) = call.retry_after.filter(|told| *told > 1) else { return };
    let kept = next.begun_at >= call.decided_at + told.min(LONGEST_WAIT) * SECOND;
    findings.check(kept || case.may_be_untold(call, next.begun_at, |_| true), || {
        format!("message {} was told to wait {told} s at {}, and called at {}", call.id, call.decided_at, next.begun_at)
    });
}

/// The next call after a status begins no earlier than the status says.
fn due(case: &Case<'_>, id: MessageId, calls: &[&Call], findings: &mut Findings) {
    let waits = |event: &&StatusEvent| event.not_before.is_some() && event.kind != "started";
    for status in case.statuses_of(id) {
        let Some(event) = status.event.as_ref().filter(waits) else { continue };
        let Some(not_before) = event.not_before.map(|at| at.timestamp_micros()) else { continue };
        let Some(next) = calls.iter().find(|call| call.begun_at > status.at) else { continue };
        let excused = || {
            // Another owner went by what it knew, or by what had been written when the writer died.
            case.faults.may_be_late(status.at) || case.faults.meet(None, status.at, status.at + SECOND)
        };
        findings.check(next.begun_at >= not_before || excused(), || {
            let (word, reason) = (&event.status, event.reason().unwrap_or("none"));
            format!("message {id} is {word} ({reason}) until {not_before}, and was called at {}", next.begun_at)
        });
    }
}
