//! What a sender makes of the log of one that died; the test wrote it in its place.

#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use chrono::{DateTime, TimeDelta, Utc};
use common::{Stage, mailing, reason};
use domain::mailing::Delivery;
use domain::status::{Reason, Status};
use events::{Kind, StatusEvent};
use support::{Senders, Taken};

/// A call of an `at_most_once` message was about to begin.
fn started(taken: &Taken, attempt: i32, announced: i32) -> StatusEvent {
    StatusEvent { kind: Kind::Started, attempt, announced, ..taken.settled(Status::Created, None) }
}

/// That call wasn't made.
fn not_called(taken: &Taken, announced: i32) -> StatusEvent {
    StatusEvent { kind: Kind::Open, attempt: 0, announced, ..taken.settled(Status::Created, None) }
}

/// So many calls have failed, or it was told to wait.
fn waits(taken: &Taken, attempt: i32, announced: i32, why: Reason, until: DateTime<Utc>) -> StatusEvent {
    let told = taken.settled(Status::Retrying, Some(why));
    StatusEvent { kind: Kind::Open, attempt, announced, not_before: Some(until), ..told }
}

/// Plays what a dead sender left, with its commit or without, and looks at what the next one does.
async fn take_over(committed: bool) {
    let stage = Stage::new().await;
    let least = mailing(1);
    let once = common::Mailing { delivery: Delivery::AtMostOnce, ..mailing(2) };
    stage.publish(&least).await;
    stage.publish(&once).await;
    let messages = [&least, &least, &least, &least, &least, &once, &once, &once, &once];
    stage.plan((1..).zip(messages).map(|(client_no, mailing)| mailing.message(client_no))).await;
    let mut dead = Senders::new(&stage.installation).await;
    let taken = dead.take().await;
    let [_untold, settled, retried, throttled, other, doubtful, taken_back, answered, doubtful_again] = &taken[..]
    else {
        panic!("{taken:?}");
    };
    let now = Utc::now();
    let (soon, late) = (now + TimeDelta::seconds(4), now + TimeDelta::seconds(50));
    let of_other =
        StatusEvent { message_id: mailing(3).message(1).message_id, ..other.settled(Status::Succeeded, None) };
    let error = Reason::ProviderError;
    let left = [
        settled.settled(Status::Succeeded, None),
        waits(retried, 1, 0, error.clone(), now),
        waits(retried, 2, 0, error.clone(), soon),
        // A copy that came late.
        waits(retried, 1, 0, error.clone(), now),
        waits(throttled, 0, 0, Reason::Throttled, late),
        of_other,
        started(doubtful, 1, 1),
        started(taken_back, 1, 1),
        not_called(taken_back, 1),
        started(answered, 1, 1),
        waits(answered, 1, 1, error.clone(), now),
        started(doubtful_again, 1, 1),
        waits(doubtful_again, 1, 1, error, now),
        started(doubtful_again, 2, 2),
    ];
    stage.installation.tell(&left).await;
    if committed {
        dead.commit_open(taken[0].source).await;
    }

    let sender = stage.sender().await;
    let ends = stage.settled(2 + 8).await;
    let expected = [
        ("nothing was told of it", "succeeded", "-", 1, 1),
        ("it was settled", "succeeded", "-", 1, 0),
        ("its third call", "succeeded", "-", 3, 1),
        ("it waits for long", "held", "throttled", 0, 0),
        ("another was settled at its offset", "succeeded", "-", 1, 1),
        ("in doubt", "unknown", "sender_lost", 1, 0),
        ("taken back", "succeeded", "-", 1, 1),
        ("answered", "succeeded", "-", 2, 1),
        ("in doubt at its second call", "unknown", "sender_lost", 2, 0),
    ];
    for (taken, (name, status, why, attempt, calls)) in taken.iter().zip(expected) {
        let told: Vec<&StatusEvent> = ends.iter().filter(|event| event.message_id == taken.event.message_id).collect();
        let [end] = told[..] else { panic!("{name}: {told:?}") };
        assert_eq!((end.status.as_str(), reason(end), end.attempt), (status, why, attempt), "{name}");
        let made = stage.provider.calls(taken.event.message_id.get());
        assert_eq!(made.len(), calls, "{name}");
        assert_eq!(end.source, taken.source, "{name}");
        if end.attempt == 3 {
            assert!(made[0].begun_at >= soon.timestamp_micros(), "{name}: it waits as long as it was told");
        }
        if end.status == Status::Held {
            let kept = end.not_before.unwrap() - late;
            assert!(kept.abs() < TimeDelta::milliseconds(1), "{name}: {kept}");
        }
    }
    let announced =
        |taken: &Taken| ends.iter().find(|event| event.message_id == taken.event.message_id).unwrap().announced;
    assert_eq!([taken_back, answered].map(announced), [2, 2], "announcements are counted on");
    assert_eq!(stage.accepted(), 5);
    // The dead one counted nine calls.
    let calls = if committed { "calls=14 " } else { "calls=5 " };
    stage.committed_as(9, calls).await;
    stage.leave([sender]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_owner_goes_on_where_a_dead_one_was() {
    take_over(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_commit_the_next_owner_finds_the_same_in_the_logs() {
    take_over(false).await;
}
