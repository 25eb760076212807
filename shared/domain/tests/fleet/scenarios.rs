//! Histories that were played on the real thing, or will be.

use std::time::Duration;

use domain::status::Status;

use crate::network::Fault;
use crate::provider::{Outage, Trouble};
use crate::world::{Config, Event, MILLI, Micros, SECOND, World};

const HOUR: Micros = 3_600 * SECOND;

fn fleet(senders: usize) -> World {
    World::new(Config { senders, ..Config::default() }, 1)
}

fn down(from: u64, to: u64, code: Option<i64>, trouble: Trouble) -> Outage {
    Outage { from: from * SECOND, to: to * SECOND, code, trouble }
}

impl World {
    fn done_at(&self, mailing_no: i64) -> f64 {
        self.mailings[&mailing_no].finished_at.unwrap() as f64 / SECOND as f64
    }

    /// Accepted, throttled and begun calls a second from one second to another.
    fn rates(&self, from: u64, to: u64) -> (f64, f64, f64) {
        let seconds = self.checks.by_second.range(from..to).map(|(_, second)| second);
        let sum = seconds.fold((0, 0, 0), |sum, one| (sum.0 + one.accepted, sum.1 + one.throttled, sum.2 + one.calls));
        let rate = |n: u64| n as f64 / (to - from) as f64;
        (rate(sum.0), rate(sum.1), rate(sum.2))
    }
}

#[test]
fn an_outage_of_a_minute_costs_no_message_and_hardly_a_call() {
    let mut world = fleet(3);
    world.mailing(1, 50_000, &[900, 901, 902, 903, 904], 0, HOUR);
    world.provider.outages = vec![down(2, 62, None, Trouble::Refuses)];
    world.run_to(60 * SECOND);
    let planned_at_10 = world.checks.stories.values().filter(|story| story.first_planned_at < 10 * SECOND).count();
    let planned_in = |from: u64, to: u64| {
        let within = from * SECOND..to * SECOND;
        world.checks.stories.values().filter(|story| within.contains(&story.first_planned_at)).count()
    };
    println!("planned by 10 s {planned_at_10}, 10-60 s {}", planned_in(10, 60));
    assert!(planned_in(10, 60) <= 6 * 250, "{}", planned_in(10, 60));
    world.run();
    let (before, _, _) = world.rates(1, 2);
    let first = (62..).find(|second| world.rates(*second, second + 1).0 > 0.0).unwrap();
    let curve: Vec<u64> = (first..first + 31).map(|second| world.rates(second, second + 1).0 as u64).collect();
    println!(
        "before {before}, bad calls {}, done at {:.1}, {:?}, {curve:?}",
        world.checks.bad_calls,
        world.done_at(1),
        world.checks.held
    );
    assert_eq!(world.count(1, &Status::Succeeded), 50_000);
    // On the wire, half of a hundred to notice it, and a probe a second.
    assert!(world.checks.bad_calls <= 3 * (256 + 50 + 60), "{}", world.checks.bad_calls);
    assert!(world.rates(first, first + 1).0 <= before / 4.0);
    assert!(first <= 64);
}

#[test]
fn a_mailing_of_eight_over_eight_codes_is_done_soon_after_the_outage() {
    for trouble in [Trouble::Refuses, Trouble::Forbidden] {
        let mut world = fleet(3);
        world.mailing(1, 8, &(900..908).collect::<Vec<i64>>(), SECOND, HOUR);
        world.provider.outages = vec![down(0, 61, None, trouble)];
        world.run();
        println!(
            "{trouble:?}: {:.1} s, {} bad calls, {:?}",
            world.done_at(1),
            world.checks.bad_calls,
            world.checks.held
        );
        let settled = world.count(1, &Status::Succeeded);
        assert_eq!(settled, 8, "{trouble:?}");
        assert!(world.done_at(1) <= 81.0, "{trouble:?}: {}", world.done_at(1));
    }
}

