//! Guarantee 5: the scheduler is killed in the middle of planning.

use events::topics::Topic;
use kafka::Isolation;
use serde_json::json;

use crate::t12_counts::CountsWatch;
use e2e::{Audience, Options, World, eventually};

const TEXT: &str = "text-of-the-fifth-test";
const CLIENTS: usize = 20_000;

/// Waits until more is planned than `n`, and not yet all of it.
async fn planned_more_than(world: &World, mailing: &str, n: u64) -> u64 {
    let planned = eventually("more to be planned", async || {
        let planned = world.api.mailing(mailing).await["counts"]["planned"].as_u64()?;
        (planned > n).then_some(planned)
    })
    .await;
    assert!(planned < CLIENTS as u64, "planning was over before the kill: {planned}");
    planned
}

async fn start(name: &str) -> World {
    // Planning follows the senders' pace: it takes about eight seconds.
    let provider = vec![("HERALD_SIM_RATE", "2500".to_owned())];
    World::new(name, Options { provider, ..Options::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_twice_while_planning_each_client_is_planned_once() {
    let world = start("t05").await;
    let others = [world.start(&["api"]).await, world.start(&["sender"]).await, world.start(&["projector"]).await];
    let audience = Audience::of(CLIENTS, 916, "killed");
    world.import(&audience).await;
    let scheduler = world.start(&["scheduler"]).await;
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "killed"})).await;
    let watch = CountsWatch::start(&world.api, &mailing);

    let planned = planned_more_than(&world, &mailing, world.random(2_000..6_000)).await;
    scheduler.kill();
    // Once the senders have nothing left, the topic ends with what a dead planner never committed, more of it than the
    // conveyor may hold.
    eventually("the conveyor to run empty", async || {
        let counts = world.api.mailing(&mailing).await["counts"].take();
        (counts["created"] == 0 && counts["retrying"] == 0).then_some(())
    })
    .await;
    world.leave_open_transactions(3_000).await;
    let scheduler = world.start(&["scheduler"]).await;
    planned_more_than(&world, &mailing, planned + world.random(1_000..4_000)).await;
    scheduler.kill();
    let scheduler = world.start(&["scheduler"]).await;

    let shown = world.assert_conserved(&mailing, CLIENTS).await;
    watch.finish().await;
    assert_eq!(shown["counts"]["succeeded"], CLIENTS, "{shown}");
    assert_eq!(world.calls().await.all().count(), CLIENTS, "each is called once");
    assert!(world.records(Topic::DeadLetters, Isolation::Uncommitted).await.is_empty(), "nobody saw what was aborted");
    let running: Vec<_> = others.iter().chain([&scheduler]).collect();
    world.assert_secrecy(&audience, &[TEXT], &running).await;
    for program in others.into_iter().chain([scheduler]) {
        program.terminate().await;
    }
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_schedulers_each_is_killed_and_each_client_is_planned_once() {
    let world = start("t05_two").await;
    let others = [world.start(&["api"]).await, world.start(&["sender"]).await, world.start(&["projector"]).await];
    let audience = Audience::of(CLIENTS, 916, "killed");
    world.import(&audience).await;
    let (first, second) = (world.start(&["scheduler"]).await, world.start(&["scheduler"]).await);
    // There are two shards: it is ready without one.
    let third = world.start(&["scheduler"]).await;
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "killed"})).await;
    let watch = CountsWatch::start(&world.api, &mailing);

    let planned = planned_more_than(&world, &mailing, world.random(2_000..6_000)).await;
    first.kill();
    planned_more_than(&world, &mailing, planned + world.random(1_000..4_000)).await;
    second.kill();

    let shown = world.assert_conserved(&mailing, CLIENTS).await;
    watch.finish().await;
    assert_eq!(shown["counts"]["succeeded"], CLIENTS, "{shown}");
    assert_eq!(world.calls().await.all().count(), CLIENTS, "each is called once");
    let running: Vec<_> = others.iter().chain([&third]).collect();
    world.assert_secrecy(&audience, &[TEXT], &running).await;
    for program in others.into_iter().chain([third]) {
        program.terminate().await;
    }
    world.clean_up().await;
}
