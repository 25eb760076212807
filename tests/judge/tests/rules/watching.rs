//! Damages to what was seen during the run: rules 8 and 10 to 12.

use judge::evidence::{Evidence, Record};
use judge::sample::Committed;

use crate::good::{S, T, TEXTS, TOKEN, phone};
use crate::{accepts, cut_off, last_status, objects};

fn commit(run: &mut Evidence, sample: usize, partition: usize) -> &mut Committed {
    &mut run.samples[sample].committed.as_mut().unwrap()[partition]
}

#[test]
fn a_committed_offset_that_falls_is_noticed() {
    let fall = |run: &mut Evidence| commit(run, 3, 0).offset = Some(1);
    objects(8, fall);
    objects(8, |run| commit(run, 2, 0).offset = None);
    // By hand it may.
    accepts(8, |run| {
        fall(run);
        let mut entry = run.journal[2].clone();
        (entry.at, entry.event, entry.role) = (T + 60 * S, "fault".to_owned(), Some("kafka".to_owned()));
        run.journal.push(entry);
    });
}

#[test]
fn an_offset_over_an_unsettled_message_is_noticed() {
    // Client 7's message is settled after 25 s only.
    let sample = 1;
    objects(8, |run| {
        commit(run, sample, 0).offset = Some(100);
        commit(run, sample, 1).offset = Some(100);
    });
    // What the commit at 2 s stands on came to Kafka later, whatever its clock says.
    objects(8, |run| last_status(run, 1, 1).offset = 100);
    objects(8, |run| last_status(run, 1, 1).event.as_mut().unwrap().kind = "open".to_owned());
    objects(8, |run| last_status(run, 1, 1).event.as_mut().unwrap().round = 2);
}

#[test]
fn a_foreign_record_that_is_passed_without_a_dead_letter_is_noticed() {
    let garble = |run: &mut Evidence| {
        let mut foreign = run.message_events[0].clone();
        (foreign.partition, foreign.offset, foreign.event) = (0, 0, None);
        run.message_events.push(foreign);
    };
    objects(8, garble);
    accepts(8, |run| {
        garble(run);
        let event = serde_json::json!({"topic": "herald.message-events.v1", "partition": 0, "offset": 0});
        let (key, headers) = (String::new(), vec![]);
        run.dead_letters.push(Record {
            partition: 0,
            offset: 0,
            at: T,
            key,
            headers,
            visible: true,
            event: Some(event),
        });
    });
}

#[test]
fn what_could_not_be_asked_is_no_offence() {
    accepts(8, |run| run.samples[1].committed = None);
    accepts(10, |run| (run.samples[1].snapshot, run.samples[1].answers) = (None, None));
    accepts(11, |run| run.samples[1].processes.clear());
}

#[test]
fn too_many_open_messages_are_noticed() {
    objects(11, |run| run.samples[0].processes[0].open_slots = Some(2_001.0));
    objects(11, |run| commit(run, 0, 0).metadata = "v1 bookmark=0 position=2000 open=1001".to_owned());
}

#[test]
fn too_many_unacknowledged_statuses_are_noticed() {
    objects(11, |run| run.samples[0].processes[0].unacknowledged = Some(2_001.0));
}

#[test]
fn a_status_written_by_a_sender_that_is_cut_off_from_kafka_is_noticed() {
    let write = |run: &mut Evidence, cut_at: i64, statuses: f64| {
        cut_off(run, cut_at);
        run.samples[3].at = T + 35 * S;
        run.samples[3].processes[0].unacknowledged = Some(statuses);
    };
    objects(11, |run| write(run, T + 20 * S, 2.0));
    accepts(11, |run| write(run, T + 20 * S, 1.0));
    // Of a call that was on the wire.
    accepts(11, |run| write(run, T + 24 * S, 2.0));
}

#[test]
fn too_much_memory_is_noticed_if_there_is_a_limit() {
    let grow = |run: &mut Evidence| run.samples[0].processes[0].memory = Some(97e6);
    objects(11, grow);
    accepts(11, |run| {
        grow(run);
        run.memory_limit = None;
    });
}

#[test]
fn a_phone_text_or_token_where_it_must_not_be_is_noticed() {
    for secret in [phone(3).to_string(), format!("phone={}", phone(3)), TEXTS[0].to_owned(), TOKEN.to_owned()] {
        objects(12, |run| run.logs[0].1.push_str(&secret));
        objects(12, |run| run.samples[2].processes[0].metrics = Some(format!("x{{label=\"{secret}\"}} 1")));
        objects(12, |run| run.message_events[0].key.clone_from(&secret));
        objects(12, |run| run.status_events[0].headers.push(("note".to_owned(), secret.clone())));
        objects(12, |run| last_status(run, 1, 9).event.as_mut().unwrap().detail = Some(secret.clone()));
    }
}

#[test]
fn a_text_is_found_as_json_writes_it() {
    objects(12, |run| {
        run.mailings[0].text = "Say \"yes\"\nnow".to_owned();
        run.logs[0].1 = r#"{"error":"Say \"yes\"\nnow"}"#.to_owned();
    });
}

#[test]
fn digits_that_are_no_phone_are_no_offence() {
    let digits = format!("{}0 1{} 79160000000 00-{}abc-01", phone(3), phone(3), phone(3));
    accepts(12, |run| run.logs[0].1.push_str(&digits));
}
