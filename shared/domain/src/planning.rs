//! What the scheduler does next about one mailing.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use crate::client::OperatorCode;
use crate::conveyor::MAX_PAGE;
use crate::ids::ClientNo;
use crate::lane::ClosedLanes;
use crate::mailing::State;
use crate::status::{Reason, Status};
use crate::wire_text::wire_text;

/// Between the beginnings of two passes of a mailing.
pub const PASS_INTERVAL: TimeDelta = TimeDelta::seconds(10);

/// A live mailing as Postgres has it, read in one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanningFacts {
    /// Its state.
    pub state: State,
    /// Nothing is planned before.
    pub starts_at: DateTime<Utc>,
    /// No call begins at or after; what can't be called any more is settled here.
    pub ends_at: DateTime<Utc>,
    /// Kafka has acknowledged an event with the row's version, so senders can come to know it.
    pub published: bool,
    /// Since all of it was planned the senders have settled whatever was in message-events, and Postgres holds those
    /// statuses. `settled` was read later.
    pub drained: bool,
    /// Σ settled rounds.
    pub settled: i64,
    /// Σ max(settled round − 1, 0): what has come back of the records of passes.
    pub settled_again: i64,
    /// The earliest `not_before` of its held messages; none: none is held.
    pub due_at: Option<DateTime<Utc>>,
    /// Its last step was a page. Pages and passes take turns.
    pub paged: bool,
}

/// How far a mailing is planned: the truth, kept in planning-progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The highest client number when planning started; clients above it are not in the audience.
    pub audience_max: ClientNo,
    /// Clients up to this number are planned.
    pub cursor: ClientNo,
    /// All pages are planned.
    pub complete: bool,
    /// Clients planned.
    pub planned: i64,
    /// Rounds begun: message events, and what was settled here without one.
    pub emitted: i64,
    /// Those of them that are second rounds or later.
    pub again: i64,
    /// The last pass.
    pub pass: Option<PassProgress>,
}

/// How far a pass is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassProgress {
    /// When it began. It takes what was due then.
    pub began_at: DateTime<Utc>,
    /// All of that is planned again or settled.
    pub done: bool,
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
        /// Postgres: a row of it is locked, or a query of it fails.
        Database = "database",
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
    /// Settle up to this many clients behind the cursor: nobody can be called any more. Each counts as planned and emitted.
    SettlePage(u64),
    /// Begin a pass: plan again, or settle, up to so many held messages that are due; see [`PassPlan`] and [`again`].
    BeginPass(u64),
    /// The same for the pass under way; it is done when nothing that was due at its beginning is left.
    Pass(u64),
    /// Nothing, until this changes.
    Wait(Wait),
    /// Set it finished: all of it is terminal.
    Finish,
    /// Set it paused: it runs, but its progress is gone; planning from zero would send everything again.
    ProgressLost,
    /// Set it paused: so many of its messages will never be settled, for nothing of them is under way.
    MessagesLost(i64),
}

/// Decides the next step. `room` is what the conveyor lets the next page or pass plan.
///
/// A pass waits for passes only: it begins when all records of earlier ones have come back, so one slow message stops no
/// page and no other mailing. What can't be called any more needs no room.
pub fn next_step(mailing: &PlanningFacts, progress: Option<&Progress>, room: Option<u64>, now: DateTime<Utc>) -> Step {
    match (&mailing.state, progress) {
        (State::Scheduled, _) if now < mailing.starts_at => Step::Wait(Wait::Start),
        (State::Scheduled, _) if !mailing.published => Step::Wait(Wait::Publishing),
        (State::Scheduled, _) => Step::Start,
        (State::Running, None) => Step::ProgressLost,
        // Cancelled before it began.
        (State::Cancelled, None) => Step::Finish,
        (State::Running | State::Cancelled, Some(progress)) if is_over(&mailing.state, mailing.ends_at, now) => {
            settle_rest(mailing, progress)
        }
        (State::Running, Some(_)) if !mailing.published => Step::Wait(Wait::Publishing),
        (State::Running, Some(progress)) => plan(mailing, progress, room, now),
        _ => Step::Wait(Wait::Operator),
    }
}

