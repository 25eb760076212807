//! Guarantee 7: the projector is killed, and rebuilds. (Between any two steps of its transaction: `services/projector/tests/kills.rs`.)

use serde_json::json;

use e2e::{Audience, Options, World, eventually};

const TEXT: &str = "text-of-the-seventh-test";
const CLIENTS: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_rows_and_counts_are_exact_and_a_rebuild_gives_the_same_bytes() {
    let provider = vec![("HERALD_SIM_RATE", "1000".to_owned())];
    let world = World::new("t07", Options { provider, ..Options::default() }).await;
    let others = [world.start(&["api"]).await, world.start(&["scheduler"]).await, world.start(&["sender"]).await];
    let audience = Audience::of(CLIENTS, 916, "rows");
    world.import(&audience).await;
    world
        .faults(json!([{"fault": {"status": 500}, "probability": 0.1}, {"fault": {"status": 404}, "probability": 0.1}]))
        .await;
    let mut projector = world.start(&["projector"]).await;
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "rows"})).await;
    for kill in 1..=4 {
        let statuses = ["succeeded", "failed", "retrying"];
        world.api.reached(&mailing, &statuses, kill * 1_500 + world.random(0..1_000).cast_signed()).await;
        projector.kill();
        projector = world.start(&["projector"]).await;
    }
    let shown = world.assert_conserved(&mailing, CLIENTS).await;
    let counts = &shown["counts"];
    assert!(counts["failed"].as_i64() > Some(800) && counts["succeeded"].as_i64() > Some(7_000), "{shown}");

    projector.terminate().await;
    let before = world.projected_rows().await;
    let rebuilt = world.start(&["projector", "--rebuild"]).await;
    eventually("the rebuild to catch up", async || (world.projected_rows().await == before).then_some(())).await;
    assert_eq!(&world.api.mailing(&mailing).await["counts"], counts, "the counts are what they were");
    let running: Vec<_> = others.iter().chain([&rebuilt]).collect();
    world.assert_secrecy(&audience, &[TEXT], &running).await;
    for program in others.into_iter().chain([rebuilt]) {
        program.terminate().await;
    }
    world.clean_up().await;
}
