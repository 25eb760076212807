//! Trouble of the provider, as one sender meets it.

#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use common::{Stage, count, mailing, reason};
use domain::mailing::Delivery;
use domain::status::Status;
use events::Kind;
use serde_json::json;
use support::{eventually, until};

#[tokio::test(flavor = "multi_thread")]
async fn in_an_outage_the_lane_closes_all_is_held_and_a_probe_a_second_opens_it() {
    let stage = Stage::new().await;
    let sender = stage.sender_with(&["--sender-concurrency", "32"]).await;
    let mailing = mailing(1);
    stage.publish(&mailing).await;
    stage.plan(mailing.messages(100)).await;
    stage.settled(100).await;
    stage.faults(json!([{"fault": {"status": 500}}]));
    let before = stage.calls();
    let down_since = Instant::now();
    let few = common::mailing(2);
    stage.publish(&few).await;
    stage.plan(few.messages(300)).await;
    until("the lane is shown as closed", async || {
        let closed = sender.metrics().await.contains(r#"herald_lane_closed{operator="916",reason="outage"} 1"#);
        closed && sender.readyz().await.contains("916 (outage)")
    })
    .await;
    assert!(sender.readyz().await.starts_with("HTTP/1.1 200"), "the provider's trouble is none of the sender");
    let held = eventually("all but those that it probes with are held", async || {
        let statuses = stage.statuses().await;
        (count(&statuses, &Status::Held) >= 280).then_some(statuses)
    })
    .await;
    for event in held.iter().filter(|event| event.status == Status::Held) {
        assert_eq!(reason(event), "outage");
        assert!(event.not_before.unwrap() > event.occurred_at);
    }
    let (metadata_shows, codes) = ("closed=916", "closed=all");
    until("the planner is told", async || {
        stage
            .committed()
            .await
            .is_some_and(|(_, metadata)| metadata.contains(metadata_shows) || metadata.contains(codes))
    })
    .await;
    let at = stage.calls();
    let since = Instant::now();
    until("it has probed", async || stage.calls() >= at + 3).await;
    assert!(since.elapsed() > Duration::from_millis(1_500), "no more than a probe a second: {:?}", since.elapsed());
    let into = stage.calls() - before;
    let seconds = down_since.elapsed().as_secs();
    println!("{into} calls into an outage of {seconds} s");
    assert!(into <= 32 + 100 + seconds, "those on the wire, what opens the breaker, and probes: {into} calls");
    let exhausted = |statuses: &[events::StatusEvent]| count(statuses, &Status::Failed);
    assert_eq!(exhausted(&stage.statuses().await), 0);

    stage.faults(json!([]));
    until("the lane is open", async || stage.committed().await.unwrap().1.ends_with("closed=-")).await;
    until("nothing is open", async || stage.committed().await.unwrap().1.contains(" open=0 ")).await;
    until("the lane isn't shown any more", async || !sender.metrics().await.contains("herald_lane_closed{")).await;
    assert_eq!(exhausted(&stage.statuses().await), 0);
    stage.accepted();
    stage.leave([sender]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_throttled_in_a_flood_is_called_seldom() {
    for retry_after in [json!({"status": 429, "seconds": 0}), json!({"status": 429, "date": -5})] {
        let stage = Stage::new().await;
        let sender = stage.sender().await;
        let mailing = common::Mailing { ends_at: Utc::now() + TimeDelta::seconds(10), ..mailing(1) };
        stage.publish(&mailing).await;
        stage.faults(json!([{"fault": {"retry_after": retry_after}}]));
        stage.plan(mailing.messages(50)).await;
        let settled = stage.settled(50).await;
        assert_eq!(settled.len(), 50, "once each");
        assert!(settled.iter().all(|event| event.attempt == 0), "a throttled call is no attempt");
        assert!(stage.calls() <= 500, "{} calls in 10 s", stage.calls());
        stage.leave([sender]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_in_another_dress_is_one() {
    let bom = "\u{feff}{\"code\":0,\"message\":\"OK\"}";
    let answers = [
        ("a BOM", json!({"body": bom})),
        ("gzip", json!({"encoding": "gzip"})),
        ("deflate", json!({"encoding": "deflate"})),
        ("raw deflate", json!({"encoding": "raw_deflate"})),
        ("brotli", json!({"encoding": "br"})),
        ("a code as text", json!({"body": r#"{"code":"0","message":"OK"}"#})),
        ("a code as a fraction", json!({"body": r#"{"code":0.0}"#})),
        ("202", json!({"status": 202})),
        ("70 kB", json!({"size": 70_000})),
    ];
    let stage = Stage::new().await;
    let sender = stage.sender().await;
    for (number, (name, answer)) in (1..).zip(answers) {
        stage.faults(json!([{"fault": {"answer": answer}}]));
        let before = stage.settled(0).await.len();
        let mailing = mailing(number);
        stage.publish(&mailing).await;
        stage.plan(mailing.messages(5)).await;
        let settled = stage.settled(before + 5).await;
        let told: Vec<_> = settled[before..].iter().map(|event| (event.status.as_str(), event.attempt)).collect();
        assert_eq!(told, [("succeeded", 1); 5], "{name}");
        assert_eq!(stage.calls(), 5 * number as u64, "{name}");
    }
    assert_eq!(stage.accepted(), stage.calls());
    stage.leave([sender]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_refuses_us_refuses_no_message_and_operators_hear_of_it() {
    let html = json!({"status": 404, "body": "<html>no such page</html>", "headers": {"content-type": "text/html"}});
    let unpaid = json!({"status": 402, "body": r#"{"message":"top up"}"#});
    let cases = [("404 in HTML", html, "404: check HERALD_PROVIDER_URL"), ("402", unpaid, "402: check the account")];
    for (name, answer, says) in cases {
        let stage = Stage::new().await;
        let sender = stage.sender().await;
        stage.faults(json!([{"fault": {"answer": answer}}]));
        let mailing = mailing(1);
        stage.publish(&mailing).await;
        stage.plan(mailing.messages(1_000)).await;
        until("it isn't ready, and says why", async || {
            let readyz = sender.readyz().await;
            readyz.starts_with("HTTP/1.1 503") && readyz.contains(says)
        })
        .await;
        let statuses = eventually("they wait", async || {
            let statuses = stage.statuses().await;
            (count(&statuses, &Status::Held) >= 980).then_some(statuses)
        })
        .await;
        assert_eq!(count(&statuses, &Status::Failed), 0, "{name}");
        let held = statuses.iter().find(|event| event.status == Status::Held).unwrap();
        assert_eq!(reason(held), "configuration", "{name}");
        assert!(stage.calls() < 400, "{name}: {} calls", stage.calls());
        stage.faults(json!([]));
        until("what it kept is sent", async || stage.committed().await.unwrap().1.contains(" open=0 ")).await;
        assert_eq!(count(&stage.statuses().await, &Status::Failed), 0, "{name}");
        stage.leave([sender]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_the_answers_refuse_us_and_readiness_is_steady() {
    let stage = Stage::new().await;
    let sender = stage.sender().await;
    stage.faults(json!([{"fault": {"status": 401}, "probability": 0.5}]));
    let mailing = mailing(1);
    stage.publish(&mailing).await;
    stage.plan(mailing.messages(1_000)).await;
    until("it isn't ready", async || sender.readyz().await.starts_with("HTTP/1.1 503")).await;
    let said = "401: check HERALD_PROVIDER_TOKEN";
    while stage.settled(0).await.len() < 900 {
        let readyz = sender.readyz().await;
        assert!(readyz.contains(said), "{readyz}");
    }
    let statuses = stage.statuses().await;
    assert_eq!(statuses.iter().filter(|event| reason(event) == "rejected").count(), 0);
    stage.accepted();
    stage.leave([sender]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_providers_words_are_kept_without_what_is_personal() {
    let stage = Stage::new().await;
    let sender = stage.sender().await;
    let words = r#"{"code":17,"message":"79160000001 is no mobile number"}"#;
    stage.faults(json!([{"fault": {"answer": {"status": 422, "body": words}}}]));
    let mailing = mailing(1);
    stage.publish(&mailing).await;
    stage.plan([mailing.message(1)]).await;
    let told = stage.settled(1).await.remove(0);
    assert_eq!((told.status.as_str(), reason(&told), told.code), ("failed", "rejected", Some(422)));
    let detail = told.detail.unwrap();
    assert!(detail.contains("is no mobile number") && !detail.contains("79160000001"), "{detail}");
    stage.leave([sender]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_to_wait_is_in_nobodys_way_and_waits_as_long_over_a_restart() {
    const WAIT: TimeDelta = TimeDelta::seconds(12);
    let stage = Stage::new().await;
    let sender = stage.sender().await;
    let told = common::Mailing { delivery: Delivery::AtMostOnce, ..mailing(1) };
    stage.publish(&told).await;
    let fault = json!({"retry_after": {"status": 429, "seconds": WAIT.num_seconds()}});
    stage.faults(json!([{"fault": fault, "first_calls": 1}]));
    stage.plan(told.messages(1_200)).await;
    let settled = stage.settled(1_200).await;
    for event in &settled {
        assert_eq!((event.status.as_str(), reason(event), event.attempt), ("held", "throttled", 0));
        // Not all were called: the pace was cut.
        for call in stage.provider.calls(event.message_id.get()) {
            let told_until = DateTime::from_timestamp_micros(call.decided_at).unwrap() + WAIT;
            assert!(event.not_before.unwrap() >= told_until, "{event:?}");
        }
    }
    assert!(stage.calls() >= 256);
    stage.faults(json!([]));
    sender.stop().await;
    let sender = stage.sender().await;
    let began = Instant::now();
    let urgent = mailing(2);
    stage.publish(&urgent).await;
    stage.plan(urgent.messages(2)).await;
    let urgent_statuses = stage.settled(1_202).await;
    println!("an urgent mailing beside 1,200 that wait: {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(6), "three times the 2 s promised");
    assert!(urgent_statuses[1_200..].iter().all(|event| event.mailing_id == urgent.id), "nobody is called too early");
    assert_eq!(count(&urgent_statuses, &Status::Unknown), 0);
    stage.leave([sender]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_leaves_gives_its_open_messages_to_the_next_and_calls_nobody_twice() {
    let stage = Stage::new().await;
    let first = stage.sender_with(&["--retry-delays", "3s,3s,3s"]).await;
    let mailing = mailing(1);
    stage.publish(&mailing).await;
    // A tenth fails: their lane stays open.
    let failing = json!({"fault": {"status": 500}, "first_calls": 1, "cohort": {"modulus": 16, "remainder": 1}});
    stage.faults(json!([failing]));
    stage.plan(mailing.messages(320)).await;
    let waiting = eventually("the others are through", async || {
        let statuses = stage.statuses().await;
        let waiting: Vec<_> = statuses.iter().filter(|event| event.kind == Kind::Open).cloned().collect();
        (count(&statuses, &Status::Succeeded) == 300 && waiting.len() == 20).then_some(waiting)
    })
    .await;
    first.stop().await;
    let second = stage.sender_with(&["--retry-delays", "3s,3s,3s"]).await;
    let settled = stage.settled(320).await;
    for told in &waiting {
        let end = settled.iter().find(|event| event.message_id == told.message_id).unwrap();
        assert_eq!((end.status.as_str(), end.attempt), ("succeeded", 2), "the next one counts on");
        let call = &stage.provider.calls(told.message_id.get())[1];
        assert!(call.begun_at >= told.not_before.unwrap().timestamp_micros(), "and waits as long");
    }
    assert_eq!(stage.accepted(), 320);
    assert_eq!(stage.calls(), 340);
    stage.committed_as(320, "open=0").await;
    stage.leave([second]).await;
}
