//! Garbage that was read and isn't passed yet: what the polling thread puts in, the reviewer takes out.
//!
//! A run of garbage is kept by its offsets and reasons until it has ended: by a good record, by the partition's end, or by
//! being as long as the limit. Then it is reviewed. Until it is passed, nothing behind its first record may be committed, and
//! what is read behind it waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use domain::garbage::LIMIT;
use events::topics::Topic;
use events::{DecodeError, garbage};
use prometheus::IntGaugeVec;
use tokio_util::sync::CancellationToken;

use crate::group::{Intake, Member};
use crate::record::Record;

/// Records that wait behind a run before their partition is paused: a run is mostly one, and passed in some ms.
const MAX_WAITING: usize = 100;
/// How often a run that couldn't be passed is reviewed again.
const AGAIN: Duration = Duration::from_secs(1);

/// The runs of the assigned partitions.
pub(crate) struct Quarantine {
    topic: Topic,
    name: String,
    member: Arc<dyn Member>,
    stopped: IntGaugeVec,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The partitions that had garbage since they were assigned.
    partitions: BTreeMap<i32, Held>,
    /// How many were made so far. A number tells one from a later one of the same partition.
    made: u64,
}

struct Held {
    number: u64,
    case: Option<Case>,
    stage: Stage,
    waiting: VecDeque<Record>,
    /// What waits is the partition's end.
    at_end: bool,
    /// What the last review found out.
    known: Known,
    why_stopped: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// More garbage may follow.
    Open,
    /// It is to be reviewed, not before this.
    Ended(Instant),
    Passed,
}

/// What a review stands on beside the run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The garbage before the run; none until the log was looked at.
    pub(crate) earlier: Option<Vec<i64>>,
    /// Garbage below this offset may be passed.
    pub(crate) permitted: i64,
}

/// A run of garbage.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) partition: i32,
    pub(crate) offsets: Vec<i64>,
    pub(crate) reasons: Vec<String>,
}

/// A run that was passed.
pub(crate) struct Passed {
    pub(crate) partition: i32,
    /// The offset of its last record.
    pub(crate) offset: i64,
    /// What was read behind it, to be taken now.
    pub(crate) waiting: VecDeque<Record>,
    /// The partition is read to its end then.
    pub(crate) at_end: bool,
}

impl Case {
    fn add(&mut self, offset: i64, error: &DecodeError) {
        self.offsets.push(offset);
        self.reasons.push(error.to_string());
    }
}

impl Held {
    fn add(&mut self, partition: i32, offset: i64, error: &DecodeError) -> bool {
        let case = self.case.get_or_insert(Case { partition, offsets: vec![], reasons: vec![] });
        case.add(offset, error);
        let full = case.offsets.len() >= LIMIT;
        if full {
            self.stage = Stage::Ended(Instant::now());
        }
        full
    }
}

impl Quarantine {
    pub(crate) fn new(topic: Topic, name: String, member: Arc<dyn Member>, stopped: IntGaugeVec) -> Self {
        Self { topic, name, member, stopped, state: Mutex::default(), changed: Condvar::new() }
    }

    /// A record was read. Gives it back if nothing is held of its partition: then it is the member's.
    pub(crate) fn hold(&self, record: Record) -> Result<Intake, Record> {
        let mut state = self.state();
        let Some(held) = state.partitions.get_mut(&record.partition).filter(|held| held.case.is_some()) else {
            return Err(record);
        };
        if held.stage == Stage::Open {
            if let Some(error) = garbage(self.topic, record.payload.as_deref()) {
                if held.add(record.partition, record.offset, &error) {
                    self.changed.notify_all();
                }
                return Ok(Intake::More);
            }
            held.stage = Stage::Ended(Instant::now());
            self.changed.notify_all();
        }
        held.at_end = false;
        held.waiting.push_back(record);
        Ok(if held.waiting.len() < MAX_WAITING { Intake::More } else { Intake::Full })
    }

    /// A record begins a run: the member can't decode it.
    pub(crate) fn begin(&self, partition: i32, offset: i64, error: &DecodeError) {
        let mut state = self.state();
        let State { partitions, made } = &mut *state;
        let held = partitions.entry(partition).or_insert_with(|| {
            *made += 1;
            Held {
                number: *made,
                case: None,
                stage: Stage::Open,
                waiting: VecDeque::new(),
                at_end: false,
                known: Known::default(),
                why_stopped: None,
            }
        });
        held.add(partition, offset, error);
    }

