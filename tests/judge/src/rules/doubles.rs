//! Rule 5. A message is accepted once; each time more has its reason in the call before.

use crate::case::Case;
use crate::evidence::Call;
use crate::ids::MessageId;
use crate::rules::Findings;

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    let mut explained = 0;
    for (id, calls) in &case.calls {
        let accepted: Vec<&Call> = calls.iter().copied().filter(|call| call.accepted).collect();
        if accepted.len() > 1 && never_again(case, *id, accepted.len()) {
            findings.object(format!("message {id} of an at_most_once mailing was accepted {} times", accepted.len()));
        }
        findings.checked += 1;
        for pair in accepted.windows(2) {
            if case.may_be_lost(pair[0], pair[1].begun_at) {
                explained += 1;
            } else {
                findings.object(format!(
                    "message {id} was accepted at {} ({}, answered: {}) and again at {} without a reason",
                    pair[0].begun_at, pair[0].outcome, pair[0].answered, pair[1].begun_at
                ));
            }
        }
    }
    findings.note = Some(format!("{explained} accepted again for a reason"));
    findings
}

/// Its mailing would rather lose it; only a caller may ask for it again, and that is another round.
fn never_again(case: &Case<'_>, id: MessageId, accepted: usize) -> bool {
    let mailing = case.mailings.get(&id.mailing());
    let rounds = case.rounds_of(id).len();
    mailing.is_some_and(|mailing| mailing.delivery == "at_most_once") && accepted > rounds
}
