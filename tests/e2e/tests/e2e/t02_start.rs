//! Guarantee 2: a mailing starts at its time, by itself.

use chrono::{TimeDelta, Utc};
use serde_json::json;

use e2e::{Audience, Options, World, eventually, now_us};

const TEXT: &str = "text-of-the-second-test";

/// The µs between an instant and the first call, once there is one.
async fn first_call_after(world: &World, since: i64) -> i64 {
    eventually("a call", async || (world.provider_stats().await["calls"].as_u64()? > 0).then_some(())).await;
    world.calls().await.all().map(|call| call.begun_at).min().unwrap() - since
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_before_the_start_and_the_first_call_comes_soon_after_it() {
    let world = World::new("t02", Options::default()).await;
    let herald = world.start(&["all"]).await;
    let audience = Audience::of(100, 916, "later");
    world.import(&audience).await;

    let starts_at = Utc::now() + TimeDelta::seconds(4);
    let mailing =
        world.api.create_mailing(&json!({"text": TEXT, "filter": "later", "starts_at": starts_at.to_rfc3339()})).await;
    eventually("the start to be what it waits for", async || {
        let shown = world.api.mailing(&mailing).await;
        assert!(shown["state"] == "scheduled" || Utc::now() >= starts_at, "{shown}");
        (shown["waiting_for"] == "start").then_some(())
    })
    .await;
    let delay = first_call_after(&world, starts_at.timestamp_micros()).await;
    println!("the first call came {} ms after the start; 1,500 are promised", delay / 1_000);
    assert!(delay >= 0, "nothing goes out before the start");
    assert!(delay < 3 * 1_500_000, "{delay} µs");
    world.assert_conserved(&mailing, 100).await;
    world.assert_secrecy(&audience, &[TEXT], &[&herald]).await;
    herald.terminate().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailing_without_a_start_begins_at_once() {
    let world = World::new("t02_now", Options::default()).await;
    let herald = world.start(&["all"]).await;
    let audience = Audience::of(100, 916, "now");
    world.import(&audience).await;

    let posted = now_us();
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "now"})).await;
    let delay = first_call_after(&world, posted).await;
    println!("the first call came {} ms after the POST; 500 are promised", delay / 1_000);
    assert!(delay < 3 * 500_000, "{delay} µs");
    world.assert_conserved(&mailing, 100).await;
    world.assert_secrecy(&audience, &[TEXT], &[&herald]).await;
    herald.terminate().await;
    world.clean_up().await;
}
