//! How a provider's limit was used that it tells by 429 only.

use crate::evidence::Evidence;
use crate::figures::phases::Phase;
use crate::figures::{Figure, SECOND, Targets};

/// From the first 429 on the pace is being found.
const FOUND_AFTER: i64 = 30 * SECOND;
/// A sender that comes or goes changes what the others may take.
const SHARED_AFTER: i64 = 15 * SECOND;

#[derive(Default)]
struct Use {
    seconds: f64,
    limit: f64,
    calls: usize,
    accepted: usize,
    throttled: usize,
}

pub(super) fn figures(evidence: &Evidence, targets: &Targets) -> Vec<Figure> {
    let mut used = Use::default();
    for phase in Phase::all(evidence) {
        if let Some(limit) = phase.rules.iter().find_map(|rule| rule["over_per_second"].as_f64()) {
            used.add(evidence, &phase, limit);
        }
    }
    let asked = [targets.unused, targets.throttled, targets.spent];
    if used.limit == 0.0 && asked.iter().all(Option::is_none) {
        return vec![];
    }
    let measured = used.seconds > 0.0;
    let unused = measured.then(|| (1.0 - used.accepted as f64 / used.limit).max(0.0));
    let throttled = measured.then(|| used.throttled as f64 / used.calls.max(1) as f64);
    let events =
        evidence.status_events.iter().filter(|record| record.visible).filter_map(|record| record.event.as_ref());
    let spent = events.filter(|event| event.status == "succeeded" && event.attempt > 1).count() as f64;
    vec![
        Figure::count(format!("what isn't used of the limit, over {:.0} s", used.seconds), unused, targets.unused),
        Figure::count("calls throttled by it, of all".to_owned(), throttled, targets.throttled),
        Figure::count("messages that succeeded with more than one attempt".to_owned(), Some(spent), targets.spent),
    ]
}

impl Use {
    /// Adds those seconds of a phase in which the senders may know the limit and are the same.
    fn add(&mut self, evidence: &Evidence, phase: &Phase, limit: f64) {
        let is_throttled = |outcome: &str| outcome == "status_429" || outcome.starts_with("throttled_");
        let within = evidence.calls.iter().filter(|call| phase.time.contains(&call.begun_at));
        let Some(first) = within.clone().filter(|call| is_throttled(&call.outcome)).map(|call| call.begun_at).min()
        else {
            return;
        };
        let changes = evidence.journal.iter().filter(|entry| entry.is("sender", &["start", "term", "kill"]));
        let changes: Vec<i64> = changes.map(|entry| entry.at).collect();
        // Behind the last page some senders have nothing left to call.
        let first_rounds = evidence.message_events.iter().filter(|record| record.visible);
        let first_rounds = first_rounds.filter(|record| record.event.as_ref().is_some_and(|event| event.round == 1));
        let end = first_rounds.map(|record| record.at).max().unwrap_or(0);
        let is_calm = |from: i64| {
            let changed = changes.iter().any(|at| (from - SHARED_AFTER..from + SECOND).contains(at));
            from >= first + FOUND_AFTER && from + 3 * SECOND < end.min(phase.time.end) && !changed
        };
        let calm: Vec<i64> = (0..)
            .map(|n| phase.time.start + n * SECOND)
            .take_while(|at| *at < phase.time.end)
            .filter(|at| is_calm(*at))
            .collect();
        let calls = within.filter(|call| {
            let second = (call.begun_at - phase.time.start) / SECOND * SECOND + phase.time.start;
            calm.binary_search(&second).is_ok()
        });
        for call in calls {
            self.calls += 1;
            self.accepted += usize::from(call.accepted);
            self.throttled += usize::from(is_throttled(&call.outcome));
        }
        self.seconds += calm.len() as f64;
        self.limit += limit * calm.len() as f64;
    }
}
