//! What a provider in trouble cost: calls into it, messages given up in it, and how the rate came back after it.

use std::ops::Range;

use crate::evidence::Evidence;
use crate::faults::Faults;
use crate::figures::{Figure, SECOND, Targets, full_rate};

/// How long after the trouble a message may still be given up because of it: its last attempt and a call.
const GIVEN_UP_BY_IT: i64 = 12 * SECOND;
/// When the rate is to be whole again.
const WHOLE_AFTER: i64 = 30 * SECOND;

/// Measures each time in which the provider refused all, or answered nobody; nothing in a run without.
pub(super) fn figures(evidence: &Evidence, targets: &Targets) -> Vec<Figure> {
    let outages = joined(Faults::of(&evidence.journal).down);
    if outages.is_empty() {
        return vec![];
    }
    let down = |at: i64| outages.iter().any(|outage| outage.contains(&at));
    let calls = evidence.calls.iter().filter(|call| down(call.begun_at)).count();
    let seconds: i64 = outages.iter().map(|outage| (outage.end - outage.start) / SECOND).sum();
    let exhausted = exhausted(evidence, &outages);
    let planned = planned(evidence, &outages);
    let mut accepted: Vec<i64> = evidence.calls.iter().filter(|call| call.accepted).map(|call| call.begun_at).collect();
    accepted.sort_unstable();
    let full = full_rate(&accepted);
    let share = |after: i64| {
        let shares = outages.iter().filter_map(|outage| Some(rate(&accepted, outage, after)? / full?));
        shares.collect::<Vec<f64>>()
    };
    let (first, later) = (share(0), share(WHOLE_AFTER));
    vec![
        Figure::count(
            format!("calls into {seconds} s of a provider that was down"),
            Some(calls as f64),
            targets.into_outage,
        ),
        Figure::count("messages exhausted by that".to_owned(), Some(exhausted), targets.exhausted),
        Figure::count(
            "messages planned meanwhile, in 10 s at most".to_owned(),
            Some(planned),
            targets.planned_meanwhile,
        ),
        Figure::count(
            "the rate in the first second of its health, of the full one".to_owned(),
            first.into_iter().reduce(f64::max),
            targets.first_second,
        ),
        Figure::count(
            "what the rate lacks 30 s later".to_owned(),
            later.into_iter().reduce(f64::min).map(|share| (1.0 - share).max(0.0)),
            targets.lacking,
        ),
    ]
}

/// Overlapping ones are one.
fn joined(mut ranges: Vec<Range<i64>>) -> Vec<Range<i64>> {
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<i64>> = vec![];
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

pub(super) fn exhausted(evidence: &Evidence, outages: &[Range<i64>]) -> f64 {
    let meanwhile = |at: i64| outages.iter().any(|outage| (outage.start..outage.end + GIVEN_UP_BY_IT).contains(&at));
    let settled = evidence.status_events.iter().filter(|record| record.visible && meanwhile(record.at));
    let exhausted = settled.filter_map(|record| record.event.as_ref()).filter(|event| event.settles());
    exhausted.filter(|event| event.status == "failed" && event.reason() == Some("exhausted")).count() as f64
}

/// The first 10 s are left out: so long it may take to notice.
fn planned(evidence: &Evidence, outages: &[Range<i64>]) -> f64 {
    let window = 10 * SECOND;
    let mut planned: Vec<i64> = evidence.message_events.iter().filter(|record| record.visible).map(|r| r.at).collect();
    planned.sort_unstable();
    let in_windows = |outage: &Range<i64>| {
        let starts = planned.iter().filter(|at| (outage.start + window..outage.end - window).contains(*at));
        let most = starts.map(|from| within(&planned, *from, window)).max();
        most.unwrap_or(0)
    };
    outages.iter().map(in_windows).max().unwrap_or(0) as f64
}

/// Calls accepted in the second that begins so long after the first that was accepted after the outage.
fn rate(accepted: &[i64], outage: &Range<i64>, after: i64) -> Option<f64> {
    let first = *accepted.get(accepted.partition_point(|at| *at < outage.end))?;
    // Of a run that has nothing left to send nothing can be said.
    accepted
        .last()
        .is_some_and(|last| *last >= first + after + SECOND)
        .then(|| within(accepted, first + after, SECOND) as f64)
}

fn within(moments: &[i64], from: i64, time: i64) -> usize {
    moments.partition_point(|at| *at < from + time) - moments.partition_point(|at| *at < from)
}
