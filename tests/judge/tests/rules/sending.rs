//! Damages to what was sent and what is said of it: rules 3 to 7.

use chrono::DateTime;
use judge::evidence::{Call, Evidence};
use judge::wire::Window;

use crate::good::{MS, S, T, message_id};
use crate::{accepts, cut_off, last_status, message, objects};

fn calls(run: &mut Evidence, mailing_no: i64, client_no: i64) -> Vec<&mut Call> {
    run.calls.iter_mut().filter(|call| call.id == message_id(mailing_no, client_no)).collect()
}

/// Writes a status behind the last one of a message.
fn add_status(run: &mut Evidence, client_no: i64, at: i64, status: &str) {
    let mut record = last_status(run, 1, client_no).clone();
    (record.offset, record.at) = (100, at);
    let event = record.event.as_mut().unwrap();
    (event.status, event.reason) = (status.to_owned(), None);
    run.status_events.push(record);
}

/// Calls a message once more, accepted and answered.
fn call_again(run: &mut Evidence, client_no: i64, at: i64) {
    let mut call = calls(run, 1, client_no)[0].clone();
    (call.begun_at, call.decided_at, call.accepted, call.answered) = (at, at + MS, true, true);
    call.outcome = "ok".to_owned();
    run.calls.push(call);
}

#[test]
fn a_row_that_does_not_show_the_log_is_noticed() {
    objects(3, |run| run.rows[0].status = "failed".to_owned());
    objects(3, |run| run.rows[0].reason = Some("ended".to_owned()));
    objects(3, |run| run.rows[0].settled_round = 2);
    objects(3, |run| run.status_events.retain(|record| record.key != message_id(1, 1).to_string()));
}

#[test]
fn a_status_behind_a_terminal_one_needs_a_reason_and_changes_nothing() {
    objects(3, |run| add_status(run, 1, T + 2 * S, "expired"));
    objects(3, |run| {
        // The first terminal status stands, not the last.
        add_status(run, 9, T + 10 * S, "expired");
        let row = run.rows.iter_mut().find(|row| row.id() == message_id(1, 9)).unwrap();
        (row.status, row.reason) = ("expired".to_owned(), None);
    });
    // Of one who lay stopped since, and didn't know.
    accepts(3, |run| add_status(run, 9, T + 40 * S, "expired"));
    // The kill came before the message.
    objects(3, |run| {
        let mut record = last_status(run, 2, 1).clone();
        (record.offset, record.at) = (100, T + 43 * S);
        run.status_events.push(record);
    });
}

#[test]
fn late_evidence_of_success_is_shown() {
    let late = |run: &mut Evidence| add_status(run, 11, T + 12 * S, "succeeded");
    objects(3, late);
    accepts(3, |run| {
        late(run);
        let row = run.rows.iter_mut().find(|row| row.id() == message_id(1, 11)).unwrap();
        (row.status, row.reason) = ("succeeded".to_owned(), None);
    });
}

#[test]
fn a_table_of_steps_that_differs_from_the_log_is_noticed() {
    objects(3, |run| {
        run.steps.pop();
    });
    objects(3, |run| run.steps[0].status_offset = 100);
    objects(3, |run| run.steps[0].attempt = 9);
}

#[test]
fn a_success_that_the_provider_did_not_give_is_noticed() {
    objects(4, |run| calls(run, 1, 1)[0].accepted = false);
    objects(4, |run| calls(run, 1, 1)[0].answered = false);
}

#[test]
fn a_failure_of_what_was_accepted_is_noticed() {
    objects(4, |run| run.rows[0].status = "failed".to_owned());
    objects(4, |run| {
        let rejected = &mut calls(run, 1, 9)[0];
        (rejected.accepted, rejected.outcome) = (true, "ok".to_owned());
    });
    // Its answer was lost, and the end came.
    accepts(4, |run| {
        let expired = &mut calls(run, 2, 8)[0];
        (expired.accepted, expired.answered, expired.outcome) = (true, false, "reset_after".to_owned());
    });
}

#[test]
fn a_reason_that_the_provider_did_not_give_is_noticed() {
    objects(4, |run| calls(run, 1, 9)[0].outcome = "status_500".to_owned());
    objects(14, |run| run.calls.retain(|call| call.id != message_id(1, 11)));
    objects(4, |run| run.rows[0].status = "unknown".to_owned());
}

#[test]
fn a_doubled_call_without_a_reason_is_noticed() {
    objects(5, |run| call_again(run, 1, T + 500 * MS));
    // Settled long before the kill.
    objects(5, |run| call_again(run, 1, T + 12 * S));
    // The answer was lost without a trace of why.
    objects(5, |run| {
        calls(run, 1, 1)[0].answered = false;
        call_again(run, 1, T + 500 * MS);
    });
}

#[test]
fn the_doubled_calls_of_the_good_run_need_their_reasons() {
    objects(5, |run| run.journal.retain(|entry| entry.event != "kill"));
    objects(5, |run| run.journal.iter_mut().for_each(|entry| entry.at += 7 * S));
    objects(5, |run| run.journal.iter_mut().for_each(|entry| entry.at -= S));
    objects(5, |run| run.journal.iter_mut().for_each(|entry| entry.role = Some("projector".to_owned())));
    // In good order nothing is doubled.
    objects(5, |run| {
        run.journal.iter_mut().filter(|entry| entry.event == "kill").for_each(|e| e.event = "term".to_owned())
    });
    objects(5, |run| calls(run, 1, 5)[0].outcome = "ok".to_owned());
}

