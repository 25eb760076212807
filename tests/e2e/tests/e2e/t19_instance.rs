//! Guarantee 19: who is killed and started again as the same instance gets its partitions back, and nobody else has that name.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use e2e::{Audience, Options, Program, World, eventually};

const TEXT: &str = "text-of-the-nineteenth-test";

async fn start(world: &World, role: &str, name: &str, state: &Path) -> Program {
    let mut program = launch(world, role, name, state);
    program.ready().await;
    program
}

fn launch(world: &World, role: &str, name: &str, state: &Path) -> Program {
    world.launch("herald", &[role], name, &[("HERALD_STATE_DIR", state.display().to_string())])
}

/// How often it was given partitions, or they were taken from it.
async fn rebalances(program: &Program) -> f64 {
    program.metric("herald_kafka_rebalances_total").await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_killed_and_started_again_goes_on_at_once_and_the_others_are_not_asked() {
    const CLIENTS: usize = 6_000;
    let provider = vec![("HERALD_SIM_LATENCY", "50ms".to_owned()), ("HERALD_SIM_RATE", "600".to_owned())];
    let world = World::new("t19", Options { provider, ..Options::default() }).await;
    let state = tempfile::tempdir().unwrap();
    let state = |name: &str| state.path().join(name);
    let api = world.start(&["api"]).await;
    let mut killed = vec![];
    let mut others = vec![];
    for role in ["scheduler", "sender", "projector"] {
        killed.push((role, start(&world, role, &format!("{role}-1"), &state(&format!("{role}-1"))).await));
        let other = start(&world, role, &format!("{role}-2"), &state(&format!("{role}-2"))).await;
        eventually("each to have a partition", async || (rebalances(&other).await > 0.0).then_some(())).await;
        others.push(other);
    }
    let audience = Audience::of(CLIENTS, 916, "again");
    world.import(&audience).await;
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "again"})).await;

    let mut again = vec![];
    for (role, program) in killed {
        let accepted = world.provider_stats().await["distinct_accepted"].as_u64().unwrap();
        world.accepted(accepted + world.random(300..900)).await;
        program.kill();
        let killed = Instant::now();
        again.push(start(&world, role, &format!("{role}-1 again"), &state(&format!("{role}-1"))).await);
        println!(
            "the {role} had its partition back {} ms after the kill; 2,000 are promised",
            killed.elapsed().as_millis()
        );
        // The group would wait 12 s for another.
        assert!(killed.elapsed() < 3 * Duration::from_secs(2));
    }
    let shown = world.assert_conserved(&mailing, CLIENTS).await;
    assert_eq!(shown["counts"]["succeeded"], CLIENTS, "{shown}");
    for program in &again {
        let text = program.metrics().await;
        assert_eq!(rebalances(program).await, 1.0, "{} has what it had before:\n{text}", program.name);
    }
    for program in &others {
        let text = program.metrics().await;
        assert_eq!(rebalances(program).await, 1.0, "{} was asked for nothing:\n{text}", program.name);
    }
    assert!(again[1].metric("herald_delivery_attempts_total").await > 0.0, "the sender that came back has sent");
    let doubled = world.calls().await.doubled().len();
    assert!(doubled <= 256, "{doubled} doubled: more than were on the wire");

    let running: Vec<_> = again.iter().chain(&others).chain([&api]).collect();
    world.assert_secrecy(&audience, &[TEXT], &running).await;
    for program in again.into_iter().chain(others).chain([api]) {
        program.terminate().await;
    }
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused_the_directory_and_with_a_copy_of_it_it_ends_the_first() {
    let world = World::new("t19_two", Options::default()).await;
    let state = tempfile::tempdir().unwrap();
    let (own, copy) = (state.path().join("own"), state.path().join("copy"));
    let mut first = start(&world, "sender", "first", &own).await;

    let refused = world.run(&["sender"], &[("HERALD_STATE_DIR", own.to_str().unwrap())]).await.unwrap_err();
    assert!(refused.contains("HERALD_STATE_DIR: another process has"), "{refused}");
    assert!(first.is_running());

    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(own.join("instance"), copy.join("instance")).unwrap();
    let second = start(&world, "sender", "second", &copy).await;
    eventually("the first to end", async || (!first.is_running()).then_some(())).await;
    assert!(first.log().contains("another process has joined as the same instance"), "{}", first.log());
    second.terminate().await;
    world.clean_up().await;
}
