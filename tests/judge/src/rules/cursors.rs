//! Rule 9. Planning goes forward, its ranges tile, and each holds as many clients as its record says.

use std::collections::{BTreeMap, BTreeSet};

use crate::case::{Case, seen};
use crate::evidence::Mailing;
use crate::ids::{MailingNo, MessageId};
use crate::rules::Findings;
use crate::wire::ProgressEvent;

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    let mut progress: BTreeMap<MailingNo, Vec<&ProgressEvent>> = BTreeMap::new();
    for (_, event) in seen(&case.evidence.progress) {
        progress.entry(event.mailing_no).or_default().push(event);
    }
    for (no, events) in &progress {
        let known = case.mailings.get(no);
        let right = known.is_some_and(|mailing| events.iter().all(|event| event.mailing_id == mailing.id));
        findings.check(right, || format!("the progress of mailing {no} is of another, or of none"));
    }
    for mailing in case.mailings.values() {
        let events = progress.get(&mailing.mailing_no).map_or(&[][..], Vec::as_slice);
        pages(case, mailing, events, &mut findings);
        once(case, mailing, &mut findings);
    }
    findings
}

/// The topic is compacted: older records may be gone, and the ranges that are left are wider.
fn pages(case: &Case<'_>, mailing: &Mailing, events: &[&ProgressEvent], findings: &mut Findings) {
    let no = mailing.mailing_no;
    let rounds = case.planned_of(no);
    let clients: BTreeSet<i64> = rounds.keys().map(|id| id.client().0).collect();
    let (mut cursor, mut planned, mut emitted, mut again) = (0, 0, 0, 0);
    let mut before: Option<&ProgressEvent> = None;
    for event in events {
        // Passes walk over what is planned, and a start may be written twice.
        let passes = event.pass.is_some() || before.is_some_and(|before| before.pass.is_some());
        let stays = event.cursor == cursor && (passes || cursor == 0);
        let rises = event.cursor > cursor || stays;
        findings.check(rises && event.cursor <= event.audience_max, || {
            format!("mailing {no} went from cursor {cursor} to {} of {}", event.cursor, event.audience_max)
        });
        let same_audience = before.is_none_or(|before| before.cursor == 0 || before.audience_max == event.audience_max);
        findings.check(same_audience, || format!("mailing {no} changed its audience to {}", event.audience_max));
        if rises {
            let page = clients.range(cursor + 1..event.cursor + 1).count() as i64;
            findings.check(event.planned - planned == page, || {
                let said = event.planned - planned;
                format!("mailing {no} says it planned {said} clients in {cursor}..={}, there are {page}", event.cursor)
            });
        }
        findings.check(event.emitted >= emitted, || format!("mailing {no} emitted {emitted}, then {}", event.emitted));
        let again_now = event.again.unwrap_or(again);
        findings.check(again_now >= again, || format!("mailing {no} emitted {again} again, then {again_now}"));
        (cursor, planned, emitted, again) = (event.cursor, event.planned, event.emitted, again_now);
        before = Some(event);
    }
    let beyond = clients.range(cursor + 1..).count();
    findings.check(beyond == 0, || format!("mailing {no} has {beyond} messages behind its last cursor {cursor}"));
    let total: i64 = rounds.values().map(|rounds| rounds.len() as i64).sum();
    findings.check(total == emitted, || format!("mailing {no} says it emitted {emitted} messages, there are {total}"));
    if before.is_some_and(|last| last.again.is_some()) {
        let later = rounds.values().flatten().filter(|round| **round > 1).count() as i64;
        findings.check(later == again, || format!("mailing {no} says it emitted {again} again, there are {later}"));
    }
    if mailing.state == "finished" {
        let whole = before.is_some_and(|last| last.complete && last.cursor == last.audience_max);
        findings.check(whole, || format!("mailing {no} is finished, and its planning ended at cursor {cursor}"));
    }
}

/// Each client once a round.
fn once(case: &Case<'_>, mailing: &Mailing, findings: &mut Findings) {
    for (id, records) in case.planned.range(MessageId::all_of(mailing.mailing_no)) {
        let without = case.unrecorded.get(id).into_iter().flatten().copied();
        let recorded = records.iter().filter_map(|record| Some(record.event.as_ref()?.round));
        let mut rounds: Vec<i32> = recorded.chain(without).collect();
        rounds.sort_unstable();
        let tiled = rounds.iter().enumerate().all(|(index, round)| *round == index as i32 + 1);
        findings.check(tiled, || format!("message {id} was planned in rounds {rounds:?}"));
    }
}
