//! Guarantee 16: Postgres is restored to an older state than Kafka's.

use std::collections::BTreeSet;

use chrono::{TimeDelta, Utc};
use e2e::{Audience, Options, Program, Servers, World, eventually};
use events::topics::Topic;
use kafka::Isolation;
use serde_json::{Value, json};

const TEXT: &str = "text-of-the-sixteenth-test";
const CLIENTS: usize = 3_000;
const LATE: usize = 200;

async fn problem(world: &World, method: &str, path: &str, body: &Value) -> (u16, String) {
    let answer = world.api.send(method, path, Some(body)).await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json::<Value>().await.unwrap_or_default()["detail"].as_str().unwrap_or_default().to_owned())
}

/// The api, the scheduler and Postgres itself have come back to each other.
async fn answers(world: &World, mailing: &str) {
    eventually("the api to read again", async || {
        let answer = world.api.send("GET", &format!("/mailings/{mailing}"), None).await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
}

async fn planned(world: &World) -> usize {
    world.records(Topic::MessageEvents, Isolation::Committed).await.len()
}

async fn number(world: &World, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&world.db).await.unwrap()
}

/// Nothing is written or planned, and everything can be read.
async fn assert_closed(world: &World, scheduler: &Program, old: &str) {
    let new = json!({"text": TEXT, "filter": "first"});
    for (method, path, body) in [
        ("POST", "/mailings".to_owned(), &new),
        ("POST", "/clients".to_owned(), &json!({"phone_number": "79160000000"})),
        ("DELETE", format!("/mailings/{old}"), &Value::Null),
    ] {
        let (status, detail) = problem(world, method, &path, body).await;
        assert!(status == 503 && detail.contains("herald recover"), "{method} {path}: {status} {detail}");
    }
    let readyz = format!("http://{}/readyz", scheduler.ops);
    eventually("the scheduler to say why it plans nothing", async || {
        let report = reqwest::get(&readyz).await.ok()?.text().await.ok()?;
        report.contains("Postgres holds an older state than Kafka: run `herald recover`").then_some(())
    })
    .await;
    let before = planned(world).await;
    // The senders empty the conveyor, which is when more would be planned.
    world.accepted(before as u64).await;
    assert_eq!(planned(world).await, before, "nothing is planned");
    for path in ["/mailings", "/statistics", "/clients?limit=1"] {
        world.api.get(path).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_to_an_older_state_nothing_is_written_until_recovery_and_nothing_doubled_or_lost_after() {
    let mut servers = Servers::start().await;
    let provider = vec![("HERALD_SIM_RATE", "800".to_owned())];
    let options = Options { provider, postgres: Some(servers.url()), ..Options::default() };
    let world = World::new("t16", options).await;
    let api = world.start(&["api"]).await;
    let scheduler = world.start(&["scheduler"]).await;
    let others = [world.start(&["sender"]).await, world.start(&["projector"]).await];
    let audience = Audience::of(CLIENTS, 916, "first").and(300, 917, "early");
    world.import(&audience).await;
    let in_an_hour = Utc::now() + TimeDelta::hours(1);
    let later = json!({"text": TEXT, "filter": "first", "starts_at": in_an_hour});
    let (changed, withdrawn) = (world.api.create_mailing(&later).await, world.api.create_mailing(&later).await);
    let half = world.api.create_mailing(&json!({"text": TEXT, "filter": "first"})).await;
    world.accepted(world.random(200..600)).await;
    let running = world.api.create_mailing(&json!({"text": TEXT, "filter": "early"})).await;
    eventually("it to run", async || (world.api.mailing(&running).await["state"] == "running").then_some(())).await;

    servers.stop_postgres().await;
    servers.back_up_postgres();
    servers.start_postgres().await;
    answers(&world, &half).await;

    // What the restored Postgres won't know of.
    let late = Audience::of(LATE, 918, "late");
    world.import(&late).await;
    let lost = world.api.create_mailing(&json!({"text": TEXT, "filter": "first"})).await;
    // The last one is in the other shard. Its planner has forgotten it when it comes back, and meets with nothing else that
    // would make it read the progress again.
    let mut short = vec![];
    for _ in 0..4 {
        short.push(world.api.create_mailing(&json!({"text": TEXT, "filter": "late"})).await);
    }
    assert_eq!(problem(&world, "PATCH", &format!("/mailings/{changed}"), &json!({"text": "new"})).await.0, 200);
    assert_eq!(problem(&world, "DELETE", &format!("/mailings/{withdrawn}"), &Value::Null).await.0, 204);
    for mailing in short.iter().chain([&running]) {
        world.api.finished(mailing).await;
    }
    eventually("the lost one to be planned in part", async || {
        (world.api.mailing(&lost).await["counts"]["planned"].as_u64()? > 0).then_some(())
    })
    .await;
    assert_eq!(world.api.mailing(&lost).await["state"], "running");
    let version = number(&world, "SELECT max(version) FROM mailings WHERE state = 'scheduled'").await;
    let mailing_no = number(&world, "SELECT max(mailing_no) FROM mailings").await;
    let client_no = number(&world, "SELECT max(client_no) FROM clients").await;

    servers.kill_postgres().await;
    servers.restore_postgres();
    servers.start_postgres().await;
    answers(&world, &half).await;
    assert_eq!(problem(&world, "GET", &format!("/mailings/{lost}"), &Value::Null).await.0, 404, "it went back");
    assert_closed(&world, &scheduler, &changed).await;
    // One that begins only now isn't wiser, and says that it publishes nothing.
    api.terminate().await;
    let api = world.start_unready(&["api"]);
    eventually("the api to say why it publishes nothing", async || {
        let unready = api.unready().await?;
        (!unready.is_empty() && unready.iter().all(|why| why.contains("herald recover"))).then_some(())
    })
    .await;
    assert_closed(&world, &scheduler, &changed).await;

    // Killed before it has written anything, and run again.
    world.run(&["recover"], &[("FAILPOINTS", "recover::fenced=return")]).await.unwrap_err();
    assert_closed(&world, &scheduler, &changed).await;
    println!("{}", world.run(&["recover"], &[]).await.unwrap());
    assert!(world.run(&["recover"], &[]).await.unwrap().contains("nothing was changed"));

    let mut sent = 0;
    for (mailing, clients) in [(&half, CLIENTS), (&running, 300), (&lost, CLIENTS)] {
        let shown = world.assert_conserved(mailing, clients).await;
        assert_eq!(shown["counts"]["succeeded"], clients, "{shown}");
        sent += clients;
    }
    for mailing in &short {
        // Its clients are gone, its messages aren't.
        let shown = world.api.finished(mailing).await;
        assert_eq!(
            (&shown["counts"]["planned"], &shown["counts"]["succeeded"]),
            (&json!(LATE), &json!(LATE)),
            "{shown}"
        );
        let distinct: BTreeSet<i64> = world.planned_messages(mailing).await.into_iter().collect();
        assert!(world.rows(mailing).await.keys().eq(&distinct));
        sent += LATE;
    }

    let shown = world.api.mailing(&changed).await;
    assert_eq!((&shown["text"], &shown["state"]), (&json!("new"), &json!("scheduled")), "{shown}");
    assert!(number(&world, "SELECT min(version) FROM mailings WHERE state = 'scheduled'").await > version);
    assert_eq!(problem(&world, "GET", &format!("/mailings/{withdrawn}"), &Value::Null).await.0, 404);

    let anew = Audience::of(100, 919, "anew");
    world.import(&anew).await;
    let next = world.api.create_mailing(&json!({"text": TEXT, "filter": "anew"})).await;
    let shown = world.assert_conserved(&next, 100).await;
    assert_eq!(shown["counts"]["succeeded"], 100, "{shown}");
    assert!(number(&world, "SELECT max(mailing_no) FROM mailings").await > mailing_no);
    assert!(number(&world, "SELECT min(client_no) FROM clients WHERE tag = 'anew'").await > client_no);
    sent += 100;

    assert_eq!(world.calls().await.all().count(), sent, "each is called once");
    assert!(world.records(Topic::DeadLetters, Isolation::Uncommitted).await.is_empty());
    let running: Vec<_> = others.iter().chain([&api, &scheduler]).collect();
    world.assert_secrecy(&audience, &[TEXT], &running).await;
    for mut program in others.into_iter().chain([api, scheduler]) {
        program.ready().await;
        program.terminate().await;
    }
    world.clean_up().await;
}

/// The api refuses a write, for this reason.
async fn doubted(world: &World, reason: &str) {
    let new = json!({"text": TEXT, "filter": "few"});
    let detail = eventually("the api to answer", async || {
        let answer = world.api.send("POST", "/mailings", Some(&new)).await.ok()?;
        assert_eq!(answer.status().as_u16(), 503);
        // It says nothing of a database that isn't there yet.
        let detail = answer.json::<Value>().await.ok()?["detail"].as_str()?.to_owned();
        detail.contains("herald recover").then_some(detail)
    })
    .await;
    assert!(detail.contains(reason), "{detail}");
}

/// The api, which runs, has heard of the recovery.
async fn trusted(world: &World) {
    let client = json!({"phone_number": "79180000000"});
    eventually("the api to write", async || (problem(world, "POST", "/clients", &client).await.0 == 201).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_timeline_and_another_server_are_doubted_until_recovery_though_they_hold_the_same_or_nothing() {
    let mut servers = Servers::start().await;
    let options = Options { postgres: Some(servers.url()), ..Options::default() };
    let mut world = World::new("t16_other", options).await;
    let herald = world.start(&["all"]).await;
    let audience = Audience::of(100, 916, "few");
    world.import(&audience).await;
    let first = world.api.create_mailing(&json!({"text": TEXT, "filter": "few"})).await;
    world.assert_conserved(&first, 100).await;
    let in_an_hour = Utc::now() + TimeDelta::hours(1);
    let later = world.api.create_mailing(&json!({"text": TEXT, "filter": "few", "starts_at": in_an_hour})).await;
    eventually("the events to be published", async || {
        (number(&world, "SELECT count(*) FROM outbox").await == 0).then_some(())
    })
    .await;

    servers.stop_postgres().await;
    servers.promote_postgres();
    servers.start_postgres().await;
    doubted(&world, "has failed over").await;
    // Killed when Postgres is mended and Kafka not told of it.
    world.run(&["recover"], &[("FAILPOINTS", "recover::restored=return")]).await.unwrap_err();
    doubted(&world, "has failed over").await;
    println!("{}", world.run(&["recover"], &[]).await.unwrap());
    trusted(&world).await;
    let second = world.api.create_mailing(&json!({"text": TEXT, "filter": "few"})).await;
    world.assert_conserved(&second, 100).await;
    herald.terminate().await;

    // The same topics beside a server that has nothing but the schema.
    let other = Servers::with_brokers(0).await;
    world.move_to(&other.url()).await;
    let mut herald = world.start_unready(&["all"]);
    doubted(&world, "another Postgres").await;
    println!("{}", world.run(&["recover"], &[]).await.unwrap());
    herald.ready().await;
    trusted(&world).await;
    assert_eq!(world.api.mailing(&later).await["state"], "scheduled");
    for mailing in [&first, &second] {
        let shown = world.api.finished(mailing).await;
        assert_eq!(shown["counts"]["succeeded"], 100, "{shown}");
    }
    world.import(&Audience::of(50, 917, "anew")).await;
    let third = world.api.create_mailing(&json!({"text": TEXT, "filter": "anew"})).await;
    world.assert_conserved(&third, 50).await;
    assert_eq!(world.calls().await.all().count(), 250, "each is called once");
    herald.terminate().await;
    world.clean_up().await;
}
