//! SIGKILL between any two steps of a transaction, and between its commit and Kafka's.
//!
//! Each kill is of a process of its own: this binary again, with the ignored test below, which is a projector.

#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::process::{Child, Command, Stdio};

use chrono::Utc;
use common::{dump, installation, life, rebuild, start};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use support::{Installation, until};
use uuid::Uuid;

const PREFIX: &str = "HERALD_TEST_PROJECTOR";
/// Few enough that each kill leaves most of the log unread.
const BATCH: u32 = 40;
/// What the blocked step waits for.
const GATE: i64 = 4711;

/// A statement of the projector's transaction blocks in its trigger; the commit is the offsets' deferred one.
const STEPS: [(&str, &str); 6] = [
    ("the compare-and-set", "BEFORE INSERT OR UPDATE ON projector_offsets FOR EACH STATEMENT"),
    ("the rows", "BEFORE INSERT ON messages FOR EACH STATEMENT"),
    ("the steps", "BEFORE INSERT ON steps FOR EACH STATEMENT"),
    ("the counts", "BEFORE INSERT ON mailing_counts FOR EACH STATEMENT"),
    ("the settled rounds", "BEFORE INSERT ON mailing_settled_rounds FOR EACH STATEMENT"),
    ("the commit", "AFTER INSERT OR UPDATE ON projector_offsets DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"),
];

#[tokio::test]
#[ignore = "the process that the tests kill"]
async fn projector_process() {
    let Ok(name) = std::env::var(PREFIX) else { return };
    let service = runtime::Service::new();
    let metrics = kafka::Metrics::register(&service.registry).unwrap();
    // The group waits for each that was killed.
    let client = common::client(&name, &[("session.timeout.ms", "2000"), ("heartbeat.interval.ms", "500")]);
    projector::start(common::settings(BATCH), &client, support::database_pool(&name), &metrics, &service)
        .await
        .unwrap();
    runtime::run(([127, 0, 0, 1], 0).into(), service, std::time::Duration::from_secs(20)).await.unwrap();
}

fn spawn(installation: &Installation) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "projector_process", "--ignored"])
        .env(PREFIX, &installation.name)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn run(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_it_has_written_everything_once() {
    let installation = installation().await;
    let mailing = Uuid::now_v7();
    let no = installation.add_mailing(mailing, Utc::now()).await;
    installation.tell(&life(no, mailing, 1..=2000)).await;

    // The gate is a lock of this connection, which is no projector's.
    let mut gate = installation.pool.acquire().await.unwrap().detach();
    run(
        &mut gate,
        &format!(
            "CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN NEW; END $$"
        ),
    )
    .await;
    for (step, trigger) in STEPS {
        // What is still under way at the kill is cut off with the connection, or goes on: both must be right.
        for cut_off in [true, false] {
            run(&mut gate, &format!("SELECT pg_advisory_lock({GATE})")).await;
            let constraint = if trigger.contains("DEFERRABLE") { "CONSTRAINT" } else { "" };
            let create = format!("CREATE {constraint} TRIGGER gate {trigger} EXECUTE FUNCTION wait_at_gate()");
            run(&mut gate, &create).await;
            let child = spawn(&installation);
            let waits = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database =
                         (SELECT oid FROM pg_database WHERE datname = current_database())";
            let mut blocked: Option<i32> = None;
            until(&format!("a projector is at {step}"), async || {
                blocked = sqlx::query_scalar(waits).fetch_optional(&installation.pool).await.unwrap();
                blocked.is_some()
            })
            .await;
            kill(child);
            if cut_off {
                sqlx::query("SELECT pg_terminate_backend($1)").bind(blocked).execute(&installation.pool).await.unwrap();
            }
            run(&mut gate, &format!("SELECT pg_advisory_unlock({GATE})")).await;
            until("its transaction has ended", async || {
                let left = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
                sqlx::query_scalar::<_, i64>(left).bind(blocked).fetch_one(&installation.pool).await.unwrap() == 0
            })
            .await;
            let table = trigger.split(" ON ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
            run(&mut gate, &format!("DROP TRIGGER gate ON {table}")).await;
            installation.assert_conserved().await;
        }
    }
    gate.close().await.unwrap();
    finish(installation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_two_transactions_it_has_written_everything_once() {
    let installation = installation().await;
    let mailing = Uuid::now_v7();
    let no = installation.add_mailing(mailing, Utc::now()).await;
    installation.tell(&life(no, mailing, 1..=2000)).await;
    // Kafka is told each 100 ms: the kill comes before that.
    let written = async || -> i64 {
        sqlx::query_scalar("SELECT coalesce(sum(next_offset), 0)::bigint FROM projector_offsets")
            .fetch_one(&installation.pool)
            .await
            .unwrap()
    };
    for _ in 0..3 {
        let before = written().await;
        let child = spawn(&installation);
        until("something more is written", async || written().await > before).await;
        kill(child);
        installation.assert_conserved().await;
    }
    finish(installation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_comes_and_goes_costs_nothing_but_time() {
    let installation = installation().await;
    let mailing = Uuid::now_v7();
    let no = installation.add_mailing(mailing, Utc::now()).await;
    let told = life(no, mailing, 1..=3000);
    let projector = start(&installation, 40).await;
    let hang_up = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = '{}' AND pid <> pg_backend_pid()",
        installation.name
    );
    for part in told.chunks(200) {
        installation.tell(part).await;
        support::run_on_server(hang_up.clone()).await;
    }
    projector.ready().await;
    installation.caught_up().await;
    projector.stop().await;
    finish(installation).await;
}

/// All is written after all, as a projector that nobody disturbs would have written it.
async fn finish(installation: Installation) {
    let projector = start(&installation, 5000).await;
    installation.caught_up().await;
    projector.stop().await;
    installation.assert_conserved().await;
    let before = dump(&installation).await;
    let projector = rebuild(&installation, 5000).await.unwrap();
    installation.caught_up().await;
    assert_eq!(dump(&installation).await, before);
    projector.stop().await;
    installation.delete().await;
}
