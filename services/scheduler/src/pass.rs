//! One page of a pass: held messages that are due, planned again or settled, beside the progress that they make.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use domain::client::OperatorCode;
use domain::lane::{Closed, ClosedLanes};
use domain::planning::{Again, PassPlan, again};
use events::topics::{Topic, Topics};
use events::{HeldPlace, MessageEvent, Pass, ProgressRecord};
use sqlx::PgConnection;
use store::held::{self, DueRow, Lanes, Walk};
use store::mailings::MailingRow;
use store::planning::PageClient;

use crate::page::{Ended, message};
use crate::records::Records;

/// Held messages of closed lanes among which those to probe with are looked for.
const PROBES_READ: i64 = 2_000;

/// A page of a pass, read and encoded before its transaction is opened.
pub(crate) struct PassPage {
    pub(crate) records: Records,
    pub(crate) progress: ProgressRecord,
}

/// What a page of a pass is read by.
pub(crate) struct Reading<'a> {
    pub(crate) topics: &'a Topics,
    pub(crate) mailing: &'a MailingRow,
    pub(crate) closed: &'a ClosedLanes,
    /// Messages at most.
    pub(crate) limit: u64,
    pub(crate) now: DateTime<Utc>,
}

/// The pass that follows this progress.
pub(crate) fn begin(progress: &ProgressRecord, now: DateTime<Utc>) -> Pass {
    let seq = progress.pass.as_ref().map_or(1, |pass| pass.seq + 1);
    Pass { seq, due_before: now, after: None, done: false }
}

impl Reading<'_> {
    /// Reads on in `pass`. The cursor passes what a closed lane keeps back: the next pass sees it again.
    pub(crate) async fn read(
        &self,
        db: &mut PgConnection,
        progress: &ProgressRecord,
        mut pass: Pass,
        plan: &mut PassPlan,
    ) -> anyhow::Result<PassPage> {
        let mut records = Records::default();
        let shut = if self.is_over() { Shut::default() } else { Shut::of(self.closed) };
        let due_before = (!self.is_over()).then_some(pass.due_before);
        let mailing_no = self.mailing.mailing_no;

        if pass.after.is_none()
            && let Some(lanes) = shut.lanes()
        {
            let walk = Walk { mailing_no, due_before, after: None, lanes };
            for row in held::due(db, &walk, PROBES_READ).await? {
                if records.clients() < self.limit && self.takes(plan, &row) {
                    self.add(&mut records, row)?;
                }
            }
        }
        if shut.all {
            pass.done = true;
        } else {
            let after = pass.after.map(|place| (place.not_before, place.client_no));
            let walk = Walk { mailing_no, due_before, after, lanes: Lanes::Except(shut.codes) };
            let wanted = i64::try_from(self.limit - records.clients()).unwrap_or(i64::MAX);
            let rows = held::due(db, &walk, wanted).await?;
            pass.done = (rows.len() as i64) < wanted;
            for row in rows {
                if records.is_full() {
                    pass.done = false;
                    break;
                }
                pass.after = Some(HeldPlace { not_before: row.not_before, client_no: row.client_no });
                if self.takes(plan, &row) {
                    self.add(&mut records, row)?;
                }
            }
        }
        let mut progress = progress.clone();
        let rounds = i64::try_from(records.clients()).unwrap_or(i64::MAX);
        progress.emitted += rounds;
        progress.again += rounds;
        progress.pass = Some(pass);
        Ok(PassPage { records, progress })
    }

    /// The mailing is over, whoever the client is.
    fn is_over(&self) -> bool {
        self.fate(false) != Again::Plan
    }

    fn fate(&self, erased: bool) -> Again {
        again(&self.mailing.state, self.mailing.ends_at, erased, self.now)
    }

    fn takes(&self, plan: &mut PassPlan, row: &DueRow) -> bool {
        // It would be called in the lane of the client's code as it is now.
        let code = OperatorCode::new(i64::from(row.current_code.unwrap_or(row.operator_code)));
        let partition = row.client_no.partition(self.topics.partitions(Topic::MessageEvents));
        code.map_or(true, |code| plan.takes(partition, code, row.not_before))
    }

    fn add(&self, records: &mut Records, row: DueRow) -> anyhow::Result<()> {
        let round = row.round + 1;
        let client = row.phone.zip(row.current_code);
        match (self.fate(client.is_none()), client) {
            (Again::Plan, Some((phone, operator_code))) => {
                let client = PageClient { client_no: row.client_no, id: row.client_id, phone, operator_code };
                let event = message(self.mailing, &client, round, self.now)?;
                records.plan(&MessageEvent { attempts: row.attempts, ..event })?;
            }
            (Again::Settle(status, reason), _) => {
                let DueRow { client_no, client_id, attempts, planned_at, .. } = row;
                let ended = Ended { client_no, client_id, round, attempts, planned_at };
                records.settle(&ended.status(self.topics, self.mailing, &(status, reason), self.now)?)?;
            }
            (Again::Plan, None) => anyhow::bail!("a client without a phone can't be planned"),
        }
        Ok(())
    }
}

/// The lanes that are closed for every partition, so that their held messages need not be read.
#[derive(Default)]
struct Shut {
    all: bool,
    codes: Vec<i16>,
}

impl Shut {
    fn of(closed: &ClosedLanes) -> Self {
        let codes = closed.by_partition.iter().filter_map(|closed| match closed {
            Closed::All => None,
            Closed::Codes(codes) => Some(codes.clone()),
        });
        let everywhere: Option<BTreeSet<OperatorCode>> = codes.reduce(|one, other| &one & &other);
        Self {
            all: everywhere.is_none() && !closed.by_partition.is_empty(),
            codes: everywhere.unwrap_or_default().into_iter().map(OperatorCode::get).collect(),
        }
    }

    /// The choice of them; none: there are none.
    fn lanes(&self) -> Option<Lanes> {
        match (self.all, self.codes.is_empty()) {
            (true, _) => Some(Lanes::Except(vec![])),
            (false, false) => Some(Lanes::Only(self.codes.clone())),
            (false, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_shut_that_are_closed_for_every_partition() {
        let code = |code| OperatorCode::new(code).unwrap();
        let codes = |numbers: &[i64]| Closed::Codes(numbers.iter().map(|number| code(*number)).collect());
        let cases = [
            ("no senders", vec![], false, vec![]),
            ("none closed", vec![codes(&[]), codes(&[])], false, vec![]),
            ("the same lane", vec![codes(&[900, 901]), codes(&[901])], false, vec![901]),
            ("all lanes of one sender", vec![Closed::All, codes(&[901])], false, vec![901]),
            ("all lanes of all", vec![Closed::All, Closed::All], true, vec![]),
        ];
        for (name, by_partition, all, expected) in cases {
            let shut = Shut::of(&ClosedLanes { by_partition });
            assert_eq!((shut.all, shut.codes), (all, expected), "{name}");
        }
    }
}
