//! Rule 3. What stands follows from the log alone, and the tables show it.

use std::collections::BTreeMap;

use crate::case::{Case, seen};
use crate::evidence::Record;
use crate::ids::{MessageId, StatusPlace};
use crate::rules::Findings;
use crate::wire::{StatusEvent, is_terminal};

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    for (id, records) in &case.statuses {
        let Some(row) = case.rows.get(id) else {
            findings.object(format!("message {id} has statuses and no row"));
            continue;
        };
        let stands = fold(records);
        let settled = records.iter().filter_map(|record| record.event.as_ref()).filter(|event| event.settles());
        let settled_round = settled.map(|event| event.round).max().unwrap_or(0);
        let told = stands.map(|event| (event.status.as_str(), event.reason(), event.round, settled_round));
        let shown = (row.status.as_str(), row.reason.as_deref(), row.round, row.settled_round);
        findings.check(told == Some(shown), || format!("message {id}: the log says {told:?}, the row {shown:?}"));
        changes(case, *id, records, &mut findings);
    }
    for id in case.rows.keys().filter(|id| !case.statuses.contains_key(id)) {
        findings.object(format!("message {id} has a row and no status"));
    }
    steps(case, &mut findings);
    findings
}

/// What stands: of the highest round the first terminal status, or else the furthest; `succeeded` of any round before all.
/// The later `not_before` stands where one attempt has two open statuses.
fn fold<'a>(records: &[&'a Record<StatusEvent>]) -> Option<&'a StatusEvent> {
    let mut events: Vec<&StatusEvent> = records.iter().filter_map(|record| record.event.as_ref()).collect();
    if let Some(succeeded) = events.iter().find(|event| event.status == "succeeded") {
        return Some(succeeded);
    }
    let round = events.iter().map(|event| event.round).max()?;
    events.retain(|event| event.round == round);
    let terminal = |event: &&&StatusEvent| is_terminal(&event.status);
    let known = events.iter().filter(terminal).find(|event| event.status != "unknown");
    let furthest = |event: &&&StatusEvent| {
        let rank = ["created", "retrying", "held"].iter().position(|status| *status == event.status);
        (rank, event.attempt, event.not_before)
    };
    // The first of equals.
    let open = || events.iter().rev().max_by_key(furthest);
    known.or_else(|| events.iter().find(terminal)).or_else(open).copied()
}

/// A round that is over is over: a sender that settles it again didn't know, and that has a reason. It may have had the
/// message since it was planned, and lain stopped for long. Only the planner ends what is held without another round.
fn changes(case: &Case<'_>, id: MessageId, records: &[&Record<StatusEvent>], findings: &mut Findings) {
    let planned = case.rounds_of(id).first().map_or(0, |record| record.at);
    let mut settled: BTreeMap<i32, &str> = BTreeMap::new();
    for record in records {
        let Some(event) = record.event.as_ref().filter(|event| event.settles()) else { continue };
        let Some(before) = settled.insert(event.round, &event.status) else { continue };
        // Whether a `held` is in the log isn't known to a sender that waited for it in vain: it writes it again.
        let after_held = before == "held" && !event.tells_of_answer();
        let reason = before == "unknown" || after_held || case.faults.meet(None, planned, record.at);
        findings.check(reason, || {
            format!("message {id} was {before} in round {}, and {} again without a reason", event.round, event.status)
        });
    }
}

/// The table of steps holds what the log tells of, no more and no less.
fn steps(case: &Case<'_>, findings: &mut Findings) {
    let told = seen(&case.evidence.status_events).filter(|(_, event)| event.is_step());
    let told: BTreeMap<StatusPlace, (MessageId, i32)> =
        told.map(|(record, event)| (record.place(), (event.message_id, event.attempt))).collect();
    let shown: BTreeMap<StatusPlace, (MessageId, i32)> =
        case.evidence.steps.iter().map(|step| (step.place(), (step.id(), step.attempt))).collect();
    for (place, step) in &told {
        findings.check(shown.get(place) == Some(step), || {
            format!("status {place:?} tells of attempt {step:?}, the table of {:?}", shown.get(place))
        });
    }
    for (place, step) in shown.iter().filter(|(place, _)| !told.contains_key(place)) {
        findings.object(format!("attempt {step:?} is in the table, and status {place:?} doesn't tell of it"));
    }
}
