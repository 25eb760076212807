//! Rule 16. A message has one round at a time, and one call at a time: a round is planned when the one before is over, and
//! after that nobody calls for the earlier one.

use crate::case::Case;
use crate::evidence::{Call, Record};
use crate::ids::MessageId;
use crate::rules::Findings;
use crate::wire::{MessageEvent, StatusEvent};

pub(crate) fn has_occasion(case: &Case<'_>) -> bool {
    case.planned.values().any(|records| records.len() > 1) || case.calls.values().any(|calls| calls.len() > 1)
}

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    for (id, calls) in &case.calls {
        calls.windows(2).for_each(|pair| one_after_the_other(case, *id, pair[0], pair[1], &mut findings));
    }
    let mut again = 0;
    for (id, records) in &case.planned {
        for record in records {
            let Some(event) = record.event.as_ref().filter(|event| event.round > 1) else { continue };
            again += 1;
            let wrong = wrong_beginning(case, record, event);
            findings.check(wrong.is_none(), || {
                format!("round {} of message {id} was planned at {}: {}", event.round, record.at, wrong.unwrap_or(""))
            });
            none_late(case, record, event, &mut findings);
        }
    }
    findings.note = Some(format!("{again} rounds above the first"));
    findings
}

/// The provider decides a call before its latency has passed: a call that begins before that began while the other was open.
fn one_after_the_other(case: &Case<'_>, id: MessageId, call: &Call, next: &Call, findings: &mut Findings) {
    let apart = call.decided_at <= next.begun_at;
    let excused = || case.faults.meet(call.sender, call.begun_at, next.begun_at);
    findings.check(apart || excused(), || {
        format!("message {id} was called at {}, and again at {} before that was decided", call.begun_at, next.begun_at)
    });
}

/// The round before must be over, and not for good: held, or given up and asked for again.
fn wrong_beginning(case: &Case<'_>, record: &Record<MessageEvent>, event: &MessageEvent) -> Option<&'static str> {
    let before = |status: &&&StatusEvent| status.round == event.round - 1 && status.settles();
    let statuses = case.statuses_of(event.message_id).iter().filter(|status| status.at <= record.at);
    let statuses: Vec<&StatusEvent> = statuses.filter_map(|status| status.event.as_ref()).collect();
    let ended: Vec<&str> = statuses.iter().filter(before).map(|status| status.status.as_str()).collect();
    if ended.is_empty() {
        Some("the round before was not over")
    } else if ended.iter().any(|status| matches!(*status, "succeeded" | "cancelled")) {
        Some("the round before was over for good")
    } else {
        None
    }
}

/// Outcomes of earlier rounds come from calls that began before this round was planned.
fn none_late(case: &Case<'_>, record: &Record<MessageEvent>, event: &MessageEvent, findings: &mut Findings) {
    let id = event.message_id;
    let earlier = |status: &&StatusEvent| status.round < event.round && status.tells_of_answer();
    let outcomes = case.statuses_of(id).iter().filter_map(|status| status.event.as_ref()).filter(earlier).count();
    let calls = case.calls_of(id).iter().filter(|call| call.begun_at <= record.at).count();
    // What never reached the provider isn't in its log.
    let unseen = case.faults.provider_meets(0, record.at);
    findings.check(outcomes <= calls || unseen, || {
        format!(
            "message {id} was called {calls} times before its round {} was planned, and {outcomes} outcomes are told of \
             earlier rounds: a call was made for one that was over",
            event.round
        )
    });
}
