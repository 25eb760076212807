//! Guarantee 18: Kafka has lost something. It is noticed, the mailing is paused with a reason, and `herald replan` plans again
//! exactly what is lost.

use std::time::Duration;

use events::topics::Topic;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use e2e::{Audience, Options, Program, World, eventually};

const TEXT: &str = "text-of-the-eighteenth-test";
const CLIENTS: usize = 6_000;

async fn start(name: &str) -> World {
    // Two seconds of this lie on the conveyor.
    let provider = vec![("HERALD_SIM_RATE", "1000".to_owned()), ("HERALD_SIM_LATENCY", "20ms..60ms".to_owned())];
    World::new(name, Options { provider, ..Options::default() }).await
}

/// Waits until Herald has paused the mailing for this reason.
async fn paused(world: &World, mailing: &str, reason: &str) {
    let shown = eventually("the mailing to be paused", async || {
        let shown = world.api.mailing(mailing).await;
        assert_ne!(shown["state"], "finished", "{shown}");
        (shown["state"] == "paused").then_some(shown)
    })
    .await;
    let said = shown["state_reason"].as_str().unwrap();
    assert!(said.contains(reason) && said.contains("`herald replan`"), "{said}");
}

/// The verb's figure of that name.
fn figure(said: &str, name: &str) -> usize {
    let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().split([',', ' ']).next().unwrap().parse().unwrap()
}

/// Runs the verb while these still run, stops them, and starts others when it is done. Answers what it printed.
async fn replan(world: &World, mailing: &str, running: impl IntoIterator<Item = Program>) -> (String, [Program; 2]) {
    let stop = async {
        for program in running {
            program.terminate().await;
        }
    };
    let verb = ["replan", mailing];
    let (said, ()) = tokio::join!(world.run(&verb, &[]), stop);
    let said = said.unwrap();
    println!("{said}");
    assert!(said.contains("the mailing runs again"), "{said}");
    // It has nothing to do a second time.
    let again = world.run(&verb, &[]).await.unwrap();
    assert_eq!(figure(&again, "again"), 0, "{said}\n{again}");
    (said, [world.start(&["scheduler"]).await, world.start(&["sender"]).await])
}

/// The mailing is finished, all of it terminal, and nobody was written to twice.
async fn assert_whole(world: &World, mailing: &str, status: &[&str]) -> Value {
    let shown = world.api.finished(mailing).await;
    let counts = &shown["counts"];
    assert_eq!(counts["planned"], CLIENTS, "{shown}");
    let sum: usize = status.iter().map(|status| counts[status].as_u64().unwrap() as usize).sum();
    assert_eq!(sum, CLIENTS, "{shown}");
    assert_eq!(world.rows(mailing).await.len(), CLIENTS);
    let calls = world.calls().await;
    assert_eq!(calls.doubled(), [0; 0]);
    for (message, status) in world.rows(mailing).await {
        assert!(calls.accepted(message) || status != "succeeded", "{message} succeeded, and nobody accepted it");
    }
    let called = calls.by_message.len();
    assert!(called <= CLIENTS && called >= counts["succeeded"].as_u64().unwrap() as usize, "{called}");
    shown
}

