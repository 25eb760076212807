//! Reviews runs of garbage, and passes or holds them. A thread of its own: it asks the brokers.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use domain::garbage::{LIMIT, Ruling, SPAN, review};
use events::topics::Topic;
use events::{DeadLetter, garbage};
use futures::future::join_all;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::quarantine::{Case, Known, Quarantine};
use super::skips::Skips;
use crate::{Cluster, DeadLetters, Isolation, Result, TableReader};

/// How long looking back may take: it reads ten thousand records at the most.
const DEADLINE: Duration = Duration::from_secs(30);

/// What reviews a reader's garbage.
pub(crate) struct Reviewer {
    pub(crate) cluster: Cluster,
    pub(crate) reader: &'static str,
    pub(crate) topic: Topic,
    pub(crate) dead_letters: Arc<DeadLetters>,
    pub(crate) runtime: Handle,
}

impl Reviewer {
    /// Reviews runs until told to stop.
    pub(crate) fn run(&self, quarantine: &Quarantine, stop: &CancellationToken) {
        let mut skips = None;
        while let Some((number, case, mut known)) = quarantine.next(stop) {
            match self.review(&case, &mut known, &mut skips, stop) {
                Ok(Ruling::Pass) => {
                    let letters = self.runtime.block_on(stop.run_until_cancelled(self.dead_letter(&case)));
                    if letters.is_some() {
                        quarantine.pass(number, &case, known);
                    }
                }
                Ok(Ruling::Stop { garbage }) => quarantine.stop(number, &case, known, self.why(&case, garbage)),
                Err(error) => {
                    tracing::warn!(%error, kafka.partition = case.partition, "garbage can't be reviewed yet");
                }
            }
        }
    }

    fn review(
        &self,
        case: &Case,
        known: &mut Known,
        skips: &mut Option<Skips>,
        stop: &CancellationToken,
    ) -> Result<Ruling> {
        let earlier = match &mut known.earlier {
            Some(earlier) => earlier,
            none => none.insert(self.look_back(case, stop)?),
        };
        let ruling = review(earlier, &case.offsets, known.permitted);
        if ruling == Ruling::Pass {
            return Ok(ruling);
        }
        let skips = match skips {
            Some(skips) => skips,
            none => none.insert(Skips::new(&self.cluster, self.reader, self.topic)?),
        };
        known.permitted = skips.permitted(case.partition)?;
        Ok(review(earlier, &case.offsets, known.permitted))
    }

    /// The garbage before the run that counts, from the log: so an owner that begins anew knows what its predecessors passed.
    fn look_back(&self, case: &Case, stop: &CancellationToken) -> Result<Vec<i64>> {
        let first = case.offsets[0];
        let (topic, from) = (self.cluster.topics.name(self.topic), (first - SPAN + 1).max(0));
        let log = TableReader::from_offsets(&self.cluster, &topic, &[(case.partition, from)], Isolation::Committed)?;
        let mut earlier = Vec::new();
        log.stopped_by(stop).read_to(&[first], DEADLINE, |record| {
            if record.offset < first && garbage(self.topic, record.payload.as_deref()).is_some() {
                earlier.push(record.offset);
            }
        })?;
        earlier.drain(..earlier.len().saturating_sub(LIMIT - 1));
        Ok(earlier)
    }

    /// Returns once the letters are acknowledged.
    async fn dead_letter(&self, case: &Case) {
        let letter = |(offset, reason): (&i64, &String)| DeadLetter {
            topic: self.cluster.topics.name(self.topic),
            partition: case.partition,
            offset: *offset,
            reader: self.reader.to_owned(),
            reason: reason.clone(),
            occurred_at: Utc::now(),
        };
        let letters: Vec<DeadLetter> = case.offsets.iter().zip(&case.reasons).map(letter).collect();
        join_all(letters.iter().map(|letter| self.dead_letters.write(letter))).await;
    }

    fn why(&self, case: &Case, garbage: usize) -> String {
        let (base, name) = (self.topic.base(), self.cluster.topics.name(self.topic));
        let (partition, offset, reason) = (case.partition, case.offsets[0], &case.reasons[0]);
        format!(
            "{name} partition {partition} is read no further than offset {offset}, for {garbage} of its last {SPAN} records \
             can't be decoded (that one: {reason}); `herald skip {base} {partition}` lets them pass as dead letters"
        )
    }
}