fn plan(mailing: &PlanningFacts, progress: &Progress, room: Option<u64>, now: DateTime<Utc>) -> Step {
    let pass: Option<fn(u64) -> Step> = match progress.pass {
        Some(PassProgress { done: false, .. }) => Some(Step::Pass),
        last => {
            let interval_over = last.is_none_or(|last| now >= last.began_at + PASS_INTERVAL);
            let due = mailing.due_at.is_some_and(|due_at| due_at <= now);
            let begins = interval_over && due && progress.again == mailing.settled_again;
            begins.then_some(Step::BeginPass as fn(u64) -> Step)
        }
    };
    match (pass, room) {
        (Some(pass), Some(room)) if progress.complete || mailing.paged => pass(room),
        (_, Some(room)) if !progress.complete => Step::Page(room),
        (Some(_), None) => Step::Wait(Wait::Senders),
        (None, None) if !progress.complete => Step::Wait(Wait::Senders),
        _ => end(mailing, progress),
    }
}

/// All pages are planned and no pass is to begin.
fn end(mailing: &PlanningFacts, progress: &Progress) -> Step {
    if progress.emitted != mailing.settled {
        if mailing.drained {
            Step::MessagesLost(progress.emitted - mailing.settled)
        } else {
            Step::Wait(Wait::Statuses)
        }
    } else if mailing.due_at.is_some() {
        Step::Wait(Wait::Senders)
    } else {
        Step::Finish
    }
}

fn settle_rest(mailing: &PlanningFacts, progress: &Progress) -> Step {
    if !progress.complete {
        Step::SettlePage(MAX_PAGE)
    } else if progress.pass.is_some_and(|pass| !pass.done) {
        Step::Pass(MAX_PAGE)
    } else if mailing.due_at.is_some() && progress.again == mailing.settled_again {
        Step::BeginPass(MAX_PAGE)
    } else if mailing.due_at.is_some() {
        Step::Wait(Wait::Statuses)
    } else {
        end(mailing, progress)
    }
}

/// Nobody of the mailing is called any more.
fn is_over(state: &State, ends_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    *state == State::Cancelled || now >= ends_at
}

/// What a pass takes of the held messages.
#[derive(Clone, Debug)]
pub struct PassPlan {
    /// The mailing is over, so all are taken.
    over: bool,
    due_before: DateTime<Utc>,
    closed: ClosedLanes,
    /// Partitions and lanes that have got a message to probe with.
    probes: BTreeSet<(i32, OperatorCode)>,
}

impl PassPlan {
    /// Of the mailing's pass that began then.
    pub fn new(mailing: &PlanningFacts, began_at: DateTime<Utc>, closed: ClosedLanes, now: DateTime<Utc>) -> Self {
        let over = is_over(&mailing.state, mailing.ends_at, now);
        Self { over, due_before: began_at, closed, probes: BTreeSet::new() }
    }

    /// Whether it takes a held message. To be asked in the order of `not_before`: a closed lane gets one message a partition to
    /// probe with, and another one each time.
    pub fn takes(&mut self, partition: i32, code: OperatorCode, not_before: DateTime<Utc>) -> bool {
        if self.over {
            return true;
        }
        not_before <= self.due_before
            && (!self.closed.contains(partition, code) || self.probes.insert((partition, code)))
    }
}

/// What a pass does with a message that it takes; either is a round of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    /// A message event of the next round.
    Plan,
    /// A terminal status, in the transaction of the progress.
    Settle(Status, Reason),
}

/// Decides about one held message. `erased`: its client is.
pub fn again(state: &State, ends_at: DateTime<Utc>, erased: bool, now: DateTime<Utc>) -> Again {
    if *state == State::Cancelled {
        Again::Settle(Status::Cancelled, Reason::MailingCancelled)
    } else if now >= ends_at {
        Again::Settle(Status::Expired, Reason::Ended)
    } else if erased {
        Again::Settle(Status::Cancelled, Reason::Erased)
    } else {
        Again::Plan
    }
}

#[cfg(test)]
mod tests;