#[test]
fn whom_an_outage_without_answers_may_have_reached_is_called_seldom() {
    let mut world = fleet(3);
    world.mailing(1, 100, &(900..908).collect::<Vec<i64>>(), SECOND, HOUR);
    world.provider.outages = vec![down(0, 600, None, Trouble::Hangs)];
    world.run();
    println!("{} bad calls, {:.1} s, {:?}", world.checks.bad_calls, world.done_at(1), world.checks.held);
    assert!(world.checks.bad_calls <= 300, "{}", world.checks.bad_calls);
}

#[test]
fn one_operator_of_five_that_is_down_slows_no_other() {
    let codes = [900, 901, 902, 903, 904];
    let play = |outages: Vec<Outage>| {
        let mut world = fleet(3);
        world.mailing(1, 20_000, &codes, 0, HOUR);
        for other in 0..4 {
            world.mailing(2 + other, 20_000, &codes[1..], 0, HOUR);
        }
        world.provider.latency = 200 * MILLI;
        world.provider.outages = outages;
        world.run();
        world
    };
    let undisturbed = play(vec![]);
    let disturbed = play(vec![down(2, 62, Some(900), Trouble::Refuses)]);
    // Which of the four is the first to be done is chance.
    let done_at = |world: &World| (2..6).map(|no| world.done_at(no)).fold(0.0, f64::max);
    let (alone, beside) = (done_at(&undisturbed), done_at(&disturbed));
    println!("the others: {alone:.1} s undisturbed, {beside:.1} s");
    assert!(beside <= 1.11 * alone, "{alone} s, {beside} s");
    println!("1: {:.1} s, {} bad calls, {:?}", disturbed.done_at(1), disturbed.checks.bad_calls, disturbed.checks.held);
    assert_eq!(disturbed.count(1, &Status::Succeeded), 20_000);
    assert!(disturbed.done_at(1) <= 100.0);
}

#[test]
fn a_limit_is_used_and_hardly_passed() {
    for (limit, senders, codes) in [(50.0, 1, 1), (1_000.0, 1, 1), (1_000.0, 3, 1), (1_000.0, 3, 20), (3_000.0, 3, 5)] {
        let mut world = fleet(senders);
        let codes: Vec<i64> = (900..900 + codes).collect();
        world.mailing(1, (limit * 130.0) as i64, &codes, 0, HOUR);
        world.provider.limit = Some(limit);
        world.run_to(120 * SECOND);
        let (accepted, throttled, calls) = world.rates(30, 120);
        let (used, share) = (accepted / limit, throttled / calls);
        println!(
            "{limit} a second, {senders} senders, {} codes: {used:.3} used, {share:.4} throttled, {:?}, closed {:?}",
            codes.len(),
            world.checks.held,
            world.checks.closings
        );
        assert!(used >= 0.9, "{limit}, {senders} senders: {used} used");
        assert!(share <= 0.03, "{limit}, {senders} senders: {share} throttled");
    }
}

#[test]
fn a_sender_that_joins_or_leaves_finds_its_part_of_the_limit() {
    let mut world = fleet(3);
    world.mailing(1, 200_000, &[900], 0, HOUR);
    world.provider.limit = Some(1_000.0);
    world.at(60 * SECOND, Event::Fault(Fault::Leave { sender: 2, join_after: 60 * SECOND }));
    world.run_to(180 * SECOND);
    for (from, to) in [(30, 60), (75, 120), (135, 180)] {
        let (accepted, throttled, calls) = world.rates(from, to);
        println!("{from} to {to} s: {accepted:.0} a second, {:.4} throttled", throttled / calls);
        assert!(accepted >= 900.0, "{from} to {to}: {accepted}");
        assert!(throttled / calls <= 0.03, "{from} to {to}: {throttled} of {calls}");
    }
}

#[test]
fn a_slow_provider_is_called_as_often_at_once_as_the_senders_may() {
    for latency in [SECOND, 3 * SECOND, 4 * SECOND] {
        let mut world = fleet(3);
        let most = 3.0 * world.config.concurrency as f64 * SECOND as f64 / latency as f64;
        world.mailing(1, (most * 130.0) as i64, &[900, 901], 0, HOUR);
        world.provider.latency = latency;
        world.run_to(120 * SECOND);
        let (accepted, _, _) = world.rates(60, 120);
        println!("{} s: {accepted:.0} of {most:.0} a second", latency / SECOND);
        assert!(accepted >= 0.9 * most, "{latency} µs: {accepted} of {most}");
    }
}