#[test]
fn a_stopped_sender_explains_what_it_had_begun_and_nothing_later() {
    let stop = |run: &mut Evidence| {
        run.journal.iter_mut().filter(|entry| entry.event == "kill").for_each(|e| e.event = "stop".to_owned());
        run.journal.iter_mut().filter(|entry| entry.event == "start").for_each(|entry| {
            (entry.event, entry.at) = ("cont".to_owned(), T + 40 * S);
        });
    };
    accepts(5, stop);
    // The new owner's call at 25 s was answered and settled; the one that wakes calls once more.
    objects(5, |run| {
        stop(run);
        call_again(run, 7, T + 40 * S + MS);
    });
}

#[test]
fn a_cut_of_kafka_explains_what_began_under_the_lease_only() {
    let cut = |run: &mut Evidence| {
        run.journal.iter_mut().filter(|entry| entry.event == "kill").for_each(|entry| {
            (entry.event, entry.role) = ("cut".to_owned(), Some("kafka".to_owned()));
        });
    };
    accepts(5, cut);
    objects(5, |run| {
        cut(run);
        call_again(run, 7, T + 40 * S);
    });
}

#[test]
fn a_timeout_explains_a_second_call_when_the_time_has_passed() {
    let timed_out = |run: &mut Evidence| {
        let first = &mut calls(run, 1, 3)[0];
        (first.accepted, first.answered, first.outcome) = (true, false, "ok".to_owned());
        run.status_events[1].event.as_mut().unwrap().reason = Some("timeout".to_owned());
    };
    objects(5, |run| {
        timed_out(run);
        calls(run, 1, 3)[1].accepted = true;
    });
    accepts(5, |run| {
        timed_out(run);
        calls(run, 1, 3)[1].begun_at = T + 6_500 * MS;
        calls(run, 1, 3)[2].begun_at = T + 9_500 * MS;
    });
}

#[test]
fn a_message_that_may_only_be_sent_once_is_not_sent_twice_for_any_reason() {
    objects(5, |run| run.mailings[0].delivery = "at_most_once".to_owned());
}

#[test]
fn too_many_attempts_are_noticed() {
    objects(6, |run| call_again(run, 11, T + 9_000 * MS + 4 * S - 5 * S));
    // Nobody is called five times who may have got a text each time.
    objects(6, |run| {
        for seconds in [3, 5, 7, 9] {
            call_again(run, 5, T + seconds * S);
            let call = run.calls.last_mut().unwrap();
            (call.accepted, call.answered, call.outcome) = (false, false, "hang".to_owned());
        }
        let mut again = message(run, 1, 5).clone();
        (again.offset, again.event.as_mut().unwrap().round) = (500, 2);
        run.message_events.push(again);
    });
    // A throttled one doesn't count, but an ordinary failure does.
    objects(6, |run| calls(run, 1, 11)[0].outcome = "status_500".to_owned());
}

#[test]
fn attempts_too_close_together_are_noticed() {
    objects(6, |run| calls(run, 1, 3)[1].begun_at = T + 800 * MS);
    objects(6, |run| calls(run, 1, 3)[2].begun_at = T + 2_500 * MS);
    accepts(6, |run| calls(run, 1, 3)[1].begun_at = T + 1_000 * MS);
}

#[test]
fn a_call_before_a_retry_after_has_passed_is_noticed() {
    objects(6, |run| calls(run, 1, 11)[0].retry_after = Some(1));
    accepts(6, |run| {
        calls(run, 1, 11)[0].retry_after = Some(1);
        calls(run, 1, 11)[0].decided_at = T + 200 * MS;
    });
    // The sender that was told was killed.
    accepts(6, |run| calls(run, 1, 7)[0].retry_after = Some(60));
}

#[test]
fn a_call_of_a_sender_that_is_cut_off_from_kafka_is_noticed() {
    let call = |run: &mut Evidence, cut_at: i64, port: u16| {
        cut_off(run, cut_at);
        calls(run, 1, 7)[1].sender = Some(port);
    };
    objects(7, |run| call(run, T + 20 * S, 1));
    accepts(7, |run| call(run, T + 20 * S, 2));
    // Its proofs were still good.
    accepts(7, |run| call(run, T + 23 * S, 1));
}

#[test]
fn a_call_past_the_end_or_before_the_start_is_noticed() {
    objects(7, |run| calls(run, 2, 8)[0].begun_at = T + 60 * S);
    accepts(7, |run| calls(run, 2, 8)[0].begun_at = T + 60 * S - 1);
    objects(7, |run| calls(run, 1, 1)[0].begun_at = T - 1);
    objects(7, |run| {
        run.mailing_events.clear();
        calls(run, 2, 8)[0].begun_at = T + 60 * S;
    });
}

#[test]
fn a_call_after_a_cancel_or_pause_took_effect_is_noticed() {
    for state in ["cancelled", "paused"] {
        let order = |run: &mut Evidence, at: i64| {
            let mut record = run.mailing_events[0].clone();
            record.at = at;
            let event = record.event.as_mut().unwrap();
            (event.version, event.state) = (at, state.to_owned());
            run.mailing_events.push(record);
        };
        objects(7, |run| order(run, T + 20 * S));
        accepts(7, |run| order(run, T + 24 * S));
        // It goes on before the call.
        accepts(7, |run| {
            order(run, T + 20 * S);
            order(run, T + 24 * S);
            run.mailing_events[3].event.as_mut().unwrap().state = "running".to_owned();
        });
    }
}

#[test]
fn a_call_outside_the_window_is_noticed() {
    let window = |run: &mut Evidence, opens: i64, closes: i64| {
        let at = |at| DateTime::from_timestamp_micros(at).unwrap();
        message(run, 1, 1).event.as_mut().unwrap().window = Some(Window { opens_at: at(opens), closes_at: at(closes) });
    };
    accepts(7, |run| window(run, T, T + S));
    objects(7, |run| window(run, T + S, T + 2 * S));
    objects(7, |run| window(run, T, T + 100 * MS));
}
