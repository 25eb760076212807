//! Guarantee 20: trouble of the provider costs no message, and what waits for it stands in nobody's way.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use e2e::{Audience, Options, World, eventually};

const TEXT: &str = "text-of-the-twentieth-test";

fn at(call_at: i64) -> chrono::DateTime<Utc> {
    chrono::DateTime::from_timestamp_micros(call_at).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_for_a_while_costs_no_message_and_hardly_a_call() {
    const CLIENTS: usize = 4_000;
    let provider = vec![("HERALD_SIM_LATENCY", "50ms".to_owned())];
    let world = World::new("t20_outage", Options { provider, ..Options::default() }).await;
    let herald = world.start(&["all"]).await;
    let small = (0..8).fold(Audience::default(), |audience, n| audience.and(1, 920 + n, "small"));
    let audience = small.and(CLIENTS, 916, "large");
    world.import(&audience).await;
    let large = world.api.create_mailing(&json!({"text": TEXT, "filter": "large"})).await;
    world.accepted(500).await;

    world.faults(json!([{"fault": "outage"}])).await;
    let down_at = Utc::now();
    let few = world.api.create_mailing(&json!({"text": TEXT, "filter": "small"})).await;
    let waiting = eventually("messages to wait for the provider", async || {
        let waiting = world.api.mailing(&large).await["waiting"].clone();
        waiting.as_array().unwrap().iter().any(|one| one["reason"] == "outage").then_some(waiting)
    })
    .await;
    println!("waiting during the outage: {waiting}");
    eventually("the closed lanes to be shown", async || {
        let ready = herald.parts(true).await?;
        let named = ready.iter().any(|(part, state)| part == "lanes" && state.contains("916 (outage)"));
        (named && herald.metric("herald_lane_closed").await > 0.0).then_some(())
    })
    .await;
    assert_eq!(herald.unready().await.unwrap(), Vec::<String>::new(), "trouble of the provider is none of the sender");
    while Utc::now() < down_at + TimeDelta::seconds(12) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.faults(json!([])).await;
    let up_at = Utc::now();

    for (mailing, clients) in [(&few, 8), (&large, CLIENTS)] {
        let shown = world.assert_conserved(mailing, clients).await;
        assert_eq!(shown["counts"]["succeeded"], clients, "{shown}");
        assert_eq!(shown["waiting"], json!([]), "{shown}");
        println!("{clients} were done {} ms after the provider's health", (Utc::now() - up_at).num_milliseconds());
    }
    let calls = world.calls().await;
    let into = calls.all().filter(|call| !call.accepted).count();
    println!("{into} calls into an outage of 12 s");
    // Those on the wire, what opens the breakers, a probe a second, and the few that the probes let through.
    assert!(into < 600, "{into}");
    assert_eq!(calls.doubled(), Vec::<i64>::new());
    world.assert_secrecy(&audience, &[TEXT], &[&herald]).await;
    herald.terminate().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_asked_to_come_later_waits_as_long_over_a_restart_and_is_in_no_doubt() {
    const CLIENTS: usize = 300;
    const WAIT: i64 = 12;
    let world = World::new("t20_throttled", Options::default()).await;
    let others = [world.start(&["api"]).await, world.start(&["scheduler"]).await, world.start(&["projector"]).await];
    let audience = Audience::of(CLIENTS, 916, "told").and(2, 917, "urgent");
    world.import(&audience).await;
    let fault = json!({"fault": {"retry_after": {"status": 429, "seconds": WAIT}}, "first_calls": 1});
    world.faults(json!([fault])).await;
    let sender = world.start(&["sender"]).await;
    let request = json!({"text": TEXT, "filter": "told", "delivery": "at_most_once"});
    let mailing = world.api.create_mailing(&request).await;
    eventually("all to be told", async || {
        let waiting = world.api.mailing(&mailing).await["waiting"].clone();
        let told = waiting.as_array().unwrap().iter().find(|one| one["reason"] == "throttled")?["messages"].as_u64()?;
        (told == CLIENTS as u64).then_some(())
    })
    .await;
    sender.terminate().await;
    let sender = world.start(&["sender"]).await;

    // What waits stands in nobody's way.
    world.faults(json!([])).await;
    let urgent_at = Utc::now();
    let urgent = world.api.create_mailing(&json!({"text": TEXT, "filter": "urgent"})).await;
    world.api.finished(&urgent).await;
    println!("an urgent mailing was done after {} ms", (Utc::now() - urgent_at).num_milliseconds());

    let shown = world.assert_conserved(&mailing, CLIENTS).await;
    assert_eq!(shown["counts"]["succeeded"], CLIENTS, "{shown}");
    let calls = world.calls().await;
    assert_eq!(calls.doubled(), Vec::<i64>::new());
    for calls in calls.by_message.values().filter(|calls| calls.len() > 1) {
        let gap = at(calls[1].begun_at) - at(calls[0].decided_at);
        assert!(gap >= TimeDelta::seconds(WAIT), "told {WAIT} s and called after {gap}: {calls:?}");
    }
    for message in world.api.messages(&mailing).await.iter().take(20) {
        assert_eq!(message["attempts"], 1, "a throttled call is no attempt: {message}");
    }
    for program in others.into_iter().chain([sender]) {
        program.terminate().await;
    }
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_alone_does_not_reach_the_provider_says_so_and_costs_no_message() {
    const CLIENTS: usize = 6_000;
    let provider = vec![("HERALD_SIM_RATE", "150".to_owned())];
    let world = World::new("t20_sick", Options { provider, ..Options::default() }).await;
    let others = [world.start(&["api"]).await, world.start(&["scheduler"]).await, world.start(&["projector"]).await];
    let well = world.start(&["sender"]).await;
    let nobody = ("HERALD_PROVIDER_URL", format!("http://{}", e2e::free_addr()));
    let mut sick = world.launch("herald", &["sender"], "sick", &[nobody]);
    sick.ready().await;
    world.import(&Audience::of(CLIENTS, 916, "all")).await;
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "all"})).await;
    let asked_at = Utc::now();
    eventually("the sick sender to say so", async || {
        let unready = sick.unready().await?;
        unready.iter().any(|reason| reason.contains("no lane is open while other senders call")).then_some(())
    })
    .await;
    println!("it said so after {} s", (Utc::now() - asked_at).num_seconds());
    assert_eq!(well.unready().await.unwrap(), Vec::<String>::new());
    sick.terminate().await;

    let shown = world.assert_conserved(&mailing, CLIENTS).await;
    assert_eq!(shown["counts"]["succeeded"], CLIENTS, "{shown}");
    assert_eq!(world.calls().await.doubled(), Vec::<i64>::new());
    for program in others.into_iter().chain([well]) {
        program.terminate().await;
    }
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_who_is_erased_while_its_message_waits_is_not_called() {
    let world = World::new("t20_erased", Options::default()).await;
    let herald = world.start(&["all"]).await;
    let audience = Audience::of(1, 916, "erased");
    world.import(&audience).await;
    let client: String = sqlx::query_scalar("SELECT id::text FROM clients").fetch_one(&world.db).await.unwrap();
    let fault = json!({"fault": {"retry_after": {"status": 429, "seconds": 8}}, "first_calls": 1});
    world.faults(json!([fault])).await;
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "erased"})).await;
    world.api.reached(&mailing, &["held"], 1).await;
    let answer = world.api.send("DELETE", &format!("/clients/{client}"), None).await.unwrap();
    assert_eq!(answer.status(), 204);

    let shown = world.assert_conserved(&mailing, 1).await;
    assert_eq!(shown["counts"]["cancelled"], 1, "{shown}");
    let message = &world.api.messages(&mailing).await[0];
    assert_eq!((&message["status"], &message["reason"]), (&json!("cancelled"), &json!("erased")));
    let story: Value = world.api.get(&format!("/messages/{}", message["message_id"].as_str().unwrap())).await;
    let steps: Vec<&Value> = story["steps"].as_array().unwrap().iter().map(|step| &step["reason"]).collect();
    assert_eq!(steps, [&json!("throttled"), &json!("throttled")], "told to wait, and held: {story}");
    assert_eq!(world.calls().await.all().count(), 1);
    herald.terminate().await;
    world.clean_up().await;
}
