//! What a run measured, against what was asked of it.

use judge::evidence::Evidence;
use judge::figures::{Figure, Targets, figures};

use crate::good::{self, MS, S, T};
use crate::last_status;

/// The good run, whose sender was asked for its open slots before it was killed.
fn run() -> Evidence {
    let mut run = good::run();
    let mut start = run.journal[2].clone();
    (start.at, start.event, start.ops) = (T, "start".to_owned(), Some(run.samples[0].processes[0].ops.clone()));
    run.journal.insert(0, start);
    run
}

fn measured(run: &Evidence) -> Vec<Option<f64>> {
    figures(run, &Targets::default()).iter().map(|figure| figure.measured).collect()
}

#[test]
fn a_run_is_measured_by_what_it_left_behind() {
    let mut run = run();
    // Two were accepted again, and three were open at the kill; 49 s from the start after it to the last status; client 7
    // of the second mailing waited for the end, and nothing else came in its partition. No server was started.
    assert_eq!(measured(&run)[..5], [Some(2.0 / 3.0), Some(0.0), Some(49.0), Some(18.97), None]);
    run.journal[4].role = Some("kafka".to_owned());
    let started = run.journal[4].at;
    let next = run.calls.iter().map(|call| call.begun_at).filter(|at| *at >= started).min().unwrap();
    assert!(measured(&run)[4].is_some_and(|back| back >= (next - started) as f64 / S as f64));
    run.rows[0].status = "unknown".to_owned();
    assert_eq!(measured(&run)[1], Some(1.0));
}

#[test]
fn a_share_is_missed_at_once_and_a_time_at_three_times_what_was_asked() {
    let run = run();
    let holds = |targets: Targets| figures(&run, &targets).iter().all(Figure::holds);
    assert!(holds(Targets { again: Some(0.67), ..Targets::default() }));
    assert!(!holds(Targets { again: Some(0.66), ..Targets::default() }));
    assert!(holds(Targets { idle: Some(6.4), done: Some(17.0), ..Targets::default() }));
    assert!(!holds(Targets { idle: Some(6.3), ..Targets::default() }));
    assert!(!holds(Targets { done: Some(16.0), ..Targets::default() }));
    // What was asked for and can't be measured isn't met.
    assert!(!holds(Targets { back: Some(15.0), ..Targets::default() }));
}

#[test]
fn a_later_status_is_a_longer_wait_and_a_later_end() {
    let mut run = run();
    last_status(&mut run, 2, 7).at += 500 * MS;
    assert_eq!(measured(&run)[2], Some(49.5));
}

#[test]
fn a_provider_that_refuses_all_is_measured_by_what_was_sent_and_given_up_meanwhile() {
    let mut run = run();
    let mut fault = run.journal[2].clone();
    (fault.event, fault.role, fault.name) = ("fault".to_owned(), Some("provider".to_owned()), None);
    for (at, rules) in [(T + 2 * S, r#"[{"fault": "outage"}]"#), (T + 9 * S, "[]")] {
        (fault.at, fault.note) = (at, Some(rules.to_owned()));
        run.journal.push(fault.clone());
    }
    // Client 3 was called once and client 11 three times, whose message was given up.
    let outage = |run: &Evidence| measured(run)[5..7].to_vec();
    assert_eq!(outage(&run), [Some(4.0), Some(1.0)]);
    let holds = |run: &Evidence, targets: Targets| figures(run, &targets).iter().all(Figure::holds);
    assert!(!holds(&run, Targets { exhausted: Some(0.0), ..Targets::default() }));
    last_status(&mut run, 1, 11).event.as_mut().unwrap().reason = Some("rejected".to_owned());
    assert!(holds(&run, Targets { exhausted: Some(0.0), into_outage: Some(4.0), ..Targets::default() }));
    assert!(!holds(&run, Targets { into_outage: Some(3.0), ..Targets::default() }));
    // Rules for some calls only are no outage.
    for rules in [r#"[{"fault": "outage", "probability": 0.5}]"#, r#"[{"fault": {"status": 404}}]"#] {
        let last = run.journal.len() - 2;
        run.journal[last].note = Some(rules.to_owned());
        let all = figures(&run, &Targets::default());
        assert!(all.iter().all(|figure| !figure.to_string().contains("that was down")), "{rules}");
    }
}
