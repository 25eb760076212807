//! Rule 7. No call begins before the start, after the end, after a cancel or pause took effect, or outside the window. A
//! sender that is cut off from Kafka begins none.

use crate::case::Case;
use crate::evidence::Call;
use crate::rules::Findings;
use crate::wire::MailingEvent;

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    for call in &case.evidence.calls {
        let Some(mailing) = case.mailings.get(&call.id.mailing()) else { continue };
        let wrong = if call.begun_at < mailing.starts_at {
            Some("before the start")
        } else if in_the_dark(case, call) {
            Some("while its sender was cut off from Kafka")
        } else if !in_window(case, call) {
            Some("outside the client's window")
        } else {
            match case.orders_in_force(mailing.mailing_no, call.begun_at).as_slice() {
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

/// The call was made by a sender that could prove nothing any more.
fn in_the_dark(case: &Case<'_>, call: &Call) -> bool {
    let is_its = |sender: Option<u16>| sender.is_some() && sender == call.sender;
    case.faults.cut_off.iter().any(|cut| is_its(cut.sender) && cut.forbidden().contains(&call.begun_at))
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
