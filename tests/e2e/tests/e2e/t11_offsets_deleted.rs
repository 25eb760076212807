//! Guarantee 11: the sender group's committed offsets are gone.

use serde_json::json;

use e2e::{Audience, Options, World};

const TEXT: &str = "text-of-the-eleventh-test";
const CLIENTS: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn with_its_offsets_deleted_in_the_middle_the_group_doubles_and_loses_nothing() {
    let provider = vec![("HERALD_SIM_RATE", "1000".to_owned()), ("HERALD_SIM_LATENCY", "10ms..100ms".to_owned())];
    let world = World::new("t11", Options { provider, ..Options::default() }).await;
    let others = [world.start(&["api"]).await, world.start(&["scheduler"]).await, world.start(&["projector"]).await];
    let audience = Audience::of(CLIENTS, 916, "offsets");
    world.import(&audience).await;
    // Retries are open when the senders stop: their attempts must not be counted anew.
    world.faults(json!([{"fault": {"status": 500}, "probability": 0.05, "first_calls": 2}])).await;
    let senders = [world.start(&["sender"]).await, world.start(&["sender"]).await];
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "offsets"})).await;
    world.accepted(world.random(2_000..5_000)).await;
    for sender in senders {
        sender.terminate().await;
    }
    let sent = world.provider_stats().await["distinct_accepted"].as_u64().unwrap();
    assert!(sent < CLIENTS as u64 - 1_000, "the group stopped in the middle: {sent}");
    kafka::Admin::new(&world.kafka).unwrap().delete_group(&world.kafka.topics.group("sender")).await.unwrap();

    let senders = [world.start(&["sender"]).await, world.start(&["sender"]).await];
    let shown = world.assert_conserved(&mailing, CLIENTS).await;
    assert_eq!(shown["counts"]["succeeded"], CLIENTS, "{shown}");
    let calls = world.calls().await;
    assert_eq!(calls.doubled(), [0; 0]);
    for message in world.api.messages(&mailing).await {
        let id: i64 = message["message_id"].as_str().unwrap().parse().unwrap();
        assert_eq!(message["attempts"], calls.by_message[&id].len(), "{message}");
    }
    let running: Vec<_> = others.iter().chain(&senders).collect();
    world.assert_secrecy(&audience, &[TEXT], &running).await;
    for program in others.into_iter().chain(senders) {
        program.terminate().await;
    }
    world.clean_up().await;
}
