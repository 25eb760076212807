//! Rule 4. Herald says of a message what the provider did with it.

use crate::case::Case;
use crate::evidence::{Call, Row};
use crate::ids::MessageId;
use crate::rules::Findings;

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    for (id, row) in &case.rows {
        let calls = case.calls_of(*id);
        let wrong = match row.status.as_str() {
            "succeeded" => wrong_success(case, *id, calls),
            _ => wrong_failure(case, row, calls),
        };
        findings.check(wrong.is_none(), || {
            let outcomes: Vec<&str> = calls.iter().map(|call| call.outcome.as_str()).collect();
            format!("message {id} is {}: {} (calls: {outcomes:?})", row.status, wrong.unwrap_or_default())
        });
    }
    findings
}

fn wrong_success(case: &Case<'_>, id: MessageId, calls: &[&Call]) -> Option<&'static str> {
    // A success is an answer that was read.
    if calls.iter().any(|call| call.accepted && call.answered) {
        return None;
    }
    // The provider's log loses its last milliseconds when it is killed.
    let success =
        case.statuses_of(id).iter().find(|r| r.event.as_ref().is_some_and(|event| event.status == "succeeded"));
    let unlogged = success.is_some_and(|record| case.faults.provider_meets(record.at, record.at + 1_000_000));
    if unlogged { None } else { Some("the provider never accepted it with an answer") }
}

fn wrong_failure(case: &Case<'_>, row: &Row, calls: &[&Call]) -> Option<&'static str> {
    let last = |index: usize| calls.get(index + 1).map_or(i64::MAX, |next| next.begun_at);
    let mut accepted = calls.iter().enumerate().filter(|(_, call)| call.accepted);
    if accepted.any(|(index, call)| !case.may_be_lost(call, last(index))) {
        return Some("the provider accepted it, and its answer was not lost");
    }
    if row.reason.as_deref() == Some("rejected") && !calls.iter().any(|call| is_refusal(call)) {
        return Some("the provider never rejected it");
    }
    let delivery = case.mailings.get(&row.mailing_no).map(|mailing| mailing.delivery.as_str());
    if row.status == "unknown" && delivery != Some("at_most_once") {
        return Some("its mailing didn't choose at_most_once");
    }
    None
}

fn is_refusal(call: &Call) -> bool {
    call.outcome.starts_with("status_4") && call.outcome != "status_429"
}
