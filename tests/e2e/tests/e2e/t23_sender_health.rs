//! A sender that can't do its work says so, or ends.

use std::time::Duration;

use e2e::{Audience, Options, World, eventually};
use events::topics::Topic;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;

const TEXT: &str = "text-of-the-twenty-third-test";

#[tokio::test(flavor = "multi_thread")]
async fn one_in_which_a_message_panics_ends_and_another_sends_what_it_has_not() {
    const CLIENTS: usize = 200;
    let world = World::new("t23", Options::default()).await;
    let others = [world.start(&["api"]).await, world.start(&["scheduler"]).await, world.start(&["projector"]).await];
    let audience = Audience::of(CLIENTS, 916, "panic");
    world.import(&audience).await;
    let panics = [("FAILPOINTS", "send::answered=100*off->1*panic(a message)".to_owned())];
    let mut sender = world.launch("herald", &["sender"], "sender-that-panics", &panics);
    sender.ready().await;
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "panic"})).await;

    eventually("the sender to end", async || (!sender.is_running()).then_some(())).await;
    assert!(sender.log().contains("a message panicked"), "it ended for another reason");
    let next = world.start(&["sender"]).await;
    let shown = world.assert_conserved(&mailing, CLIENTS).await;
    assert_eq!(shown["counts"]["succeeded"], CLIENTS, "{shown}");
    let running: Vec<_> = others.iter().chain([&next]).collect();
    world.assert_secrecy(&audience, &[TEXT], &running).await;
    for program in others.into_iter().chain([next]) {
        program.terminate().await;
    }
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_ready_only_when_it_has_read_the_statuses_of_all_its_partitions() {
    let world = World::new("t23_replay", Options::default()).await;
    // What a dead planner has left open holds up everybody who reads what is committed.
    let planner: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", std::env::var("HERALD_TEST_KAFKA_BROKERS").unwrap())
        .set("transactional.id", world.kafka.topics.planner_id(0))
        .create()
        .unwrap();
    let statuses = world.kafka.topics.name(Topic::StatusEvents);
    planner.init_transactions(Duration::from_secs(30)).unwrap();
    planner.begin_transaction().unwrap();
    planner.send(BaseRecord::to(&statuses).partition(1).key("key").payload("nothing")).unwrap();
    planner.flush(Duration::from_secs(10)).unwrap();

    let mut sender = world.start_unready(&["sender"]);
    eventually("all but one partition to be open", async || {
        let unready = sender.unready().await?;
        (unready == ["the statuses of partitions [1] are being read"]).then_some(())
    })
    .await;
    planner.abort_transaction(Duration::from_secs(10)).unwrap();
    sender.ready().await;
    sender.terminate().await;
    world.clean_up().await;
}
