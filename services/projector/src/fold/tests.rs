use chrono::{DateTime, TimeDelta};
use domain::status::Reason;
use events::Source;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn mailing() -> MailingNo {
    42.into()
}

fn event(client_no: i64, round: i32, status: Status, attempt: i32) -> StatusEvent {
    let kind = if status.is_settled() { Kind::Settled } else { Kind::Open };
    StatusEvent {
        message_id: MessageId::new(mailing(), client_no.into()).unwrap(),
        mailing_id: Uuid::nil(),
        client_id: Uuid::from_u128(client_no as u128),
        round,
        attempt,
        announced: 0,
        kind,
        reason: (status == Status::Failed).then_some(Reason::Exhausted),
        status,
        code: None,
        latency_ms: None,
        not_before: None,
        operator_code: None,
        detail: None,
        planned_at: DateTime::UNIX_EPOCH,
        occurred_at: DateTime::UNIX_EPOCH,
        source: Source { partition: 0, offset: 0 },
    }
}

/// The tables, in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tables {
    rows: BTreeMap<(MailingNo, ClientNo), MessageRow>,
    steps: BTreeMap<(i32, i64), StepRow>,
    held: BTreeMap<MessageId, HeldRow>,
    held_counts: BTreeMap<(MailingNo, i32, String), i64>,
    counts: BTreeMap<(MailingNo, i32, String), i64>,
    settled_rounds: BTreeMap<(MailingNo, i32), SettledRounds>,
}

type Log = Vec<(i32, i64, StatusEvent)>;

impl Tables {
    fn write(&mut self, batch: &[(i32, i64, StatusEvent)]) {
        let mut fold = Fold::over(self.rows.values().cloned().collect());
        for (partition, offset, event) in batch {
            fold.apply(*partition, *offset, event);
        }
        for row in fold.changed_rows() {
            self.rows.insert((row.mailing_no, row.client_no), row.clone());
        }
        for row in fold.held_rows() {
            self.held.insert(MessageId::new(row.mailing_no, row.client_no).unwrap(), row.clone());
        }
        for message in fold.released() {
            self.held.remove(&message);
        }
        for (key, n) in std::mem::take(&mut fold.held_counts) {
            *self.held_counts.entry(key).or_default() += n;
        }
        for step in fold.steps {
            self.steps.entry((step.status_partition, step.status_offset)).or_insert(step);
        }
        for (key, n) in fold.counts {
            *self.counts.entry(key).or_default() += n;
        }
        for (key, rounds) in fold.settled_rounds {
            let settled = self.settled_rounds.entry(key).or_default();
            settled.all += rounds.all;
            settled.again += rounds.again;
        }
    }
}

fn written(log: &[(i32, i64, StatusEvent)]) -> Tables {
    let mut tables = Tables::default();
    tables.write(log);
    tables
}

/// One message's statuses, at the offsets 0, 1, ….
fn log(history: &[(i32, Status, i32)]) -> Log {
    let event = |(offset, (round, status, attempt)): (usize, &(i32, Status, i32))| {
        (0, offset as i64, event(1, *round, status.clone(), *attempt))
    };
    history.iter().enumerate().map(event).collect()
}

#[test]
fn a_row_shows_what_stands_and_the_rounds_that_are_settled() {
    use Status::*;
    // status, round, settled round, attempts; settled rounds in sum
    type Case = (&'static str, Vec<(i32, Status, i32)>, (&'static str, i32, i32, i32), i64);
    let cases: Vec<Case> = vec![
        ("the first status makes the row", vec![(1, Retrying, 1)], ("retrying", 1, 0, 1), 0),
        ("success at once", vec![(1, Succeeded, 1)], ("succeeded", 1, 1, 1), 1),
        (
            "success after two failures",
            vec![(1, Retrying, 1), (1, Retrying, 2), (1, Succeeded, 3)],
            ("succeeded", 1, 1, 3),
            1,
        ),
        ("a doubled status", vec![(1, Failed, 4), (1, Failed, 4)], ("failed", 1, 1, 4), 1),
        ("a second terminal status", vec![(1, Expired, 0), (1, Failed, 4)], ("expired", 1, 1, 0), 1),
        ("held, then sent", vec![(1, Held, 0), (2, Succeeded, 1)], ("succeeded", 2, 2, 1), 2),
        (
            "late success settles no later round",
            vec![(1, Failed, 4), (2, Retrying, 5), (1, Succeeded, 4)],
            ("succeeded", 1, 1, 5),
            1,
        ),
        (
            "a round settled after success",
            vec![(1, Failed, 4), (1, Succeeded, 4), (2, Failed, 5)],
            ("succeeded", 1, 2, 4),
            2,
        ),
        ("a word of a newer version", vec![(1, Retrying, 1), (1, Other("bounced".into()), 2)], ("bounced", 1, 1, 2), 1),
    ];
    for (name, history, expected, settled) in cases {
        let tables = written(&log(&history));
        let row = &tables.rows[&(mailing(), 1.into())];
        assert_eq!((row.status.as_str(), row.round, row.settled_round, row.attempts), expected, "{name}");
        assert_eq!(tables.settled_rounds.values().map(|rounds| rounds.all).sum::<i64>(), settled, "{name}");
    }
}

