//! What the log says of a mailing whose calls are announced. An announcement that nothing follows is a doubt.

#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::collections::BTreeMap;

use common::{Mailing, Stage, count, mailing};
use domain::mailing::{Delivery, State};
use domain::status::Status;
use events::{Kind, StatusEvent};
use serde_json::json;
use support::until;

fn once(no: i64) -> Mailing {
    Mailing { delivery: Delivery::AtMostOnce, ..mailing(no) }
}

/// An announced call is answered or taken back before the message is settled without one.
fn assert_nothing_in_doubt(statuses: &[StatusEvent]) {
    let mut announced = BTreeMap::new();
    for event in statuses {
        let uncalled = matches!(event.status, Status::Cancelled | Status::Expired | Status::Held);
        let before = announced.insert(event.message_id, event.kind == Kind::Started);
        assert!(before != Some(true) || !uncalled, "a call was announced and nothing said of it before {event:?}");
    }
    assert_eq!(count(statuses, &Status::Unknown), 0);
}

fn announced(statuses: &[StatusEvent]) -> usize {
    statuses.iter().filter(|event| event.kind == Kind::Started).count()
}

fn taken_back(statuses: &[StatusEvent]) -> usize {
    statuses.iter().filter(|event| event.kind == Kind::Open && event.status == Status::Created).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_mailing_is_cancelled_what_is_announced_is_called_or_taken_back() {
    const PLACES: usize = 256;
    const MESSAGES: usize = 3_000;
    let stage = Stage::new().await;
    let sender = stage.sender_with(&["--sender-concurrency", &PLACES.to_string()]).await;
    // Answers come apart, so that at any moment some are announced, some are called, and some are answered.
    let answers = [0, 1, 2].map(|remainder| {
        json!({"delay_ms": 5 + 20 * remainder, "fault": {"answer": {}}, "cohort": {"modulus": 3, "remainder": remainder}})
    });
    stage.faults(json!(answers));
    let mailing = once(1);
    stage.publish(&mailing).await;
    stage.plan(mailing.messages(MESSAGES as i64)).await;
    until("it is in the middle", async || stage.calls() >= 1_200).await;
    stage.publish(&Mailing { version: 2, state: State::Cancelled, ..mailing }).await;

    stage.settled(MESSAGES).await;
    let (statuses, calls) = (stage.statuses().await, stage.calls() as usize);
    println!("{} announced, {calls} called, {} taken back", announced(&statuses), taken_back(&statuses));
    assert_nothing_in_doubt(&statuses);
    assert!(taken_back(&statuses) > 0, "none was between its announcement and its call");
    assert!(announced(&statuses) <= calls + PLACES, "one was announced that had no place");
    assert!(calls < MESSAGES, "the cancellation stopped nothing");
    stage.accepted();
    stage.leave([sender]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_outage_calls_that_do_not_count_are_taken_back_also_when_the_sender_leaves() {
    let stage = Stage::new().await;
    let sender = stage.sender_with(&["--sender-concurrency", "32"]).await;
    stage.faults(json!([{"delay_ms": 20, "fault": {"status": 500}}]));
    let mailing = once(1);
    stage.publish(&mailing).await;
    stage.plan(mailing.messages(300)).await;
    until("some are held", async || count(&stage.statuses().await, &Status::Held) >= 100).await;
    sender.stop().await;
    assert_nothing_in_doubt(&stage.statuses().await);

    let sender = stage.sender_with(&["--sender-concurrency", "32"]).await;
    until("nearly all are held", async || count(&stage.statuses().await, &Status::Held) >= 250).await;
    let (calls, statuses) = (stage.calls() as usize, stage.statuses().await);
    println!("{} announced, {calls} called, {} taken back", announced(&statuses), taken_back(&statuses));
    assert_nothing_in_doubt(&statuses);
    assert!(calls <= announced(&statuses), "a call wasn't announced");
    assert!(taken_back(&statuses) > 0, "every call counted");
    assert_eq!(stage.accepted(), 0);
    stage.leave([sender]).await;
}
