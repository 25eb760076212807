//! Rule 13. A message is settled without a call only when that is due: not before its mailing's end, cancel or pause.

use crate::case::Case;
use crate::evidence::Record;
use crate::rules::Findings;
use crate::wire::{MailingEvent, StatusEvent};

/// A sender's clock against Kafka's timestamps, µs.
const SLACK: i64 = 200_000;

pub(crate) fn has_occasion(case: &Case<'_>) -> bool {
    case.settled().any(|(_, event)| condition(event).is_some())
}

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    for (record, event) in case.settled() {
        let Some(condition) = condition(event) else { continue };
        let due = match condition {
            Condition::Ended => is_so(case, record, event, |order, at| order.ends_at.timestamp_micros() <= at),
            Condition::Cancelled => is_so(case, record, event, |order, _| order.state == "cancelled"),
            Condition::Paused => is_so(case, record, event, |order, _| order.state == "paused"),
            Condition::Erased => is_erased(case, event),
            Condition::Invalid => has_no_text(case, event),
        };
        findings.check(due, || {
            let (id, status, reason) = (event.message_id, &event.status, event.reason().unwrap_or("none"));
            format!("message {id} was {status} ({reason}) at {}, and that was not so", record.at)
        });
    }
    findings
}

/// What must be so.
enum Condition {
    Ended,
    Cancelled,
    Paused,
    Erased,
    Invalid,
}

/// None: a call led to it, or what led to it can't be seen from outside.
fn condition(event: &StatusEvent) -> Option<Condition> {
    match (event.status.as_str(), event.reason()) {
        ("expired", _) => Some(Condition::Ended),
        ("cancelled", Some("mailing_cancelled")) => Some(Condition::Cancelled),
        ("cancelled", Some("erased")) => Some(Condition::Erased),
        ("held", Some("paused")) => Some(Condition::Paused),
        ("failed", Some("invalid")) => Some(Condition::Invalid),
        _ => None,
    }
}

/// Whether an order that could be gone by said so. Without an order the table says when the mailing ends.
fn is_so(
    case: &Case<'_>,
    record: &Record<StatusEvent>,
    event: &StatusEvent,
    holds: impl Fn(&MailingEvent, i64) -> bool,
) -> bool {
    let (no, at) = (event.message_id.mailing(), record.at + SLACK);
    let orders = case.orders_in_force(no, at);
    if orders.is_empty() && event.status == "expired" {
        return case.mailings.get(&no).is_some_and(|mailing| mailing.ends_at <= at);
    }
    orders.iter().any(|order| holds(order, at))
}

fn is_erased(case: &Case<'_>, event: &StatusEvent) -> bool {
    case.clients.get(&event.message_id.client()).is_some_and(|client| client.phone.is_none())
}

/// The message's record has nothing that could be sent.
fn has_no_text(case: &Case<'_>, event: &StatusEvent) -> bool {
    let record = case.rounds_of(event.message_id).iter().find(|record| record.place() == event.source);
    let message = record.and_then(|record| record.event.as_ref());
    message.is_some_and(|message| message.phone.is_none() || message.text.is_none())
}
