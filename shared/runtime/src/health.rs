//! What the probes ask: do the loops turn (live), are the dependencies there and the state recovered (ready).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// The parts of a process that can be unwell. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Health {
    parts: Arc<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    readiness: Mutex<Vec<Arc<Condition>>>,
    heartbeats: Mutex<Vec<Arc<Pulse>>>,
}

#[derive(Debug)]
struct Condition {
    name: String,
    /// Why not; `None` is ready.
    obstacle: Mutex<Option<Obstacle>>,
    /// What is shown beside "ready".
    note: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Obstacle {
    reason: String,
    /// It is none from then on.
    until: Option<Instant>,
}

#[derive(Debug)]
struct Pulse {
    name: String,
    limit: Duration,
    last: Mutex<Instant>,
}

/// An answer of `/livez` or `/readyz`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    pub(crate) ok: bool,
    pub(crate) parts: Vec<PartReport>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PartReport {
    pub(crate) name: String,
    pub(crate) ok: bool,
    pub(crate) state: String,
}

impl Health {
    /// A new part that must be ready for `/readyz` to be; it starts as "starting" and stays for the life of the process.
    ///
    /// Two parts may have one name (in `herald all` every service has its own "postgres"): each counts.
    pub fn readiness(&self, name: impl Into<String>) -> Readiness {
        let obstacle = Obstacle { reason: "starting".to_owned(), until: None };
        let condition =
            Arc::new(Condition { name: name.into(), obstacle: Mutex::new(Some(obstacle)), note: Mutex::default() });
        lock(&self.parts.readiness).push(Arc::clone(&condition));
        Readiness(condition)
    }

    /// A new loop that must beat at least every `limit` for `/livez` to be well. The first beat is now;
    /// dropping the handle takes the loop off the list.
    pub fn heartbeat(&self, name: impl Into<String>, limit: Duration) -> Heartbeat {
        let pulse = Arc::new(Pulse { name: name.into(), limit, last: Mutex::new(Instant::now()) });
        lock(&self.parts.heartbeats).push(Arc::clone(&pulse));
        Heartbeat { pulse, parts: Arc::clone(&self.parts) }
    }

    pub(crate) fn ready(&self, now: Instant) -> Report {
        let parts = lock(&self.parts.readiness);
        Report::of(parts.iter().map(|part| {
            let reason = part.reason(now);
            PartReport {
                name: part.name.clone(),
                ok: reason.is_none(),
                state: reason.unwrap_or_else(|| part.ready_state()),
            }
        }))
    }

    pub(crate) fn live(&self, now: Instant) -> Report {
        let pulses = lock(&self.parts.heartbeats);
        Report::of(pulses.iter().map(|pulse| {
            let age = now.saturating_duration_since(*lock(&pulse.last));
            let ok = age <= pulse.limit;
            PartReport {
                name: pulse.name.clone(),
                ok,
                state: if ok {
                    "beating".to_owned()
                } else {
                    format!("no beat for {:.1?}, the limit is {:?}", age, pulse.limit)
                },
            }
        }))
    }
}

impl Report {
    fn of(parts: impl Iterator<Item = PartReport>) -> Self {
        let parts: Vec<_> = parts.collect();
        Self { ok: parts.iter().all(|part| part.ok), parts }
    }
}

impl Condition {
    fn reason(&self, now: Instant) -> Option<String> {
        let mut obstacle = lock(&self.obstacle);
        if obstacle.take_if(|obstacle| obstacle.until.is_some_and(|until| now >= until)).is_some() {
            tracing::info!(part = self.name, "ready");
        }
        obstacle.as_ref().map(|obstacle| obstacle.reason.clone())
    }

    fn ready_state(&self) -> String {
        lock(&self.note).as_ref().map_or_else(|| "ready".to_owned(), |note| format!("ready, but {note}"))
    }
}

/// Says whether one part is ready. Clones speak for the same part.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Condition>);

impl Readiness {
    /// The part is ready. Logged when it was not.
    pub fn ready(&self) {
        if lock(&self.0.obstacle).take().is_some() {
            tracing::info!(part = self.0.name, "ready");
        }
    }

    /// The part is not ready. Logged when that or the reason is new, so a loop may say it each round.
    /// `/readyz` shows the reason to everybody: no personal data, no secret.
    pub fn not_ready(&self, reason: impl Into<String>) {
        let reason = reason.into();
        let mut obstacle = lock(&self.0.obstacle);
        if obstacle.as_ref().is_none_or(|obstacle| obstacle.reason != reason) {
            tracing::warn!(part = self.0.name, reason, "not ready");
        }
        *obstacle = Some(Obstacle { reason, until: None });
    }

