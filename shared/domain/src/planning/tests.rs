use super::*;
use crate::lane::Closed;

const SECOND: TimeDelta = TimeDelta::seconds(1);

fn now() -> DateTime<Utc> {
    "2026-05-01T12:00:00Z".parse().unwrap()
}

/// A mailing that runs, with its event published.
fn facts(settled: i64) -> PlanningFacts {
    PlanningFacts {
        state: State::Running,
        starts_at: now(),
        ends_at: now() + SECOND * 3_600,
        published: true,
        drained: false,
        settled,
        settled_again: 0,
        due_at: None,
        paged: false,
    }
}

fn progress(complete: bool, emitted: i64) -> Progress {
    Progress { audience_max: 9.into(), cursor: 5.into(), complete, planned: emitted, emitted, again: 0, pass: None }
}

#[test]
fn the_next_step_follows_the_mailing_and_its_progress() {
    let later = now() + SECOND;
    let mailing = |state, starts_at, published| PlanningFacts { state, starts_at, published, ..facts(7) };
    let half = || Some(progress(false, 5));
    let whole = || Some(progress(true, 7));
    use State::*;
    let cases = [
        ("nothing before the start", mailing(Scheduled, later, true), None, Some(9), Step::Wait(Wait::Start)),
        ("its event first", mailing(Scheduled, now(), false), None, Some(9), Step::Wait(Wait::Publishing)),
        ("due", mailing(Scheduled, now(), true), None, None, Step::Start),
        ("due, progress left by a dead owner", mailing(Scheduled, now(), true), half(), None, Step::Start),
        ("never from zero", mailing(Running, now(), true), None, Some(9), Step::ProgressLost),
        ("a page", mailing(Running, now(), true), half(), Some(9), Step::Page(9)),
        (
            "no page under an unpublished version",
            mailing(Running, now(), false),
            half(),
            Some(9),
            Step::Wait(Wait::Publishing),
        ),
        ("no room", mailing(Running, now(), true), half(), None, Step::Wait(Wait::Senders)),
        (
            "planned, not settled",
            PlanningFacts { settled: 6, ..facts(0) },
            whole(),
            Some(9),
            Step::Wait(Wait::Statuses),
        ),
        ("planned and settled", facts(7), whole(), None, Step::Finish),
        ("paused", mailing(Paused, now(), true), whole(), Some(9), Step::Wait(Wait::Operator)),
        ("cancelled before it began", mailing(Cancelled, later, true), None, None, Step::Finish),
    ];
    for (name, mailing, progress, room, expected) in cases {
        assert_eq!(next_step(&mailing, progress.as_ref(), room, now()), expected, "{name}");
    }
}

#[test]
fn what_is_not_settled_once_all_is_drained_is_lost() {
    let mailing = |settled| PlanningFacts { drained: true, ..facts(settled) };
    let step = |complete, settled| next_step(&mailing(settled), Some(&progress(complete, 7)), Some(1), now());
    assert_eq!(step(true, 5), Step::MessagesLost(2));
    assert_eq!(step(true, 7), Step::Finish);
    assert_eq!(step(false, 5), Step::Page(1));
}

#[test]
fn a_pass_waits_for_passes_only_and_takes_turns_with_pages() {
    let pass = |seconds, done| Some(PassProgress { began_at: now() - SECOND * seconds, done });
    let held = |settled, settled_again| PlanningFacts { due_at: Some(now()), settled_again, ..facts(settled) };
    let paged = |settled_again| PlanningFacts { paged: true, ..held(5, settled_again) };
    let at = |complete, again, pass| Progress { again, pass, ..progress(complete, 7) };
    let later = PlanningFacts { due_at: Some(now() + SECOND), ..held(7, 0) };
    let cases = [
        ("something is due", held(7, 0), at(true, 0, None), Some(9), Step::BeginPass(9)),
        ("nothing is due yet", later, at(true, 0, None), Some(9), Step::Wait(Wait::Senders)),
        ("one slow message of a page", held(5, 0), at(true, 0, None), Some(9), Step::BeginPass(9)),
        ("one slow message of a pass", held(6, 1), at(true, 2, None), Some(9), Step::Wait(Wait::Statuses)),
        ("it is back", held(7, 2), at(true, 2, pass(10, true)), Some(9), Step::BeginPass(9)),
        ("too early", held(7, 2), at(true, 2, pass(9, true)), Some(9), Step::Wait(Wait::Senders)),
        ("under way", held(5, 0), at(true, 2, pass(1, false)), Some(9), Step::Pass(9)),
        ("under way, no room", held(5, 0), at(true, 2, pass(1, false)), None, Step::Wait(Wait::Senders)),
        ("a page first", held(5, 0), at(false, 0, None), Some(9), Step::Page(9)),
        ("then a pass", paged(0), at(false, 0, None), Some(9), Step::BeginPass(9)),
        ("a slow pass stops no page", paged(0), at(false, 2, pass(30, true)), Some(9), Step::Page(9)),
    ];
    for (name, mailing, progress, room, expected) in cases {
        assert_eq!(next_step(&mailing, Some(&progress), room, now()), expected, "{name}");
    }
}

