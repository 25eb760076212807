use std::collections::BTreeSet;

use super::*;

fn code(code: i64) -> OperatorCode {
    OperatorCode::new(code).unwrap()
}

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn refused() -> Outcome {
    Outcome::Retryable(Reason::ProviderError)
}

fn call(lanes: &mut Lanes, lane: i64, outcome: &Outcome, now: Duration) -> Option<Reason> {
    let pass = lanes.take(code(lane), now).expect("it may be called");
    lanes.outcome(pass, outcome, now)
}

/// A fixed sequence of numbers from 0 to 1 that look random.
fn random(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[test]
fn an_outage_of_one_operator_closes_its_lane_alone() {
    let mut lanes = Lanes::default();
    for i in 0..200 {
        call(&mut lanes, 901 + i % 4, &Outcome::Accepted, at(0.01 * i as f64));
    }
    let mut closed = None;
    for _ in 0..5 {
        call(&mut lanes, 901, &Outcome::Accepted, at(2.0));
        closed = call(&mut lanes, 900, &refused(), at(2.0));
    }
    assert_eq!(closed, Some(Reason::Outage));
    assert_eq!(lanes.closed(), Closed::Codes(BTreeSet::from([code(900)])));
    assert_eq!(lanes.ask(code(901), at(2.0)), Gate::Open);
    assert_eq!(lanes.ask(code(900), at(2.0)), Gate::Closed(Reason::Outage, Some(at(3.0))));
}

#[test]
fn a_small_mailing_over_many_codes_notices_an_outage_of_all() {
    let mut lanes = Lanes::default();
    for lane in 900..904 {
        assert_eq!(call(&mut lanes, lane, &refused(), at(0.0)), None);
    }
    assert_eq!(call(&mut lanes, 904, &refused(), at(0.0)), Some(Reason::Outage));
    assert_eq!(lanes.closed(), Closed::All);
    assert_eq!(lanes.ask(code(999), at(0.5)), Gate::Closed(Reason::Outage, Some(at(1.0))));
}

#[test]
fn three_good_probes_open_a_lane_by_a_ramp() {
    let mut lanes = Lanes::default();
    for i in 0..10_000 {
        call(&mut lanes, 900, &Outcome::Accepted, at(0.001 * i as f64));
        if i % 10 == 0 {
            call(&mut lanes, 901, &Outcome::Accepted, at(0.001 * i as f64));
        }
    }
    for _ in 0..50 {
        call(&mut lanes, 900, &refused(), at(10.0));
    }
    for (second, outcome) in [(11.0, refused()), (12.0, Outcome::Accepted), (13.0, Outcome::Rejected)] {
        assert_eq!(call(&mut lanes, 900, &outcome, at(second)), Some(Reason::Outage), "{second}");
    }
    assert_eq!(call(&mut lanes, 900, &Outcome::Accepted, at(14.0)), None);
    let mut calls = |from: f64| {
        let (mut calls, mut now) = (0, at(from));
        lanes.tick(now);
        while now < at(from + 1.0) && calls < 2_000 {
            match lanes.take(code(900), now) {
                Ok(pass) => {
                    lanes.outcome(pass, &Outcome::Accepted, now);
                    calls += 1;
                }
                Err(Gate::Limited(next)) => now = next,
                Err(other) => panic!("{other:?}"),
            }
        }
        calls
    };
    let first = calls(14.0);
    assert!((150..=250).contains(&first), "{first}");
    let later = calls(29.0);
    assert!((750..1_000).contains(&later), "{later}");
    assert_eq!(calls(34.0), 2_000, "nothing is limited any more");
}

#[test]
fn a_probe_that_may_have_been_received_is_followed_late() {
    let mut lanes = Lanes::default();
    for _ in 0..5 {
        call(&mut lanes, 900, &refused(), at(0.0));
    }
    let pass = lanes.take(code(900), at(1.0)).unwrap();
    lanes.outcome(pass, &Outcome::Ambiguous(Reason::Timeout), at(6.0));
    assert_eq!(lanes.ask(code(900), at(6.0)), Gate::Closed(Reason::Outage, Some(at(14.0))));
    call(&mut lanes, 900, &refused(), at(14.0));
    assert_eq!(lanes.ask(code(900), at(14.0)), Gate::Closed(Reason::Outage, Some(at(15.0))));
}

#[test]
fn all_is_limited_by_the_pace_or_when_no_lane_is_wholly_open() {
    let mut lanes = Lanes::default();
    assert!(!lanes.all_limited(at(0.0)));
    for _ in 0..5 {
        call(&mut lanes, 900, &refused(), at(0.0));
    }
    assert!(lanes.all_limited(at(0.0)));
    for second in [1.0, 2.0, 3.0] {
        call(&mut lanes, 900, &Outcome::Accepted, at(second));
    }
    assert!(lanes.all_limited(at(3.0)), "it opens by a ramp");
    lanes.tick(at(23.0));
    assert!(!lanes.all_limited(at(23.0)));
}

#[test]
fn a_bad_probe_starts_the_count_anew_and_a_throttled_one_changes_nothing() {
    let mut lanes = Lanes::default();
    for _ in 0..5 {
        call(&mut lanes, 900, &refused(), at(0.0));
    }
    let throttled = || Outcome::Throttled(Duration::from_secs(1));
    let outcomes = [Outcome::Accepted, Outcome::Accepted, refused(), Outcome::Accepted, throttled(), Outcome::Accepted];
    for (second, outcome) in (1..).zip(outcomes) {
        assert!(call(&mut lanes, 900, &outcome, at(f64::from(second))).is_some(), "{second}");
    }
    assert_eq!(call(&mut lanes, 900, &Outcome::Accepted, at(7.0)), None);
}

#[test]
fn what_came_of_a_call_from_before_the_closing_says_nothing() {
    let mut lanes = Lanes::default();
    let mut early: Vec<Pass> = (0..8).map(|_| lanes.take(code(900), at(0.0)).unwrap()).collect();
    let late = early.split_off(5);
    for pass in early {
        lanes.outcome(pass, &refused(), at(1.0));
    }
    for second in [2.0, 3.0, 4.0] {
        call(&mut lanes, 900, &Outcome::Accepted, at(second));
    }
    assert_eq!(lanes.closed(), Closed::Codes(BTreeSet::new()));
    for pass in late {
        assert_eq!(lanes.outcome(pass, &refused(), at(5.0)), None);
    }
    for _ in 0..2 {
        let Err(Gate::Limited(next)) =
            lanes.take(code(900), at(5.0)).map(|pass| lanes.outcome(pass, &refused(), at(5.0)))
        else {
            continue;
        };
        assert!(next > at(5.0));
    }
    assert_eq!(lanes.closed_for(code(900)), None);
}

#[test]
fn five_bad_probes_close_all_again_while_none_is_open() {
    let mut lanes = Lanes::default();
    for lane in 900..905 {
        call(&mut lanes, lane, &refused(), at(0.0));
    }
    call(&mut lanes, 900, &Outcome::Accepted, at(1.0));
    assert_ne!(lanes.closed(), Closed::All);
    for lane in 900..904 {
        call(&mut lanes, lane, &refused(), at(2.0));
        assert_ne!(lanes.closed(), Closed::All);
    }
    call(&mut lanes, 904, &refused(), at(2.0));
    assert_eq!(lanes.closed(), Closed::All);
}

#[test]
fn our_own_configuration_closes_all_after_five_in_a_row() {
    let mut lanes = Lanes::default();
    for i in 0..100 {
        call(&mut lanes, 900 + i % 3, &Outcome::Accepted, at(0.0));
    }
    let refused = Outcome::Retryable(Reason::Configuration);
    for i in 0..4 {
        assert_eq!(call(&mut lanes, 900 + i % 3, &refused, at(0.0)), None);
    }
    assert_eq!(call(&mut lanes, 900, &refused, at(0.0)), Some(Reason::Configuration));
    assert_eq!(lanes.closed(), Closed::All);
}

#[test]
fn twenty_successes_in_a_row_that_cant_be_read_close_all_and_are_probed_once_a_minute() {
    let mut lanes = Lanes::default();
    for i in 0..100 {
        call(&mut lanes, 900 + i % 3, &Outcome::Accepted, at(0.0));
    }
    let unreadable = Outcome::Ambiguous(Reason::BadAnswer);
    for i in 0..19 {
        assert_eq!(call(&mut lanes, 900 + i % 3, &unreadable, at(0.0)), None);
    }
    assert_eq!(call(&mut lanes, 900, &unreadable, at(0.0)), Some(Reason::Contract));
    assert_eq!(lanes.ask(code(901), at(1.0)), Gate::Closed(Reason::Contract, Some(at(60.0))));
    call(&mut lanes, 901, &unreadable, at(60.0));
    assert_eq!(lanes.ask(code(901), at(61.0)), Gate::Closed(Reason::Contract, Some(at(120.0))));
    call(&mut lanes, 901, &Outcome::Accepted, at(120.0));
    assert_eq!(lanes.ask(code(901), at(120.5)), Gate::Closed(Reason::Contract, Some(at(121.0))), "then each second");
}

#[test]
fn a_lane_that_alone_is_throttled_closes_and_the_pace_stays() {
    let mut lanes = Lanes::default();
    let throttled = Outcome::Throttled(Duration::from_secs(1));
    for i in 0..1_000 {
        let now = at(0.001 * f64::from(i));
        call(&mut lanes, 901 + i64::from(i) % 4, &Outcome::Accepted, now);
        if lanes.closed_for(code(900)).is_none() && i % 5 == 0 {
            call(&mut lanes, 900, &throttled, now);
        }
    }
    assert_eq!(lanes.closed_for(code(900)), Some(Reason::Throttled));
    assert_eq!(lanes.pace().limit(at(1.0)), None);
    let mut lanes = Lanes::default();
    for i in 0..1_000 {
        if let Ok(pass) = lanes.take(code(900), at(0.001 * f64::from(i))) {
            lanes.outcome(pass, if i % 2 == 0 { &throttled } else { &Outcome::Accepted }, at(0.001 * f64::from(i)));
        }
    }
    assert_eq!(lanes.closed_for(code(900)), None, "there is no other lane");
    assert!(lanes.pace().limit(at(1.0)).is_some());
}

#[test]
fn ten_percent_of_errors_evenly_spread_close_no_lane() {
    for seed in 0..20 {
        let mut random = random(seed);
        let mut lanes = Lanes::default();
        for i in 0..20_000 {
            let now = at(0.001 * f64::from(i));
            let failed = random() < 0.1;
            let lane = 900 + (random() * 20.0) as i64;
            let outcome = if failed { refused() } else { Outcome::Accepted };
            assert_eq!(call(&mut lanes, lane, &outcome, now), None, "seed {seed}, call {i}");
        }
    }
}

#[test]
fn a_closed_lane_that_nobody_asks_about_opens() {
    let mut lanes = Lanes::default();
    for lane in 900..905 {
        call(&mut lanes, lane, &refused(), at(0.0));
    }
    lanes.ask(code(900), at(30.0));
    lanes.tick(at(61.0));
    assert_eq!(lanes.closed(), Closed::All);
    lanes.tick(at(90.0));
    assert_eq!(lanes.closed(), Closed::Codes(BTreeSet::new()));
    assert!(lanes.view().iter().all(|lane| lane.ramp));
    lanes.tick(at(111.0));
    assert!(lanes.view().iter().all(|lane| !lane.ramp));
}
