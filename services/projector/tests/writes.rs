//! What is written, and what is not.

#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::time::Duration;

use chrono::Utc;
use common::{
    client, dead_letters, dump, installation, life, outgoing, rebuild, rebuild_from, start, start_with, status,
    tell_raw,
};
use domain::status::Status;
use events::topics::Topic;
use kafka::{Admin, Cluster, TransactionalProducer};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use support::{Installation, until};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn statuses_become_rows_counts_and_failed_attempts() {
    let installation = installation().await;
    let mailing = Uuid::now_v7();
    let no = installation.add_mailing(mailing, Utc::now()).await;
    installation.tell(&life(no, mailing, 1..=1000)).await;
    let projector = start(&installation, 5000).await;
    installation.caught_up().await;

    assert_eq!(installation.counts().await, [("failed".to_owned(), 100), ("succeeded".to_owned(), 900)]);
    installation.assert_conserved().await;
    let row: (String, i32, i32, i32, Option<i32>, bool) = sqlx::query_as(
        "SELECT status, attempts, round, settled_round, code, updated_at = planned_at + interval '104 ms'
         FROM messages WHERE mailing_no = $1 AND client_no = 10",
    )
    .bind(no)
    .fetch_one(&installation.pool)
    .await
    .unwrap();
    assert_eq!(row, ("failed".to_owned(), 4, 1, 1, Some(500), true));
    let attempts: Vec<(i32, Option<String>)> = sqlx::query_as(
        "SELECT DISTINCT attempt, detail FROM steps WHERE mailing_no = $1 AND client_no = 10 ORDER BY 1",
    )
    .bind(no)
    .fetch_all(&installation.pool)
    .await
    .unwrap();
    let http = || Some("HTTP 500".to_owned());
    assert_eq!(attempts, [(1, http()), (2, http()), (3, http()), (4, None)]);

    projector.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_only_waits_notices_that_postgres_went_back() {
    let installation = installation().await;
    let mailing = Uuid::now_v7();
    let no = installation.add_mailing(mailing, Utc::now()).await;
    let projector = start(&installation, 5000).await;
    installation.tell(&life(no, mailing, 1..=100)).await;
    installation.caught_up().await;
    let before = installation.counts().await;

    let tables = "messages, steps, held, mailing_counts, held_counts, mailing_settled_rounds, projector_offsets";
    sqlx::query(sqlx::AssertSqlSafe(format!("TRUNCATE {tables}"))).execute(&installation.pool).await.unwrap();
    installation.caught_up().await;
    assert_eq!(installation.counts().await, before);
    installation.assert_conserved().await;

    projector.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_where_it_stopped_also_over_offsets_without_records() {
    let installation = installation().await;
    let (mailing, no) = (Uuid::now_v7(), 7);
    for clients in [1..=100, 101..=200, 201..=300] {
        let projector = start(&installation, 30).await;
        let (told, topic, client) =
            (life(no, mailing, clients), installation.topic(Topic::StatusEvents), installation.kafka.clone());
        // The end of a Kafka transaction takes an offset of its own.
        let publish = move || {
            let producer = TransactionalProducer::new(&client, "gaps", vec![]).unwrap();
            producer.init(Duration::from_secs(30)).unwrap();
            for page in told.chunks(20) {
                producer.publish(page.iter().map(|status| outgoing(&topic, status))).unwrap();
            }
        };
        tokio::task::spawn_blocking(publish).await.unwrap();
        installation.caught_up().await;
        projector.stop().await;
    }
    assert_eq!(installation.counts().await, [("failed".to_owned(), 30), ("succeeded".to_owned(), 270)]);
    installation.assert_conserved().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ends_of_transactions_are_passed_so_that_its_offsets_reach_the_logs_end() {
    let installation = installation().await;
    let projector = start(&installation, 5000).await;
    let (told, topic, client) =
        (life(7, Uuid::now_v7(), 1..=50), installation.topic(Topic::StatusEvents), installation.kafka.clone());
    let publish = move || {
        let producer = TransactionalProducer::new(&client, "planner", vec![]).unwrap();
        producer.init(Duration::from_secs(30)).unwrap();
        producer.publish(told.iter().map(|status| outgoing(&topic, status))).unwrap();
        kafka::high_watermarks(&client, &topic, &[0, 1], Duration::from_secs(5)).unwrap()
    };
    let ends = tokio::task::spawn_blocking(publish).await.unwrap();
    support::until("its offsets are the log's ends", async || {
        let written = "SELECT next_offset FROM projector_offsets ORDER BY partition";
        sqlx::query_scalar::<_, i64>(written).fetch_all(&installation.pool).await.unwrap() == ends
    })
    .await;
    projector.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_is_a_dead_letter_and_the_rest_is_written() {
    let installation = installation().await;
    let mailing = Uuid::now_v7();
    let no = installation.add_mailing(mailing, Utc::now()).await;
    let told = life(no, mailing, 1..=200);
    let (before, after) = told.split_at(120);
    installation.tell(before).await;
    let undecodable = tell_raw(&installation, 0, br#"{"phone": "70000000000"}"#).await;
    let empty = tell_raw(&installation, 0, b"").await;
    let foreign = serde_json::to_vec(&status(no, Uuid::now_v7(), 1000, Status::Succeeded, 1)).unwrap();
    let foreign = tell_raw(&installation, 1, &foreign).await;
    let mut refused = status(no, mailing, 1001, Status::Retrying, 1);
    refused.detail = Some("\0".to_owned());
    let refused = tell_raw(&installation, 1, &serde_json::to_vec(&refused).unwrap()).await;
    let unheard_of = status(no + 1, Uuid::now_v7(), 1, Status::Succeeded, 1);
    installation.tell(&[unheard_of]).await;
    installation.tell(after).await;

    let projector = start(&installation, 5000).await;
    installation.caught_up().await;
    let letters = dead_letters(&installation).await;
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
    assert!(
        letters
            .iter()
            .all(|letter| letter.topic == installation.topic(Topic::StatusEvents) && letter.reader == "projector")
    );
    assert_eq!(installation.counts().await, [("failed".to_owned(), 20), ("succeeded".to_owned(), 181)]);
    installation.assert_conserved().await;
    projector.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_stops_it_with_the_reason() {
    let installation = installation().await;
    installation.tell(&life(7, Uuid::now_v7(), 1..=10)).await;
    sqlx::query("INSERT INTO projector_offsets VALUES (0, 1000)").execute(&installation.pool).await.unwrap();
    let failure = start(&installation, 5000).await.failure().await;
    assert!(failure.contains("status partition 0 ends at") && failure.contains("was made anew"), "{failure}");
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projector_without_a_partition_is_ready() {
    let installation = installation().await;
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(start(&installation, 5000).await);
    }
    for projector in &running {
        projector.ready().await;
    }
    for projector in running {
        projector.stop().await;
    }
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_writes_the_same_bytes() {
    let installation = installation().await;
    let mailing = Uuid::now_v7();
    let no = installation.add_mailing(mailing, Utc::now()).await;
    let told = life(no, mailing, 1..=2000);
    let projector = start(&installation, 70).await;
    for part in told.chunks(500) {
        installation.tell(part).await;
        installation.caught_up().await;
    }
    projector.stop().await;
    let before = dump(&installation).await;
    assert!(before.len() > 2000, "{}", before.len());

    let projector = rebuild(&installation, 5000).await.unwrap();
    installation.caught_up().await;
    assert_eq!(dump(&installation).await, before);

    let later = Uuid::now_v7();
    let no = installation.add_mailing(later, Utc::now()).await;
    installation.tell(&life(no, later, 1..=10)).await;
    installation.caught_up().await;
    installation.assert_conserved().await;
    projector.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_refused_when_the_log_lacks_what_the_rows_were_made_of() {
    let installation = installation().await;
    let mailing = Uuid::now_v7();
    let no = installation.add_mailing(mailing, Utc::now()).await;
    installation.tell(&life(no, mailing, 1..=50)).await;
    let projector = start(&installation, 5000).await;
    installation.caught_up().await;
    projector.stop().await;
    let before = dump(&installation).await;

    delete_first_record(&installation).await;
    let Err(refused) = rebuild(&installation, 5000).await else { panic!("it rebuilds") };
    assert!(format!("{refused:#}").contains("older mailings"), "{refused:#}");
    assert_eq!(dump(&installation).await, before);
    installation.delete().await;
}

fn admin() -> AdminClient<DefaultClientContext> {
    let brokers = std::env::var("HERALD_TEST_KAFKA_BROKERS").unwrap_or_else(|_| "127.0.0.1:19092".to_owned());
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

/// Writes a mailing's statuses, and their rows by a projector that stops then.
async fn write(installation: &Installation, clients: std::ops::RangeInclusive<i64>) {
    let mailing = Uuid::now_v7();
    let no = installation.add_mailing(mailing, Utc::now()).await;
    installation.tell(&life(no, mailing, clients)).await;
    let projector = start(installation, 5000).await;
    installation.caught_up().await;
    projector.stop().await;
}

/// The rebuild says why it doesn't begin, and changes nothing.
async fn assert_refused(installation: &Installation, log: &Cluster, reason: &str) {
    let before = dump(installation).await;
    let Err(refused) = rebuild_from(installation, log, 5000).await else { panic!("it rebuilds") };
    assert!(format!("{refused:#}").contains(reason), "{refused:#}");
    assert_eq!(dump(installation).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_refused_once_the_log_was_made_anew_under_the_rows() {
    let installation = installation().await;
    write(&installation, 1..=100).await;
    let topic = installation.topic(Topic::StatusEvents);
    admin().delete_topics(&[&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let topics = Admin::new(&installation.kafka).unwrap();
    until("the topic is there again", async || topics.create_topics(1).await.is_ok()).await;
    // As the projector advises when it finds that the log is another one.
    sqlx::query("DELETE FROM projector_offsets").execute(&installation.pool).await.unwrap();
    assert_refused(&installation, &installation.kafka, "nothing says which log they came from").await;
    write(&installation, 1..=200).await;
    assert_refused(&installation, &installation.kafka, "may have come from another one").await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_refused_from_another_installations_log() {
    let (one, other) = (installation().await, installation().await);
    write(&one, 1..=100).await;
    write(&other, 1..=200).await;
    assert_refused(&one, &other.kafka, "it is another log").await;
    other.delete().await;
    one.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_refused_in_a_postgres_that_herald_did_not_run_with() {
    let installation = installation().await;
    write(&installation, 1..=10).await;
    // Kafka knows of a later state than this one.
    installation.record_database().await;
    sqlx::query("UPDATE database_mark SET mark = mark - 1").execute(&installation.pool).await.unwrap();
    assert_refused(&installation, &installation.kafka, "an older state than Kafka").await;
    installation.delete().await;
}

async fn delete_first_record(installation: &Installation) {
    let admin = admin();
    let mut first = rdkafka::TopicPartitionList::new();
    first.add_partition_offset(&installation.topic(Topic::StatusEvents), 0, rdkafka::Offset::Offset(1)).unwrap();
    let deleted = admin.delete_records(&first, &AdminOptions::new()).await.unwrap();
    deleted.elements()[0].error().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_groups_on_one_database_write_everything_once() {
    let installation = installation().await;
    let mailing = Uuid::now_v7();
    let no = installation.add_mailing(mailing, Utc::now()).await;
    // Each holds all partitions and believes that it is alone, as after a long pause of a process.
    let other = client(&installation.name, &[("group.id", "other")]);
    let first = start(&installation, 50).await;
    let second = start_with(&installation, &other, 70).await;
    let told = life(no, mailing, 1..=3000);
    for part in told.chunks(300) {
        installation.tell(part).await;
    }
    installation.caught_up().await;
    first.stop().await;
    second.stop().await;
    assert_as_rebuilt(&installation).await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn projectors_that_join_and_leave_write_everything_once() {
    let installation = installation().await;
    let mailing = Uuid::now_v7();
    let no = installation.add_mailing(mailing, Utc::now()).await;
    let told = life(no, mailing, 1..=3000);
    let mut running = vec![start(&installation, 50).await];
    for (round, part) in told.chunks(400).enumerate() {
        installation.tell(part).await;
        if round % 2 == 0 {
            running.push(start(&installation, 50).await);
        } else {
            running.remove(0).stop().await;
        }
    }
    installation.caught_up().await;
    for projector in running {
        projector.stop().await;
    }
    assert_as_rebuilt(&installation).await;
    installation.delete().await;
}

async fn assert_as_rebuilt(installation: &Installation) {
    installation.assert_conserved().await;
    let before = dump(installation).await;
    let projector = rebuild(installation, 5000).await.unwrap();
    installation.caught_up().await;
    assert_eq!(dump(installation).await, before);
    projector.stop().await;
}
