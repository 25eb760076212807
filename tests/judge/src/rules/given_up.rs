//! Rule 14. A message is `unknown` only if an answer was lost, and `exhausted` only after all its attempts.

use crate::case::{CALL_TIMEOUT, CONNECTING, Case};
use crate::evidence::{Call, Record};
use crate::rules::Findings;
use crate::wire::StatusEvent;

/// A first attempt and three retries.
const ATTEMPTS: usize = 4;
/// Kafka's timestamps are ms.
const MILLISECOND: i64 = 1_000;

pub(crate) fn has_occasion(case: &Case<'_>) -> bool {
    case.settled().any(|(_, event)| is_unknown(event) || is_exhausted(event))
}

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    for (record, event) in case.settled() {
        let wrong = if is_unknown(event) {
            wrong_unknown(case, record, event)
        } else if is_exhausted(event) {
            wrong_exhausted(case, record, event)
        } else {
            continue;
        };
        findings.check(wrong.is_none(), || {
            let reason = event.reason().unwrap_or("none");
            format!("message {} is {} ({reason}): {}", event.message_id, event.status, wrong.unwrap_or_default())
        });
    }
    findings
}

fn is_unknown(event: &StatusEvent) -> bool {
    event.status == "unknown"
}

fn is_exhausted(event: &StatusEvent) -> bool {
    event.status == "failed" && event.reason() == Some("exhausted")
}

fn wrong_unknown(case: &Case<'_>, record: &Record<StatusEvent>, event: &StatusEvent) -> Option<&'static str> {
    if event.has_no_record() {
        let lost = case.faults.kafka_meets(0, record.at);
        return if lost { None } else { Some("Kafka has lost nothing that would tell") };
    }
    let Some(started) = announced(case, record, event) else {
        return Some("no call was announced whose outcome isn't told");
    };
    let mut calls = case.calls_of(event.message_id).iter();
    let begun = started.at - MILLISECOND..=record.at + MILLISECOND;
    let call = calls.rfind(|call| begun.contains(&call.begun_at)).copied();
    let explained = if event.reason() == Some("sender_lost") {
        case.faults.lose_sender(call.and_then(|call| call.sender), started.at, record.at)
    } else {
        let away = case.faults.provider_meets(started.at, record.at);
        away || call.is_some_and(|call| is_doubtful(call, record.at))
    };
    if explained { None } else { Some("its answer was not lost") }
}

/// The last announcement of a call before this status, if no status of its round says what came of the call. A copy of an
/// earlier status that arrives late doesn't.
fn announced<'a>(
    case: &Case<'a>,
    record: &Record<StatusEvent>,
    event: &StatusEvent,
) -> Option<&'a Record<StatusEvent>> {
    let before = case.statuses_of(event.message_id).iter().filter(|before| before.place() < record.place());
    let mut announced = None;
    for before in before {
        match before.event.as_ref().filter(|before| before.round == event.round) {
            Some(begun) if begun.kind == "started" => announced = Some((*before, begun.announced)),
            Some(told) if announced.is_some_and(|(_, number)| told.announced >= number) => announced = None,
            _ => {}
        }
    }
    announced.map(|(started, _)| started)
}

/// No answer that can be read and is definite came in time.
fn is_doubtful(call: &Call, told_at: i64) -> bool {
    call.is_ambiguous() || told_at - call.begun_at >= CALL_TIMEOUT - CONNECTING
}

fn wrong_exhausted(case: &Case<'_>, record: &Record<StatusEvent>, event: &StatusEvent) -> Option<&'static str> {
    if usize::try_from(event.attempt).unwrap_or(0) < ATTEMPTS {
        return Some("it says itself that it had attempts left");
    }
    let planned = case.rounds_of(event.message_id).first().map_or(0, |record| record.at);
    let begun = case.calls_of(event.message_id).iter().filter(|call| call.begun_at <= record.at);
    let attempts = begun.filter(|call| call.is_attempt()).count();
    // What never reached the provider isn't in its log.
    let unseen = case.faults.provider_meets(planned, record.at);
    if attempts >= ATTEMPTS || unseen { None } else { Some("the provider has seen fewer attempts than there may be") }
}
