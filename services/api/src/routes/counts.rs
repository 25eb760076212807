//! A mailing's counts, from the mirror of planning and the counters of rows.

use std::collections::BTreeMap;

use domain::status::Status;
use serde::Serialize;
use store::mailings::MailingView;
use utoipa::ToSchema;

/// A mailing's messages by status: `planned` is the sum of the others in every answer.
#[derive(Default, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Counts {
    /// Clients that match: null, then an estimate, exact once planning is complete.
    audience: Option<i64>,
    planned: i64,
    created: i64,
    retrying: i64,
    held: i64,
    succeeded: i64,
    failed: i64,
    expired: i64,
    cancelled: i64,
    unknown: i64,
}

impl Counts {
    /// Puts mirror and rows of one snapshot together. Rows never run ahead of what is planned, but may of the mirror.
    fn new(planned: Option<i64>, complete: bool, estimate: Option<i64>, rows: &BTreeMap<String, i64>) -> Self {
        let mut counts = Self::default();
        for (status, n) in rows {
            *(match Status::from(status.clone()) {
                Status::Created => &mut counts.created,
                Status::Retrying => &mut counts.retrying,
                Status::Held => &mut counts.held,
                Status::Succeeded => &mut counts.succeeded,
                Status::Failed => &mut counts.failed,
                Status::Expired => &mut counts.expired,
                Status::Cancelled => &mut counts.cancelled,
                Status::Unknown | Status::Other(_) => &mut counts.unknown,
            }) += n;
        }
        let seen: i64 = rows.values().sum();
        counts.planned = planned.unwrap_or(0).max(seen);
        counts.created += counts.planned - seen;
        counts.audience = if complete { Some(counts.planned) } else { estimate.map(|n| n.max(counts.planned)) };
        counts
    }

    pub(super) fn of(view: &MailingView) -> Self {
        let none = BTreeMap::new();
        let rows = view.counts.as_ref().map_or(&none, |counts| &counts.0);
        Self::new(view.planned, view.complete == Some(true), view.audience_estimate, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(counts: &[(&str, i64)]) -> BTreeMap<String, i64> {
        counts.iter().map(|(status, n)| ((*status).to_owned(), *n)).collect()
    }

    #[test]
    fn planned_is_the_sum_of_the_others() {
        let counts = Counts::new(Some(10), false, Some(20), &rows(&[("succeeded", 3), ("retrying", 2)]));
        assert_eq!((counts.planned, counts.created, counts.audience), (10, 5, Some(20)));
    }

    #[test]
    fn rows_that_run_ahead_of_the_mirror_count() {
        let counts = Counts::new(Some(3), false, Some(4), &rows(&[("succeeded", 5)]));
        assert_eq!((counts.planned, counts.created, counts.audience), (5, 0, Some(5)));
        assert_eq!(Counts::new(None, false, None, &rows(&[])), Counts::default());
    }

    #[test]
    fn a_status_of_a_newer_version_counts_as_unknown() {
        let counts = Counts::new(Some(2), true, None, &rows(&[("bounced", 1), ("unknown", 1)]));
        assert_eq!((counts.unknown, counts.audience), (2, Some(2)));
    }
}
