//! Rule 7. No call begins before the start, after the end, after a cancel or pause took effect, or outside the window, and
//! none is begun by a sender that is cut off from Kafka.

use std::collections::BTreeMap;

use crate::case::Case;
use crate::evidence::{Call, Record};
use crate::rules::Findings;
use crate::wire::MailingEvent;

/// From a mailing event's timestamp until no call may begin by the one before, µs: its commit, a proof of the board (1 s), and
/// a moment. A sender that can't read has a lease of 5 s more.
const TAKES_EFFECT: i64 = 2_000_000;
const LEASE: i64 = 5_000_000;

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut orders: BTreeMap<i64, Vec<&Record<MailingEvent>>> = BTreeMap::new();
    for record in case.evidence.mailing_events.iter().filter(|record| record.visible) {
        if let Some(event) = &record.event {
            orders.entry(event.mailing_no).or_default().push(record);
        }
    }
    let mut findings = Findings::default();
    for call in &case.evidence.calls {
        let Some(mailing) = case.mailings.get(&(call.id >> 33)) else { continue };
        let orders = orders.get(&mailing.mailing_no).map_or(&[][..], Vec::as_slice);
        let wrong = if call.begun_at < mailing.starts_at {
            Some("before the start")
        } else if in_the_dark(case, call) {
            Some("while its sender was cut off from Kafka")
        } else if !in_window(case, call) {
            Some("outside the client's window")
        } else {
            match in_force(case, orders, call.begun_at).as_slice() {
                [] if call.begun_at >= mailing.ends_at => Some("after the end"),
                [] => None,
                orders => forbidden(orders, call.begun_at),
            }
        };
        findings.check(wrong.is_none(), || {
            format!("a call for {} began at {}, {}", call.id, call.begun_at, wrong.unwrap_or_default())
        });
    }
    findings
}

/// The orders that a sender may go by at an instant: the newest that had taken effect, and those on their way.
fn in_force<'a>(case: &Case<'_>, orders: &[&'a Record<MailingEvent>], at: i64) -> Vec<&'a MailingEvent> {
    let cut_off = case.faults.kafka_meets(at - TAKES_EFFECT - LEASE, at);
    let effective = at - TAKES_EFFECT - if cut_off { LEASE } else { 0 };
    let events = |from, to| {
        orders
            .iter()
            .filter(move |record| from <= record.at && record.at <= to)
            .filter_map(|record| record.event.as_ref())
    };
    let newest = events(0, effective).max_by_key(|event| event.version);
    newest.into_iter().chain(events(effective + 1, at)).collect()
}

fn forbidden(orders: &[&MailingEvent], at: i64) -> Option<&'static str> {
    let open = |event: &&&MailingEvent| !matches!(event.state.as_str(), "cancelled" | "paused");
    if !orders.iter().any(|event| at < event.ends_at.timestamp_micros()) {
        Some("after the end")
    } else if !orders.iter().filter(open).any(|event| at < event.ends_at.timestamp_micros()) {
        Some("while its mailing was cancelled or paused")
    } else {
        None
    }
}

/// Made by a sender that could prove nothing any more.
fn in_the_dark(case: &Case<'_>, call: &Call) -> bool {
    let is_its = |port: Option<u16>| port.is_some() && port == call.port;
    case.faults.cut_off.iter().any(|cut| is_its(cut.port) && cut.forbidden().contains(&call.begun_at))
}

fn in_window(case: &Case<'_>, call: &Call) -> bool {
    let Some(records) = case.planned.get(&call.id) else { return true };
    records.iter().filter_map(|record| record.event.as_ref()).any(|event| {
        event.window.as_ref().is_none_or(|window| {
            let (opens, closes) = (window.opens_at.timestamp_micros(), window.closes_at.timestamp_micros());
            (opens..closes).contains(&call.begun_at)
        })
    })
}
