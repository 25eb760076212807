//! Guarantee 13: a mailing that chose so is sent to nobody twice, and what can't be known is said.

use serde_json::json;

use e2e::{Audience, Options, World};

const TEXT: &str = "text-of-the-thirteenth-test";

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_or_unreadable_is_unknown_at_once_and_a_refusal_is_retried() {
    let env =
        vec![("HERALD_PROVIDER_TIMEOUT", "1s".to_owned()), ("HERALD_RETRY_DELAYS", "100ms,100ms,100ms".to_owned())];
    let world = World::new("t13", Options { env, ..Options::default() }).await;
    let herald = world.start(&["all"]).await;
    // What a client meets, what becomes of it and why, its calls, and how many of them were accepted. One of each kind among
    // many: were half of the calls to fail, their lane would close, and nobody would use an attempt.
    let cases = [
        (json!("hang"), ("unknown", Some("timeout")), 1, 0),
        (json!("reset_after"), ("unknown", Some("connection")), 1, 1),
        (json!("garbage"), ("unknown", Some("bad_answer")), 1, 0),
        (json!({"code": 1}), ("failed", Some("exhausted")), 4, 0),
        (json!({"status": 500}), ("failed", Some("exhausted")), 4, 0),
        (json!({"status": 404}), ("failed", Some("rejected")), 1, 0),
    ];
    // Imported in this order, so the client's number is the case's.
    let audience = Audience::of(cases.len() + 154, 916, "once");
    world.import(&audience).await;
    let fault = |(no, case): (i64, &(serde_json::Value, _, _, _))| json!({"fault": case.0, "cohort": {"modulus": 1_i64 << 33, "remainder": no}});
    world.faults((1..).zip(&cases).map(fault).collect()).await;
    let request = json!({"text": TEXT, "filter": "once", "delivery": "at_most_once"});
    let mailing = world.api.create_mailing(&request).await;
    let shown = world.assert_conserved(&mailing, 160).await;
    assert_eq!(shown["delivery"], "at_most_once");

    let calls = world.calls().await;
    for message in world.api.messages(&mailing).await {
        let id: i64 = message["message_id"].as_str().unwrap().parse().unwrap();
        let good = (json!(null), ("succeeded", None), 1, 1);
        let (_, (status, reason), times, accepted) = cases.get((id & ((1 << 33) - 1)) as usize - 1).unwrap_or(&good);
        assert_eq!((message["status"].as_str(), message["reason"].as_str()), (Some(*status), *reason), "{message}");
        let calls = &calls.by_message[&id];
        assert_eq!((calls.len(), message["attempts"].as_u64()), (*times, Some(*times as u64)), "{message} {calls:?}");
        assert_eq!(calls.iter().filter(|call| call.accepted).count(), *accepted, "{message} {calls:?}");
    }
    let listed = world.api.get(&format!("/mailings/{mailing}/messages?status=unknown&limit=1000")).await;
    assert_eq!(listed["items"].as_array().unwrap().len() as i64, shown["counts"]["unknown"].as_i64().unwrap());
    world.assert_secrecy(&audience, &[TEXT], &[&herald]).await;
    herald.terminate().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_sender_killed_nobody_is_called_twice() {
    const CLIENTS: usize = 4_000;
    const CONCURRENCY: i64 = 256;
    let provider = vec![("HERALD_SIM_LATENCY", "50ms..150ms".to_owned())];
    let world = World::new("t13_killed", Options { provider, ..Options::default() }).await;
    let others = [world.start(&["api"]).await, world.start(&["scheduler"]).await, world.start(&["projector"]).await];
    let audience = Audience::of(CLIENTS, 916, "once");
    world.import(&audience).await;
    let mut sender = world.start(&["sender"]).await;
    let request = json!({"text": TEXT, "filter": "once", "delivery": "at_most_once"});
    let mailing = world.api.create_mailing(&request).await;
    for kill in 1..=2 {
        world.accepted(kill * 1_000 + world.random(0..500)).await;
        sender.kill();
        sender = world.start(&["sender"]).await;
    }
    let shown = world.assert_conserved(&mailing, CLIENTS).await;
    let calls = world.calls().await;
    assert_eq!(calls.all().count(), calls.by_message.len(), "nobody is called twice");
    let unknown = shown["counts"]["unknown"].as_i64().unwrap();
    println!("{unknown} are unknown after two kills with at most {CONCURRENCY} calls on the wire");
    assert!((1..=2 * CONCURRENCY).contains(&unknown), "{shown}");
    for message in world.api.messages(&mailing).await.iter().filter(|message| message["status"] == "unknown") {
        assert_eq!(message["reason"], "sender_lost", "{message}");
    }
    let running: Vec<_> = others.iter().chain([&sender]).collect();
    world.assert_secrecy(&audience, &[TEXT], &running).await;
    for program in others.into_iter().chain([sender]) {
        program.terminate().await;
    }
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_leaves_in_good_order_leaves_nothing_unknown() {
    const CLIENTS: usize = 3_000;
    let provider = vec![("HERALD_SIM_LATENCY", "50ms..150ms".to_owned())];
    let world = World::new("t13_terminated", Options { provider, ..Options::default() }).await;
    let others = [world.start(&["api"]).await, world.start(&["scheduler"]).await, world.start(&["projector"]).await];
    world.import(&Audience::of(CLIENTS, 916, "once")).await;
    let mut sender = world.start(&["sender"]).await;
    let request = json!({"text": TEXT, "filter": "once", "delivery": "at_most_once"});
    let mailing = world.api.create_mailing(&request).await;
    for restart in 1..=3 {
        world.accepted(restart * 700 + world.random(0..200)).await;
        sender.terminate().await;
        sender = world.start(&["sender"]).await;
    }
    let shown = world.assert_conserved(&mailing, CLIENTS).await;
    assert_eq!(shown["counts"]["succeeded"], CLIENTS, "{shown}");
    let calls = world.calls().await;
    assert_eq!(calls.all().count(), CLIENTS, "nobody is called twice");
    for program in others.into_iter().chain([sender]) {
        program.terminate().await;
    }
    world.clean_up().await;
}
