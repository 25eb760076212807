//! Guarantee 17: a relay was stopped with events in its hands. The last record of a mailing in mailing-events is its newest
//! version all the same.

use std::collections::BTreeMap;

use events::topics::Topic;
use events::{MailingEvent, decode};
use kafka::Isolation;
use nix::sys::signal::Signal;
use serde_json::json;

use e2e::{Api, Options, World, eventually, free_addr};

/// How long the relay is held at its point, ms. It must be stopped within that, and is stopped for longer.
const HELD: u64 = 25_000;

#[tokio::test(flavor = "multi_thread")]
async fn one_that_wakes_when_another_has_taken_over_writes_nothing_of_what_it_had_read() {
    let world = World::new("t17", Options::default()).await;
    // The second batch is held.
    let held = format!("relay::read=1*off->1*sleep({HELD})");
    let mut first = world.launch("herald", &["api"], "first", &[("FAILPOINTS", held)]);
    // What hasn't begun may be changed.
    let starts_at = (chrono::Utc::now() + chrono::TimeDelta::hours(1)).to_rfc3339();
    let later = json!({"text": "a", "filter": "nobody", "starts_at": starts_at});
    let addr = free_addr();
    let api = Api::new(&addr);
    first.ready().await;
    let changed = world.api.create_mailing(&later).await;
    eventually("the first event to be published", async || (outbox(&world).await == 0).then_some(())).await;
    // The point holds a thread of the first one's runtime, and with it a request that it may have been about to answer.
    let mut second = world.launch("herald", &["api"], "second", &[("HERALD_API_ADDR", addr)]);
    second.ready().await;
    change(&api, &changed, "b").await;
    eventually("the relay to be at its point", async || {
        // It holds the lock, has read the outbox since, and asks for nothing more.
        let query = "SELECT EXISTS (
                         SELECT FROM pg_stat_activity
                         WHERE datname = current_database() AND application_name = 'herald-relay' AND state = 'idle'
                             AND query LIKE '%FROM outbox%' AND state_change < clock_timestamp() - interval '1 s'
                     )";
        let at_rest: bool = sqlx::query_scalar(query).fetch_one(&world.db).await.unwrap();
        at_rest.then_some(())
    })
    .await;
    assert_eq!(outbox(&world).await, 1, "its row isn't deleted");
    first.signal(Signal::SIGSTOP);

    change(&api, &changed, "c").await;
    let created = api.create_mailing(&later).await;
    change(&api, &created, "b").await;
    // Postgres ends the session of one who hasn't asked anything for 30 s, and with it the lock.
    newest_is_last(&world).await;

    first.signal(Signal::SIGCONT);
    let noticed =
        |log: String| log.lines().any(|line| line.contains("not ready") && line.contains(r#""part":"relay""#));
    eventually("the first relay to notice", async || noticed(first.log()).then_some(())).await;
    change(&api, &changed, "d").await;
    newest_is_last(&world).await;
    for versions in published(&world).await.values() {
        assert!(versions.is_sorted(), "an older version came behind a newer one: {versions:?}");
    }
    first.terminate().await;
    second.terminate().await;
    world.clean_up().await;
}

async fn change(api: &Api, mailing: &str, text: &str) {
    let answer = api.send("PATCH", &format!("/mailings/{mailing}"), Some(&json!({"text": text}))).await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
}

/// How many events wait.
async fn outbox(world: &World) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&world.db).await.unwrap()
}

/// The versions of each mailing's events, in their order.
async fn published(world: &World) -> BTreeMap<String, Vec<i64>> {
    let mut versions: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for record in world.records(Topic::MailingEvents, Isolation::Committed).await {
        let event: MailingEvent = decode(record.payload.as_deref()).unwrap();
        versions.entry(event.mailing_id.to_string()).or_default().push(event.version.get());
    }
    versions
}

/// Waits until the last event of each mailing tells what its row says.
async fn newest_is_last(world: &World) {
    eventually("the newest versions to be published", async || {
        let query = "SELECT id::text, version FROM mailings";
        let rows: Vec<(String, i64)> = sqlx::query_as(query).fetch_all(&world.db).await.unwrap();
        let published = published(world).await;
        rows.iter().all(|(id, version)| published.get(id).and_then(|all| all.last()) == Some(version)).then_some(())
    })
    .await;
}
