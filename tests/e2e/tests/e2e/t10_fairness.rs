//! Guarantee 10: a small mailing isn't stuck behind a large one.

use std::time::Instant;

use serde_json::json;

use e2e::{Audience, Options, World};

const TEXT: &str = "text-of-the-tenth-test";

#[tokio::test(flavor = "multi_thread")]
async fn a_small_mailing_finishes_soon_beside_one_of_half_a_million() {
    let provider = vec![("HERALD_SIM_RATE", "1000".to_owned())];
    // With one shard the two are planned by one thread, in turns.
    let world = World::new("t10", Options { partitions: Some(1), provider, ..Options::default() }).await;
    let herald = world.start(&["all"]).await;
    let audience = Audience::of(500_000, 916, "large").and(100, 917, "small");
    world.import(&audience).await;
    let large = world.api.create_mailing(&json!({"text": TEXT, "filter": "large"})).await;
    world.accepted(3_000).await;

    let posted = Instant::now();
    let small = world.api.create_mailing(&json!({"text": TEXT, "filter": "small"})).await;
    world.api.finished(&small).await;
    let took = posted.elapsed().as_secs_f64();
    println!("the small mailing took {took:.1} s; 10 are promised");
    assert!(took < 30.0);
    world.assert_conserved(&small, 100).await;
    let shown = world.api.mailing(&large).await;
    assert_eq!(shown["state"], "running", "the large one was over too soon to be in the way: {shown}");
    assert!(shown["counts"]["planned"].as_u64() < Some(100_000), "planning is far ahead of the senders: {shown}");
    world.assert_secrecy(&audience, &[TEXT], &[&herald]).await;
    herald.terminate().await;
    world.clean_up().await;
}
