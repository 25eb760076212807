//! Rule 1. Everybody who matches is planned, has a row, is counted, and is through.

use std::collections::{BTreeMap, BTreeSet};

use crate::case::Case;
use crate::evidence::{Mailing, message_id};
use crate::rules::Findings;
use crate::wire::is_terminal;

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    for entry in &case.evidence.journal {
        if let Some(id) = entry.id.filter(|_| entry.event == "mailing") {
            let known = case.mailings.values().any(|mailing| mailing.id == id);
            findings.check(known, || format!("mailing {id} of the journal is not in the table"));
        }
    }
    for mailing in case.mailings.values() {
        audience(case, mailing, &mut findings);
        rows(case, mailing, &mut findings);
        sums(case, mailing, &mut findings);
    }
    findings
}

fn audience(case: &Case<'_>, mailing: &Mailing, findings: &mut Findings) {
    let no = mailing.mailing_no;
    let whole = match mailing.state.as_str() {
        "finished" => true,
        // What was not planned when it was cancelled never is.
        "cancelled" => false,
        state => {
            findings.object(format!("mailing {no} is {state}, not finished"));
            false
        }
    };
    if whole {
        for client_no in case.audience(mailing).must {
            let planned = case.planned.contains_key(&message_id(no, client_no));
            findings.check(planned, || format!("client {client_no} of mailing {no} has no message event"));
        }
    }
}

fn rows(case: &Case<'_>, mailing: &Mailing, findings: &mut Findings) {
    let no = mailing.mailing_no;
    let rows: BTreeMap<i64, &str> =
        case.rows.range(no << 33..(no + 1) << 33).map(|(id, row)| (*id, row.status.as_str())).collect();
    let planned: BTreeSet<i64> = case.planned_of(no).map(|(id, _)| id).collect();
    for id in &planned {
        findings.check(rows.contains_key(id), || format!("message {id} is planned and has no row"));
    }
    for (id, status) in &rows {
        findings.check(planned.contains(id), || format!("message {id} has a row and no message event"));
        findings.check(is_terminal(status), || format!("message {id} is {status} at the end"));
    }

    let mut by_status: BTreeMap<&str, i64> = BTreeMap::new();
    for status in rows.values() {
        *by_status.entry(status).or_default() += 1;
    }
    let counts = case.evidence.counts.iter().filter(|count| count.mailing_no == no && count.n != 0);
    let counts: BTreeMap<&str, i64> = counts.map(|count| (count.status.as_str(), count.n)).collect();
    findings.check(counts == by_status, || format!("mailing {no} counts {counts:?}, and has rows {by_status:?}"));
}

/// What planning says of itself, against what it did.
fn sums(case: &Case<'_>, mailing: &Mailing, findings: &mut Findings) {
    let no = mailing.mailing_no;
    let planned = case.planned_of(no).count() as i64;
    let emitted = case.planned_of(no).map(|(_, records)| records.len() as i64).sum::<i64>();
    let settled = case.evidence.settled_rounds.get(&no).copied().unwrap_or(0);
    findings.check(settled == emitted, || format!("mailing {no} emitted {emitted} messages, {settled} are settled"));
    if mailing.state == "finished" {
        let mirror = case.evidence.mirrors.iter().find(|mirror| mirror.mailing_no == no);
        let right =
            mirror.is_some_and(|mirror| (mirror.planned, mirror.emitted, mirror.complete) == (planned, emitted, true));
        findings.check(right, || {
            format!("mailing {no} planned {planned} clients and emitted {emitted} messages, the mirror says {mirror:?}")
        });
    }
}
