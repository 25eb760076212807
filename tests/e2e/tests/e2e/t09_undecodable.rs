//! Guarantee 9: records that nobody of ours wrote.

use std::collections::BTreeSet;

use events::topics::Topic;
use events::{DeadLetter, decode};
use kafka::Isolation;
use serde_json::json;

use e2e::{Audience, Options, World, eventually};

const TEXT: &str = "text-of-the-ninth-test";
const GARBAGE: [&[u8]; 4] =
    [b"not json", b"{\"message_id\": \"7\"}", b"\xff\xfe\x00", b"{\"mailing_id\": 7, \"phone\": 70000003571}"];

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_each_topic_is_dead_lettered_and_what_is_good_goes_on() {
    let world = World::new("t09", Options::default()).await;
    let read = [Topic::MailingEvents, Topic::PlanningProgress, Topic::MessageEvents, Topic::StatusEvents];
    let mut expected = BTreeSet::new();
    for topic in read {
        for partition in 0..2 {
            for offset in world.write_foreign(topic, partition, &GARBAGE) {
                expected.insert((world.kafka.topics.name(topic), partition, offset));
            }
        }
    }
    let herald = world.start(&["all"]).await;
    let audience = Audience::of(1_000, 916, "good");
    world.import(&audience).await;
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "good"})).await;
    // Behind good records as well, in what the running services read.
    for topic in [Topic::MailingEvents, Topic::MessageEvents, Topic::StatusEvents] {
        for offset in world.write_foreign(topic, 1, &GARBAGE) {
            expected.insert((world.kafka.topics.name(topic), 1, offset));
        }
    }
    let shown = world.assert_conserved(&mailing, 1_000).await;
    assert_eq!(shown["counts"]["succeeded"], 1_000, "{shown}");

    let letters = eventually("all dead letters", async || {
        let records = world.records(Topic::DeadLetters, Isolation::Uncommitted).await;
        let letters: Vec<DeadLetter> =
            records.iter().map(|record| decode(record.payload.as_deref()).unwrap()).collect();
        let found = letters.iter().map(|letter| (letter.topic.clone(), letter.partition, letter.offset));
        (found.collect::<BTreeSet<_>>() == expected).then_some(letters)
    })
    .await;
    for letter in &letters {
        assert!(!letter.reason.is_empty() && !letter.reader.is_empty(), "{letter:?}");
        assert!(!letter.reason.contains("70000003571"), "a reason repeats what was read: {letter:?}");
    }
    let counted = herald.metric("herald_dead_letters_total").await;
    assert_eq!(counted as usize, letters.len(), "each is counted");
    world.assert_secrecy(&audience, &[TEXT], &[&herald]).await;
    herald.terminate().await;
    world.clean_up().await;
}
