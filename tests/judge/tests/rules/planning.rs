//! Damages to what was planned, and to the tables: rules 1, 2, 9 and 10.

use judge::ids::{ClientNo, MailingNo, MessageId};

use crate::good::{S, T, message_id, phone, uuid};
use crate::{accepts, last_status, message, objects};

#[test]
fn a_missing_row_is_noticed() {
    objects(1, |run| {
        run.rows.remove(3);
    });
}

#[test]
fn a_missing_message_event_is_noticed() {
    let drop =
        |run: &mut judge::evidence::Evidence| run.message_events.retain(|r| r.key != message_id(1, 3).to_string());
    objects(1, drop);
    objects(9, drop);
}

#[test]
fn counts_that_are_off_by_one_are_noticed() {
    objects(1, |run| run.counts[0].n += 1);
    objects(1, |run| *run.settled_rounds.get_mut(&MailingNo(1)).unwrap() -= 1);
    objects(1, |run| run.mirrors[1].planned += 1);
}

#[test]
fn a_message_that_is_not_through_is_noticed() {
    objects(1, |run| run.rows[0].status = "retrying".to_owned());
}

#[test]
fn a_mailing_that_is_not_finished_or_not_there_is_noticed() {
    objects(1, |run| run.mailings[0].state = "running".to_owned());
    objects(1, |run| run.journal[0].id = Some(uuid(9)));
}

#[test]
fn what_is_for_a_client_outside_the_audience_is_noticed() {
    // Client 2 has another code.
    let intrude = |run: &mut judge::evidence::Evidence| {
        let id = message_id(1, 2);
        let record = message(run, 1, 1);
        record.key = id.to_string();
        let event = record.event.as_mut().unwrap();
        (event.message_id, event.client_id, event.phone) = (id, uuid(2), Some(phone(2)));
    };
    objects(2, intrude);
    objects(2, |run| run.rows[0].client_no = ClientNo(12));
    objects(2, |run| run.calls[0].id = message_id(1, 2));
    // Client 11 came after the audience was fixed.
    objects(2, |run| run.progress.iter_mut().for_each(|record| record.event.as_mut().unwrap().audience_max = 10));
}

#[test]
fn an_aborted_record_outside_the_audience_is_noticed_too() {
    objects(2, |run| {
        let aborted = run.message_events.iter_mut().find(|record| !record.visible).unwrap();
        aborted.event.as_mut().unwrap().client_id = uuid(2);
    });
}

#[test]
fn a_client_who_changed_during_the_run_may_be_planned_or_not() {
    accepts(1, |run| run.clients[9].updated_at = T + S);
    accepts(2, |run| {
        let client = &mut run.clients[0];
        (client.phone, client.operator_code, client.tag, client.updated_at) = (None, None, None, T + S);
    });
    objects(2, |run| run.clients[0].operator_code = Some(999));
}

#[test]
fn a_wrong_phone_text_or_id_is_noticed() {
    objects(2, |run| message(run, 1, 3).event.as_mut().unwrap().phone = Some(phone(4)));
    objects(2, |run| message(run, 1, 3).event.as_mut().unwrap().text = Some("Hello".to_owned()));
    objects(2, |run| message(run, 1, 3).event.as_mut().unwrap().message_id = MessageId(1));
    objects(2, |run| message(run, 1, 3).key = "1".to_owned());
    objects(2, |run| run.calls[0].phone = phone(2));
    objects(2, |run| run.calls[0].text = Some("Hello".to_owned()));
    objects(2, |run| run.calls[0].outcome = "malformed".to_owned());
    objects(2, |run| run.rows[0].client_id = uuid(2));
}

#[test]
fn a_status_of_another_message_or_partition_is_noticed() {
    objects(2, |run| last_status(run, 1, 1).event.as_mut().unwrap().source.offset += 100);
    objects(2, |run| last_status(run, 1, 1).event.as_mut().unwrap().client_id = uuid(3));
    objects(2, |run| last_status(run, 1, 1).partition ^= 1);
}

#[test]
fn cursors_that_fall_or_overlap_are_noticed() {
    // Of the records 0, 5, 9 (aborted) and 12 of mailing 1.
    objects(9, |run| run.progress[1].event.as_mut().unwrap().cursor = 7);
    objects(9, |run| run.progress[3].event.as_mut().unwrap().cursor = 3);
    objects(9, |run| run.progress.swap(1, 3));
    objects(9, |run| run.progress[3].event.as_mut().unwrap().cursor = 11);
    objects(9, |run| run.progress[3].event.as_mut().unwrap().audience_max = 13);
}

#[test]
fn a_page_that_was_planned_twice_is_noticed() {
    objects(9, |run| {
        let mut again = message(run, 1, 3).clone();
        again.offset = 100;
        run.message_events.push(again);
    });
    objects(9, |run| {
        let again = run.progress[1].clone();
        run.progress.insert(2, again);
    });
}

#[test]
fn an_aborted_record_that_counts_as_planned_is_noticed() {
    objects(9, |run| message(run, 1, 3).visible = false);
    objects(9, |run| run.message_events.iter_mut().for_each(|record| record.visible = true));
    objects(1, |run| message(run, 1, 3).visible = false);
}

#[test]
fn a_start_that_was_written_twice_is_no_offence() {
    accepts(9, |run| {
        let again = run.progress[0].clone();
        run.progress.insert(0, again);
    });
}

#[test]
fn a_snapshot_whose_counts_and_rows_differ_is_noticed() {
    objects(10, |run| {
        let snapshot = &mut run.samples[1].snapshot.as_mut().unwrap()[0];
        *snapshot.counts.get_mut("succeeded").unwrap() += 1;
    });
}

#[test]
fn an_answer_whose_sum_is_wrong_is_noticed() {
    objects(10, |run| {
        run.samples[1].answers.as_mut().unwrap()[0].counts.insert("planned".to_owned(), Some(7));
    });
}
