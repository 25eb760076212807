//! SIGKILL at any step of a pass and of what is settled at the end.
//!
//! Each kill is of a process of its own: this binary again, with the ignored test below, which is a scheduler. It dies at a
//! failpoint, and the next one goes on.

#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chrono::TimeDelta;
use common::{
    PARTITIONS, add_clients, add_later_mailing, add_mailing, hold_all, installation, is_finished, reasons, release,
    start, start_projector, succeeded,
};
use support::{Installation, Senders, until};

const NAME: &str = "HERALD_TEST_SCHEDULER";

/// Between reading and writing, in the open transaction, and before anything remembers that it was committed.
const STEPS: [&str; 3] = ["pass::read", "transaction::written", "pass::committed"];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the process that the tests kill"]
async fn scheduler_process() {
    let Ok(name) = std::env::var(NAME) else { return };
    runtime::crash::arm();
    let service = runtime::Service::new();
    let metrics = kafka::Metrics::register(&service.registry).unwrap();
    // The group waits for each that was killed.
    let timeouts = [("session.timeout.ms", "2000"), ("heartbeat.interval.ms", "500")];
    let kafka = support::client(&name, PARTITIONS, &timeouts);
    scheduler::start(&kafka, support::database_pool(&name), &metrics, &service).await.unwrap();
    runtime::run(([127, 0, 0, 1], 0).into(), service, Duration::from_secs(20)).await.unwrap();
}

fn spawn(installation: &Installation, failpoints: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "scheduler_process", "--ignored"])
        .env(NAME, &installation.name)
        .env("FAILPOINTS", failpoints)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Starts a scheduler that dies at the point, and waits until it has.
async fn dies_at(installation: &Installation, failpoints: &str, mut meanwhile: impl AsyncFnMut()) {
    let mut child = spawn(installation, failpoints);
    until(&format!("it dies at {failpoints}"), async || {
        meanwhile().await;
        child.try_wait().unwrap().is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_of_a_pass_it_plans_each_held_message_once() {
    let installation = installation().await;
    add_clients(&installation, "readers", 3_000).await;
    let mailing = add_mailing(&installation, "readers", TimeDelta::hours(1)).await;
    let (scheduler, projector) = (start(&installation).await, start_projector(&installation).await);
    let mut senders = Senders::new(&installation).await;
    let mut rounds = hold_all(&installation, &mut senders, 3_000).await;
    scheduler.stop().await;
    release(&installation).await;
    for step in STEPS {
        dies_at(&installation, &format!("{step}=return"), async || {
            rounds.add(&senders.work(succeeded).await);
        })
        .await;
    }
    let scheduler = start(&installation).await;
    until("it is finished", async || {
        rounds.add(&senders.work(succeeded).await);
        is_finished(&installation, &mailing).await
    })
    .await;
    rounds.assert_each(3_000, &[1, 2]);
    installation.assert_conserved().await;
    scheduler.stop().await;
    projector.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_settles_the_rest_it_holds_up_no_reader_of_statuses() {
    let installation = installation().await;
    add_clients(&installation, "readers", 30_000).await;
    let projector = start_projector(&installation).await;
    // Its end has passed before a scheduler sees it, so that nothing is planned whose statuses nobody here would write.
    let mailing = add_later_mailing(&installation, "readers", TimeDelta::seconds(-2), TimeDelta::seconds(-1)).await;
    for failpoints in ["plan::committed=return", "transaction::written=1*off->return", "plan::read=2*off->return"] {
        dies_at(&installation, failpoints, async || {}).await;
    }
    let scheduler = start(&installation).await;
    until("it is finished", async || is_finished(&installation, &mailing).await).await;
    assert_eq!(reasons(&installation).await, [("expired".to_owned(), Some("ended".to_owned()), 30_000)]);
    installation.assert_conserved().await;
    scheduler.stop().await;
    projector.stop().await;
    installation.delete().await;
}
