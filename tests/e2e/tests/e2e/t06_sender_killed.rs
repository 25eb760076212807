//! Guarantee 6: a sender is killed, joins, leaves.

use std::collections::BTreeMap;

use events::topics::Topic;
use events::{Kind, StatusEvent, decode};
use kafka::Isolation;
use serde_json::json;

use crate::t12_counts::CountsWatch;
use e2e::{Audience, Options, World, now_us};

const TEXT: &str = "text-of-the-sixth-test";
/// The slowest answer, µs.
const SLOWEST: i64 = 150_000;
/// How long a status may be under way to Kafka on a busy machine, µs.
const UNACKNOWLEDGED: i64 = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_only_what_was_on_the_wire_or_unacknowledged_is_called_again() {
    const CLIENTS: usize = 6_000;
    let provider = vec![("HERALD_SIM_LATENCY", "50ms..150ms".to_owned())];
    let world = World::new("t06", Options { provider, ..Options::default() }).await;
    let others = [world.start(&["api"]).await, world.start(&["scheduler"]).await, world.start(&["projector"]).await];
    let audience = Audience::of(CLIENTS, 916, "killed");
    world.import(&audience).await;
    let sender = world.start(&["sender"]).await;
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "killed"})).await;
    let watch = CountsWatch::start(&world.api, &mailing);

    world.accepted(world.random(1_000..3_000)).await;
    sender.kill();
    let killed = now_us();
    let sender = world.start(&["sender"]).await;
    let shown = world.assert_conserved(&mailing, CLIENTS).await;
    watch.finish().await;
    assert_eq!(shown["counts"]["succeeded"], CLIENTS, "{shown}");

    let calls = world.calls().await;
    let before_kill = calls.all().filter(|call| call.begun_at < killed).count();
    assert!((1_000..CLIENTS - 500).contains(&before_kill), "the kill came in the middle: {before_kill}");
    let settled = settled_before(&world, killed).await;
    let (mut on_the_wire, mut unacknowledged) = (0, 0);
    for (message, calls) in calls.by_message.iter().filter(|(_, calls)| calls.len() > 1) {
        assert_eq!(calls.len(), 2, "{message}: {calls:?}");
        let first = &calls[0];
        assert!(first.begun_at < killed && killed < calls[1].begun_at, "{message}: not around the kill: {calls:?}");
        if killed < first.decided_at + SLOWEST {
            on_the_wire += 1;
        } else {
            let long_before = settled.get(message).is_some_and(|settled| settled + UNACKNOWLEDGED < killed);
            assert!(!long_before, "{message} was settled long before the kill: {calls:?}");
            unacknowledged += 1;
        }
    }
    println!(
        "{before_kill} calls before the kill; called again: {on_the_wire} on the wire, {unacknowledged} unacknowledged"
    );
    assert!(on_the_wire + unacknowledged > 0, "nothing was on the wire: the kill proves nothing");
    let running: Vec<_> = others.iter().chain([&sender]).collect();
    world.assert_secrecy(&audience, &[TEXT], &running).await;
    for program in others.into_iter().chain([sender]) {
        program.terminate().await;
    }
    world.clean_up().await;
}

/// When each message was first settled, µs, of those settled before `killed`.
async fn settled_before(world: &World, killed: i64) -> BTreeMap<i64, i64> {
    let mut settled = BTreeMap::new();
    for record in world.records(Topic::StatusEvents, Isolation::Committed).await {
        let event: StatusEvent = decode(record.payload.as_deref()).unwrap();
        let at = event.occurred_at.timestamp_micros();
        if event.kind == Kind::Settled && at < killed {
            settled.entry(event.message_id.get()).or_insert(at);
        }
    }
    settled
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_joins_and_one_that_leaves_in_good_order_lose_and_double_nothing() {
    const CLIENTS: usize = 12_000;
    let provider = vec![("HERALD_SIM_LATENCY", "20ms..150ms".to_owned()), ("HERALD_SIM_RATE", "1500".to_owned())];
    let world = World::new("t06_three", Options { partitions: Some(6), provider, ..Options::default() }).await;
    let others = [world.start(&["api"]).await, world.start(&["scheduler"]).await, world.start(&["projector"]).await];
    let audience = Audience::of(CLIENTS, 916, "moved");
    world.import(&audience).await;
    let (first, second) = (world.start(&["sender"]).await, world.start(&["sender"]).await);
    // A partition that moves carries retries with it.
    world.faults(json!([{"fault": {"status": 500}, "probability": 0.03, "first_calls": 1}])).await;
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "moved"})).await;

    world.accepted(2_000).await;
    let third = world.start(&["sender"]).await;
    world.accepted(6_000).await;
    first.terminate().await;
    let shown = world.assert_conserved(&mailing, CLIENTS).await;
    assert_eq!(shown["counts"]["succeeded"], CLIENTS, "{shown}");

    let calls = world.calls().await;
    assert_eq!(calls.doubled(), [0; 0]);
    let failed = calls.all().filter(|call| call.outcome == "status_500").count();
    assert_eq!(calls.all().count(), CLIENTS + failed, "nothing but what failed is called again");
    assert!(third.metric("herald_messages_total").await > 100.0, "the one that joined got partitions");
    let running: Vec<_> = others.iter().chain([&second, &third]).collect();
    world.assert_secrecy(&audience, &[TEXT], &running).await;
    for program in others.into_iter().chain([second, third]) {
        program.terminate().await;
    }
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_takes_over_where_nothing_is_open_goes_on() {
    let world = World::new("t06_idle", Options::default()).await;
    let audience = Audience::of(1_000, 916, "twice");
    for run in 0..2 {
        let herald = world.start(&["all"]).await;
        if run == 0 {
            world.import(&audience).await;
        }
        let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "twice"})).await;
        let shown = world.assert_conserved(&mailing, 1_000).await;
        assert_eq!(shown["counts"]["succeeded"], 1_000, "{shown}");
        world.assert_secrecy(&audience, &[TEXT], &[&herald]).await;
        herald.terminate().await;
    }
    let calls = world.calls().await;
    assert_eq!((calls.all().count(), calls.by_message.len()), (2_000, 2_000), "once for each mailing");
    world.clean_up().await;
}