#[test]
fn what_cant_be_called_any_more_is_settled_here() {
    let ended = |mailing: PlanningFacts| PlanningFacts { ends_at: now(), ..mailing };
    let cancelled = |mailing: PlanningFacts| PlanningFacts { state: State::Cancelled, ..mailing };
    let held = |settled_again| PlanningFacts { due_at: Some(now() + SECOND * 50), settled_again, ..facts(7) };
    let at = |complete, again| Progress { again, ..progress(complete, 7) };
    let mut under_way = at(true, 3);
    under_way.pass = Some(PassProgress { began_at: now(), done: false });
    let cases = [
        ("clients that aren't planned", ended(facts(2)), at(false, 0), Step::SettlePage(5_000)),
        ("the same of a cancelled one", cancelled(facts(2)), at(false, 0), Step::SettlePage(5_000)),
        ("held ones, due or not", ended(held(0)), at(true, 0), Step::BeginPass(5_000)),
        ("held ones in a pass", cancelled(held(0)), under_way, Step::Pass(5_000)),
        ("held ones that a pass may have planned", ended(held(0)), at(true, 3), Step::Wait(Wait::Statuses)),
        ("what senders have", ended(facts(5)), at(true, 0), Step::Wait(Wait::Statuses)),
        ("nothing", cancelled(facts(7)), at(true, 0), Step::Finish),
    ];
    for (name, mailing, progress, expected) in cases {
        assert_eq!(next_step(&mailing, Some(&progress), None, now()), expected, "{name}");
    }
}

#[test]
fn a_pass_takes_what_is_due_and_of_a_closed_lane_one_a_partition() {
    let code = |code| OperatorCode::new(code).unwrap();
    let closed = Closed::Codes(BTreeSet::from([code(900)]));
    let lanes = ClosedLanes { by_partition: vec![closed.clone(), Closed::default(), closed] };
    let mut plan = PassPlan::new(&facts(0), now(), lanes.clone(), now());
    let cases = [
        ("due", 0, 901, 0, true),
        ("not yet", 0, 901, 1, false),
        ("the first of a closed lane", 0, 900, -9, true),
        ("another one", 0, 900, -8, false),
        ("the first in another partition", 2, 900, -7, true),
        ("where it is open", 1, 900, -6, true),
        ("all of them", 1, 900, -5, true),
    ];
    for (name, partition, operator, seconds, expected) in cases {
        assert_eq!(plan.takes(partition, code(operator), now() + SECOND * seconds), expected, "{name}");
    }
    let mut over = PassPlan::new(&PlanningFacts { ends_at: now(), ..facts(0) }, now(), lanes, now());
    assert!((0..3).all(|_| over.takes(0, code(900), now() + SECOND * 99)));
}

#[test]
fn a_held_message_is_planned_again_unless_nobody_may_call_it() {
    let end = now() + SECOND;
    let cases = [
        ("planned again", State::Running, false, now(), Again::Plan),
        ("cancelled", State::Cancelled, true, end, Again::Settle(Status::Cancelled, Reason::MailingCancelled)),
        ("ended", State::Running, true, end, Again::Settle(Status::Expired, Reason::Ended)),
        ("erased", State::Running, true, now(), Again::Settle(Status::Cancelled, Reason::Erased)),
    ];
    for (name, state, erased, now, expected) in cases {
        assert_eq!(again(&state, end, erased, now), expected, "{name}");
    }
}