#[test]
fn failed_calls_waits_and_holds_are_steps() {
    use Status::*;
    let history = [(1, Retrying, 1), (1, Retrying, 2), (1, Held, 2), (2, Failed, 3), (3, Expired, 3)];
    let tables = written(&log(&history));
    let steps: Vec<(&str, i32)> = tables.steps.values().map(|step| (step.status.as_str(), step.attempt)).collect();
    assert_eq!(steps, [("retrying", 1), ("retrying", 2), ("held", 2), ("failed", 3)]);
}

#[test]
fn a_held_message_has_a_row_that_says_what_it_waits_for_until_something_came_of_it() {
    let at = |seconds| DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
    let held = |round, reason, not_before, operator_code| StatusEvent {
        reason: Some(reason),
        not_before,
        operator_code,
        occurred_at: at(7),
        ..event(1, round, Status::Held, 1)
    };
    let row = |tables: &Tables| {
        let rows: Vec<_> = tables.held.values().map(|row| (row.round, row.reason.clone(), row.not_before)).collect();
        let counts = tables.held_counts.iter().filter(|(_, n)| **n != 0);
        (rows, counts.map(|((_, _, reason), n)| (reason.clone(), *n)).collect::<Vec<_>>())
    };
    let one = |reason: &str| vec![(reason.to_owned(), 1)];
    let mut tables = Tables::default();
    tables.write(&[(0, 0, held(1, Reason::Throttled, Some(at(40)), Some(916)))]);
    assert_eq!(row(&tables), (vec![(1, "throttled".to_owned(), at(40))], one("throttled")));
    tables.write(&[(0, 1, held(2, Reason::Outage, None, None))]);
    assert_eq!(row(&tables), (vec![(2, "outage".to_owned(), at(7))], one("outage")), "held at that moment");
    tables.write(&[(0, 2, event(1, 1, Status::Retrying, 1))]);
    assert_eq!(
        row(&tables),
        (vec![(2, "outage".to_owned(), at(7))], one("outage")),
        "an earlier round changes nothing"
    );
    tables.write(&[(0, 3, event(1, 3, Status::Retrying, 2))]);
    assert_eq!(row(&tables), (vec![], vec![]));
}

#[test]
fn a_status_that_was_passed_through_leaves_a_count_of_zero() {
    let log = log(&[(1, Status::Retrying, 1), (1, Status::Succeeded, 2)]);
    let expected =
        BTreeMap::from([((mailing(), 0, "retrying".to_owned()), 0), ((mailing(), 0, "succeeded".to_owned()), 1)]);
    assert_eq!(written(&log).counts, expected);
    let mut apart = Tables::default();
    apart.write(&log[..1]);
    apart.write(&log[1..]);
    assert_eq!(apart.counts, expected);
}

#[test]
fn a_row_that_does_not_change_is_not_written() {
    let log = log(&[(1, Status::Succeeded, 1)]);
    let mut fold = Fold::over(written(&log).rows.into_values().collect());
    fold.apply(0, 7, &log[0].2);
    assert!(fold.changed_rows().is_empty() && fold.counts.is_empty() && fold.settled_rounds.is_empty());
}

fn any_log() -> impl Strategy<Value = Log> {
    use Status::*;
    let status =
        prop::sample::select(vec![Retrying, Held, Succeeded, Failed, Expired, Cancelled, Unknown, Other("new".into())]);
    let one = (1i64..5, 1..4, status, 0..6, 0i64..9);
    prop::collection::vec(one, 1..60).prop_map(|history| {
        let mut next = [0; 2];
        let place = |(client_no, round, status, attempt, gap): (i64, i32, Status, i32, i64)| {
            let partition = client_no % 2;
            let offset = next[partition as usize] + gap;
            next[partition as usize] = offset + 1;
            let mut event = event(client_no, round, status, attempt);
            event.occurred_at += TimeDelta::microseconds(offset);
            (partition as i32, offset, event)
        };
        history.into_iter().map(place).collect()
    })
}

proptest! {
    #[test]
    fn neither_batches_nor_replays_change_what_is_written(
        log in any_log(), sizes in prop::collection::vec(1usize..9, 60), from in 0usize..60,
    ) {
        let expected = written(&log);
        let mut tables = Tables::default();
        let mut rest = &log[..];
        for size in sizes {
            let (batch, next) = rest.split_at(size.min(rest.len()));
            tables.write(batch);
            rest = next;
        }
        prop_assert_eq!(&tables, &expected);
        tables.write(&log[from.min(log.len())..]);
        prop_assert_eq!(&tables, &expected);
    }

    #[test]
    fn counts_and_settled_rounds_are_sums_over_the_rows(log in any_log()) {
        let tables = written(&log);
        let mut counts = BTreeMap::new();
        let mut settled = BTreeMap::new();
        for row in tables.rows.values() {
            let partition = (row.client_no.get() % 2) as i32;
            let held = tables.held.get(&MessageId::new(row.mailing_no, row.client_no).unwrap());
            prop_assert_eq!(held.map(|held| held.round), (row.status == Status::Held).then_some(row.round));
            *counts.entry((mailing(), partition, row.status.to_string())).or_insert(0) += 1;
            let sums: &mut SettledRounds = settled.entry((mailing(), partition)).or_default();
            sums.all += i64::from(row.settled_round);
            sums.again += i64::from((row.settled_round - 1).max(0));
        }
        let without_zeros = |map: BTreeMap<_, i64>| map.into_iter().filter(|(_, n)| *n != 0).collect::<BTreeMap<_, _>>();
        prop_assert_eq!(without_zeros(tables.counts), counts);
        settled.retain(|_, sums| *sums != SettledRounds::default());
        prop_assert_eq!(tables.settled_rounds, settled);
    }
}