    /// The partition is read to its end.
    pub(crate) fn end(&self, partition: i32) {
        let mut state = self.state();
        let Some(held) = state.partitions.get_mut(&partition).filter(|held| held.case.is_some()) else { return };
        held.at_end = true;
        if held.stage == Stage::Open {
            held.stage = Stage::Ended(Instant::now());
            self.changed.notify_all();
        }
    }

    /// The first record of the partition that isn't passed.
    pub(crate) fn first(&self, partition: i32) -> Option<i64> {
        self.state().partitions.get(&partition)?.case.as_ref()?.offsets.first().copied()
    }

    /// Whether the partition has room for what is read next.
    pub(crate) fn has_room(&self, partition: i32) -> bool {
        self.state().partitions.get(&partition).is_none_or(|held| held.waiting.len() < MAX_WAITING)
    }

    /// The runs that were passed since it was asked last.
    pub(crate) fn passed(&self) -> Vec<Passed> {
        let mut state = self.state();
        let done = state.partitions.iter_mut().filter(|(_, held)| held.stage == Stage::Passed);
        let take = |(&partition, held): (&i32, &mut Held)| {
            held.stage = Stage::Open;
            let case = held.case.take()?;
            let (waiting, at_end) = (std::mem::take(&mut held.waiting), std::mem::take(&mut held.at_end));
            Some(Passed { partition, offset: *case.offsets.last()?, waiting, at_end })
        };
        done.filter_map(take).collect()
    }

    pub(crate) fn assign(&self, partitions: &[i32]) {
        let state = self.state();
        partitions.iter().for_each(|&partition| self.gauge(partition).set(0));
        self.tell(&state);
    }

    /// Forgets partitions that are taken away: who reads them next finds the same garbage.
    pub(crate) fn revoke(&self, partitions: &[i32]) {
        let mut state = self.state();
        for partition in partitions {
            state.partitions.remove(partition);
            let _ = self.stopped.remove_label_values(&[&self.name, &partition.to_string()]);
        }
        self.tell(&state);
    }

    /// Waits for a run to review; none when told to stop. It is answered again after a second unless it was passed.
    pub(crate) fn next(&self, stop: &CancellationToken) -> Option<(u64, Case, Known)> {
        let mut state = self.state();
        while !stop.is_cancelled() {
            let now = Instant::now();
            let mut wait = AGAIN;
            for held in state.partitions.values_mut() {
                let (Stage::Ended(due), Some(case)) = (held.stage, &held.case) else { continue };
                if due <= now {
                    held.stage = Stage::Ended(now + AGAIN);
                    return Some((held.number, case.clone(), held.known.clone()));
                }
                wait = wait.min(due - now);
            }
            state = self.changed.wait_timeout(state, wait).expect("not poisoned").0;
        }
        None
    }

    /// Ends [`next`](Self::next)'s wait for it to look whether it was told to stop.
    pub(crate) fn wake(&self) {
        drop(self.state());
        self.changed.notify_all();
    }

    /// A run was reviewed and its letters are written.
    pub(crate) fn pass(&self, number: u64, case: &Case, known: Known) {
        self.reviewed(number, case, |held| {
            held.known = known;
            held.known.remember(&case.offsets);
            held.stage = Stage::Passed;
            held.why_stopped = None;
        });
    }

    /// A run was reviewed and must not be passed.
    pub(crate) fn stop(&self, number: u64, case: &Case, known: Known, why: String) {
        self.reviewed(number, case, |held| {
            held.known = known;
            if held.why_stopped.is_none() {
                tracing::error!(kafka.partition = case.partition, why, "a reader stops");
            }
            held.why_stopped.get_or_insert(why);
        });
    }

    fn reviewed(&self, number: u64, case: &Case, change: impl FnOnce(&mut Held)) {
        let mut state = self.state();
        let held = state.partitions.get_mut(&case.partition).filter(|held| held.number == number);
        if let Some(held) = held {
            change(held);
            self.gauge(case.partition).set(i64::from(held.why_stopped.is_some()));
            self.tell(&state);
        }
    }

    fn tell(&self, state: &State) {
        let why: Vec<&str> = state.partitions.values().filter_map(|held| held.why_stopped.as_deref()).collect();
        self.member.reading_stopped((!why.is_empty()).then(|| why.join("; ")));
    }

    fn gauge(&self, partition: i32) -> prometheus::IntGauge {
        self.stopped.with_label_values(&[&self.name, &partition.to_string()])
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }
}

