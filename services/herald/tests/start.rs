//! What the binary says when it can't start, and when it starts all the same.
#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use devstack::{Kafka, KafkaConfig, free_ports};
use events::topics::Topics;
use kafka::{Admin, Cluster};
use sqlx::PgPool;

const PATIENCE: Duration = Duration::from_secs(60);

/// With these variables and no others of ours, in a directory without `.env`.
fn herald(args: &[&str], variables: &[(&str, &str)], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_herald"));
    command.args(args).current_dir(dir).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("HERALD_") || text == "DATABASE_URL" {
            command.env_remove(&name);
        }
    }
    command.env("HERALD_PROVIDER_TOKEN", "t0ken").env("HERALD_OPS_ADDR", "127.0.0.1:0");
    command.envs(variables.iter().copied());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn url(pool: &PgPool) -> String {
    let options = pool.connect_options();
    let (user, host, port) = (options.get_username(), options.get_host(), options.get_port());
    format!("postgres://{user}@{host}:{port}/{}", options.get_database().unwrap())
}

fn brokers() -> String {
    std::env::var("HERALD_TEST_KAFKA_BROKERS").unwrap_or_else(|_| "127.0.0.1:19092".to_owned())
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn topics_that_are_missing_or_differ_end_the_process_in_one_sentence(pool: PgPool) {
    let dir = tempfile::tempdir().unwrap();
    let (url, brokers, prefix) = (url(&pool), brokers(), format!("start_{}", uuid::Uuid::now_v7().simple()));
    let variables = [
        ("DATABASE_URL", url.as_str()),
        ("HERALD_KAFKA_BROKERS", &brokers),
        ("HERALD_TOPIC_PREFIX", &prefix),
        ("HERALD_TOPIC_PARTITIONS", "3"),
        ("HERALD_API_ADDR", "127.0.0.1:0"),
    ];
    for program in ["api", "all"] {
        let output = herald(&[program], &variables, dir.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{program}");
        let sentence = text(&output).lines().last().unwrap().to_owned();
        assert!(sentence.ends_with("is missing: run `herald topics`"), "{program}: {sentence}");
    }

    let admin = Admin::new(&Cluster::new(Topics::new(&prefix, Some(2)), &brokers, vec![], "test")).unwrap();
    admin.create_topics(1).await.unwrap();
    for program in ["api", "all"] {
        let output = herald(&[program], &variables, dir.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{program}");
        assert!(text(&output).contains("has 2 partitions instead of 3"), "{program}: {}", text(&output));
    }
    admin.delete_topics().await.unwrap();
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn without_kafka_the_api_answers_and_says_why_it_is_not_ready(pool: PgPool) {
    let dir = tempfile::tempdir().unwrap();
    let url = url(&pool);
    for (program, part) in [("api", "relay"), ("all", "topics")] {
        let [api, ops] = [free_addr(), free_addr()];
        let variables = [
            ("DATABASE_URL", url.as_str()),
            // Nothing listens on port 1.
            ("HERALD_KAFKA_BROKERS", "127.0.0.1:1"),
            ("HERALD_API_ADDR", &api),
            ("HERALD_OPS_ADDR", &ops),
        ];
        let child = herald(&[program], &variables, dir.path()).stderr(Stdio::null()).spawn().unwrap();
        let mut running = Running(child);
        let answer = eventually(&format!("http://{api}/api/v1/mailings"), |code, _| code == 200).await;
        assert!(answer.contains("next_cursor"), "{program}: {answer}");
        let why = eventually(&format!("http://{ops}/readyz"), |code, body| {
            let report: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
            let parts = report["parts"].as_array().cloned().unwrap_or_default();
            let told = |it: &serde_json::Value| it["name"] == part && it["ok"] == false && it["state"] != "starting";
            code == 503 && parts.iter().any(told)
        })
        .await;
        println!("{program}: {why}");
        assert!(running.0.try_wait().unwrap().is_none(), "{program} has ended");
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn all_services_begin_when_kafka_comes(pool: PgPool) {
    let dir = tempfile::tempdir().unwrap();
    let [port, controller_port] = free_ports().unwrap();
    let (url, brokers, ops) = (url(&pool), format!("127.0.0.1:{port}"), free_addr());
    let variables = [
        ("DATABASE_URL", url.as_str()),
        ("HERALD_KAFKA_BROKERS", &brokers),
        ("HERALD_API_ADDR", "127.0.0.1:0"),
        ("HERALD_OPS_ADDR", &ops),
    ];
    let _running = Running(herald(&["all"], &variables, dir.path()).stderr(Stdio::null()).spawn().unwrap());
    let readyz = format!("http://{ops}/readyz");
    eventually(&readyz, |code, body| code == 503 && body.contains("topics")).await;

    let config = KafkaConfig::alone(dir.path().join("kafka"), port, controller_port);
    let kafka = tokio::task::spawn_blocking(move || Kafka::start(&config)).await.unwrap().unwrap();
    let admin = Admin::new(&Cluster::new(Topics::new("herald", None), &brokers, vec![], "test")).unwrap();
    admin.create_topics(1).await.unwrap();
    let report = eventually(&readyz, |code, _| code == 200).await;
    for part in ["relay", "topics", "planning", "board"] {
        assert!(report.contains(part), "{report}");
    }
    drop(kafka);
}

fn free_addr() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// The body of the first answer that will do.
async fn eventually(url: &str, will_do: impl Fn(u16, &str) -> bool) -> String {
    let begun = Instant::now();
    loop {
        if let Ok(answer) = reqwest::get(url).await {
            let (code, body) = (answer.status().as_u16(), answer.text().await.unwrap());
            if will_do(code, &body) {
                return body;
            }
        }
        assert!(begun.elapsed() < PATIENCE, "no good answer from {url}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
