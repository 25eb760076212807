//! The life of one message.

#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use chrono::{TimeDelta, Utc};
use common::{HOUR, Stage, mailing};
use domain::mailing::{Delivery, State};
use domain::status::Status;
use events::{LocalWindow, MessageEvent, StatusEvent};
use serde_json::json;
use support::until;

/// What is told of a message, as status, reason and attempts.
fn story(told: &[(&str, &str, i32)]) -> Vec<(String, String, i32)> {
    told.iter().map(|(status, reason, attempt)| ((*status).to_owned(), (*reason).to_owned(), *attempt)).collect()
}

/// What is told of one message that meets the faults, and how many calls were made and accepted. A hundred others before it
/// keep its lane open.
async fn play(
    stage: &Stage,
    number: i64,
    faults: serde_json::Value,
    delivery: Delivery,
) -> (Vec<(String, String, i32)>, [u64; 2]) {
    let before = stage.settled(0).await.len();
    let others = mailing(2 * number);
    stage.publish(&others).await;
    stage.plan(others.messages(100)).await;
    stage.settled(before + 100).await;
    let (calls, accepted) = (stage.calls(), stage.accepted());
    stage.faults(faults);
    let one = common::Mailing { delivery, ..mailing(2 * number + 1) };
    stage.publish(&one).await;
    stage.plan([one.message(1)]).await;
    stage.settled(before + 101).await;
    stage.faults(json!([]));
    let statuses: Vec<StatusEvent> =
        stage.statuses().await.into_iter().filter(|event| event.mailing_id == one.id).collect();
    for pair in statuses.windows(2) {
        let early = pair[0].not_before.is_some_and(|not_before| pair[1].occurred_at < not_before);
        assert!(!early, "called before its time: {pair:?}");
    }
    let told = statuses
        .iter()
        .map(|event| (event.status.as_str().to_owned(), common::reason(event).to_owned(), event.attempt));
    (told.collect(), [stage.calls() - calls, stage.accepted() - accepted])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_of_its_calls_is_told_one_by_one() {
    let fault = |fault: serde_json::Value, first: u32| json!([{"fault": fault, "first_calls": first}]);
    let once = Delivery::AtMostOnce;
    let cases = [
        ("success", json!([]), Delivery::AtLeastOnce, story(&[("succeeded", "-", 1)]), [1, 1]),
        (
            "two errors",
            fault(json!({"status": 500}), 2),
            Delivery::AtLeastOnce,
            story(&[("retrying", "provider_error", 1), ("retrying", "provider_error", 2), ("succeeded", "-", 3)]),
            [3, 1],
        ),
        (
            "too many errors",
            fault(json!({"status": 500}), 4),
            Delivery::AtLeastOnce,
            story(&[
                ("retrying", "provider_error", 1),
                ("retrying", "provider_error", 2),
                ("retrying", "provider_error", 3),
                ("failed", "exhausted", 4),
            ]),
            [4, 0],
        ),
        ("a no", fault(json!({"status": 400}), 9), Delivery::AtLeastOnce, story(&[("failed", "rejected", 1)]), [1, 0]),
        (
            "a lost answer",
            fault(json!("reset_before"), 1),
            Delivery::AtLeastOnce,
            story(&[("retrying", "connection", 1), ("succeeded", "-", 2)]),
            [2, 1],
        ),
        (
            "told to wait a second",
            fault(json!({"retry_after": {"status": 429, "seconds": 1}}), 1),
            Delivery::AtLeastOnce,
            story(&[("retrying", "throttled", 0), ("succeeded", "-", 1)]),
            [2, 1],
        ),
        ("once: success", json!([]), once.clone(), story(&[("created", "-", 1), ("succeeded", "-", 1)]), [1, 1]),
        (
            "once: a lost answer",
            fault(json!("reset_before"), 1),
            once.clone(),
            story(&[("created", "-", 1), ("unknown", "connection", 1)]),
            [1, 0],
        ),
        (
            "once: an error, which is an answer",
            fault(json!({"status": 500}), 1),
            once.clone(),
            story(&[
                ("created", "-", 1),
                ("retrying", "provider_error", 1),
                ("created", "-", 2),
                ("succeeded", "-", 2),
            ]),
            [2, 1],
        ),
        (
            "once: told to wait",
            fault(json!({"retry_after": {"status": 429, "seconds": 1}}), 1),
            once,
            story(&[("created", "-", 1), ("retrying", "throttled", 0), ("created", "-", 1), ("succeeded", "-", 1)]),
            [2, 1],
        ),
    ];
    let stage = Stage::new().await;
    let sender = stage.sender_with(&["--retry-delays", "10ms,20ms,40ms"]).await;
    for (number, (name, faults, delivery, told, calls)) in (1..).zip(cases) {
        assert_eq!(play(&stage, number, faults, delivery).await, (told, calls), "{name}");
    }
    stage.leave([sender]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_nobody_may_call_is_not_called() {
    let stage = Stage::new().await;
    let running = mailing(1);
    let cancelled = common::Mailing { state: State::Cancelled, ..mailing(2) };
    let ended = common::Mailing { ends_at: Utc::now(), ..mailing(3) };
    let paused = common::Mailing { state: State::Paused, ..mailing(4) };
    let newer = common::Mailing { state: State::Other("frozen".to_owned()), ..mailing(5) };
    for mailing in [&running, &cancelled, &ended, &paused, &newer] {
        stage.publish(mailing).await;
    }
    let window = LocalWindow { opens_at: Utc::now() - HOUR, closes_at: Utc::now() + HOUR };
    let cases = [
        (cancelled.message(1), "cancelled", "mailing_cancelled"),
        (ended.message(1), "expired", "ended"),
        (paused.message(1), "held", "paused"),
        (newer.message(1), "held", "stale"),
        (MessageEvent { phone: None, text: None, ..running.message(1) }, "cancelled", "erased"),
        (MessageEvent { operator_code: 16, ..running.message(2) }, "failed", "invalid"),
        (MessageEvent { planned_at: Utc::now() - TimeDelta::seconds(61), ..running.message(3) }, "held", "stale"),
        (MessageEvent { window: Some(window), ..running.message(4) }, "held", "window"),
        (MessageEvent { delivery: Delivery::Other("thrice".to_owned()), ..running.message(5) }, "held", "stale"),
    ];
    let sender = stage.sender().await;
    stage.plan(cases.iter().map(|(event, ..)| event.clone())).await;
    let settled = stage.settled(cases.len()).await;
    for (event, status, reason) in &cases {
        let told = settled.iter().find(|told| told.message_id == event.message_id).unwrap();
        assert_eq!((told.status.as_str(), common::reason(told), told.attempt), (*status, *reason, 0), "{event:?}");
        let waits = told.status == Status::Held;
        assert_eq!(told.not_before.is_some(), waits, "{event:?}");
        assert_eq!(told.operator_code.is_some(), waits, "{event:?}");
    }
    assert_eq!(stage.calls(), 0);
    stage.committed_as(cases.len() as i64, "open=0").await;
    stage.leave([sender]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_waits_for_its_mailing_at_its_version_and_is_held_if_that_never_comes() {
    let stage = Stage::new().await;
    let sender = stage.sender().await;
    let (first, missing) = (mailing(1), mailing(2));
    stage.publish(&first).await;
    let second = common::Mailing { version: 2, ..first.clone() };
    let almost_old = Utc::now() - TimeDelta::seconds(57);
    let never = MessageEvent { planned_at: almost_old, ..missing.message(1) };
    stage.plan([second.message(1), never]).await;
    let settled = stage.settled(1).await;
    assert_eq!((settled[0].mailing_id, common::reason(&settled[0])), (missing.id, "stale"));
    assert_eq!(stage.calls(), 0);
    stage.publish(&second).await;
    assert_eq!(stage.settled(2).await[1].status, Status::Succeeded);
    stage.leave([sender]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_retry_hears_of_its_mailing_at_once() {
    let stage = Stage::new().await;
    let sender = stage.sender_with(&["--retry-delays", "4s"]).await;
    let mailing = mailing(1);
    stage.publish(&mailing).await;
    stage.faults(json!([{"fault": {"status": 500}, "first_calls": 1}]));
    stage.plan([mailing.message(1)]).await;
    until("it waits", async || !stage.statuses().await.is_empty()).await;
    let waits_until = stage.statuses().await[0].not_before.unwrap();
    stage.publish(&common::Mailing { version: 2, state: State::Cancelled, ..mailing }).await;
    let settled = stage.settled(1).await;
    assert_eq!((common::reason(&settled[0]), settled[0].attempt), ("mailing_cancelled", 1));
    assert!(settled[0].occurred_at < waits_until, "not only when its delay was over");
    stage.leave([sender]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_of_earlier_rounds_count() {
    let stage = Stage::new().await;
    let sender = stage.sender_with(&["--retry-delays", "10ms,10ms,10ms"]).await;
    let mailing = mailing(1);
    stage.publish(&mailing).await;
    stage.faults(json!([{"fault": {"status": 500}, "first_calls": 9}]));
    stage.plan([MessageEvent { round: 2, attempts: 2, ..mailing.message(1) }]).await;
    assert_eq!(stage.story().await, story(&[("retrying", "provider_error", 3), ("failed", "exhausted", 4)]));
    assert_eq!(stage.settled(1).await[0].round, 2);
    stage.leave([sender]).await;
}
