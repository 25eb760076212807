//! What the scheduler does next about one mailing.

use chrono::{DateTime, Utc};

use crate::mailing::State;
use crate::wire_text::wire_text;

/// What planning decides by, beside the progress: a live mailing as its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanningFacts {
    /// Its state.
    pub state: State,
    /// Nothing is planned before.
    pub starts_at: DateTime<Utc>,
    /// Kafka has acknowledged an event with the row's version, so senders can come to know it.
    pub published: bool,
    /// Since all of it was planned the senders have settled whatever was in message-events, and Postgres holds those
    /// statuses. `settled` was read later.
    pub drained: bool,
}

/// How far a mailing is planned: the truth, kept in planning-progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The highest client number when planning started; clients above it are not in the audience.
    pub audience_max: i64,
    /// Clients up to this number are planned.
    pub cursor: i64,
    /// All pages are planned.
    pub complete: bool,
    /// Clients planned.
    pub planned: i64,
    /// Message events of all rounds.
    pub emitted: i64,
}

wire_text! {
    /// What a mailing waits for, as its reader is told.
    Wait {
        /// Its start.
        Start = "start",
        /// Its newest event has not reached Kafka.
        Publishing = "publishing",
        /// The senders: the conveyor is full.
        Senders = "senders",
        /// All is planned; statuses are to come.
        Statuses = "statuses",
        /// Somebody: it is paused.
        Operator = "operator",
    }
}

/// What to do about a mailing now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Commit the first progress record, then set the mailing running.
    Start,
    /// Plan up to this many clients behind the cursor.
    Page(u64),
    /// Nothing, until this changes.
    Wait(Wait),
    /// Set it finished: all of it is terminal.
    Finish,
    /// Set it paused: it runs, but its progress is gone; planning from zero would send everything again.
    ProgressLost,
    /// Set it paused: so many of its messages will never be settled, for nothing of them is under way.
    MessagesLost(i64),
}

/// Decides the next step. `settled` is Σ settled rounds, `room` what the conveyor lets the next page plan.
pub fn next_step(
    mailing: &PlanningFacts,
    progress: Option<&Progress>,
    settled: i64,
    room: Option<u64>,
    now: DateTime<Utc>,
) -> Step {
    match (&mailing.state, progress) {
        (State::Scheduled, _) if now < mailing.starts_at => Step::Wait(Wait::Start),
        (State::Scheduled, _) if !mailing.published => Step::Wait(Wait::Publishing),
        (State::Scheduled, _) => Step::Start,
        (State::Running, None) => Step::ProgressLost,
        (State::Running, Some(progress)) if progress.complete => {
            if progress.emitted == settled {
                Step::Finish
            } else if mailing.drained {
                Step::MessagesLost(progress.emitted - settled)
            } else {
                Step::Wait(Wait::Statuses)
            }
        }
        (State::Running, Some(_)) if !mailing.published => Step::Wait(Wait::Publishing),
        (State::Running, Some(_)) => room.map_or(Step::Wait(Wait::Senders), Step::Page),
        _ => Step::Wait(Wait::Operator),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_follows_the_mailing_and_its_progress() {
        let now: DateTime<Utc> = "2026-05-01T12:00:00Z".parse().unwrap();
        let later = now + chrono::Duration::seconds(1);
        let progress = |complete, emitted| Progress { audience_max: 9, cursor: 5, complete, planned: emitted, emitted };
        let half = Some(progress(false, 5));
        let whole = Some(progress(true, 7));
        use State::*;
        let cases = [
            ("nothing before the start", (Scheduled, later, true), None, 0, Some(9), Step::Wait(Wait::Start)),
            ("its event first", (Scheduled, now, false), None, 0, Some(9), Step::Wait(Wait::Publishing)),
            ("due", (Scheduled, now, true), None, 0, None, Step::Start),
            ("due, progress left by a dead owner", (Scheduled, now, true), half.clone(), 0, None, Step::Start),
            ("never from zero", (Running, now, true), None, 0, Some(9), Step::ProgressLost),
            ("a page", (Running, now, true), half.clone(), 0, Some(9), Step::Page(9)),
            (
                "no page under an unpublished version",
                (Running, now, false),
                half.clone(),
                0,
                Some(9),
                Step::Wait(Wait::Publishing),
            ),
            ("no room", (Running, now, true), half, 0, None, Step::Wait(Wait::Senders)),
            ("planned, not settled", (Running, now, true), whole.clone(), 6, Some(9), Step::Wait(Wait::Statuses)),
            ("planned and settled", (Running, now, true), whole.clone(), 7, None, Step::Finish),
            ("paused", (Paused, now, true), whole, 7, Some(9), Step::Wait(Wait::Operator)),
        ];
        for (name, (state, starts_at, published), progress, settled, room, expected) in cases {
            let mailing = PlanningFacts { state, starts_at, published, drained: false };
            assert_eq!(next_step(&mailing, progress.as_ref(), settled, room, now), expected, "{name}");
        }
    }

    #[test]
    fn what_is_not_settled_once_all_is_drained_is_lost() {
        let now: DateTime<Utc> = "2026-05-01T12:00:00Z".parse().unwrap();
        let mailing = PlanningFacts { state: State::Running, starts_at: now, published: true, drained: true };
        let progress = |complete| Progress { audience_max: 9, cursor: 9, complete, planned: 7, emitted: 7 };
        let step = |complete, settled| next_step(&mailing, Some(&progress(complete)), settled, Some(1), now);
        assert_eq!(step(true, 5), Step::MessagesLost(2));
        assert_eq!(step(true, 7), Step::Finish);
        assert_eq!(step(false, 5), Step::Page(1));
    }
}
