//! Guarantee 15: a bad deploy doesn't drain a topic. (A few records that can't be decoded: `t09_undecodable`.)

use std::collections::BTreeSet;

use events::topics::Topic;
use events::{DeadLetter, decode};
use kafka::Isolation;
use serde_json::json;

use e2e::{Audience, Options, Program, World, eventually};

const TEXT: &str = "text-of-the-fifteenth-test";
const READ: [Topic; 3] = [Topic::MailingEvents, Topic::MessageEvents, Topic::StatusEvents];

/// Where the records lie that dead letters tell of.
async fn letters(world: &World) -> BTreeSet<(String, i32, i64)> {
    let records = world.records(Topic::DeadLetters, Isolation::Uncommitted).await;
    let letters = records.iter().map(|record| decode::<DeadLetter>(record.payload.as_deref()).unwrap());
    letters.map(|letter| (letter.topic, letter.partition, letter.offset)).collect()
}

/// Waits until partition 0 of each of the topics is read no further, and `/readyz` says so.
async fn stopped(program: &Program, topics: &[Topic]) -> Vec<String> {
    eventually("the readers to stop", async || {
        let unready = program.unready().await?;
        let verb = |topic: &Topic| format!("`herald skip {} 0`", topic.base());
        let said = |topic| unready.iter().any(|reason| reason.contains(&verb(topic)));
        (unready.len() == topics.len() && topics.iter().all(said)).then_some(unready)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_in_a_row_stop_each_reader_until_somebody_lets_them_pass() {
    let world = World::new("t15", Options::default()).await;
    let garbage: Vec<&[u8]> = vec![b"of another format"; 200];
    let mut expected = BTreeSet::new();
    for topic in READ {
        for offset in world.write_foreign(topic, 0, &garbage) {
            expected.insert((world.kafka.topics.name(topic), 0, offset));
        }
    }
    let herald = world.start_unready(&["all"]);
    for reason in stopped(&herald, &READ).await {
        assert!(reason.contains("partition 0 is read no further than offset 0, for 100 of its last"), "{reason}");
    }
    assert!(herald.is_live().await, "it goes on");
    assert_eq!(herald.metric("herald_reader_stopped").await as usize, READ.len());

    let audience = Audience::of(500, 916, "good");
    world.import(&audience).await;
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "good"})).await;
    // The other partition goes on.
    let elsewhere = eventually("all to be planned", async || {
        let records = world.records(Topic::MessageEvents, Isolation::Committed).await;
        let good = records.len() - garbage.len();
        (good == audience.len()).then(|| records.iter().filter(|record| record.partition == 1).count())
    })
    .await;
    world.api.reached(&mailing, &["succeeded"], elsewhere as i64).await;

    herald.kill();
    let herald = world.start_unready(&["all"]);
    stopped(&herald, &READ).await;
    assert_eq!(letters(&world).await, BTreeSet::new(), "no restart passes any of them");
    assert_eq!(world.calls().await.by_message.len(), elsewhere, "nor what lies behind them");

    for topic in READ {
        let said = world.run(&["skip", topic.base(), "0"], &[]).await.unwrap();
        assert!(said.contains("200 records can't be decoded, the first at 0: not the topic's event"), "{said}");
    }
    let shown = world.assert_conserved(&mailing, audience.len()).await;
    assert_eq!(shown["counts"]["succeeded"], audience.len(), "{shown}");
    eventually("the readers to go on", async || herald.unready().await.filter(Vec::is_empty)).await;
    assert_eq!(herald.metric("herald_reader_stopped").await as usize, 0);
    assert_eq!(letters(&world).await, expected);
    assert_eq!(herald.metric("herald_dead_letters_total").await as usize, expected.len(), "each once");
    world.assert_secrecy(&audience, &[TEXT], &[&herald]).await;
    herald.terminate().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_partition_is_read_no_further_by_the_member_that_gets_it_either() {
    const GARBAGE: usize = 200;
    let world = World::new("t15m", Options::default()).await;
    world.write_foreign(Topic::MessageEvents, 0, &vec![b"?".as_slice(); GARBAGE]);
    let first = world.start_unready(&["sender"]);
    stopped(&first, &[Topic::MessageEvents]).await;
    let mut second = world.start_unready(&["sender"]);
    eventually("the second to have a partition", async || {
        // Nothing answers before its ops port is open.
        second.unready().await?;
        (second.metric("herald_kafka_rebalances_total").await > 0.0).then_some(())
    })
    .await;
    first.terminate().await;
    stopped(&second, &[Topic::MessageEvents]).await;
    assert_eq!(letters(&world).await, BTreeSet::new());

    world.run(&["skip", "message-events", "0"], &[]).await.unwrap();
    eventually("all to be passed", async || (letters(&world).await.len() == GARBAGE).then_some(())).await;
    second.ready().await;
    second.terminate().await;
    world.clean_up().await;
}

/// Of mailing 1, which nobody knows: it is written all the same.
fn status(client_no: usize) -> Vec<u8> {
    let example = include_str!("../../../../kafka/examples/status-events.v1/succeeded.json");
    let mut status: serde_json::Value = serde_json::from_str(example).unwrap();
    status["message_id"] = json!(((1u64 << 33) + client_no as u64).to_string());
    status.to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_percent_stop_a_reader_at_the_hundredth_however_often_it_begins_anew() {
    const RECORDS: usize = 10_000;
    let world = World::new("t15p", Options::default()).await;
    let is_garbage = |at: usize| at % 50 == 49;
    let payloads: Vec<Vec<u8>> =
        (0..RECORDS).map(|at| if is_garbage(at) { b"?".to_vec() } else { status(at + 1) }).collect();
    let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    let offsets = world.write_foreign(Topic::StatusEvents, 0, &payloads);
    let garbage = offsets.iter().enumerate().filter(|(at, _)| is_garbage(*at));
    let name = world.kafka.topics.name(Topic::StatusEvents);
    let garbage: Vec<_> = garbage.map(|(_, offset)| (name.clone(), 0, *offset)).collect();
    let first_99: BTreeSet<_> = garbage[..99].iter().cloned().collect();

    let projector = world.start(&["projector"]).await;
    let killed_at = 20 + world.random(0..60) as usize;
    eventually("some to be passed", async || (letters(&world).await.len() >= killed_at).then_some(())).await;
    projector.kill();
    for _ in 0..2 {
        let projector = world.start_unready(&["projector"]);
        stopped(&projector, &[Topic::StatusEvents]).await;
        assert_eq!(letters(&world).await, first_99, "killed at about {killed_at}");
        projector.terminate().await;
    }

    let mut projector = world.start_unready(&["projector"]);
    stopped(&projector, &[Topic::StatusEvents]).await;
    world.run(&["skip", "status-events", "0"], &[]).await.unwrap();
    projector.ready().await;
    let good = RECORDS - garbage.len();
    eventually("all that is good to be written", async || {
        let count = "SELECT count(*) FROM messages";
        let rows: i64 = sqlx::query_scalar(count).fetch_one(&world.db).await.unwrap();
        (rows == good as i64).then_some(())
    })
    .await;
    let all: BTreeSet<_> = garbage.into_iter().collect();
    eventually("all letters", async || (letters(&world).await == all).then_some(())).await;
    projector.terminate().await;
    world.clean_up().await;
}
