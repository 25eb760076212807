//! Rule 8. What senders commit only rises, and covers nothing whose settling status isn't in Kafka.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::case::Case;
use crate::ids::{MessageId, MessagePlace};
use crate::rules::Findings;
use crate::sample::Sample;

/// A partition of message-events as a sample saw it.
struct Seen {
    at: i64,
    /// Where the senders' group went on, in message-events.
    committed: i64,
    /// Where the status partition of the same number ended after that.
    status_end: Option<i64>,
}

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    let courses = courses(&case.evidence.samples);
    for (partition, course) in &courses {
        for pair in course.windows(2) {
            let fell = pair[1].committed < pair[0].committed;
            let by_hand = case.faults.offsets_touched(pair[0].at, pair[1].at);
            findings.check(!fell || by_hand, || {
                let (before, after, at) = (pair[0].committed, pair[1].committed, pair[1].at);
                format!("partition {partition} was at {before}, and at {after} at {at}")
            });
        }
    }
    let covered = covered(case, &courses, &mut findings);
    findings.must_have_seen("commits that cover messages, and the ends of status-events after them", covered);
    findings
}

/// Looks at each message below a commit: the first status that settles it must lie below the end which its partition of
/// status-events had then. A clock isn't asked. Answers how many messages there were.
fn covered(case: &Case<'_>, courses: &BTreeMap<i32, Vec<Seen>>, findings: &mut Findings) -> usize {
    let (settled, refused) = (settled(case), refused(case));
    let first_over = |place: MessagePlace, with_end: bool| {
        let mut course = courses.get(&place.partition).into_iter().flatten();
        course.find(|seen| seen.committed > place.offset && (seen.status_end.is_some() || !with_end))
    };
    let mut covered = 0;
    for record in case.planned.values().flatten() {
        let (Some(event), Some(seen)) = (&record.event, first_over(record.place(), true)) else { continue };
        let status = settled.get(&(event.message_id, event.round));
        let known = status.is_some_and(|status| Some(*status) < seen.status_end);
        covered += 1;
        findings.check(known, || {
            format!(
                "partition {} was committed to {} at {}, and message {} at {} was not settled: its status is at {status:?} \
                 of status-events, which ended at {:?}",
                record.partition, seen.committed, seen.at, event.message_id, record.offset, seen.status_end
            )
        });
    }
    for record in case.evidence.message_events.iter().filter(|record| record.visible && record.event.is_none()) {
        let place = record.place();
        let passed = first_over(place, false).is_none() || refused.contains(&place);
        findings.check(passed, || format!("the record {place:?} is no message; it was passed without a dead letter"));
    }
    covered
}

/// The message records that dead letters tell of.
fn refused(case: &Case<'_>) -> HashSet<MessagePlace> {
    let letters = case.evidence.dead_letters.iter().filter_map(|record| record.event.as_ref());
    let letters = letters.filter(|letter| letter["topic"].as_str().is_some_and(|name| name.contains("message-events")));
    let place = |letter: &serde_json::Value| {
        let partition = letter["partition"].as_i64()?.try_into().ok()?;
        Some(MessagePlace { partition, offset: letter["offset"].as_i64()? })
    };
    letters.filter_map(place).collect()
}

/// What was seen of each partition, in the order of time. In samples where nothing is committed any more it goes to 0.
fn courses(samples: &[Sample]) -> BTreeMap<i32, Vec<Seen>> {
    let mut courses: BTreeMap<i32, Vec<Seen>> = BTreeMap::new();
    for sample in samples {
        for commit in sample.committed.iter().flatten() {
            let status_end = sample.status_ends.as_ref().and_then(|ends| ends.get(&commit.partition).copied());
            let seen = Seen { at: sample.at, committed: commit.offset.unwrap_or(0), status_end };
            courses.entry(commit.partition).or_default().push(seen);
        }
    }
    courses
}

/// The offset of the first status that settles a message in a round. It lies in the partition of its message.
fn settled(case: &Case<'_>) -> HashMap<(MessageId, i32), i64> {
    let mut settled = HashMap::new();
    for record in case.statuses.values().flatten() {
        if let Some(event) = record.event.as_ref().filter(|event| event.settles()) {
            let offset = settled.entry((event.message_id, event.round)).or_insert(record.offset);
            *offset = record.offset.min(*offset);
        }
    }
    settled
}
