//! Damages to why a message was settled as it was, to who is to blame, and to what proves it: rules 13 to 15 and 19, and
//! rules that see nothing.

use judge::evidence::Evidence;
use judge::journal::Entry;
use judge::wire::StatusEvent;

use crate::good::{MS, S, T, message_id};
use crate::{accepts, last_status, message, objects};

fn told(run: &mut Evidence, mailing_no: i64, client_no: i64) -> &mut StatusEvent {
    last_status(run, mailing_no, client_no).event.as_mut().unwrap()
}

/// The order for the first mailing becomes this, at an instant.
fn order(run: &mut Evidence, state: &str, at: i64) {
    let mut record = run.mailing_events[0].clone();
    record.at = at;
    let event = record.event.as_mut().unwrap();
    (event.version, event.state) = (at, state.to_owned());
    run.mailing_events.push(record);
}

fn provider(run: &mut Evidence, event: &str, at: i64, note: &str) {
    let (role, note) = (Some("provider".to_owned()), Some(note.to_owned()));
    run.journal.push(Entry { at, event: event.to_owned(), role, note, ..Entry::default() });
}

fn name_the_killed(run: &mut Evidence, name: &str) {
    run.journal.iter_mut().filter(|entry| entry.event == "kill").for_each(|kill| kill.name = Some(name.to_owned()));
}

#[test]
fn a_message_that_expires_before_the_end_is_noticed() {
    objects(13, |run| last_status(run, 2, 7).at = T + 50 * S);
    // An earlier end was ordered, and later taken back.
    let earlier = |run: &mut Evidence| {
        last_status(run, 2, 7).at = T + 50 * S;
        let mut record = run.mailing_events[1].clone();
        record.at = T + 45 * S;
        let event = record.event.as_mut().unwrap();
        (event.version, event.ends_at) = (T + 45 * S, chrono::DateTime::from_timestamp_micros(T + 48 * S).unwrap());
        run.mailing_events.push(record);
    };
    accepts(13, earlier);
    objects(13, |run| {
        earlier(run);
        let mut record = run.mailing_events[1].clone();
        record.at = T + 47 * S;
        record.event.as_mut().unwrap().version = T + 47 * S;
        run.mailing_events.push(record);
    });
}

#[test]
fn a_message_that_is_cancelled_or_held_without_an_order_is_noticed() {
    for (status, reason, state) in [("cancelled", "mailing_cancelled", "cancelled"), ("held", "paused", "paused")] {
        let settle = |run: &mut Evidence| {
            let event = told(run, 1, 1);
            (event.status, event.reason) = (status.to_owned(), Some(reason.to_owned()));
        };
        objects(13, settle);
        accepts(13, |run| {
            settle(run);
            order(run, state, T + 100 * MS);
        });
        objects(13, |run| {
            settle(run);
            order(run, state, T + S);
        });
    }
}

#[test]
fn a_message_that_is_invalid_though_it_has_all_is_noticed() {
    let invalid = |run: &mut Evidence| told(run, 1, 9).reason = Some("invalid".to_owned());
    objects(13, invalid);
    accepts(13, |run| {
        invalid(run);
        message(run, 1, 9).event.as_mut().unwrap().phone = None;
    });
}

/// Client 7's call, which was on the wire at the kill, isn't made again, but is announced.
fn in_doubt(run: &mut Evidence, reason: &str) {
    let id = message_id(1, 7);
    run.calls.retain(|call| call.id != id || call.begun_at < T + 10 * S);
    let settled = last_status(run, 1, 7);
    settled.offset = 101;
    let event = settled.event.as_mut().unwrap();
    (event.status, event.reason) = ("unknown".to_owned(), Some(reason.to_owned()));
    let mut started = settled.clone();
    (started.offset, started.at) = (100, T + 9_985 * MS);
    let event = started.event.as_mut().unwrap();
    (event.kind, event.status, event.reason) = ("started".to_owned(), "created".to_owned(), None);
    run.status_events.push(started);
}

#[test]
fn a_message_in_doubt_needs_a_call_that_was_announced_and_the_death_of_its_caller() {
    let lost = |run: &mut Evidence| in_doubt(run, "sender_lost");
    accepts(14, lost);
    objects(14, |run| {
        lost(run);
        run.journal.retain(|entry| entry.event != "kill");
    });
    // It left in good order.
    objects(14, |run| {
        lost(run);
        run.journal.iter_mut().filter(|entry| entry.event == "kill").for_each(|e| e.event = "term".to_owned());
    });
    objects(14, |run| {
        lost(run);
        name_the_killed(run, "sender-2");
    });
    objects(14, |run| {
        lost(run);
        run.status_events.pop();
    });
    // The call was refused, which is told.
    objects(14, |run| {
        lost(run);
        run.status_events.last_mut().unwrap().event.as_mut().unwrap().kind = "open".to_owned();
    });
    // What came of the call before it is told late.
    let late = |run: &mut Evidence, announced: i32| {
        lost(run);
        let started = run.status_events.last_mut().unwrap();
        (started.offset, started.event.as_mut().unwrap().announced) = (99, 2);
        let mut told = started.clone();
        told.offset = 100;
        let event = told.event.as_mut().unwrap();
        (event.kind, event.announced) = ("open".to_owned(), announced);
        run.status_events.push(told);
    };
    accepts(14, |run| late(run, 1));
    objects(14, |run| late(run, 2));
}

