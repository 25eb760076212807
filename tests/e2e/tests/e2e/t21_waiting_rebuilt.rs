//! Guarantee 21: what waits, and how often it has, survives a rebuild, a restored Postgres and a lost progress.

use chrono::{TimeDelta, Utc};
use events::topics::Topic;
use serde_json::{Value, json};

use e2e::{Audience, Options, Servers, World, eventually};

const TEXT: &str = "text-of-the-twenty-first-test";
const CLIENTS: usize = 3_000;

#[tokio::test(flavor = "multi_thread")]
async fn held_rows_and_later_rounds_are_the_same_after_a_rebuild_a_recovery_and_a_replanning() {
    let mut servers = Servers::start().await;
    let provider = vec![("HERALD_SIM_RATE", "300".to_owned())];
    let options = Options { provider, postgres: Some(servers.url()), ..Options::default() };
    let world = World::new("t21", options).await;
    let (api, mut projector) = (world.start(&["api"]).await, world.start(&["projector"]).await);
    let (scheduler, sender) = (world.start(&["scheduler"]).await, world.start(&["sender"]).await);
    let audience = Audience::of(CLIENTS, 916, "told");
    world.import(&audience).await;
    // Longer than a slot waits, so each is held, again and again.
    world.faults(json!([{"fault": {"retry_after": {"status": 429, "seconds": 6}}, "probability": 0.4}])).await;
    let request = json!({"text": TEXT, "filter": "told", "ends_at": Utc::now() + TimeDelta::hours(1)});
    let mailing = world.api.create_mailing(&request).await;
    world.accepted(300).await;
    servers.stop_postgres().await;
    servers.back_up_postgres();
    servers.start_postgres().await;
    // What the restored Postgres won't know of.
    let in_an_hour = Utc::now() + TimeDelta::hours(1);
    let later = json!({"text": TEXT, "filter": "told", "starts_at": in_an_hour});
    let lost = eventually("the api to have its Postgres", async || {
        let answer = world.api.send("POST", "/mailings", Some(&later)).await.ok()?;
        answer.status().is_success().then_some(answer)?.json::<Value>().await.ok()
    })
    .await;
    eventually("some to be held in a later round", async || {
        let query = "SELECT count(*) FROM held WHERE round > 1";
        let held: i64 = sqlx::query_scalar(query).fetch_one(&world.db).await.ok()?;
        (held > 20).then_some(())
    })
    .await;
    sender.terminate().await;
    scheduler.terminate().await;
    world.projected().await;
    projector.terminate().await;
    let before = world.projected_rows().await;
    let rows = |table: &str| before.iter().filter(|row| row.starts_with(&format!("{table}{{"))).count();
    println!("{} held, {} steps", rows("held"), rows("steps"));
    assert!(rows("held") > 20 && rows("steps") > 500 && rows("held_counts") > 0);

    projector = world.start(&["projector", "--rebuild"]).await;
    eventually("the rebuild to write the same", async || (world.projected_rows().await == before).then_some(())).await;
    projector.terminate().await;

    servers.kill_postgres().await;
    servers.restore_postgres();
    servers.start_postgres().await;
    println!("{}", world.run(&["recover"], &[]).await.unwrap());
    assert_eq!(world.api.mailing(lost["id"].as_str().unwrap()).await["state"], "scheduled", "it is there again");
    assert!(world.projected_rows().await != before, "it went back");
    projector = world.start(&["projector"]).await;
    eventually("the log to make it the same", async || (world.projected_rows().await == before).then_some(())).await;

    world.recreate(Topic::PlanningProgress).await;
    let scheduler = world.start(&["scheduler"]).await;
    eventually("the mailing to be paused", async || {
        (world.api.mailing(&mailing).await["state"] == "paused").then_some(())
    })
    .await;
    let (said, ()) =
        tokio::join!(async { world.run(&["replan", &mailing], &[]).await.unwrap() }, scheduler.terminate());
    println!("{said}");
    world.projected().await;
    // The verb ends what its predecessors left open, which takes offsets.
    let of_messages = |row: &&String| !row.starts_with("projector_offsets");
    let now = world.projected_rows().await;
    let differ = now.iter().filter(of_messages).zip(before.iter().filter(of_messages)).find(|(now, then)| now != then);
    assert_eq!(differ, None, "nothing was planned again that is held");
    world.faults(json!([])).await;
    let (scheduler, sender) = (world.start(&["scheduler"]).await, world.start(&["sender"]).await);
    let shown = world.assert_conserved(&mailing, CLIENTS).await;
    assert_eq!(shown["counts"]["succeeded"], CLIENTS, "{shown}");
    assert_eq!(world.calls().await.doubled(), Vec::<i64>::new());
    for program in [api, scheduler, sender, projector] {
        program.terminate().await;
    }
    world.clean_up().await;
}
