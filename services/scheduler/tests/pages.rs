//! Pages, turns, and the conveyor.

#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use common::{
    add_clients, add_later_mailing, add_mailing, installation, is_finished, start, start_projector, succeeded,
    waiting_for,
};
use events::ProgressRecord;
use events::topics::Topic;
use kafka::TransactionalProducer;
use support::{Senders, until};

const HOUR: TimeDelta = TimeDelta::hours(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_due_mailing_is_planned_whole_and_finished_when_all_of_it_is_settled() {
    let installation = installation().await;
    add_clients(&installation, "readers", 3_000).await;
    add_clients(&installation, "others", 100).await;
    let mailing = add_mailing(&installation, "readers", HOUR).await;
    let (scheduler, projector) = (start(&installation).await, start_projector(&installation).await);
    let mut senders = Senders::new(&installation).await;
    let mut rounds: BTreeMap<i64, Vec<i32>> = BTreeMap::new();
    until("it is finished", async || {
        for taken in senders.work(succeeded).await {
            rounds.entry(taken.event.message_id.client_no().get()).or_default().push(taken.event.round);
        }
        is_finished(&installation, &mailing).await
    })
    .await;
    assert_eq!(rounds.keys().copied().collect::<Vec<_>>(), (1..=3_000).collect::<Vec<_>>());
    assert!(rounds.values().all(|rounds| rounds == &[1]));
    let progress: Vec<ProgressRecord> = installation.events(Topic::PlanningProgress).await;
    let last = progress.last().unwrap();
    assert_eq!((last.planned, last.emitted, last.complete), (3_000, 3_000, true));
    assert!(progress.is_sorted_by_key(|progress| progress.cursor));
    installation.assert_conserved().await;
    scheduler.stop().await;
    projector.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_conveyor_is_filled_and_no_further_until_senders_settle() {
    let installation = installation().await;
    add_clients(&installation, "readers", 5_000).await;
    let mailing = add_mailing(&installation, "readers", HOUR).await;
    let scheduler = start(&installation).await;
    until("it waits for senders", async || waiting_for(&installation, &mailing).await.as_deref() == Some("senders"))
        .await;
    let on_conveyor = installation.records(Topic::MessageEvents).await.len();
    assert!((1..=1_000).contains(&on_conveyor), "{on_conveyor}");
    let mut senders = Senders::new(&installation).await;
    senders.work(succeeded).await;
    until("there is more", async || installation.records(Topic::MessageEvents).await.len() > on_conveyor).await;
    scheduler.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mailings_of_a_shard_get_pages_in_turn() {
    let installation = installation().await;
    add_clients(&installation, "readers", 20_000).await;
    let mailings = [
        add_mailing(&installation, "readers", HOUR).await,
        add_mailing(&installation, "readers", HOUR).await,
        add_mailing(&installation, "readers", HOUR).await,
    ];
    let scheduler = start(&installation).await;
    let mut senders = Senders::new(&installation).await;
    let mut planned: BTreeMap<i64, usize> = BTreeMap::new();
    until("each has a thousand", async || {
        for taken in senders.work(succeeded).await {
            *planned.entry(taken.event.message_id.mailing_no().get()).or_default() += 1;
        }
        mailings.iter().all(|mailing| planned.get(&mailing.no).is_some_and(|planned| *planned >= 1_000))
    })
    .await;
    let turns: Vec<i64> = installation
        .events::<ProgressRecord>(Topic::PlanningProgress)
        .await
        .into_iter()
        .filter(|progress| progress.cursor.get() > 0)
        .map(|progress| progress.mailing_no.get())
        .collect();
    assert!(turns.windows(2).all(|turns| turns[0] != turns[1]), "{turns:?}");
    scheduler.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_owner_plans_nothing_and_takes_its_shard_over_again() {
    let installation = installation().await;
    add_clients(&installation, "readers", 5_000).await;
    let mailing = add_mailing(&installation, "readers", HOUR).await;
    let (scheduler, projector) = (start(&installation).await, start_projector(&installation).await);
    let mut senders = Senders::new(&installation).await;
    until("a page is planned", async || !senders.take().await.is_empty()).await;

    let kafka = installation.kafka.clone();
    let fence = move || {
        let other = TransactionalProducer::planner(&kafka, 0).unwrap();
        other.init(Duration::from_secs(30)).unwrap();
    };
    tokio::task::spawn_blocking(fence).await.unwrap();
    drop(senders);
    let mut senders = Senders::new(&installation).await;
    let mut planned = vec![];
    until("it is finished", async || {
        planned.extend(senders.work(succeeded).await.into_iter().map(|taken| taken.event.message_id.client_no().get()));
        is_finished(&installation, &mailing).await
    })
    .await;
    planned.sort_unstable();
    assert_eq!(planned, (1..=5_000).collect::<Vec<_>>());
    scheduler.stop().await;
    projector.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailing_whose_row_is_locked_holds_up_no_other_of_its_shard() {
    let installation = installation().await;
    add_clients(&installation, "many", 200_000).await;
    add_clients(&installation, "few", 100).await;
    add_mailing(&installation, "many", HOUR).await;
    let (scheduler, projector) = (start(&installation).await, start_projector(&installation).await);
    let mut senders = Senders::new(&installation).await;
    until("the large one is under way", async || !senders.work(succeeded).await.is_empty()).await;

    let locked = {
        let mut holder = installation.pool.begin().await.unwrap();
        // It becomes due when its row is locked.
        let locked = add_later_mailing(&installation, "few", TimeDelta::seconds(2), HOUR).await;
        sqlx::query("SELECT FROM mailings WHERE mailing_no = $1 FOR UPDATE")
            .bind(locked.no)
            .execute(&mut *holder)
            .await
            .unwrap();
        let small = add_later_mailing(&installation, "few", TimeDelta::seconds(3), HOUR).await;
        let began = Instant::now();
        until("the small one is finished", async || {
            senders.work(succeeded).await;
            is_finished(&installation, &small).await
        })
        .await;
        // It begins in 3 s. Whoever waits for the row as Postgres' clients do by default waits for 10.
        println!("the small one took {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
        until("the locked one says so", async || {
            waiting_for(&installation, &locked).await.as_deref() == Some("database")
        })
        .await;
        holder.rollback().await.unwrap();
        locked
    };
    until("the locked one is finished after all", async || {
        senders.work(succeeded).await;
        is_finished(&installation, &locked).await
    })
    .await;
    scheduler.stop().await;
    projector.stop().await;
    installation.delete().await;
}
