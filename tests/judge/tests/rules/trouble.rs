//! What a run measured of a provider that throttles, or fails some calls.

use judge::evidence::{Call, Evidence, Record};
use judge::figures::{Figure, Targets, figures};
use judge::ids::MessageId;
use judge::journal::Entry;
use serde_json::json;

use crate::good::{S, T, message_id, uuid};

fn entry(at: i64, event: &str, role: &str, note: Option<serde_json::Value>) -> Entry {
    let note = note.map(|note| note.to_string());
    Entry { at, event: event.to_owned(), role: Some(role.to_owned()), note, ..Entry::default() }
}

fn call(begun_at: i64, id: MessageId, outcome: &str) -> Call {
    Call {
        begun_at,
        decided_at: begun_at,
        id,
        sender: None,
        phone: 0,
        text: None,
        accepted: outcome == "ok",
        answered: true,
        retry_after: None,
        outcome: outcome.to_owned(),
    }
}

/// Calls of one client of each code, so many a second of each, from one second to another.
fn calls(run: &mut Evidence, seconds: std::ops::Range<i64>, per_second: i64, codes: &[i64], outcome: &str) {
    for second in seconds {
        for number in 0..per_second {
            let at = T + second * S + number * S / per_second;
            run.calls.extend(codes.iter().map(|code| call(at, message_id(1, *code), outcome)));
        }
    }
}

/// A message to a client who has his operator's code as his number.
fn planned(code: i64) -> Record<judge::wire::MessageEvent> {
    let event = json!({
        "message_id": message_id(1, code).0.to_string(), "mailing_id": uuid(1), "client_id": uuid(code),
        "operator_code": code, "round": 1,
    });
    let event = Some(serde_json::from_value(event).unwrap());
    Record { partition: 0, offset: code, at: T, key: String::new(), headers: vec![], visible: true, event }
}

fn figure(run: &Evidence, targets: &Targets, what: &str) -> Figure {
    let all = figures(run, targets);
    all.into_iter().find(|figure| figure.to_string().contains(what)).unwrap_or_else(|| panic!("nothing of {what}"))
}

fn near(figure: &Figure, expected: f64) {
    let measured = figure.measured.unwrap();
    assert!((measured - expected).abs() < 0.01, "{figure}");
}

/// Ten calls a second are accepted and one is throttled, for a hundred seconds; but from the 60th on it is half of that.
fn throttled() -> Evidence {
    let mut run = Evidence::default();
    let rules = json!([{"fault": {"status": 429}, "over_per_second": 10}]);
    // The last page.
    run.message_events.push(Record { at: T + 100 * S, ..planned(916) });
    run.journal.push(entry(T, "fault", "provider", Some(rules)));
    calls(&mut run, 0..60, 10, &[916], "ok");
    calls(&mut run, 60..100, 5, &[916], "ok");
    calls(&mut run, 0..100, 1, &[916], "status_429");
    run
}

#[test]
fn a_limit_is_measured_once_the_senders_may_know_it() {
    let (mut run, targets) = (throttled(), Targets::default());
    // 30 s at the whole limit and 37 at half of it.
    near(&figure(&run, &targets, "used of the limit, over 67 s"), 37.0 / 67.0 / 2.0);
    near(&figure(&run, &targets, "throttled by it"), 67.0 / (67.0 + 300.0 + 185.0));
    run.journal.push(entry(T + 60 * S, "term", "sender", None));
    let unused = figure(&run, &targets, "used of the limit");
    assert!(unused.to_string().contains("over 51 s"), "neither the second of it nor the 15 s behind it: {unused}");
    let asked = Targets { unused: Some(0.1), ..Targets::default() };
    assert!(!figure(&run, &asked, "used of the limit").holds());
    run.message_events[0].at = T + 50 * S;
    assert!(
        figure(&run, &targets, "used of the limit").to_string().contains("over 17 s"),
        "then there is less to call"
    );
    run.calls.retain(|call| call.begun_at < T + 20 * S);
    assert!(!figure(&run, &asked, "used of the limit").holds(), "what was asked for and can't be measured isn't met");
    assert!(!figure(&Evidence::default(), &asked, "used of the limit").holds());
}

#[test]
fn the_others_are_measured_beside_an_operator_in_trouble_and_its_first_call_behind_it() {
    let mut run = Evidence { message_events: vec![planned(916), planned(917)], ..Evidence::default() };
    let down = json!([{"fault": {"status": 500}, "operator_codes": [916]}]);
    for (second, rules) in [(-10, json!([])), (0, down), (20, json!([]))] {
        run.journal.push(entry(T + second * S, "fault", "provider", Some(rules)));
    }
    calls(&mut run, -8..0, 10, &[916, 917], "ok");
    calls(&mut run, 0..20, 8, &[917], "ok");
    calls(&mut run, 0..20, 1, &[916], "status_500");
    calls(&mut run, 24..30, 10, &[916, 917], "ok");
    let targets = Targets::default();
    near(&figure(&run, &targets, "lacks while some calls fail"), 0.2);
    near(&figure(&run, &targets, "to its first call"), 4.0);
    assert!(!figure(&run, &Targets { slowed: Some(0.1), ..Targets::default() }, "lacks while some calls fail").holds());
    assert!(figure(&run, &Targets { first_call: Some(1.5), ..Targets::default() }, "to its first call").holds());
    assert!(!figure(&run, &Targets { first_call: Some(1.0), ..Targets::default() }, "to its first call").holds());
}

#[test]
fn a_share_that_fails_slows_nobody_and_closes_no_lane() {
    let mut run = Evidence { message_events: vec![planned(916)], ..Evidence::default() };
    let errors = json!([{"fault": {"status": 500}, "probability": 0.1}]);
    for (second, rules) in [(-10, json!([])), (0, errors), (20, json!([]))] {
        run.journal.push(entry(T + second * S, "fault", "provider", Some(rules)));
    }
    calls(&mut run, -8..0, 10, &[916], "ok");
    calls(&mut run, 0..20, 9, &[916], "ok");
    calls(&mut run, 0..20, 1, &[916], "status_500");
    let asked = Targets { slowed: Some(0.05), closed: Some(0.0), ..Targets::default() };
    assert!(figure(&run, &asked, "lacks while some calls fail").holds());
    assert!(figure(&run, &asked, "held for a closed lane").holds());
}