    /// The part is not ready until then, unless this is said again. Logged when it was ready: the newest reason is shown,
    /// and a loop may say a different one each round.
    pub fn not_ready_until(&self, reason: impl Into<String>, until: Instant) {
        let reason = reason.into();
        let mut obstacle = lock(&self.0.obstacle);
        if obstacle.is_none() {
            tracing::warn!(part = self.0.name, reason, "not ready");
        }
        *obstacle = Some(Obstacle { reason, until: Some(until) });
    }

    /// What operators should know of a part although it is ready, or nothing any more. Shown as the reason is.
    pub fn note(&self, note: Option<String>) {
        *lock(&self.0.note) = note;
    }

    /// Why the part isn't ready at that time.
    pub fn reason(&self, now: Instant) -> Option<String> {
        self.0.reason(now)
    }

    /// Ready, unless there is a reason.
    pub fn set(&self, reason: Option<String>) {
        match reason {
            Some(reason) => self.not_ready(reason),
            None => self.ready(),
        }
    }
}

/// Shows that one loop turns. Costs some tens of nanoseconds a beat.
#[derive(Debug)]
pub struct Heartbeat {
    pulse: Arc<Pulse>,
    parts: Arc<Parts>,
}

impl Heartbeat {
    /// The loop has turned once more.
    pub fn beat(&self) {
        *lock(&self.pulse.last) = Instant::now();
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        lock(&self.parts.heartbeats).retain(|pulse| !Arc::ptr_eq(pulse, &self.pulse));
    }
}

/// Every value behind these locks is whole between two statements, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_not_ready_until_it_says_so_and_then_as_it_says() {
        let health = Health::default();
        assert!(health.ready(Instant::now()).ok, "a process without parts has nothing to wait for");

        let postgres = health.readiness("postgres");
        assert_eq!(health.ready(Instant::now()).parts[0].state, "starting");
        assert!(!health.ready(Instant::now()).ok);

        postgres.ready();
        assert!(health.ready(Instant::now()).ok);

        postgres.clone().not_ready("connection refused");
        let report = health.ready(Instant::now());
        assert!(!report.ok);
        assert_eq!(
            report.parts,
            [PartReport { name: "postgres".to_owned(), ok: false, state: "connection refused".to_owned() }]
        );
    }

    #[test]
    fn a_part_that_is_not_ready_for_some_time_is_ready_behind_it() {
        let health = Health::default();
        let provider = health.readiness("provider");
        let now = Instant::now();
        let later = now + Duration::from_secs(30);
        provider.not_ready_until("no token", now);
        provider.not_ready_until("no money", later);
        assert_eq!(health.ready(now).parts[0].state, "no money");
        assert!(health.ready(later).ok);
        assert!(health.ready(now).ok, "what has passed doesn't come back");
    }

    #[test]
    fn a_note_is_shown_of_a_part_that_is_ready_and_stays_so() {
        let health = Health::default();
        let lanes = health.readiness("lanes");
        lanes.note(Some("one is closed".to_owned()));
        let state = || health.ready(Instant::now()).parts[0].state.clone();
        assert_eq!(state(), "starting");
        lanes.ready();
        assert_eq!(state(), "ready, but one is closed");
        assert!(health.ready(Instant::now()).ok);
        lanes.note(None);
        assert_eq!(state(), "ready");
    }

    #[test]
    fn two_parts_of_one_name_are_two_parts() {
        let health = Health::default();
        let (first, second) = (health.readiness("postgres"), health.readiness("postgres"));
        first.ready();
        assert!(!health.ready(Instant::now()).ok);
        second.ready();
        assert!(health.ready(Instant::now()).ok);
    }

    #[test]
    fn a_loop_is_dead_when_its_last_beat_is_older_than_its_limit() {
        let health = Health::default();
        let before = Instant::now();
        let planner = health.heartbeat("planner-3", Duration::from_secs(10));
        let after = Instant::now();

        assert!(health.live(before + Duration::from_secs(10)).ok);
        let late = health.live(after + Duration::from_millis(10_500));
        assert!(!late.ok);
        assert!(late.parts[0].state.starts_with("no beat for 10.5"), "{}", late.parts[0].state);

        planner.beat();
        assert!(health.live(Instant::now()).ok);
    }

    #[test]
    fn a_dropped_loop_is_not_missed_and_its_namesake_stays() {
        let health = Health::default();
        let first = health.heartbeat("planner-3", Duration::ZERO);
        let _second = health.heartbeat("planner-3", Duration::from_secs(3600));
        drop(first);
        let report = health.live(Instant::now() + Duration::from_secs(60));
        assert!(report.ok);
        assert_eq!(report.parts.len(), 1);
    }
}
