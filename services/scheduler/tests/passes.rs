//! What is held is planned again, or settled when nobody may call any more.

#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use common::{
    add_clients, add_mailing, end, held, held_rows, hold_all, installation, is_finished, reasons, release, start,
    start_projector, state, succeeded,
};
use events::topics::Topic;
use events::{MessageEvent, ProgressRecord};
use support::{Senders, until};

const HOUR: TimeDelta = TimeDelta::hours(1);

#[tokio::test(flavor = "multi_thread")]
async fn each_held_message_is_planned_again_once_as_postgres_says_then() {
    let installation = installation().await;
    add_clients(&installation, "readers", 3_000).await;
    let mailing = add_mailing(&installation, "readers", HOUR).await;
    let (scheduler, projector) = (start(&installation).await, start_projector(&installation).await);
    let mut senders = Senders::new(&installation).await;
    let mut rounds = hold_all(&installation, &mut senders, 3_000).await;
    assert!(!is_finished(&installation, &mailing).await);
    sqlx::query("UPDATE clients SET phone_number = 79990000007, mobile_operator_code = 999 WHERE client_no = 7")
        .execute(&installation.pool)
        .await
        .unwrap();
    let due = Utc::now();
    release(&installation).await;
    let mut seventh: Option<MessageEvent> = None;
    until("it is finished", async || {
        let taken = senders.work(succeeded).await;
        rounds.add(&taken);
        seventh = taken
            .into_iter()
            .map(|taken| taken.event)
            .find(|event| event.message_id.client_no().get() == 7)
            .or(seventh.take());
        is_finished(&installation, &mailing).await
    })
    .await;
    rounds.assert_each(3_000, &[1, 2]);
    let seventh = seventh.unwrap();
    assert!(seventh.planned_at >= due);
    assert_eq!((seventh.phone, seventh.operator_code, seventh.attempts), (Some(79_990_000_007), 999, 1));
    let progress: Vec<ProgressRecord> = installation.events(Topic::PlanningProgress).await;
    let last = progress.last().unwrap();
    assert_eq!((last.planned, last.emitted, last.again), (3_000, 6_000, 3_000));
    installation.assert_conserved().await;
    scheduler.stop().await;
    projector.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_waits_until_what_the_last_one_planned_has_come_back() {
    let installation = installation().await;
    add_clients(&installation, "readers", 500).await;
    let mailing = add_mailing(&installation, "readers", HOUR).await;
    let (scheduler, projector) = (start(&installation).await, start_projector(&installation).await);
    let mut senders = Senders::new(&installation).await;
    let mut rounds = hold_all(&installation, &mut senders, 500).await;
    release(&installation).await;
    let mut second = vec![];
    until("the second round is planned", async || {
        second.extend(senders.take().await);
        second.len() == 500
    })
    .await;
    rounds.add(&second);
    // Postgres says for longer than the interval of passes that the first round is held.
    projector.stop().await;
    let statuses: Vec<_> = second.iter().map(|taken| held(taken, Utc::now())).collect();
    installation.tell(&statuses).await;
    senders.commit().await;
    tokio::time::sleep(Duration::from_secs(13)).await;
    rounds.add(&senders.take().await);
    rounds.assert_each(500, &[1, 2]);
    let projector = start_projector(&installation).await;
    until("it is finished", async || {
        rounds.add(&senders.work(succeeded).await);
        is_finished(&installation, &mailing).await
    })
    .await;
    rounds.assert_each(500, &[1, 2, 3]);
    installation.assert_conserved().await;
    scheduler.stop().await;
    projector.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_slow_message_stops_neither_pages_nor_passes() {
    let installation = installation().await;
    add_clients(&installation, "readers", 2_000).await;
    let mailing = add_mailing(&installation, "readers", HOUR).await;
    let (scheduler, projector) = (start(&installation).await, start_projector(&installation).await);
    let mut senders = Senders::new(&installation).await;
    let (mut slow, mut planned_again, mut planned) = (None, 0, 0);
    until("all others are through", async || {
        let taken = senders.take().await;
        let mut statuses = vec![];
        for taken in &taken {
            planned += usize::from(taken.event.round == 1);
            planned_again += usize::from(taken.event.round == 2);
            match taken.event.message_id.client_no().get() {
                1 => slow = Some(taken.clone()),
                client if client % 10 == 0 && taken.event.round == 1 => statuses.push(held(taken, Utc::now())),
                _ => statuses.push(succeeded(taken)),
            }
        }
        installation.tell(&statuses).await;
        match &slow {
            Some(slow) => senders.commit_open(slow.source).await,
            None => senders.commit().await,
        }
        (planned, planned_again) == (2_000, 200)
    })
    .await;
    installation.caught_up().await;
    assert!(!is_finished(&installation, &mailing).await);
    installation.tell(&[succeeded(&slow.unwrap())]).await;
    until("it is finished", async || is_finished(&installation, &mailing).await).await;
    scheduler.stop().await;
    projector.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_at_the_end_expires_without_a_message_event() {
    let installation = installation().await;
    add_clients(&installation, "readers", 500).await;
    let mailing = add_mailing(&installation, "readers", HOUR).await;
    let (scheduler, projector) = (start(&installation).await, start_projector(&installation).await);
    let mut senders = Senders::new(&installation).await;
    let rounds = hold_all(&installation, &mut senders, 500).await;
    end(&installation, &mailing).await;
    until("it is finished", async || is_finished(&installation, &mailing).await).await;
    assert_eq!(reasons(&installation).await, [("expired".to_owned(), Some("ended".to_owned()), 500)]);
    assert_eq!(installation.records(Topic::MessageEvents).await.len(), 500);
    rounds.assert_each(500, &[1]);
    installation.assert_conserved().await;
    scheduler.stop().await;
    projector.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_when_a_mailing_is_cancelled_is_cancelled() {
    let installation = installation().await;
    add_clients(&installation, "readers", 500).await;
    let mailing = add_mailing(&installation, "readers", HOUR).await;
    let (scheduler, projector) = (start(&installation).await, start_projector(&installation).await);
    let mut senders = Senders::new(&installation).await;
    hold_all(&installation, &mut senders, 500).await;
    sqlx::query("UPDATE mailings SET state = 'cancelled', version = version + 1 WHERE mailing_no = $1")
        .bind(mailing.no)
        .execute(&installation.pool)
        .await
        .unwrap();
    until("it is through", async || {
        let through = "SELECT finished_at IS NOT NULL FROM mailings WHERE mailing_no = $1";
        sqlx::query_scalar(through).bind(mailing.no).fetch_one(&installation.pool).await.unwrap()
    })
    .await;
    assert_eq!(state(&installation, &mailing).await, "cancelled");
    let expected = [("cancelled".to_owned(), Some("mailing_cancelled".to_owned()), 500)];
    assert_eq!(reasons(&installation).await, expected);
    assert_eq!(installation.records(Topic::MessageEvents).await.len(), 500);
    installation.assert_conserved().await;
    scheduler.stop().await;
    projector.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_erased_while_held_is_not_planned_again() {
    let installation = installation().await;
    add_clients(&installation, "readers", 100).await;
    let mailing = add_mailing(&installation, "readers", HOUR).await;
    let (scheduler, projector) = (start(&installation).await, start_projector(&installation).await);
    let mut senders = Senders::new(&installation).await;
    let mut rounds = hold_all(&installation, &mut senders, 100).await;
    let erase = "UPDATE clients SET deleted_at = now(), phone_number = NULL, mobile_operator_code = NULL, tag = NULL,
                                    time_zone = NULL WHERE client_no <= 30";
    sqlx::query(erase).execute(&installation.pool).await.unwrap();
    release(&installation).await;
    until("it is finished", async || {
        rounds.add(&senders.work(succeeded).await);
        is_finished(&installation, &mailing).await
    })
    .await;
    let (again, once): (Vec<_>, Vec<_>) = rounds.0.iter().partition(|(_, rounds)| rounds.len() == 2);
    assert_eq!((again.len(), once.len()), (70, 30));
    assert!(once.iter().all(|(client_no, _)| **client_no <= 30));
    let expected = [("cancelled".to_owned(), Some("erased".to_owned()), 30), ("succeeded".to_owned(), None, 70)];
    assert_eq!(reasons(&installation).await, expected);
    installation.assert_conserved().await;
    scheduler.stop().await;
    projector.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_that_is_not_planned_by_the_end_expires_within_a_minute() {
    const CLIENTS: i64 = 200_000;
    let installation = installation().await;
    add_clients(&installation, "readers", CLIENTS).await;
    let mailing = add_mailing(&installation, "readers", HOUR).await;
    let (scheduler, projector) = (start(&installation).await, start_projector(&installation).await);
    let mut senders = Senders::new(&installation).await;
    let mut sent = 0;
    until("a part is sent", async || {
        sent += senders.work(succeeded).await.len();
        sent >= 1_000
    })
    .await;
    end(&installation, &mailing).await;
    let ended = Instant::now();
    until("it is finished", async || {
        sent += senders.work(succeeded).await.len();
        is_finished(&installation, &mailing).await
    })
    .await;
    println!("finished {:?} after the end, {sent} were sent", ended.elapsed());
    assert!(ended.elapsed() < Duration::from_secs(60));
    let sent = i64::try_from(sent).unwrap();
    let expected =
        [("expired".to_owned(), Some("ended".to_owned()), CLIENTS - sent), ("succeeded".to_owned(), None, sent)];
    assert_eq!(reasons(&installation).await, expected);
    assert_eq!(installation.records(Topic::MessageEvents).await.len() as i64, sent);
    installation.assert_conserved().await;
    scheduler.stop().await;
    projector.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_lane_gets_one_message_a_pass_to_probe_with() {
    let installation = installation().await;
    add_clients(&installation, "readers", 1_000).await;
    let mailing = add_mailing(&installation, "readers", HOUR).await;
    let (scheduler, projector) = (start(&installation).await, start_projector(&installation).await);
    let mut senders = Senders::new(&installation).await;
    hold_all(&installation, &mut senders, 1_000).await;
    senders.commit_closed("900").await;
    // The planner looks at the lanes more often than this.
    tokio::time::sleep(Duration::from_secs(2)).await;
    release(&installation).await;
    let mut again: BTreeMap<i16, usize> = BTreeMap::new();
    let mut take = async |senders: &mut Senders<'_>, closed: &str, probe_succeeds: bool| {
        let taken = senders.take().await;
        let statuses: Vec<_> = taken
            .iter()
            .map(|taken| {
                *again.entry(taken.event.operator_code).or_default() += 1;
                let bad = taken.event.operator_code == 900 && !probe_succeeds;
                if bad { held(taken, Utc::now()) } else { succeeded(taken) }
            })
            .collect();
        installation.tell(&statuses).await;
        senders.commit_closed(closed).await;
        again.clone()
    };
    until("the other lanes are through", async || {
        let again = take(&mut senders, "900", false).await;
        (901..=904).all(|code| again.get(&code) == Some(&200))
    })
    .await;
    let probes = take(&mut senders, "900", false).await.get(&900).copied().unwrap_or(0);
    assert!(probes <= 2, "{probes}");
    until("there is another probe", async || take(&mut senders, "900", false).await[&900] > probes).await;
    assert!(held_rows(&installation).await >= 199);
    until("it is finished", async || {
        take(&mut senders, "-", true).await;
        is_finished(&installation, &mailing).await
    })
    .await;
    installation.assert_conserved().await;
    scheduler.stop().await;
    projector.stop().await;
    installation.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_all_lanes_are_closed_a_small_page_is_planned_each_ten_seconds() {
    let installation = installation().await;
    add_clients(&installation, "readers", 5_000).await;
    let mut senders = Senders::new(&installation).await;
    senders.commit_closed("all").await;
    add_mailing(&installation, "readers", HOUR).await;
    add_mailing(&installation, "readers", HOUR).await;
    let (scheduler, projector) = (start(&installation).await, start_projector(&installation).await);
    let mut planned: BTreeMap<i64, usize> = BTreeMap::new();
    let mut work = async |senders: &mut Senders<'_>| {
        let taken = senders.take().await;
        for taken in taken.iter().filter(|taken| taken.event.round == 1) {
            *planned.entry(taken.event.message_id.mailing_no().get()).or_default() += 1;
        }
        let statuses: Vec<_> = taken.iter().map(|taken| held(taken, Utc::now() + HOUR)).collect();
        installation.tell(&statuses).await;
        senders.commit_closed("all").await;
        planned.clone()
    };
    until("the first page is planned", async || !work(&mut senders).await.is_empty()).await;
    let began = Instant::now();
    until("the other mailing has its turn", async || work(&mut senders).await.len() == 2).await;
    assert!(began.elapsed() > Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(work(&mut senders).await.into_values().collect::<Vec<_>>(), [250, 250]);
    scheduler.stop().await;
    projector.stop().await;
    installation.delete().await;
}
