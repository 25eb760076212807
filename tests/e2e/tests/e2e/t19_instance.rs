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
async fn a_partition_that_one_was_giving_up_when_it_died_has_an_owner_again() {
    let world = World::new("t19_giving", Options::default()).await;
    let state = tempfile::tempdir().unwrap();
    let (own, others) = (state.path().join("own"), state.path().join("others"));
    let api = world.start(&["api"]).await;
    let env = [("HERALD_STATE_DIR", own.display().to_string()), ("FAILPOINTS", "group::revoke=return".to_owned())];
    let mut dying = world.launch("herald", &["scheduler"], "dying", &env);
    dying.ready().await;
    let other = launch(&world, "scheduler", "other", &others);
    eventually("it to die over its revocation", async || (!dying.is_running()).then_some(())).await;
    let died = Instant::now();
    let again = start(&world, "scheduler", "again", &own).await;
    eventually("both shards to have an owner", async || {
        let owned = again.metric("herald_scheduler_shards").await + other.metric("herald_scheduler_shards").await;
        (owned == 2.0).then_some(())
    })
    .await;
    let noticed = [&again, &other].iter().any(|program| program.log().contains("a partition has no owner"));
    assert!(noticed, "it was nobody's in between");
    println!("all was owned again {:.1} s after the death", died.elapsed().as_secs_f64());
    for program in [api, again, other] {
        program.terminate().await;
    }
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused_the_directory_and_a_copy_of_it_takes_the_name_from_the_first() {
    let world = World::new("t19_two", Options::default()).await;
    let state = tempfile::tempdir().unwrap();
    let (own, copy) = (state.path().join("own"), state.path().join("copy"));
    let mut first = start(&world, "sender", "first", &own).await;

    let refused = world.run(&["sender"], &[("HERALD_STATE_DIR", own.to_str().unwrap())]).await.unwrap_err();
    assert!(refused.contains("HERALD_STATE_DIR: another process has"), "{refused}");
    assert!(first.is_running());

    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(own.join("instance"), copy.join("instance")).unwrap();
    let mut second = start(&world, "sender", "second", &copy).await;
    let fenced = "the group knows another as this instance";
    eventually("the first to hear of it", async || first.log().contains(fenced).then_some(())).await;
    // Both go on, and each has a partition.
    for program in [&mut first, &mut second] {
        eventually("it to have a partition", async || {
            (program.metrics().await.contains("kafka_consumergroup_lag{")).then_some(())
        })
        .await;
        program.ready().await;
    }
    first.terminate().await;
    second.terminate().await;
    world.clean_up().await;
}
