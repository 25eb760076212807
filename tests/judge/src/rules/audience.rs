//! Rule 2. No record, row or call for anybody else, and each says who it is for.

use std::collections::{BTreeMap, HashMap};

use crate::case::{Audience, Case, changed_since_start, matches};
use crate::evidence::{Call, Client, Mailing, Record, Row};
use crate::ids::{MailingNo, MessageId, MessagePlace};
use crate::rules::Findings;
use crate::wire::{MessageEvent, StatusEvent};

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    let audiences: BTreeMap<MailingNo, Audience> =
        case.mailings.values().map(|mailing| (mailing.mailing_no, case.audience(mailing))).collect();
    // Aborted ones too: they were made by the same rules.
    for record in &case.evidence.message_events {
        if let Some(event) = &record.event {
            let wrong = wrong_message(case, &audiences, record, event);
            findings.check(wrong.is_none(), || format!("{}: {}", at("message", record), wrong.unwrap_or_default()));
        }
    }
    let sources = case.planned.values().flatten().filter_map(|record| Some((record.place(), record.event.as_ref()?)));
    let sources: HashMap<MessagePlace, &MessageEvent> = sources.collect();
    for record in &case.evidence.status_events {
        if let Some(event) = &record.event {
            let wrong = if event.has_no_record() {
                wrong_without_record(case, &audiences, record, event)
            } else {
                wrong_status(&sources, record, event)
            };
            findings.check(wrong.is_none(), || format!("{}: {}", at("status", record), wrong.unwrap_or_default()));
        }
    }
    for row in case.rows.values() {
        let right = is_right_row(case, row);
        findings.check(right, || format!("the row {}/{} is for nobody planned", row.mailing_no, row.client_no));
    }
    for call in &case.evidence.calls {
        let wrong = wrong_call(case, call);
        findings.check(wrong.is_none(), || format!("a call for {}: {}", call.id, wrong.unwrap_or_default()));
    }
    findings
}

fn at<T>(what: &str, record: &Record<T>) -> String {
    format!("{what} record {}/{} of key {}", record.partition, record.offset, record.key)
}

fn wrong_message(
    case: &Case<'_>,
    audiences: &BTreeMap<MailingNo, Audience>,
    record: &Record<MessageEvent>,
    event: &MessageEvent,
) -> Option<&'static str> {
    let mailing = case.mailings.values().find(|mailing| mailing.id == event.mailing_id);
    let (Some(mailing), Some(client)) = (mailing, case.clients_by_id.get(&event.client_id)) else {
        return Some("there is no such mailing or client");
    };
    let audience = &audiences[&mailing.mailing_no];
    if event.message_id != MessageId::of(mailing.mailing_no, client.client_no) {
        Some("the message id is not mailing and client")
    } else if record.key != event.message_id.to_string() {
        Some("the key is not the message id")
    } else if !audience.must.contains(&client.client_no) && !audience.may.contains(&client.client_no) {
        Some("the client is not in the audience")
    } else {
        wrong_content(event, mailing, client)
    }
}

fn wrong_content(event: &MessageEvent, mailing: &Mailing, client: &Client) -> Option<&'static str> {
    // An erased client is planned again without both.
    let erased = event.phone.is_none() && event.text.is_none() && event.round > 1;
    if event.text.as_ref() != Some(&mailing.text) && !erased {
        return Some("the text is not the mailing's");
    }
    if changed_since_start(client, mailing) {
        return None;
    }
    let right = matches(client, mailing) && Some(event.operator_code) == client.operator_code;
    if !right || (event.phone != client.phone && !erased) { Some("phone or code are not the client's") } else { None }
}

fn wrong_status(
    sources: &HashMap<MessagePlace, &MessageEvent>,
    record: &Record<StatusEvent>,
    event: &StatusEvent,
) -> Option<&'static str> {
    let Some(source) = sources.get(&event.source) else {
        return Some("its source is no message that was planned");
    };
    let told = (event.message_id, event.mailing_id, event.client_id, event.round);
    if told != (source.message_id, source.mailing_id, source.client_id, source.round) {
        Some("its source is another message or round")
    } else if record.partition != event.source.partition {
        Some("it lies in another partition than its message")
    } else if record.key != event.message_id.to_string() {
        Some("the key is not the message id")
    } else {
        None
    }
}

/// A status of the planner's own, for a message that has no record in this round.
fn wrong_without_record(
    case: &Case<'_>,
    audiences: &BTreeMap<MailingNo, Audience>,
    record: &Record<StatusEvent>,
    event: &StatusEvent,
) -> Option<&'static str> {
    let mailing = case.mailings.values().find(|mailing| mailing.id == event.mailing_id);
    let (Some(mailing), Some(client)) = (mailing, case.clients_by_id.get(&event.client_id)) else {
        return Some("there is no such mailing or client");
    };
    let audience = &audiences[&mailing.mailing_no];
    let planned = case.planned.get(&event.message_id).and_then(|records| records.first());
    if event.message_id != MessageId::of(mailing.mailing_no, client.client_no) {
        Some("the message id is not mailing and client")
    } else if record.key != event.message_id.to_string() {
        Some("the key is not the message id")
    } else if !audience.must.contains(&client.client_no) && !audience.may.contains(&client.client_no) {
        Some("the client is not in the audience")
    } else if planned.is_some_and(|planned| planned.partition != record.partition) {
        Some("it lies in another partition than its message")
    } else {
        None
    }
}

fn is_right_row(case: &Case<'_>, row: &Row) -> bool {
    let client = case.clients.get(&row.client_no);
    let planned = case.planned.contains_key(&row.id()) || case.unrecorded.contains_key(&row.id());
    planned && client.is_some_and(|client| client.id == row.client_id)
}

fn wrong_call(case: &Case<'_>, call: &Call) -> Option<&'static str> {
    let Some(events) = case.planned.get(&call.id) else {
        return Some("no such message was planned");
    };
    if call.outcome == "malformed" {
        return Some("it broke the provider's contract");
    }
    // The body wasn't read.
    if call.phone == 0 && call.text.is_none() {
        return None;
    }
    let told = |event: &MessageEvent| event.phone == Some(call.phone) && event.text == call.text;
    let right = events.iter().filter_map(|record| record.event.as_ref()).any(told);
    if right { None } else { Some("phone or text are not the message's") }
}