async fn stop(world: World, programs: impl IntoIterator<Item = Program>, audience: &Audience) {
    let programs: Vec<Program> = programs.into_iter().collect();
    world.assert_secrecy(audience, &[TEXT], &programs.iter().collect::<Vec<_>>()).await;
    for program in programs {
        program.terminate().await;
    }
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_progress_lost_in_the_middle_a_mailing_is_paused_and_replanned_to_its_end() {
    let world = start("t18_progress").await;
    let others = [world.start(&["api"]).await, world.start(&["projector"]).await];
    let audience = Audience::of(CLIENTS, 916, "progress").and(500, 917, "others");
    world.import(&audience).await;
    let (scheduler, sender) = (world.start(&["scheduler"]).await, world.start(&["sender"]).await);
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "progress"})).await;
    world.accepted(world.random(500..1_500)).await;
    // What lies on the conveyor is still to be sent.
    sender.terminate().await;
    scheduler.terminate().await;
    let planned = world.planned_messages(&mailing).await.len();
    assert!(planned < CLIENTS, "planning was over before: {planned}");
    world.recreate(Topic::PlanningProgress).await;
    let scheduler = world.start(&["scheduler"]).await;
    paused(&world, &mailing, "progress is lost").await;

    let (said, running) = replan(&world, &mailing, [scheduler]).await;
    assert!(said.contains("its progress was lost"), "{said}");
    assert_eq!((figure(&said, "again"), figure(&said, "in doubt")), (0, 0), "{said}");
    assert!(figure(&said, "on conveyor") > 0, "{said}");
    assert_eq!(figure(&said, "settled") + figure(&said, "on conveyor"), planned, "{said}");
    assert_whole(&world, &mailing, &["succeeded"]).await;
    stop(world, others.into_iter().chain(running), &audience).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_message_events_made_anew_what_lay_on_the_conveyor_is_planned_again_once_though_the_verb_is_killed() {
    let world = start("t18_anew").await;
    let others = [world.start(&["api"]).await, world.start(&["projector"]).await];
    let audience = Audience::of(CLIENTS, 916, "anew");
    world.import(&audience).await;
    let (scheduler, sender) = (world.start(&["scheduler"]).await, world.start(&["sender"]).await);
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "anew"})).await;
    world.accepted(world.random(500..2_000)).await;
    sender.terminate().await;
    world.recreate(Topic::MessageEvents).await;
    // Planning goes on into the new log, at low offsets.
    let sender = world.start(&["sender"]).await;
    paused(&world, &mailing, "of its messages are lost").await;

    for program in [scheduler, sender] {
        program.terminate().await;
    }
    // It dies when what is lost is planned again, and the progress isn't written.
    world.run(&["replan", &mailing], &[("FAILPOINTS", "replan::page=return")]).await.unwrap_err();
    assert_eq!(world.api.mailing(&mailing).await["state"], "paused");
    let (said, running) = replan(&world, &mailing, []).await;
    assert!(figure(&said, "on conveyor") > 0, "{said}");
    assert_eq!((figure(&said, "again"), figure(&said, "in doubt")), (0, 0), "{said}");
    assert_whole(&world, &mailing, &["succeeded"]).await;
    stop(world, others.into_iter().chain(running), &audience).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_before_it_was_read_is_planned_again_and_what_may_have_been_sent_is_not() {
    let world = start("t18_retention").await;
    let others = [world.start(&["api"]).await, world.start(&["projector"]).await];
    let audience = Audience::of(CLIENTS, 916, "retention");
    world.import(&audience).await;
    let (scheduler, sender) = (world.start(&["scheduler"]).await, world.start(&["sender"]).await);
    let order = json!({"text": TEXT, "filter": "retention", "delivery": "at_most_once"});
    let mailing = world.api.create_mailing(&order).await;
    world.accepted(world.random(500..2_000)).await;
    // Calls are on the wire.
    sender.kill();
    world.delete_records(Topic::MessageEvents).await;
    let sender = world.start(&["sender"]).await;
    paused(&world, &mailing, "of its messages are lost").await;
    assert!(sender.metric("herald_sender_skipped_records_total").await > 0.0);

    let (said, running) = replan(&world, &mailing, [scheduler, sender]).await;
    assert!(figure(&said, "again") > 0 && figure(&said, "in doubt") > 0, "{said}");
    let shown = assert_whole(&world, &mailing, &["succeeded", "unknown"]).await;
    assert_eq!(shown["counts"]["unknown"], figure(&said, "in doubt"), "{shown}");
    assert_eq!(world.calls().await.all().count(), world.calls().await.by_message.len(), "nobody is called twice");
    stop(world, others.into_iter().chain(running), &audience).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_under_which_message_events_is_made_anew_ends_or_recovers_and_what_comes_next_is_sent() {
    let world = start("t18_under").await;
    let others = [world.start(&["api"]).await, world.start(&["projector"]).await, world.start(&["scheduler"]).await];
    let audience = Audience::of(1_000, 916, "under").and(200, 917, "few");
    world.import(&audience).await;
    let mut sender = world.start(&["sender"]).await;
    let first = world.api.create_mailing(&json!({"text": TEXT, "filter": "under"})).await;
    world.api.finished(&first).await;
    // Asleep, it hears nothing of it from Kafka, and goes on from a position that the new log doesn't have.
    sender.signal(Signal::SIGSTOP);
    world.recreate(Topic::MessageEvents).await;
    sender.signal(Signal::SIGCONT);
    // The second is there because of what a sender commits that has sent the first.
    for _ in 0..2 {
        let next = world.api.create_mailing(&json!({"text": TEXT, "filter": "few"})).await;
        eventually("the next mailing to finish", async || {
            if !sender.is_running() {
                assert!(sender.log().contains("went back under the sender"), "{}", sender.log());
                println!("the sender ended, and starts again");
                sender = world.start(&["sender"]).await;
            }
            (world.api.mailing(&next).await["state"] == "finished").then_some(())
        })
        .await;
        assert_eq!(world.api.mailing(&next).await["counts"]["succeeded"], 200);
        eventually("the sender to commit", async || {
            let (kafka, group) = (world.kafka.clone(), world.kafka.topics.group("sender"));
            let partitions = tokio::task::spawn_blocking(move || {
                let view = kafka::GroupView::new(&kafka, &group, Topic::MessageEvents).unwrap();
                view.partitions(Duration::from_secs(5)).unwrap()
            });
            partitions.await.unwrap().iter().all(|partition| partition.committed.is_some()).then_some(())
        })
        .await;
    }
    assert_eq!(world.calls().await.doubled(), [0; 0]);
    stop(world, others.into_iter().chain([sender]), &audience).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_mailing_events_made_anew_new_senders_wait_and_the_verb_publishes_the_mailing_again() {
    let world = start("t18_mailing").await;
    let others = [world.start(&["api"]).await, world.start(&["projector"]).await];
    let audience = Audience::of(CLIENTS, 916, "mailing");
    world.import(&audience).await;
    let (scheduler, sender) = (world.start(&["scheduler"]).await, world.start(&["sender"]).await);
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "mailing"})).await;
    world.accepted(world.random(500..2_000)).await;
    for program in [scheduler, sender] {
        program.terminate().await;
    }
    let called = world.calls().await.all().count();
    world.recreate(Topic::MailingEvents).await;
    let (scheduler, sender) = (world.start(&["scheduler"]).await, world.start(&["sender"]).await);
    eventually("the sender to take messages in", async || {
        (sender.metric("herald_sender_open_slots").await > 0.0).then_some(())
    })
    .await;
    assert_eq!(world.calls().await.all().count(), called, "nothing is sent of a mailing that nobody tells of");

    let (said, running) = replan(&world, &mailing, [scheduler, sender]).await;
    assert_eq!((figure(&said, "again"), figure(&said, "in doubt")), (0, 0), "{said}");
    assert_eq!(figure(&said, "settled"), called, "nothing was sent meanwhile: {said}");
    assert_whole(&world, &mailing, &["succeeded"]).await;
    stop(world, others.into_iter().chain(running), &audience).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_status_events_made_anew_sender_projector_and_verb_refuse_and_nothing_more_is_sent() {
    let world = start("t18_status").await;
    let others = [world.start(&["api"]).await, world.start(&["scheduler"]).await];
    let audience = Audience::of(CLIENTS, 916, "status");
    world.import(&audience).await;
    let (projector, sender) = (world.start(&["projector"]).await, world.start(&["sender"]).await);
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "status"})).await;
    world.accepted(world.random(500..2_000)).await;
    sender.terminate().await;
    projector.terminate().await;
    let called = world.calls().await.all().count();
    world.recreate(Topic::StatusEvents).await;
    for role in ["projector", "sender"] {
        let mut program = world.start_unready(&[role]);
        eventually("it to refuse", async || {
            let unready = program.unready().await.unwrap_or_default().join(" ") + &program.log();
            unready.contains("it was made anew or cut off").then_some(())
        })
        .await;
        println!("{role}: running {}, {:?}", program.is_running(), program.unready().await);
        drop(program);
    }
    for program in others {
        program.terminate().await;
    }
    let refused = world.run(&["replan", &mailing], &[]).await.unwrap_err();
    assert!(refused.contains("was made anew or cut off"), "{refused}");
    assert_eq!(world.calls().await.all().count(), called, "nothing is sent");
    stop(world, [], &audience).await;
}
