//! Rule 19. As many attempts are told of a message as calls were made for it. A throttled call is none; neither is a refusal
//! while the message's lane was closed, for it answered a probe.

use crate::case::{CONNECTING, Case};
use crate::evidence::{Call, Record};
use crate::ids::MessageId;
use crate::rules::Findings;
use crate::wire::StatusEvent;

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    for id in case.rows.keys() {
        let Some((record, told)) = told(case, *id) else { continue };
        let begun = |call: &&&Call| call.begun_at <= record.at && call.is_attempt();
        let calls: Vec<&&Call> = case.calls_of(*id).iter().filter(begun).collect();
        let planned = case.rounds_of(*id).first().map_or(0, |record| record.at);
        // A sender that dies takes its count with it, and what never reached the provider isn't in its log.
        let miscounted = calls.iter().any(|call| case.faults.meet(call.sender, call.begun_at, record.at));
        if miscounted || case.faults.provider_meets(planned - CONNECTING, record.at) {
            continue;
        }
        let probes = calls.iter().copied().filter(|call| case.may_be_probe(call)).count();
        let calls = calls.len();
        findings.check((calls - probes..=calls).contains(&told), || {
            format!("message {id} tells of {told} attempts, the provider of {calls}, of which {probes} may be probes")
        });
    }
    findings
}

/// The last settling status and its attempts. None if somebody has asked for the message again, for then they begin anew.
fn told<'a>(case: &Case<'a>, id: MessageId) -> Option<(&'a Record<StatusEvent>, usize)> {
    let settled = case.statuses_of(id).iter().filter(|record| record.event.as_ref().is_some_and(StatusEvent::settles));
    let settled: Vec<&&Record<StatusEvent>> = settled.collect();
    let (last, before) = settled.split_last()?;
    let event = last.event.as_ref()?;
    let held = |record: &&&&Record<StatusEvent>| record.event.as_ref().is_some_and(|event| event.status == "held");
    let alone = before.iter().filter(held).count() == before.len();
    // A call in doubt is counted, and may never have begun.
    let counted = event.reason() != Some("sender_lost");
    (alone && counted).then_some((**last, usize::try_from(event.attempt).ok()?))
}
