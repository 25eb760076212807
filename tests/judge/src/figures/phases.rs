//! What a time cost in which some calls failed, and how soon the others and the rest came through.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;
use uuid::Uuid;

use crate::evidence::{Call, Evidence};
use crate::faults::Faults;
use crate::figures::outages::exhausted;
use crate::figures::{Figure, SECOND, Targets, seconds};
use crate::ids::MessageId;

/// The rate before is that of so long a time.
const BEFORE: i64 = 8 * SECOND;
/// It may take so long to see what fails.
const NOTICED: i64 = 3 * SECOND;

/// A time in which the provider had the same faults.
pub(super) struct Phase {
    pub(super) time: Range<i64>,
    pub(super) rules: Vec<Value>,
}

impl Phase {
    /// All of a run; the last ends with the last call.
    pub(super) fn all(evidence: &Evidence) -> Vec<Self> {
        let last = evidence.calls.iter().map(|call| call.begun_at).max().unwrap_or(0);
        let faults: Vec<_> = evidence.journal.iter().filter(|entry| entry.is("provider", &["fault"])).collect();
        let ends = faults.iter().skip(1).map(|entry| entry.at).chain([last]);
        let phases = faults.iter().zip(ends).map(|(entry, end)| Self {
            time: entry.at..end,
            rules: serde_json::from_str(entry.note.as_deref().unwrap_or("[]")).unwrap_or_default(),
        });
        phases.collect()
    }

    /// The operators whose calls alone fail.
    fn operator_codes(&self) -> Vec<i64> {
        let codes = self.rules.iter().filter_map(|rule| rule["operator_codes"].as_array());
        codes.flatten().filter_map(Value::as_i64).collect()
    }

    /// Some calls fail: a share of them, or those of some operators.
    fn is_partial(&self) -> bool {
        let share = |rule: &Value| rule["probability"].as_f64().is_some_and(|share| share < 1.0);
        self.rules.iter().any(share) || !self.operator_codes().is_empty()
    }
}

pub(super) fn figures(evidence: &Evidence, targets: &Targets) -> Vec<Figure> {
    let codes: BTreeMap<MessageId, i64> = evidence
        .message_events
        .iter()
        .filter_map(|record| record.event.as_ref())
        .map(|event| (event.message_id, i64::from(event.operator_code)))
        .collect();
    let phases = Phase::all(evidence);
    // One that the run began with has no time before it.
    let partial: Vec<&Phase> = phases.iter().skip(1).filter(|phase| phase.is_partial()).collect();
    let slowed = partial.iter().filter_map(|phase| slowed(evidence, &codes, phase)).reduce(f64::max);
    let one = partial.iter().filter(|phase| !phase.operator_codes().is_empty());
    let one: Vec<&&Phase> = one.collect();
    let exhausted = one.iter().map(|phase| exhausted(evidence, std::slice::from_ref(&phase.time))).reduce(f64::max);
    let first_call = one.iter().filter_map(|phase| first_call(evidence, &codes, phase)).reduce(f64::max);
    let closed =
        evidence.status_events.iter().filter(|record| record.visible).filter_map(|record| record.event.as_ref());
    let closed = closed.filter(|event| event.status == "held" && event.reason() == Some("outage")).count() as f64;
    let all = [
        (Figure::count("what the rate lacks while some calls fail".to_owned(), slowed, targets.slowed), targets.slowed),
        (Figure::count("messages exhausted by one operator's trouble".to_owned(), exhausted, targets.exhausted), None),
        (
            Figure::time("from one operator's health to its first call", first_call, targets.first_call),
            targets.first_call,
        ),
        (
            Figure::count(
                "messages held for a closed lane".to_owned(),
                (closed > 0.0 || targets.closed.is_some()).then_some(closed),
                targets.closed,
            ),
            targets.closed,
        ),
        (
            Figure::time(
                "from the provider's health to the end of a mailing that came in its trouble",
                healed(evidence),
                targets.healed,
            ),
            targets.healed,
        ),
        (Figure::time("from a mailing's end to its last status", expired(evidence), targets.expired), targets.expired),
    ];
    // What was asked for and can't be measured isn't met.
    all.into_iter()
        .filter(|(figure, target)| figure.measured.is_some() || target.is_some())
        .map(|(figure, _)| figure)
        .collect()
}

/// What the rate of the calls that the fault doesn't single out lacks of what it was before.
fn slowed(evidence: &Evidence, codes: &BTreeMap<MessageId, i64>, phase: &Phase) -> Option<f64> {
    let singled_out = phase.operator_codes();
    let other = |call: &&Call| codes.get(&call.id).is_some_and(|code| !singled_out.contains(code));
    let rate = |time: Range<i64>| {
        let calls = evidence.calls.iter().filter(|call| time.contains(&call.begun_at)).filter(other).count();
        calls as f64 / seconds(time.end - time.start)
    };
    let before = rate(phase.time.start - BEFORE..phase.time.start);
    let meanwhile = phase.time.start + NOTICED..phase.time.end;
    (before > 0.0 && !meanwhile.is_empty()).then(|| (1.0 - rate(meanwhile) / before).max(0.0))
}

fn first_call(evidence: &Evidence, codes: &BTreeMap<MessageId, i64>, phase: &Phase) -> Option<f64> {
    let singled_out = phase.operator_codes();
    let of_it = |call: &&Call| codes.get(&call.id).is_some_and(|code| singled_out.contains(code));
    let after = evidence.calls.iter().filter(|call| call.accepted && call.begun_at >= phase.time.end);
    Some(seconds(after.filter(of_it).map(|call| call.begun_at).min()? - phase.time.end))
}

fn healed(evidence: &Evidence) -> Option<f64> {
    let last = last_statuses(evidence);
    let down = Faults::of(&evidence.journal).down;
    let came = evidence.journal.iter().filter(|entry| entry.event == "mailing");
    let times = came.filter_map(|entry| {
        let outage = down.iter().find(|down| down.contains(&entry.at))?;
        Some(seconds(last.get(&entry.id?)? - outage.end))
    });
    times.reduce(f64::max)
}

fn expired(evidence: &Evidence) -> Option<f64> {
    let last = last_statuses(evidence);
    let expired = |id: &Uuid| {
        evidence
            .status_events
            .iter()
            .filter_map(|record| record.event.as_ref())
            .any(|event| event.mailing_id == *id && event.status == "expired")
    };
    let mailings: BTreeMap<Uuid, i64> = evidence
        .mailing_events
        .iter()
        .filter_map(|record| record.event.as_ref())
        .map(|event| (event.mailing_id, event.ends_at.timestamp_micros()))
        .collect();
    let ended = mailings.into_iter().filter(|(id, _)| expired(id));
    ended.filter_map(|(id, ends_at)| Some(seconds(last.get(&id)? - ends_at))).reduce(f64::max)
}

/// When the last settling status of each mailing was written.
fn last_statuses(evidence: &Evidence) -> BTreeMap<Uuid, i64> {
    let mut last = BTreeMap::new();
    for record in &evidence.status_events {
        if let Some(event) = record.event.as_ref().filter(|event| event.settles()) {
            let at = last.entry(event.mailing_id).or_insert(record.at);
            *at = record.at.max(*at);
        }
    }
    last
}
