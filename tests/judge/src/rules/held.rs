//! Rule 18. Each held message has a row in `held`, the sums by reason are what they sum, and at the end nothing is held.

use std::collections::{BTreeMap, BTreeSet};

use crate::case::Case;
use crate::evidence::Held;
use crate::ids::{MailingNo, MessageId};
use crate::rules::Findings;
use crate::sample::Snapshot;

pub(crate) fn has_occasion(case: &Case<'_>) -> bool {
    case.settled().any(|(_, event)| event.status == "held")
}

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    let samples = case.evidence.samples.iter();
    for (at, snapshot) in samples.flat_map(|s| s.snapshot.iter().flatten().map(|snapshot| (s.at, snapshot))) {
        if !snapshot.held.is_empty() || !snapshot.held_counts.is_empty() || snapshot.counts.contains_key("held") {
            sums(at, snapshot, &mut findings);
        }
    }
    at_the_end(case, &mut findings);
    findings
}

/// Held rows are counted by status and by reason, and are there.
fn sums(at: i64, snapshot: &Snapshot, findings: &mut Findings) {
    let no = snapshot.mailing_no;
    findings.check(snapshot.held == snapshot.held_counts, || {
        format!("mailing {no} at {at}: held {:?}, by the counters {:?}", snapshot.held, snapshot.held_counts)
    });
    let (held, counted) = (snapshot.held.values().sum::<i64>(), snapshot.counts.get("held").copied().unwrap_or(0));
    findings.check(held == counted, || format!("mailing {no} at {at}: {held} rows are held, its counts say {counted}"));
}

fn at_the_end(case: &Case<'_>, findings: &mut Findings) {
    let held = &case.evidence.held;
    let waiting: BTreeSet<MessageId> = held.iter().map(Held::id).collect();
    for row in held {
        let shown = case.rows.get(&row.id()).is_some_and(|shown| {
            (shown.status.as_str(), shown.reason.as_deref(), shown.round) == ("held", Some(&row.reason), row.round)
        });
        findings.check(shown, || format!("message {} waits in held, and its row doesn't say so", row.id()));
        let finished = case.mailings.get(&row.mailing_no).is_some_and(|mailing| mailing.state == "finished");
        findings.check(!finished, || format!("message {} is held in a finished mailing", row.id()));
    }
    for id in case.rows.iter().filter(|(_, row)| row.status == "held").map(|(id, _)| id) {
        findings.check(waiting.contains(id), || format!("message {id} is held, and no pass will find it"));
    }
    let mut by_reason: BTreeMap<(MailingNo, String), i64> = BTreeMap::new();
    for row in held {
        *by_reason.entry((row.mailing_no, row.reason.clone())).or_default() += 1;
    }
    let mut counted = case.evidence.held_counts.clone();
    counted.retain(|_, n| *n != 0);
    findings.check(by_reason == counted, || format!("held at the end: {by_reason:?}, by the counters {counted:?}"));
}
