//! Guarantee 8: Kafka, or Postgres, is away for ten seconds.

use std::time::{Duration, Instant};

use e2e::{Audience, Options, Program, Servers, World};
use serde_json::json;

const TEXT: &str = "text-of-the-eighth-test";
const CLIENTS: usize = 8_000;
const AWAY: Duration = Duration::from_secs(10);

fn slow_provider() -> Vec<(&'static str, String)> {
    vec![("HERALD_SIM_RATE", "500".to_owned()), ("HERALD_SIM_LATENCY", "50ms".to_owned())]
}

async fn start_all(world: &World) -> Vec<Program> {
    let mut programs = vec![];
    for role in ["api", "scheduler", "sender", "projector"] {
        programs.push(world.start(&[role]).await);
    }
    programs
}

async fn finish(world: World, mut programs: Vec<Program>, mailings: &[(&str, usize)], audience: &Audience) {
    for (mailing, clients) in mailings {
        let shown = world.assert_conserved(mailing, *clients).await;
        assert_eq!(shown["counts"]["succeeded"], *clients, "{shown}");
    }
    let all: usize = mailings.iter().map(|(_, clients)| clients).sum();
    assert_eq!(world.calls().await.all().count(), all, "each is called once");
    for program in &mut programs {
        assert!(program.is_running(), "{} has ended", program.name);
        program.ready().await;
    }
    world.assert_secrecy(audience, &[TEXT], &programs.iter().collect::<Vec<_>>()).await;
    for program in programs {
        program.terminate().await;
    }
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_kafka_away_mailings_are_accepted_and_afterwards_nothing_is_lost_or_doubled() {
    let mut servers = Servers::start().await;
    let options = Options { provider: slow_provider(), brokers: Some(servers.brokers()), ..Options::default() };
    let world = World::new("t08_kafka", options).await;
    let programs = start_all(&world).await;
    let audience = Audience::of(CLIENTS, 916, "first").and(500, 917, "second");
    world.import(&audience).await;
    let first = world.api.create_mailing(&json!({"text": TEXT, "filter": "first"})).await;
    world.accepted(world.random(1_000..2_000)).await;

    servers.stop_kafka().await;
    let stopped = Instant::now();
    let second = world.api.create_mailing(&json!({"text": TEXT, "filter": "second"})).await;
    println!("a mailing was accepted {} ms after Kafka had stopped", stopped.elapsed().as_millis());
    tokio::time::sleep_until((stopped + AWAY).into()).await;
    let before = world.provider_stats().await["calls"].as_u64().unwrap();
    servers.start_kafka().await;
    let back = Instant::now();
    world.accepted(before + 1).await;
    println!("calls resumed {} ms after Kafka was back", back.elapsed().as_millis());

    finish(world, programs, &[(&first, CLIENTS), (&second, 500)], &audience).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_postgres_away_the_api_says_so_and_senders_go_on() {
    let mut servers = Servers::start().await;
    let options = Options { provider: slow_provider(), postgres: Some(servers.url()), ..Options::default() };
    let world = World::new("t08_postgres", options).await;
    let programs = start_all(&world).await;
    let audience = Audience::of(CLIENTS, 916, "first");
    world.import(&audience).await;
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "first"})).await;
    world.accepted(world.random(1_000..2_000)).await;

    servers.stop_postgres().await;
    let stopped = Instant::now();
    let before = world.provider_stats().await["distinct_accepted"].as_u64().unwrap();
    for (method, path, body) in [
        ("POST", "/mailings", Some(json!({"text": TEXT, "filter": "first"}))),
        ("GET", "/mailings", None),
        ("GET", "/statistics", None),
    ] {
        let asked = Instant::now();
        let answer = world.api.send(method, path, body.as_ref()).await.unwrap();
        println!("{method} {path} without Postgres took {} ms; 1,000 are promised", asked.elapsed().as_millis());
        assert!(asked.elapsed() < Duration::from_secs(3));
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key("retry-after"));
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    // A quarter of the least that lies on the conveyor.
    world.accepted(before + 250).await;
    tokio::time::sleep_until((stopped + AWAY).into()).await;
    servers.start_postgres().await;
    let back = Instant::now();
    let before = world.provider_stats().await["distinct_accepted"].as_u64().unwrap();
    world.accepted(before + 1).await;
    println!("calls resumed {} ms after Postgres was back", back.elapsed().as_millis());

    finish(world, programs, &[(&mailing, CLIENTS)], &audience).await;
}
