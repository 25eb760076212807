//! Rule 1. Each client who matches is planned, has a row, is counted, and is through.

use std::collections::{BTreeMap, BTreeSet};

use crate::case::Case;
use crate::evidence::Mailing;
use crate::ids::MessageId;
use crate::rules::Findings;
use crate::wire::is_terminal;

type Rounds = BTreeMap<MessageId, BTreeSet<i32>>;

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    for entry in &case.evidence.journal {
        if let Some(id) = entry.id.filter(|_| entry.event == "mailing") {
            let known = case.mailings.values().any(|mailing| mailing.id == id);
            findings.check(known, || format!("mailing {id} of the journal is not in the table"));
        }
    }
    for mailing in case.mailings.values() {
        let planned = case.planned_of(mailing.mailing_no);
        audience(case, mailing, &planned, &mut findings);
        rows(case, mailing, &planned, &mut findings);
        sums(case, mailing, &planned, &mut findings);
    }
    findings
}

fn audience(case: &Case<'_>, mailing: &Mailing, planned: &Rounds, findings: &mut Findings) {
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
            let planned = planned.contains_key(&MessageId::of(no, client_no));
            findings.check(planned, || format!("client {client_no} of mailing {no} was not planned"));
        }
    }
}

fn rows(case: &Case<'_>, mailing: &Mailing, planned: &Rounds, findings: &mut Findings) {
    let no = mailing.mailing_no;
    let rows: BTreeMap<MessageId, &str> =
        case.rows.range(MessageId::all_of(no)).map(|(id, row)| (*id, row.status.as_str())).collect();
    for id in planned.keys() {
        findings.check(rows.contains_key(id), || format!("message {id} is planned and has no row"));
    }
    for (id, status) in &rows {
        findings.check(planned.contains_key(id), || format!("message {id} has a row and was not planned"));
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
fn sums(case: &Case<'_>, mailing: &Mailing, planned: &Rounds, findings: &mut Findings) {
    let no = mailing.mailing_no;
    let emitted = planned.values().map(|rounds| rounds.len() as i64).sum::<i64>();
    let again = planned.values().flatten().filter(|round| **round > 1).count() as i64;
    let planned = planned.len() as i64;
    let settled = case.evidence.settled_rounds.get(&no).copied().unwrap_or(0);
    findings.check(settled == emitted, || format!("mailing {no} emitted {emitted} messages, {settled} are settled"));
    if mailing.state == "finished" {
        let mirror = case.evidence.mirrors.iter().find(|mirror| mirror.mailing_no == no);
        let right = mirror.is_some_and(|mirror| {
            (mirror.planned, mirror.emitted, mirror.again, mirror.complete) == (planned, emitted, again, true)
        });
        findings.check(right, || {
            format!(
                "mailing {no} planned {planned} clients and emitted {emitted} messages, {again} of them again, the mirror \
                 says {mirror:?}"
            )
        });
    }
}