#[test]
fn an_unknown_answer_must_have_been_lost_or_unreadable_or_late() {
    let unanswered = |run: &mut Evidence| {
        in_doubt(run, "connection");
        // Told 30 ms later, by a sender that lives.
        let record = run.status_events.iter_mut().find(|record| record.offset == 101).unwrap();
        record.at = T + 10_020 * MS;
        run.calls.iter_mut().filter(|call| call.id == message_id(1, 7)).for_each(|call| call.answered = false);
    };
    accepts(14, unanswered);
    for (outcome, answered) in [("ok", true), ("status_500", true)] {
        objects(14, |run| {
            unanswered(run);
            let call = run.calls.iter_mut().find(|call| call.id == message_id(1, 7)).unwrap();
            (call.outcome, call.answered) = (outcome.to_owned(), answered);
        });
    }
    accepts(14, |run| {
        unanswered(run);
        let call = run.calls.iter_mut().find(|call| call.id == message_id(1, 7)).unwrap();
        (call.outcome, call.answered) = ("garbage".to_owned(), true);
    });
    // Nothing reached the provider.
    let unseen = |run: &mut Evidence| {
        unanswered(run);
        run.calls.retain(|call| call.id != message_id(1, 7));
    };
    objects(14, unseen);
    accepts(14, |run| {
        unseen(run);
        provider(run, "cut", T + 9 * S, "");
        provider(run, "heal", T + 11 * S, "");
    });
}

#[test]
fn a_message_that_is_exhausted_with_attempts_left_is_noticed() {
    objects(14, |run| told(run, 1, 11).attempt = 3);
    let fewer = |run: &mut Evidence| {
        run.calls.retain(|call| call.id != message_id(1, 11) || call.begun_at != T + 4_400 * MS);
    };
    objects(14, fewer);
    // Throttled calls are no attempts.
    objects(14, |run| {
        let call = run.calls.iter_mut().find(|call| call.begun_at == T + 4_400 * MS).unwrap();
        call.outcome = "throttled_429".to_owned();
    });
    accepts(14, |run| {
        fewer(run);
        provider(run, "cut", T + 4 * S, "");
        provider(run, "heal", T + 5 * S, "");
    });
}

#[test]
fn a_point_that_most_never_reach_is_noticed() {
    let die = |run: &mut Evidence, reached: usize| {
        for number in 0..10 {
            let (role, point) = (Some("sender".to_owned()), Some("send::answered".to_owned()));
            let (at, event) = (T + 80 * S, "kill".to_owned());
            run.journal.push(Entry { at, event, role, point, reached: number < reached, ..Entry::default() });
        }
    };
    accepts(15, |run| die(run, 6));
    objects(15, |run| die(run, 5));
    objects(15, |run| die(run, 0));
}

#[test]
fn the_death_of_another_sender_excuses_nothing() {
    accepts(5, |run| name_the_killed(run, "sender-1"));
    objects(5, |run| name_the_killed(run, "sender-2"));
    // A sender whose port isn't known may have been the caller.
    accepts(5, |run| name_the_killed(run, "sender-9"));
    // Only the first was without Kafka.
    let cut = |run: &mut Evidence, name: &str| {
        name_the_killed(run, name);
        run.journal.iter_mut().filter(|entry| entry.event == "kill").for_each(|e| e.event = "cut".to_owned());
    };
    accepts(5, |run| cut(run, "sender-1"));
    objects(5, |run| cut(run, "sender-2"));
}

#[test]
fn a_rule_that_sees_nothing_of_what_there_was_does_not_hold() {
    for rule in [8, 10, 11] {
        objects(rule, |run| run.samples.clear());
    }
    objects(7, |run| run.calls.clear());
    objects(8, |run| run.samples.iter_mut().for_each(|sample| sample.committed = None));
    objects(8, |run| run.samples.iter_mut().for_each(|sample| sample.status_ends = None));
    objects(10, |run| run.samples.iter_mut().for_each(|sample| sample.snapshot = None));
    objects(10, |run| run.samples.iter_mut().for_each(|sample| sample.answers = None));
    // A gauge has another name, or the metadata another word.
    objects(11, |run| run.samples.iter_mut().for_each(|sample| sample.processes[0].open_slots = None));
    objects(11, |run| run.samples.iter_mut().for_each(|sample| sample.processes[0].unacknowledged = None));
    objects(11, |run| run.samples.iter_mut().for_each(|sample| sample.processes[0].memory = None));
    objects(11, |run| {
        let commits = run.samples.iter_mut().flat_map(|sample| sample.committed.iter_mut().flatten());
        commits.for_each(|commit| commit.metadata = commit.metadata.replace("open", "slots"));
    });
    objects(12, |run| run.samples.iter_mut().for_each(|sample| sample.processes[0].metrics = None));
}

#[test]
fn attempts_that_were_not_made_or_not_told_are_noticed() {
    objects(19, |run| told(run, 1, 11).attempt = 5);
    objects(19, |run| told(run, 1, 1).attempt = 0);
    // A throttled call costs none.
    objects(19, |run| {
        let call = run.calls.iter_mut().find(|call| call.begun_at == T + 4_400 * MS).unwrap();
        call.outcome = "throttled_429".to_owned();
    });
    // Its sender was killed, and took its count along.
    accepts(19, |run| told(run, 1, 7).attempt = 2);
}

#[test]
fn a_refused_probe_costs_no_attempt_while_the_lane_is_closed() {
    let free = |run: &mut Evidence| told(run, 1, 11).attempt = 3;
    objects(19, free);
    accepts(19, |run| {
        free(run);
        provider(run, "fault", T + 4 * S, r#"[{"fault": {"status": 500}}]"#);
        provider(run, "fault", T + 5 * S, "[]");
    });
    let closed = |run: &mut Evidence, codes: &str| {
        free(run);
        run.samples[0].committed.as_mut().unwrap()[0].metadata.push_str(codes);
    };
    accepts(19, |run| closed(run, " calls=7 closed=916"));
    objects(19, |run| closed(run, " calls=7 closed="));
}