impl Known {
    /// Keeps the last `LIMIT - 1` that were passed: more of them within a ruling's reach would have stopped the reader.
    fn remember(&mut self, offsets: &[i64]) {
        let earlier = self.earlier.get_or_insert_default();
        earlier.extend(offsets);
        earlier.drain(..earlier.len().saturating_sub(LIMIT - 1));
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;
    use crate::group::{Assigned, Commit, Start};
    use crate::moment::Moment;

    struct Nobody;

    impl Member for Nobody {
        fn assigned(&self, _: &[Assigned]) -> Vec<Start> {
            vec![]
        }
        fn revoked(&self, _: &[i32], _: bool) -> Vec<Commit> {
            vec![]
        }
        fn take(&self, _: Record) -> Result<Intake, DecodeError> {
            Ok(Intake::More)
        }
        fn garbage_skipped(&self, _: i32, _: i64) {}
        fn reading_stopped(&self, _: Option<String>) {}
        fn has_room(&self, _: i32) -> bool {
            true
        }
        fn read_to(&self, _: i32, _: i64) {}
        fn checkpoints(&self) -> Vec<Commit> {
            vec![]
        }
        fn commit_acknowledged(&self, _: Moment) {}
    }

    fn quarantine() -> Quarantine {
        let gauge = IntGaugeVec::new(Opts::new("stopped", "stopped"), &["topic", "partition"]).unwrap();
        Quarantine::new(Topic::StatusEvents, "topic".to_owned(), Arc::new(Nobody), gauge)
    }

    fn record(offset: i64, payload: &[u8]) -> Record {
        Record { partition: 0, offset, timestamp_ms: 0, payload: Some(payload.to_vec()) }
    }

    fn good(offset: i64) -> Record {
        record(offset, include_bytes!("../../../../kafka/examples/status-events.v1/succeeded.json"))
    }

    fn next(quarantine: &Quarantine) -> (u64, Case, Known) {
        quarantine.next(&CancellationToken::new()).unwrap()
    }

    #[test]
    fn a_run_ends_with_a_good_record_which_waits_until_it_is_passed() {
        let quarantine = quarantine();
        assert!(quarantine.hold(good(4)).is_err(), "nothing is held: it is the member's");
        quarantine.begin(0, 5, &DecodeError::Empty);
        assert_eq!(quarantine.hold(record(6, b"?")).unwrap(), Intake::More);
        assert_eq!(quarantine.hold(good(7)).unwrap(), Intake::More);
        let (number, case, known) = next(&quarantine);
        assert_eq!((case.offsets.as_slice(), quarantine.first(0)), ([5, 6].as_slice(), Some(5)));
        assert!(quarantine.passed().is_empty(), "it is only being reviewed");
        quarantine.pass(number, &case, known);
        let passed = quarantine.passed();
        assert_eq!((passed.len(), passed[0].offset, passed[0].waiting[0].offset), (1, 6, 7));
        assert_eq!(quarantine.first(0), None);
    }

    #[test]
    fn the_hundredth_of_a_run_ends_it() {
        let quarantine = quarantine();
        quarantine.begin(0, 0, &DecodeError::Empty);
        for offset in 1..200 {
            quarantine.hold(record(offset, b"?")).unwrap();
        }
        assert_eq!(next(&quarantine).1.offsets.len(), LIMIT);
        assert!(!quarantine.has_room(0), "a hundred wait behind it");
    }

    #[test]
    fn garbage_that_comes_at_the_end_while_a_run_is_reviewed_is_reviewed_next() {
        let quarantine = quarantine();
        quarantine.begin(0, 5, &DecodeError::Empty);
        quarantine.end(0);
        let (number, case, known) = next(&quarantine);
        quarantine.hold(record(6, b"?")).unwrap();
        quarantine.end(0);
        quarantine.pass(number, &case, known);
        let passed = quarantine.passed().pop().unwrap();
        assert!(passed.at_end && passed.waiting.len() == 1);
        quarantine.begin(0, 6, &DecodeError::Empty);
        quarantine.end(0);
        let (_, case, known) = next(&quarantine);
        assert_eq!((case.offsets, known.earlier), (vec![6], Some(vec![5])));
    }

    #[test]
    fn a_ruling_about_an_earlier_assignment_passes_nothing() {
        let quarantine = quarantine();
        quarantine.begin(0, 5, &DecodeError::Empty);
        quarantine.end(0);
        let (number, case, known) = next(&quarantine);
        quarantine.revoke(&[0]);
        quarantine.begin(0, 5, &DecodeError::Empty);
        quarantine.pass(number, &case, known);
        assert!(quarantine.passed().is_empty());
        assert_eq!(quarantine.first(0), Some(5));
    }
}
