//! A run in which messages are held and planned again, to which nobody can object, and damages to it: rules 1, 3, 9 and 16
//! to 18.

use std::collections::BTreeMap;

use chrono::DateTime;
use judge::evidence::{Evidence, Held};
use judge::ids::MailingNo;
use judge::journal::Entry;
use judge::sample::Snapshot;

use crate::good::{self, MS, Run, S, T, message_id};

/// The third mailing is for clients 9, 11 and 12, and ends at 200 s. The provider is down from 83 s to 100 s.
///
/// Client 9 is throttled for 40 s, held, and accepted in its second round. Client 11 fails twice, is held, is refused as a
/// probe, and held until the end. Client 12 isn't planned before the end.
fn run() -> Evidence {
    let mut run = Run::begun();
    run.mailing(3, &[], &["writers"], T + 200 * S);
    for (at, rules) in [(T + 83 * S, r#"[{"fault": "outage"}]"#), (T + 100 * S, "[]")] {
        let (event, role, note) = ("fault".to_owned(), Some("provider".to_owned()), Some(rules.to_owned()));
        run.evidence.journal.push(Entry { at, event, role, note, ..Entry::default() });
    }
    run.progress(3, 0, 0, Some(0), T + 80 * S);
    for client_no in [9, 11] {
        run.message(3, client_no, 1, Some(0), T + 80 * S);
    }
    run.progress(3, 11, 2, Some(0), T + 80 * S);

    run.call(3, 9, T + 81 * S, "throttled_429");
    run.evidence.calls.last_mut().unwrap().retry_after = Some(40);
    held(&mut run, 9, T + 81_030 * MS, 0, "throttled", T + 124 * S);
    run.told(3, 11, T + 81 * S, 1, "status_500", ("retrying", "provider_error"));
    run.told(3, 11, T + 82_500 * MS, 2, "status_500", ("retrying", "provider_error"));
    held(&mut run, 11, T + 84 * S, 2, "outage", T + 90 * S);

    run.message(3, 11, 2, Some(2), T + 91 * S);
    run.progress(3, 11, 2, Some(1), T + 91 * S);
    run.call(3, 11, T + 92 * S, "outage");
    held(&mut run, 11, T + 92_030 * MS, 2, "outage", T + 230 * S);

    run.message(3, 9, 2, Some(0), T + 125 * S);
    run.progress(3, 11, 2, Some(2), T + 125 * S);
    run.told(3, 9, T + 126 * S, 1, "ok", ("succeeded", ""));

    for client_no in [11, 12] {
        run.status(3, client_no, T + 200_100 * MS, if client_no == 11 { 2 } else { 0 }, "expired", Some("ended"));
        run.evidence.status_events.last_mut().unwrap().event.as_mut().unwrap().source.offset = -1;
    }
    run.progress(3, 12, 3, Some(2), T + 200_100 * MS);
    run.tables();
    run.evidence.mailings.retain(|mailing| mailing.mailing_no == MailingNo(3));
    run.evidence.mailing_events.retain(|record| record.event.as_ref().unwrap().mailing_no == MailingNo(3));
    run.evidence.journal.retain(|entry| entry.event != "mailing");
    let held = |held: &[(&str, i64)]| -> BTreeMap<String, i64> {
        held.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect()
    };
    for at in [T + 82 * S, T + 95 * S, T + 130 * S, T + 201 * S] {
        run.sample(at);
        let waiting: &[(&str, i64)] = if at == T + 95 * S { &[("outage", 1), ("throttled", 1)] } else { &[] };
        let counts = if waiting.is_empty() { held(&[]) } else { held(&[("held", 2)]) };
        let (counts, rows) = (counts.clone(), counts);
        let snapshot = Snapshot { mailing_no: 3, counts, rows, held_counts: held(waiting), held: held(waiting) };
        run.evidence.samples.last_mut().unwrap().snapshot = Some(vec![snapshot]);
    }
    run.evidence
}

fn held(run: &mut Run, client_no: i64, at: i64, attempt: i32, reason: &str, not_before: i64) {
    run.status(3, client_no, at, attempt, "held", Some(reason));
    let event = run.evidence.status_events.last_mut().unwrap().event.as_mut().unwrap();
    event.not_before = DateTime::from_timestamp_micros(not_before);
}

fn damaged(rule: usize, damage: impl FnOnce(&mut Evidence)) -> judge::Verdict {
    let mut run = run();
    damage(&mut run);
    judge::judge(&run).remove(rule - 1)
}

fn objects(rule: usize, damage: impl FnOnce(&mut Evidence)) {
    let verdict = damaged(rule, damage);
    assert!(!verdict.holds(), "{verdict}");
}

fn accepts(rule: usize, change: impl FnOnce(&mut Evidence)) {
    let verdict = damaged(rule, change);
    assert!(verdict.holds(), "{verdict}");
}

/// The status of the third mailing that was written at an instant.
fn status_at(run: &mut Evidence, at: i64) -> &mut judge::wire::StatusEvent {
    run.status_events.iter_mut().find(|record| record.at == at).unwrap().event.as_mut().unwrap()
}

fn call_at(run: &mut Evidence, at: i64) -> &mut judge::evidence::Call {
    run.calls.iter_mut().find(|call| call.begun_at == at).unwrap()
}

#[test]
fn a_run_in_which_messages_are_held_is_not_objected_to() {
    for verdict in judge::judge(&run()) {
        assert!(verdict.holds(), "{verdict}");
        let idle = verdict.to_string().contains("(nothing to look at");
        assert_eq!(idle, [14, 15].contains(&verdict.number), "{verdict}");
    }
}

#[test]
fn a_message_that_stays_held_is_noticed() {
    let stay = |run: &mut Evidence| {
        run.status_events.retain(|record| record.at < T + 200 * S || record.key != message_id(3, 11).to_string());
        let row = run.rows.iter_mut().find(|row| row.id() == message_id(3, 11)).unwrap();
        (row.status, row.reason) = ("held".to_owned(), Some("outage".to_owned()));
        let (mailing_no, client_no, reason) = (row.mailing_no, row.client_no, "outage".to_owned());
        run.held.push(Held { mailing_no, client_no, round: 2, reason: reason.clone() });
        run.held_counts.insert((mailing_no, reason), 1);
    };
    objects(1, stay);
    objects(18, stay);
    accepts(3, stay);
    // The mailing goes on.
    accepts(18, |run| {
        stay(run);
        run.mailings[0].state = "running".to_owned();
    });
    objects(18, |run| {
        stay(run);
        run.mailings[0].state = "running".to_owned();
        run.held.clear();
        run.held_counts.clear();
    });
    objects(18, |run| {
        stay(run);
        run.mailings[0].state = "running".to_owned();
        run.held_counts.clear();
    });
}

#[test]
fn sums_of_held_rows_that_are_off_are_noticed() {
    let snapshot = |run: &mut Evidence| run.samples[1].snapshot.as_mut().unwrap().remove(0);
    let put = |run: &mut Evidence, snapshot: Snapshot| run.samples[1].snapshot.as_mut().unwrap().push(snapshot);
    objects(18, |run| {
        let mut seen = snapshot(run);
        seen.held_counts.insert("throttled".to_owned(), 2);
        put(run, seen);
    });
    objects(18, |run| {
        let mut seen = snapshot(run);
        seen.held.remove("throttled");
        seen.held_counts.remove("throttled");
        put(run, seen);
    });
    objects(18, |run| {
        let mut seen = snapshot(run);
        (seen.held, seen.held_counts) = (seen.held_counts.clone(), [("outage".to_owned(), 2)].into());
        put(run, seen);
    });
    objects(10, |run| {
        let mut seen = snapshot(run);
        seen.rows.insert("held".to_owned(), 1);
        put(run, seen);
    });
}

#[test]
fn rounds_that_are_counted_wrongly_are_noticed() {
    objects(1, |run| run.mirrors[0].again = 1);
    objects(1, |run| *run.settled_rounds.get_mut(&MailingNo(3)).unwrap() += 1);
    objects(9, |run| run.progress.last_mut().unwrap().event.as_mut().unwrap().again = Some(1));
    objects(9, |run| run.progress[2].event.as_mut().unwrap().again = Some(3));
    // A pass took a message twice.
    objects(9, |run| {
        let mut again = run.message_events.iter().find(|record| record.at == T + 91 * S).unwrap().clone();
        again.offset = 500;
        run.message_events.push(again);
    });
}

#[test]
fn a_client_that_nobody_settled_is_noticed() {
    objects(1, |run| {
        run.status_events.retain(|record| record.key != message_id(3, 12).to_string());
        run.rows.retain(|row| row.id() != message_id(3, 12));
    });
    // The planner settled it before the end.
    objects(13, |run| {
        let key = message_id(3, 12).to_string();
        run.status_events.iter_mut().find(|record| record.key == key).unwrap().at = T + 190 * S;
    });
    objects(2, |run| {
        let key = message_id(3, 12).to_string();
        run.status_events.iter_mut().find(|record| record.key == key).unwrap().event.as_mut().unwrap().client_id =
            good::uuid(3);
    });
}

#[test]
fn a_round_that_begins_before_the_last_is_over_is_noticed() {
    let planned_at = |run: &mut Evidence, at: i64| {
        run.message_events.iter_mut().find(|record| record.at == T + 91 * S).unwrap().at = at;
    };
    objects(16, |run| planned_at(run, T + 83_500 * MS));
    accepts(16, |run| planned_at(run, T + 84_100 * MS));
    // What is over for good isn't planned again by itself.
    objects(16, |run| status_at(run, T + 84 * S).status = "cancelled".to_owned());
    accepts(16, |run| status_at(run, T + 84 * S).status = "failed".to_owned());
}

#[test]
fn a_call_for_a_round_that_is_over_is_noticed() {
    // An owner that had lost its partition held the message; the new one called it for the first round, late.
    objects(16, |run| {
        let mut late = run.status_events.iter().find(|record| record.at == T + 82_530 * MS).unwrap().clone();
        (late.at, late.offset) = (T + 93 * S, 500);
        late.event.as_mut().unwrap().status = "succeeded".to_owned();
        run.status_events.push(late);
    });
    // Two calls at once.
    objects(16, |run| call_at(run, T + 81 * S).decided_at = T + 127 * S);
}

#[test]
fn a_call_on_an_old_planning_is_noticed() {
    let planned = |run: &mut Evidence, at: i64| {
        let record = run.message_events.iter_mut().find(|record| record.at == T + 125 * S).unwrap();
        record.event.as_mut().unwrap().planned_at = DateTime::from_timestamp_micros(at);
        // The earlier round is no excuse: it is older still.
    };
    accepts(17, |run| planned(run, T + 70 * S));
    objects(17, |run| planned(run, T + 60 * S));
    // Nobody promised it before messages could be held.
    accepts(17, |run| {
        planned(run, T + 60 * S);
        run.progress.iter_mut().for_each(|record| record.event.as_mut().unwrap().again = None);
    });
}

#[test]
fn a_call_before_the_told_time_has_passed_is_noticed_across_a_restart_too() {
    objects(17, |run| call_at(run, T + 81 * S).retry_after = Some(50));
    // Longer than a minute is taken for a minute.
    objects(17, |run| call_at(run, T + 81 * S).retry_after = Some(3_600));
    let kill = |run: &mut Evidence, at: i64| {
        let kill = run.journal.iter().find(|entry| entry.event == "kill").unwrap();
        let kill = Entry { at, name: Some("sender-2".to_owned()), ..kill.clone() };
        run.journal.push(kill);
        call_at(run, T + 81 * S).retry_after = Some(50);
    };
    objects(17, |run| kill(run, T + 100 * S));
    // It could tell nobody.
    accepts(17, |run| kill(run, T + 81_010 * MS));
}

#[test]
fn a_call_before_a_held_message_is_due_is_noticed() {
    let later = |run: &mut Evidence| {
        status_at(run, T + 84 * S).not_before = DateTime::from_timestamp_micros(T + 93 * S);
    };
    objects(17, later);
    // Its writer was stopped meanwhile, and had lost the message.
    accepts(17, |run| {
        later(run);
        let name = Some("sender-1".to_owned());
        for (event, at) in [("stop", T + 70 * S), ("cont", T + 84 * S)] {
            let (event, role) = (event.to_owned(), Some("sender".to_owned()));
            run.journal.push(Entry { at, event, role, name: name.clone(), ..Entry::default() });
        }
    });
}