#[test]
fn a_few_429s_or_errors_that_are_evenly_spread_slow_nothing() {
    let play = |error_share: f64, throttled_share: f64| {
        let mut world = fleet(3);
        world.mailing(1, 300_000, &(900..920).collect::<Vec<i64>>(), 0, HOUR);
        world.provider.latency = 100 * MILLI;
        (world.provider.error_share, world.provider.throttled_share) = (error_share, throttled_share);
        world.run_to(25 * SECOND);
        let (_, _, calls) = world.rates(10, 20);
        println!("{error_share} {throttled_share}: {calls:.0} a second");
        (calls, world.checks.closings.len() as u32 + world.checks.all_closings)
    };
    let (without, _) = play(0.0, 0.0);
    for (errors, throttled) in [(0.1, 0.0), (0.0, 0.02)] {
        let (calls, closings) = play(errors, throttled);
        assert_eq!(closings, 0, "{errors} {throttled}");
        assert!(calls >= 0.95 * without, "{errors} {throttled}: {calls} a second, {without} without");
    }
}

#[test]
fn one_client_that_is_told_to_wait_again_and_again_stops_nobody() {
    let play = |never_now| {
        let mut world = fleet(3);
        world.mailing(1, 100_000, &[900, 901], 0, 600 * SECOND);
        world.mailing(2, 20_000, &[900, 901], 20 * SECOND, 600 * SECOND);
        world.provider.never_now = never_now;
        world.run();
        world
    };
    let alone = play(None);
    let beside = play(Some((1_000_001, Duration::from_secs(40))));
    println!("{:.1} s, {:.1} s, {:?}", alone.done_at(2), beside.done_at(2), beside.checks.held);
    assert!(beside.done_at(2) <= 1.05 * alone.done_at(2) + 0.5);
    assert_eq!(beside.count(1, &Status::Succeeded), 99_999);
    assert_eq!(beside.count(1, &Status::Expired), 1);
    assert!(beside.done_at(1) <= 612.0, "it is settled at its end: {}", beside.done_at(1));
    let story = &beside.checks.stories[&(1, 1_000_001)];
    assert!(story.calls <= 15 && story.ambiguous == 0, "{story:?}");
}

#[test]
fn twelve_hundred_that_are_told_to_wait_hold_up_no_urgent_mailing() {
    let mut world = fleet(1);
    world.mailing(1, 1_200, &[900], 0, HOUR);
    world.mailing(2, 2, &[900], 3 * SECOND, HOUR);
    world.provider.outages = vec![down(0, 2, None, Trouble::Throttles)];
    world.provider.retry_after = Some(Duration::from_secs(40));
    world.run();
    println!("{:.1} s, {:.1} s, {:?}", world.done_at(2), world.done_at(1), world.checks.held);
    assert!(world.done_at(2) <= 5.0);
    assert_eq!(world.count(1, &Status::Succeeded), 1_200);
}

#[test]
fn who_throttles_everybody_and_says_nothing_is_called_seldom() {
    let mut world = fleet(1);
    world.mailing(1, 50, &[900, 901], 0, 10 * SECOND);
    world.provider.outages = vec![down(0, 3_600, None, Trouble::Throttles)];
    world.provider.retry_after = Some(Duration::ZERO);
    world.run();
    println!("{} calls", world.checks.calls);
    assert!(world.checks.calls <= 300, "{}", world.checks.calls);
    assert_eq!(world.count(1, &Status::Expired), 50);
}

#[test]
fn a_mailing_that_ends_settles_what_nobody_has_planned() {
    let mut world = fleet(3);
    world.mailing(1, 300_000, &[900, 901], 0, 10 * SECOND);
    world.provider.latency = 500 * MILLI;
    world.run();
    let expired = world.count(1, &Status::Expired);
    println!("{expired} expired, done at {:.1} s", world.done_at(1));
    assert!(expired > 200_000);
    assert!(world.done_at(1) <= 20.0);
}
