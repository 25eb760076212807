//! What is written, and what is not.

#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::time::Duration;

use chrono::Utc;
use common::{World, client, life, status};
use domain::status::Status;
use kafka::TransactionalProducer;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn statuses_become_rows_counts_and_failed_attempts() {
    let world = World::create().await;
    let mailing = Uuid::now_v7();
    let no = world.add_mailing(mailing, Utc::now()).await;
    world.tell(&life(no, mailing, 1..=1000)).await;
    let projector = world.start(5000).await;
    world.caught_up().await;

    assert_eq!(world.counts().await, [("failed".to_owned(), 100), ("succeeded".to_owned(), 900)]);
    world.assert_conserved().await;
    let row: (String, i32, i32, i32, Option<i32>, bool) = sqlx::query_as(
        "SELECT status, attempts, round, settled_round, code, updated_at = planned_at + interval '104 ms'
         FROM messages WHERE mailing_no = $1 AND client_no = 10",
    )
    .bind(no)
    .fetch_one(&world.pool)
    .await
    .unwrap();
    assert_eq!(row, ("failed".to_owned(), 4, 1, 1, Some(500), true));
    let attempts: Vec<(i32, Option<String>)> = sqlx::query_as(
        "SELECT DISTINCT attempt, detail FROM steps WHERE mailing_no = $1 AND client_no = 10 ORDER BY 1",
    )
    .bind(no)
    .fetch_all(&world.pool)
    .await
    .unwrap();
    let http = || Some("HTTP 500".to_owned());
    assert_eq!(attempts, [(1, http()), (2, http()), (3, http()), (4, None)]);

    projector.stop().await;
    world.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_only_waits_notices_that_postgres_went_back() {
    let world = World::create().await;
    let mailing = Uuid::now_v7();
    let no = world.add_mailing(mailing, Utc::now()).await;
    let projector = world.start(5000).await;
    world.tell(&life(no, mailing, 1..=100)).await;
    world.caught_up().await;
    let before = world.counts().await;

    let tables = "messages, steps, held, mailing_counts, held_counts, mailing_settled_rounds, projector_offsets";
    sqlx::query(sqlx::AssertSqlSafe(format!("TRUNCATE {tables}"))).execute(&world.pool).await.unwrap();
    world.caught_up().await;
    assert_eq!(world.counts().await, before);
    world.assert_conserved().await;

    projector.stop().await;
    world.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_where_it_stopped_also_over_offsets_without_records() {
    let world = World::create().await;
    let (mailing, no) = (Uuid::now_v7(), 7);
    for clients in [1..=100, 101..=200, 201..=300] {
        let projector = world.start(30).await;
        let (told, topic, client) = (life(no, mailing, clients), world.topic(), world.client.clone());
        // The end of a Kafka transaction takes an offset of its own.
        let publish = move || {
            let producer = TransactionalProducer::new(&client, "gaps").unwrap();
            producer.init(Duration::from_secs(30)).unwrap();
            for page in told.chunks(20) {
                producer.publish(page.iter().map(|status| common::outgoing(&topic, status))).unwrap();
            }
        };
        tokio::task::spawn_blocking(publish).await.unwrap();
        world.caught_up().await;
        projector.stop().await;
    }
    assert_eq!(world.counts().await, [("failed".to_owned(), 30), ("succeeded".to_owned(), 270)]);
    world.assert_conserved().await;
    world.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_is_a_dead_letter_and_the_rest_is_written() {
    let world = World::create().await;
    let mailing = Uuid::now_v7();
    let no = world.add_mailing(mailing, Utc::now()).await;
    let told = life(no, mailing, 1..=200);
    let (before, after) = told.split_at(120);
    world.tell(before).await;
    let undecodable = world.tell_raw(0, br#"{"phone": "70000000000"}"#).await;
    let empty = world.tell_raw(0, b"").await;
    let foreign = serde_json::to_vec(&status(no, Uuid::now_v7(), 1000, Status::Succeeded, 1)).unwrap();
    let foreign = world.tell_raw(1, &foreign).await;
    let mut refused = status(no, mailing, 1001, Status::Retrying, 1);
    refused.detail = Some("\0".to_owned());
    let refused = world.tell_raw(1, &serde_json::to_vec(&refused).unwrap()).await;
    let unheard_of = status(no + 1, Uuid::now_v7(), 1, Status::Succeeded, 1);
    world.tell(&[unheard_of]).await;
    world.tell(after).await;

    let projector = world.start(5000).await;
    world.caught_up().await;
    let letters = world.dead_letters().await;
    let places: Vec<(i32, i64)> = letters.iter().map(|letter| (letter.partition, letter.offset)).collect();
    assert_eq!(places, [(0, undecodable), (0, empty), (1, foreign), (1, refused)]);
    let reasons: Vec<&str> = letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "not the topic's event: data at line 1, column 24",
            "not the topic's event: eof at line 1, column 0",
            "another mailing has this number",
            "Postgres refuses it: SQLSTATE 22021",
        ]
    );
    assert!(letters.iter().all(|letter| letter.topic == world.topic() && letter.reader == "projector"));
    assert_eq!(world.counts().await, [("failed".to_owned(), 20), ("succeeded".to_owned(), 181)]);
    world.assert_conserved().await;
    projector.stop().await;
    world.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_stops_it_with_the_reason() {
    let world = World::create().await;
    world.tell(&life(7, Uuid::now_v7(), 1..=10)).await;
    sqlx::query("INSERT INTO projector_offsets VALUES (0, 1000)").execute(&world.pool).await.unwrap();
    let failure = world.start(5000).await.failure().await;
    assert!(failure.contains("status partition 0 ends at") && failure.contains("was made anew"), "{failure}");
    world.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projector_without_a_partition_is_ready() {
    let world = World::create().await;
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(world.start(5000).await);
    }
    for projector in &running {
        projector.ready().await;
    }
    for projector in running {
        projector.stop().await;
    }
    world.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_writes_the_same_bytes() {
    let world = World::create().await;
    let mailing = Uuid::now_v7();
    let no = world.add_mailing(mailing, Utc::now()).await;
    let told = life(no, mailing, 1..=2000);
    let projector = world.start(70).await;
    for part in told.chunks(500) {
        world.tell(part).await;
        world.caught_up().await;
    }
    projector.stop().await;
    let before = world.dump().await;
    assert!(before.len() > 2000, "{}", before.len());

    let projector = world.start_with(&world.client, 5000, true).await;
    world.caught_up().await;
    assert_eq!(world.dump().await, before);

    let later = Uuid::now_v7();
    let no = world.add_mailing(later, Utc::now()).await;
    world.tell(&life(no, later, 1..=10)).await;
    world.caught_up().await;
    world.assert_conserved().await;
    projector.stop().await;
    world.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_refused_when_the_log_lacks_what_the_rows_were_made_of() {
    let world = World::create().await;
    let mailing = Uuid::now_v7();
    let no = world.add_mailing(mailing, Utc::now()).await;
    world.tell(&life(no, mailing, 1..=50)).await;
    let projector = world.start(5000).await;
    world.caught_up().await;
    projector.stop().await;
    let before = world.dump().await;

    delete_first_record(&world).await;
    let Err(refused) = world.try_start(&world.client, 5000, true).await else { panic!("it rebuilds") };
    assert!(format!("{refused:#}").contains("older mailings"), "{refused:#}");
    assert_eq!(world.dump().await, before);
    world.delete().await;
}

async fn delete_first_record(world: &World) {
    let brokers = std::env::var("HERALD_TEST_KAFKA_BROKERS").unwrap_or_else(|_| "127.0.0.1:19092".to_owned());
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let mut first = rdkafka::TopicPartitionList::new();
    first.add_partition_offset(&world.topic(), 0, rdkafka::Offset::Offset(1)).unwrap();
    let deleted = admin.delete_records(&first, &AdminOptions::new()).await.unwrap();
    deleted.elements()[0].error().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_groups_on_one_database_write_everything_once() {
    let world = World::create().await;
    let mailing = Uuid::now_v7();
    let no = world.add_mailing(mailing, Utc::now()).await;
    // Each holds all partitions and believes that it is alone, as after a long pause of a process.
    let other = client(&world.prefix, &[("group.id", "other")]);
    let first = world.start(50).await;
    let second = world.start_with(&other, 70, false).await;
    let told = life(no, mailing, 1..=3000);
    for part in told.chunks(300) {
        world.tell(part).await;
    }
    world.caught_up().await;
    first.stop().await;
    second.stop().await;
    assert_as_rebuilt(&world).await;
    world.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn projectors_that_join_and_leave_write_everything_once() {
    let world = World::create().await;
    let mailing = Uuid::now_v7();
    let no = world.add_mailing(mailing, Utc::now()).await;
    let told = life(no, mailing, 1..=3000);
    let mut running = vec![world.start(50).await];
    for (round, part) in told.chunks(400).enumerate() {
        world.tell(part).await;
        if round % 2 == 0 {
            running.push(world.start(50).await);
        } else {
            running.remove(0).stop().await;
        }
    }
    world.caught_up().await;
    for projector in running {
        projector.stop().await;
    }
    assert_as_rebuilt(&world).await;
    world.delete().await;
}

async fn assert_as_rebuilt(world: &World) {
    world.assert_conserved().await;
    let before = world.dump().await;
    let projector = world.start_with(&world.client, 5000, true).await;
    world.caught_up().await;
    assert_eq!(world.dump().await, before);
    projector.stop().await;
}
