//! Rule 8. What senders commit only rises, and covers nothing that isn't settled in Kafka.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::case::Case;
use crate::rules::Findings;

/// Between the clocks of a status' producer and the sampler, µs.
const SLACK: i64 = 1_000_000;

/// A partition's committed offset over time: (instant, offset).
type Course = Vec<(i64, i64)>;

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    let courses = courses(case);
    for (partition, course) in &courses {
        for pair in course.windows(2) {
            let ((from, before), (to, after)) = (pair[0], pair[1]);
            let fell = after < before && !case.faults.offsets_touched(from, to);
            findings.check(!fell, || format!("partition {partition} was at {before}, and at {after} at {to}"));
        }
    }

    // The furthest that was ever committed, by when: what was covered once was covered.
    let furthest: BTreeMap<i32, Course> = courses
        .into_iter()
        .map(|(partition, mut course)| {
            let mut most = 0;
            for (_, offset) in &mut course {
                most = most.max(*offset);
                *offset = most;
            }
            (partition, course)
        })
        .collect();
    let (settled, refused) = (settled(case), refused(case));
    let covered_at = |partition: i32, offset: i64| {
        let course = furthest.get(&partition)?;
        course.get(course.partition_point(|(_, committed)| *committed <= offset)).copied()
    };
    for record in case.planned.values().flatten() {
        let (Some(event), Some((at, offset))) = (&record.event, covered_at(record.partition, record.offset)) else {
            continue;
        };
        let known = settled.get(&(event.message_id, event.round)).is_some_and(|settled| *settled <= at + SLACK);
        findings.check(known, || {
            format!(
                "partition {} was committed to {offset} at {at}, and message {} at {} was not settled",
                record.partition, event.message_id, record.offset
            )
        });
    }
    for record in case.evidence.message_events.iter().filter(|record| record.visible && record.event.is_none()) {
        let place = (record.partition, record.offset);
        let passed = covered_at(place.0, place.1).is_none() || refused.contains(&place);
        findings.check(passed, || format!("the record {place:?} is no message; it was passed without a dead letter"));
    }
    findings
}

/// The message records that dead letters tell of.
fn refused(case: &Case<'_>) -> HashSet<(i32, i64)> {
    let letters = case.evidence.dead_letters.iter().filter_map(|record| record.event.as_ref());
    let letters = letters.filter(|letter| letter["topic"].as_str().is_some_and(|name| name.contains("message-events")));
    let place =
        |letter: &serde_json::Value| Some((letter["partition"].as_i64()?.try_into().ok()?, letter["offset"].as_i64()?));
    letters.filter_map(place).collect()
}

/// In samples where nothing is committed any more, the course goes to 0.
fn courses(case: &Case<'_>) -> BTreeMap<i32, Course> {
    let mut courses: BTreeMap<i32, Course> = BTreeMap::new();
    for sample in &case.evidence.samples {
        for commit in sample.committed.iter().flatten() {
            courses.entry(commit.partition).or_default().push((sample.at, commit.offset.unwrap_or(0)));
        }
    }
    courses
}

/// When each message was first settled in a round.
fn settled(case: &Case<'_>) -> HashMap<(i64, i32), i64> {
    let mut settled = HashMap::new();
    for record in case.statuses.values().flatten() {
        if let Some(event) = record.event.as_ref().filter(|event| event.settles()) {
            let at = settled.entry((event.message_id, event.round)).or_insert(record.at);
            *at = record.at.min(*at);
        }
    }
    settled
}
