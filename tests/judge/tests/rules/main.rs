//! The judge judged: it has nothing against a good run, and objects to each way of damaging its evidence.

#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod figures;
mod good;
mod planning;
mod sending;
mod settling;
mod trouble;
mod waiting;
mod watching;

use judge::evidence::{Evidence, Record};
use judge::journal::Entry;
use judge::wire::{MessageEvent, StatusEvent};

use good::{S, T, message_id};

#[test]
fn a_good_run_is_not_objected_to() {
    for verdict in judge::judge(&good::run()) {
        assert!(verdict.holds(), "{verdict}");
        let idle = verdict.to_string().contains("(nothing to look at");
        // No process died at a point of the code, and its Herald holds nothing.
        assert_eq!(idle, [15, 17].contains(&verdict.number), "{verdict}");
    }
}

#[test]
fn a_broken_rule_is_shown_with_at_most_twenty_violations_and_their_number() {
    let mut evidence = good::run();
    evidence.logs[0].1 = format!("{}\n", good::phone(1)).repeat(30);
    let verdict = judge::judge(&evidence)[11].to_string();
    assert!(verdict.starts_with("VIOLATED 12 ") && verdict.contains(": 30 violations"), "{verdict}");
    assert_eq!(verdict.lines().count(), 22, "{verdict}");
    assert!(verdict.ends_with("… and 10 more") && !verdict.contains("7916"), "it doesn't repeat the phone: {verdict}");
}

/// Damages the good run: the rule must object.
fn objects(rule: usize, damage: impl FnOnce(&mut Evidence)) {
    let verdict = damaged(rule, damage);
    assert!(!verdict.holds(), "{verdict}");
}

/// Changes the good run into another good one: the rule must not object.
fn accepts(rule: usize, change: impl FnOnce(&mut Evidence)) {
    let verdict = damaged(rule, change);
    assert!(verdict.holds(), "{verdict}");
}

fn damaged(rule: usize, damage: impl FnOnce(&mut Evidence)) -> judge::Verdict {
    let mut evidence = good::run();
    damage(&mut evidence);
    judge::judge(&evidence).remove(rule - 1)
}

/// Cuts the sender off from Kafka until 40 s; nobody else calls the provider by port 1.
fn cut_off(evidence: &mut Evidence, at: i64) {
    let mut start = evidence.journal.iter().find(|entry| entry.event == "start").unwrap().clone();
    (start.ops, start.port) = (Some("127.0.0.1:9100".to_owned()), Some(1));
    let cut = Entry { at, event: "cut".to_owned(), ..start.clone() };
    let heal = Entry { at: T + 40 * S, event: "heal".to_owned(), ..start.clone() };
    evidence.journal.extend([start, cut, heal]);
}

fn message(evidence: &mut Evidence, mailing_no: i64, client_no: i64) -> &mut Record<MessageEvent> {
    let id = message_id(mailing_no, client_no);
    let mut records = evidence.message_events.iter_mut().filter(|record| record.visible);
    records.find(|record| record.event.as_ref().unwrap().message_id == id).unwrap()
}

fn last_status(evidence: &mut Evidence, mailing_no: i64, client_no: i64) -> &mut Record<StatusEvent> {
    let id = message_id(mailing_no, client_no);
    let mut records = evidence.status_events.iter_mut();
    records.rfind(|record| record.event.as_ref().unwrap().message_id == id).unwrap()
}
